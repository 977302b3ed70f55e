"""A question as a URL spells it: `?measure=events&measure=errors/events&by=region&where=page=home&last=1h&step=1m`.

Every parameter is declared here once; the parser, the refusals and the OpenAPI document are made from that. A refusal
names the parameter and what it takes, and never repeats what came: it may be shown by whatever shows errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from lakehouse.config.models import parse_duration
from lakehouse.errors import ConfigError
from lakehouse.schemas import FIRST_US, LAST_US
from lakehouse.serving.query import Measure, Query, measure_names, parse_filters, parse_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lakehouse.config.models import Pipeline

T = TypeVar("T")
MOST_WINDOWS = 10_000
"""Of an answer. A chart has no more points than a screen has pixels."""
_DURATION = "a whole number and ms, s, m, h or d, such as 5m"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a question.

    Attributes:
        name: in the URL.
        takes: what its value is, for people.
        most: how often it may stand there.
        example: of a value.
    """

    name: str
    takes: str
    most: int
    example: str


PARAMETERS = {
    each.name: each
    for each in (
        Parameter(
            "measure",
            "`events`, METRIC, METRIC@0.99, METRIC@10 (of type top) or METRIC/METRIC; at least one",
            32,
            "events",
        ),
        Parameter("by", "a dimension to split by", 16, ""),
        Parameter("where", "DIMENSION=VALUE; several values of a dimension are any of them", 1_000, ""),
        Parameter("from", "the moment where the range begins, such as 2026-01-31T12:00:00Z", 1, ""),
        Parameter("to", "the moment where it ends, exclusive; now by default", 1, ""),
        Parameter("last", f"instead of both, how long up to now: {_DURATION}", 1, "1h"),
        Parameter("step", f"width of the answer's windows: {_DURATION}; one window by default", 1, "1m"),
        Parameter("max_staleness", f"how long ago the last batch may have come at most: {_DURATION}", 1, "5s"),
    )
}


def parse(pipeline: Pipeline, rollup: str, given: Iterable[tuple[str, str]]) -> Query:
    """The question that a URL's parameters spell.

    Args:
        pipeline: whose rollups.
        rollup: name of one of them.
        given: (name, value) in the order of the URL.

    Raises:
        ConfigError: a parameter is unknown, stands there too often, or has a value that means nothing. The error's
            words hold nothing of what was given.
    """
    values = _by_name(given)
    described = pipeline.rollups[rollup]
    measures = _read("measure", values["measure"], lambda texts: tuple(map(Measure.parse, texts)))
    known = measure_names(described)
    if not measures or not all(name in known for each in measures for name in (each.metric, each.over) if name):
        raise ConfigError("`measure` names no metric of the rollup", remedy=f"the metrics are {', '.join(known)}")
    if not set(values["by"]) <= set(described.dimensions):
        raise ConfigError(
            "`by` names no dimension of the rollup", remedy=f"the dimensions are {', '.join(described.dimensions)}"
        )
    start_us, end_us = _range(values)
    step_us = _duration("step", values["step"])
    if step_us and (end_us - start_us) // step_us > MOST_WINDOWS:
        raise ConfigError(
            f"the range has more than {MOST_WINDOWS} windows", remedy="ask for a shorter range or a wider `step`"
        )
    staleness_us = _duration("max_staleness", values["max_staleness"])
    return Query(
        rollup=rollup,
        measures=tuple(dict.fromkeys(measures)),
        start_us=start_us,
        end_us=end_us,
        step_us=step_us,
        dimensions=tuple(dict.fromkeys(values["by"])),
        filters=_read("where", values["where"], lambda texts: parse_filters(pipeline, rollup, texts)),
        max_staleness=None if staleness_us is None else timedelta(microseconds=staleness_us),
    )


def _by_name(given: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {name: [] for name in PARAMETERS}
    for name, value in given:
        if name not in values:
            raise ConfigError("there is a parameter that is not known", remedy=f"they are {', '.join(PARAMETERS)}")
        values[name].append(value)
        if len(values[name]) > PARAMETERS[name].most:
            raise ConfigError(f"`{name}` is there more than {PARAMETERS[name].most} times", remedy="ask for less")
    return values


def _read(name: str, texts: Sequence[str], parse: Callable[[Sequence[str]], T]) -> T:
    """What the parser makes of the texts; its errors without their words, which may quote."""
    try:
        return parse(texts)
    except ConfigError:
        raise ConfigError(
            f"`{name}` has a value that means nothing", remedy=f"it takes {PARAMETERS[name].takes}"
        ) from None


def _range(values: dict[str, list[str]]) -> tuple[int, int]:
    start, end, last = (next(iter(values[name]), None) for name in ("from", "to", "last"))
    try:
        start_us, end_us = parse_range(start, end, last)
    except ConfigError:
        raise ConfigError(
            "`from`, `to` and `last` make no range",
            remedy="give `last=1h`, or `from=2026-01-31T12:00:00Z` and, if it does not end now, `to`",
        ) from None
    if not FIRST_US <= start_us < end_us <= LAST_US + 1:
        raise ConfigError("the range is empty, or not within the years 1 to 9999", remedy="let it end after it begins")
    return start_us, end_us


def _duration(name: str, texts: Sequence[str]) -> int | None:
    """µs; None where there is none."""
    if not texts:
        return None
    try:
        found = parse_duration(texts[0]) // timedelta(microseconds=1)
    except ValueError:
        found = 0
    if found <= 0:
        raise ConfigError(f"`{name}` is no duration", remedy=f"it takes {_DURATION}")
    return found
