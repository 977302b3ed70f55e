"""Load an expectation suite: a plain Great Expectations 1.x JSON file, read strictly and without a JVM.

Great Expectations drops an expectation whose type it does not know and goes on; here each mistake stops the
start with file, index and type. Beside the keys that Great Expectations knows, some keys of an
expectation's `meta` are read:

* `rule_id`: the name under which a verdict is recorded; without it, one is made of the columns and the type;
* `stream`: `quarantine`, `tag`, `metric`, `fail` or `off`, instead of what the severity says (`critical` quarantines
  the row, `warning` tags it in `_warnings`, `info` is only counted; `fail` stops the query before the batch is
  committed);
* `values_from`: a table from which the values of a set are read (`reference`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, get_args

from lakehouse.errors import SuiteError
from lakehouse.quality.aggregates import Aggregate, needs_number, parse_aggregate
from lakehouse.quality.catalogue import CATALOGUE, ExpectationType, Family
from lakehouse.quality.checks import Check, columns_of
from lakehouse.quality.conditions import Condition, parse_condition
from lakehouse.quality.fitting import check_fit, check_known
from lakehouse.quality.kwargs import check_names, check_schema_kwargs, parse_check, parse_mostly
from lakehouse.quality.like import as_regex
from lakehouse.quality.mistakes import Mistake, did_you_mean
from lakehouse.quality.reference import with_values

if TYPE_CHECKING:
    from pathlib import Path

Severity: TypeAlias = Literal["critical", "warning", "info"]
Stream: TypeAlias = Literal["quarantine", "tag", "metric", "fail", "off"]

STREAM_OF: dict[Severity, Stream] = {"critical": "quarantine", "warning": "tag", "info": "metric"}
"""What a failing row meets with, where `meta.stream` does not say otherwise."""

_SEMANTICS = 1  # raise it when the same suite starts to judge rows differently: fingerprints must then differ
_SUITE_KEYS = ("name", "expectations", "suite_parameters", "meta", "notes", "id")
_EXPECTATION_KEYS = (
    "type",
    "kwargs",
    "meta",
    "severity",
    "notes",
    "description",
    "id",
    "success_on_last_run",
    "expectation_context",
    "rendered_content",
)
_RULE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:,#-]{0,127}")
_TYPE_PREFIX = re.compile(r"expect_(?:column_pair_|multicolumn_|select_column_|compound_columns_|column_)?")


@dataclass(frozen=True)
class Expectation:
    """One expectation of a suite.

    Attributes:
        index: its place in the file, from 0.
        kind: its type.
        rule_id: unique in the suite.
        severity: Great Expectations' own; `critical` where the file says nothing.
        stream: what happens to a row that fails; None where only the report can judge it.
        columns: the columns it reads, conditions aside.
        mostly: share of rows that must pass in the report; the stream judges each row on its own.
        check: what it demands of a row; None where no single row can answer.
        aggregate: what the stream observes for it over each batch; None for other types.
        condition: which rows it speaks of; None for all.
    """

    index: int
    kind: ExpectationType
    rule_id: str
    severity: Severity
    stream: Stream | None
    columns: tuple[str, ...]
    mostly: float
    check: Check | None
    aggregate: Aggregate | None
    condition: Condition | None

    @property
    def type(self) -> str:
        """The type's name in Great Expectations."""
        return self.kind.name

    @property
    def checks_schema(self) -> bool:
        """Whether it speaks of the table's columns and types, which the contract answers before the first row."""
        return self.kind.family is Family.SCHEMA and self.stream != "off"


@dataclass(frozen=True)
class Suite:
    """A loaded suite.

    Attributes:
        name: the suite's own name.
        source: the file it came from, for messages.
        expectations: in the file's order.
        sha256: fingerprint of all that decides verdicts, as 64 hexadecimal digits. Notes, `mostly`, the
            report's own expectations and the order of the file do not change it.
        document: the file itself, as Great Expectations reads it.
    """

    name: str
    source: str
    expectations: tuple[Expectation, ...]
    sha256: str
    document: Mapping[str, Any] = dataclasses.field(repr=False, compare=False)

    @property
    def report_only(self) -> tuple[Expectation, ...]:
        """Expectations of which the stream learns nothing: it leaves them to the report."""
        return tuple(
            expectation
            for expectation in self.expectations
            if not (expectation.check or expectation.aggregate or expectation.kind.family is Family.SCHEMA)
        )

    def observed(self) -> tuple[Expectation, ...]:
        """Expectations about a number of a whole column that the stream observes over each batch."""
        return tuple(one for one in self.expectations if one.aggregate is not None and one.stream != "off")

    def in_stream(self, *streams: Stream) -> tuple[Expectation, ...]:
        """Expectations that judge rows, of the given kinds; of every kind but `off` where none is given."""
        wanted = streams or ("quarantine", "tag", "metric", "fail")
        return tuple(one for one in self.expectations if one.check is not None and one.stream in wanted)


