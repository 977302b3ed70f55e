"""What a load's events look like, as a file beside the pipeline's: `loads/NAME.yaml` for `NAME.yaml`.

The pipeline's file has the fields, their types and their order in the record; this one says how each is drawn, and
which values are wrong on purpose. So a load for another domain is another file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from lakehouse.config.document import read_document
from lakehouse.config.models import Model, Name
from lakehouse.config.problems import as_error
from lakehouse.config.wording import problems_of
from lakehouse.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lakehouse.config.models import EventField

PerKind = float | dict[str, float]
"""One number for all events, or one for each kind."""


class Id(Model):
    """24 hexadecimal characters, unlike in every event."""

    draw: Literal["id"]


class Time(Model):
    """When the event happened: the moment of its sending, or before it for late ones."""

    draw: Literal["time"]


class Choice(Model):
    """One of some values, each with its weight."""

    draw: Literal["choice"]
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(min_length=1)


class FirstOf(Model):
    """One of a list that the kind has; the values named first are the commonest."""

    draw: Literal["first_of"]
    values: dict[str, Annotated[list[str], Field(min_length=1)]]


class Member(Model):
    """A number from a population in which few are busy: `first`, `first + 1`, …, by Zipf's law."""

    draw: Literal["member"]
    first: int = Field(ge=0)
    count: int = Field(ge=1, le=10_000_000)
    zipf: float = Field(default=0.9, ge=0)


class Session(Model):
    """A member and the number of its session: `10000042-7`."""

    draw: Literal["session"]
    of: Name
    every_s: float = Field(gt=0)


class Release(Model):
    """A version that rises every so many seconds, whose share grows meanwhile: `5.0.3`."""

    draw: Literal["release"]
    major: int = Field(ge=0)
    every_s: float = Field(gt=0)


class Outcome(Model):
    """`usual`, or `failed` in so large a share of the events; an incident multiplies the share, up to a half."""

    draw: Literal["outcome"]
    usual: str
    failed: str
    share: PerKind
    incident: float = Field(default=1, ge=1)


class Lognormal(Model):
    """A positive number with this median; `spread` is the sigma of its logarithm. An incident multiplies it.

    `share` of the events have one, the others null; a kind that a mapping does not name has none.
    """

    draw: Literal["lognormal"]
    median: PerKind
    spread: PerKind
    min: float
    max: float
    decimals: int = Field(default=2, ge=0, le=6)
    incident: float = Field(default=1, ge=1)
    share: PerKind | None = None


Draw = Annotated[
    Id | Time | Choice | FirstOf | Member | Session | Release | Outcome | Lognormal, Field(discriminator="draw")
]
Wrong = Annotated[dict[Name, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
"""Field → values that are wrong for it."""


class FaultValues(Model):
    """Which fields and values the faults use."""

    required: list[Name] = Field(min_length=1, description="fields that every good event has, with a value")
    mistyped: Wrong = Field(description="values that a JSON reader cannot turn into the field's type")
    out_of_range: Wrong = Field(description="numbers outside the range of good events")
    unknown: Wrong = Field(description="values that no good event has")
    text: Name = Field(description="a field whose value is text; bytes that are no UTF-8 go into it")

    @property
    def fields(self) -> set[str]:
        """Every field that is named."""
        return {self.text, *self.required, *self.mistyped, *self.out_of_range, *self.unknown}


class Description(Model):
    """What the events of a load look like."""

    kind: Name = Field(description="the `choice` that decides what an event's other fields are like")
    key: Name = Field(description="the `member` whose value is the Kafka key")
    fields: dict[Name, Draw] = Field(description="how each field is drawn; also the order of drawing")
    faults: FaultValues

    @property
    def kinds(self) -> tuple[str, ...]:
        """The values of the leading field."""
        leading = self.fields[self.kind]
        return tuple(leading.weights) if isinstance(leading, Choice) else ()


def load_description(pipeline_file: Path, fields: Mapping[str, EventField]) -> Description:
    """The description beside a pipeline's file, held against the pipeline's fields.

    Raises:
        ConfigError: there is none, or it does not fit.
    """
    path = pipeline_file.parent / "loads" / pipeline_file.name
    if not path.is_file():
        raise ConfigError(
            f"nothing says what the events of {pipeline_file} look like",
            where=str(path),
            remedy="describe them there; conf/loads/feature_events.yaml is an example",
        )
    document = read_document(path, {})
    details: list[Any] = []
    try:
        found = Description.model_validate(document.data)
    except ValidationError as error:
        details = error.errors(include_url=False)
    if details or document.problems:
        raise as_error(path, document.problems + problems_of(details, document, Description))
    for mistake in _mistakes(found, fields):
        raise ConfigError(mistake, where=str(path), remedy=f"see the fields in {pipeline_file}")
    return found


def _mistakes(found: Description, fields: Mapping[str, EventField]) -> Iterator[str]:
    drawn, wanted = set(found.fields), set(fields)
    if drawn != wanted:
        yield f"the fields are drawn and declared differently: {', '.join(sorted(drawn ^ wanted))}"
        return
    if not found.kinds:
        yield f"kind: {found.kind} is not drawn by `choice`"
    if not isinstance(found.fields.get(found.key), Member):
        yield f"key: {found.key} is not drawn by `member`"
    if sum(isinstance(draw, Time) for draw in found.fields.values()) != 1:
        yield "exactly one field is drawn by `time`"
    for name, draw in found.fields.items():
        if isinstance(draw, Session) and not isinstance(found.fields.get(draw.of), Member):
            yield f"{name}.of: {draw.of} is not drawn by `member`"
        yield from _kinds_mistaken(name, draw, set(found.kinds))
    if strange := found.faults.fields - wanted:
        yield f"faults: there is no field {', '.join(sorted(strange))}"


def _kinds_mistaken(name: str, draw: Any, kinds: set[str]) -> Iterator[str]:  # noqa: ANN401 - any kind of draw
    for key, per_kind, partly in _per_kind(draw):
        if unknown := set(per_kind) - kinds:
            yield f"{name}.{key}: there is no kind {', '.join(sorted(unknown))}"
        if not partly and (missing := kinds - set(per_kind)):
            yield f"{name}.{key}: nothing is said for {', '.join(sorted(missing))}"


def _per_kind(draw: Any) -> Iterator[tuple[str, dict[str, Any], bool]]:  # noqa: ANN401 - any kind of draw
    """Each mapping by kind: its key, itself, and whether it may leave kinds out."""
    if isinstance(draw, FirstOf):
        yield "values", draw.values, False
    for key in ("share", "median", "spread"):
        value = getattr(draw, key, None)
        if isinstance(value, dict):
            yield key, value, isinstance(draw, Lognormal) and key == "share"