def load_suite(path: Path) -> Suite:
    """Read and check a suite file.

    Raises:
        SuiteError: the file cannot be read, is not JSON, or holds any expectation that is not exactly right.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SuiteError(
            f"The suite is not UTF-8 text: {error.reason}.",
            where=f"{path}, byte {error.start}",
            remedy="save it as UTF-8",
        ) from error
    except OSError as error:
        raise SuiteError(
            f"The suite cannot be read: {error.strerror}.",
            where=str(path),
            remedy="check quality.suite in the pipeline file",
        ) from error
    return parse_suite(text, source=str(path), base=path.parent)


def parse_suite(text: str, *, source: str, base: Path | None = None) -> Suite:
    """Check a suite's JSON text.

    Args:
        text: the JSON.
        source: names it in messages.
        base: the folder to which tables of reference values are relative; None where no table is to be read.

    Raises:
        SuiteError: as `load_suite`.
    """
    document = _json(text, source)
    _check_text(document, source)
    if not isinstance(document, dict):
        _fail(source, "The suite is not a JSON object", 'write {"name": …, "expectations": […]}')
    _check_keys(document, _SUITE_KEYS, source)
    name = document.get("name")
    if not isinstance(name, str) or not name:
        _fail(source, f"The suite's name is {name!r}", "give it a name, as a text that is not empty")
    items = document.get("expectations")
    if not isinstance(items, list) or not items:
        _fail(source, "The suite has no expectations", "list at least one in expectations")
    if base is not None:
        items = [_with_values(item, index, base, source) for index, item in enumerate(items)]
        document = {**document, "expectations": items}
    drafts = [_expectation(item, index, source) for index, item in enumerate(items)]
    expectations = _with_rule_ids(drafts, source)
    return Suite(name, source, expectations, _fingerprint(expectations), document)


def check_columns(suite: Suite, columns: Collection[str] | Mapping[str, str]) -> None:
    """Check that every column a suite names exists and, where types are given, that it can be judged so.

    Args:
        suite: the suite.
        columns: the columns of a row: names, or name -> type as in a pipeline file (`string`, `integer`,
            `long`, `double`, `boolean`, `timestamp`, `date`).

    Raises:
        SuiteError: an unknown column, or a check that Spark would refuse or that would stop the query at the
            first row, such as a number as the bound of a text.
    """
    for expectation in suite.expectations:
        try:
            terms = expectation.condition.terms if expectation.condition else ()
            if expectation.kind.family is Family.SCHEMA:
                continue  # whether the column is there is its own question
            check_known((*expectation.columns, *(column for column, _ in terms)), columns)
            if isinstance(columns, Mapping):
                check_fit(expectation.check, terms, columns)
                check_aggregate(expectation.aggregate, columns)
        except Mistake as mistake:
            fail_at(suite.source, expectation.index, expectation.type, mistake)


def check_aggregate(aggregate: Aggregate | None, columns: Mapping[str, str]) -> None:
    """Refuse a statistic that its column's type does not have.

    Raises:
        Mistake: naming the column and its type.
    """
    if aggregate is not None and aggregate.column is not None and needs_number(aggregate):
        kind = columns[aggregate.column]
        if kind not in ("integer", "long", "double"):
            raise Mistake(f"{aggregate.column} is a {kind}, but this needs a number", "choose another column")


def fail_at(source: str, index: int, kind: str | None, mistake: Mistake) -> NoReturn:
    """Raise a SuiteError that says where the mistake stands."""
    place = f"{source}, expectations[{index}]" + (f" {kind}" if kind else "")
    raise SuiteError(f"{mistake.what}.", where=place, remedy=mistake.remedy) from mistake


def _fail(where: str, what: str, remedy: str) -> NoReturn:
    raise SuiteError(f"{what}.", where=where, remedy=remedy)


def _json(text: str, source: str) -> object:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                _fail(source, f"The key {key!r} stands twice in one object", "keep one of them")
        return dict(pairs)

    def constant(token: str) -> NoReturn:
        _fail(source, f"{token} is not JSON", "write a finite number, or leave the bound out")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise SuiteError(
            f"The suite is not JSON: {error.msg}.",
            where=f"{source}, line {error.lineno}, column {error.colno}",
            remedy="correct the text there",
        ) from error
    except RecursionError as error:
        raise SuiteError("The suite is nested too deeply.", where=source, remedy="flatten it") from error


def _check_text(document: object, source: str) -> None:
    """JSON can spell half of a surrogate pair, which is no character and which Spark could not be given."""
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        _fail(source, f"A text holds {half!r}, half of a surrogate pair", "write the whole character")


def _check_keys(found: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            _fail(where, f"Unknown key {key!r}", did_you_mean(key, known, f"the keys are {', '.join(known)}"))


@dataclass(frozen=True)
class _Draft:
    """An expectation before its rule id is settled."""

    expectation: Expectation
    given_id: str | None


def _with_values(item: object, index: int, base: Path, source: str) -> object:
    try:
        return with_values(item, base)
    except Mistake as mistake:
        fail_at(source, index, None, mistake)


def _expectation(item: object, index: int, source: str) -> _Draft:
    if not isinstance(item, dict):
        fail_at(source, index, None, Mistake(f"An expectation is {item!r}", 'write {"type": …, "kwargs": {…}}'))
    try:
        return _parse(item, index)
    except Mistake as mistake:
        kind = item.get("type")
        fail_at(source, index, kind if isinstance(kind, str) else None, mistake)


def _parse(item: Mapping[str, object], index: int) -> _Draft:
    for key in item:
        if key not in _EXPECTATION_KEYS:
            raise Mistake(
                f"Unknown key {key!r}",
                did_you_mean(key, _EXPECTATION_KEYS, f"the keys are {', '.join(_EXPECTATION_KEYS)}"),
            )
    kind = _kind(item.get("type"))
    kwargs = item.get("kwargs", {})
    if not isinstance(kwargs, dict):
        raise Mistake(f"kwargs is {kwargs!r}", 'write an object, such as {"column": "user_id"}')
    check_names(kind, kwargs)
    severity = _severity(item)
    given_id, given_stream = _meta(item.get("meta"))
    check = parse_check(*as_regex(kind.name, kwargs)) if kind.judges_rows else None
    condition = kwargs.get("row_condition") if check else None
    # The one pass sees a column's values, but not which rows a condition lets in.
    aggregate = parse_aggregate(kind.name, kwargs) if kwargs.get("row_condition") is None else None
    if kind.family is Family.SCHEMA:
        check_schema_kwargs(kind.name, kwargs)
    stream = _stream(kind, given_stream, severity, observed=aggregate is not None)
    expectation = Expectation(
        index=index,
        kind=kind,
        rule_id="",
        severity=severity,
        stream=stream,
        columns=columns_of(check) if check else _named_columns(kwargs),
        mostly=parse_mostly(kwargs),
        check=check,
        aggregate=aggregate,
        condition=None if condition is None else parse_condition(condition, kwargs.get("condition_parser")),
    )
    return _Draft(expectation, given_id)


def _kind(name: object) -> ExpectationType:
    if not isinstance(name, str):
        raise Mistake(f"type is {name!r}", "name an expectation type, such as expect_column_values_to_not_be_null")
    kind = CATALOGUE.get(name)
    if kind is None:
        raise Mistake(
            f"There is no expectation type {name!r}",
            did_you_mean(name, CATALOGUE, "docs/expectations.md lists every type"),
        )
    if not kind.on_spark:
        remedy = (
            "use expect_column_values_to_match_regex or its kin"
            if kind.family is Family.SQL_ONLY
            else "remove it; docs/expectations.md lists every type"
        )
        raise Mistake(f"This type cannot be judged on Spark: {kind.why}", remedy)
    return kind


def _stream(kind: ExpectationType, given: Stream | None, severity: Severity, *, observed: bool) -> Stream | None:
    """What happens in the stream where the expectation is not met; None where the stream learns nothing of it."""
    if kind.judges_rows:
        return given or STREAM_OF[severity]
    if given in ("quarantine", "tag"):
        raise Mistake(
            f"meta.stream is {given!r}, but no single row can be judged by this type: {kind.why}",
            "remove meta.stream" + ("; write fail to stop the query instead" if observed else "; the report judges it"),
        )
    if observed:
        return given or "metric"
    if kind.family is Family.SCHEMA:
        return given or ("fail" if severity == "critical" else "metric")
    if given == "fail":
        raise Mistake(f"meta.stream is 'fail', but the stream does not learn of it: {kind.why}", "remove meta.stream")
    return None


def _severity(item: Mapping[str, object]) -> Severity:
    value = item.get("severity", "critical")
    for severity in get_args(Severity):
        if value == severity:
            return severity  # type: ignore[no-any-return]  # one of the Literal's own values
    raise Mistake(
        f"severity is {value!r}",
        did_you_mean(str(value), get_args(Severity), f"choose one of {', '.join(get_args(Severity))}"),
    )


def _meta(meta: object) -> tuple[str | None, Stream | None]:
    """`rule_id` and `stream` of an expectation's meta; its other keys are free."""
    if meta is None:
        return None, None
    if not isinstance(meta, dict):
        raise Mistake(f"meta is {meta!r}", "write an object")
    rule_id, stream = meta.get("rule_id"), meta.get("stream")
    if rule_id is not None and not (isinstance(rule_id, str) and _RULE_ID.fullmatch(rule_id)):
        raise Mistake(f"meta.rule_id is {rule_id!r}", "use up to 128 letters, digits and _ . : , # -")
    if stream is not None and stream not in get_args(Stream):
        raise Mistake(
            f"meta.stream is {stream!r}",
            did_you_mean(str(stream), get_args(Stream), f"choose one of {', '.join(get_args(Stream))}"),
        )
    return rule_id, stream


def _named_columns(kwargs: Mapping[str, object]) -> tuple[str, ...]:
    """Columns that a report-only expectation reads. Lists of a table's columns are its own affair."""
    names = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    return tuple(name for name in names if isinstance(name, str))


def _with_rule_ids(drafts: list[_Draft], source: str) -> tuple[Expectation, ...]:
    """Settle rule ids: given ones as they are, made ones with #2, #3 … where they meet."""
    taken: dict[str, int] = {}
    for draft in drafts:
        if draft.given_id is None:
            continue
        index = draft.expectation.index
        if draft.given_id in taken:
            mistake = Mistake(
                f"meta.rule_id {draft.given_id!r} is also that of expectations[{taken[draft.given_id]}]",
                "give each expectation its own rule_id",
            )
            fail_at(source, index, draft.expectation.type, mistake)
        taken[draft.given_id] = index
    settled: list[Expectation] = []
    for draft in drafts:
        rule_id = draft.given_id or _free_id(draft.expectation, taken)
        taken[rule_id] = draft.expectation.index
        settled.append(dataclasses.replace(draft.expectation, rule_id=rule_id))
    return tuple(settled)


def _free_id(expectation: Expectation, taken: Mapping[str, int]) -> str:
    short = _TYPE_PREFIX.sub("", expectation.type, count=1)
    base = f"{','.join(expectation.columns)}:{short}" if expectation.columns else short
    candidate, number = base, 1
    while candidate in taken:
        number += 1
        candidate = f"{base}#{number}"
    return candidate


def _fingerprint(expectations: tuple[Expectation, ...]) -> str:
    judging = [
        {
            "rule_id": expectation.rule_id,
            "type": expectation.type,
            "severity": expectation.severity,
            "stream": expectation.stream,
            "check": dataclasses.asdict(expectation.check),
            "condition": expectation.condition.sql if expectation.condition else None,
        }
        for expectation in sorted(expectations, key=lambda expectation: expectation.rule_id)
        if expectation.check is not None and expectation.stream in ("quarantine", "tag")
    ]
    canonical = json.dumps(
        {"semantics": _SEMANTICS, "rules": judging},
        sort_keys=True,
        separators=(",", ":"),
        default=lambda value: value.isoformat(),
    )
    return hashlib.sha256(canonical.encode()).hexdigest()
