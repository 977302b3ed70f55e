"""What is wrong with a suite beyond its spelling: rules that repeat, exclude or hide each other, or cannot be met.

Each finding names the rules and what to do. What is claimed about rows holds for every row (`logic`); that nothing is
found is no proof that a suite is good. No JVM.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from lakehouse.quality.aggregates import Aggregate, Limits
from lakehouse.quality.catalogue import Family
from lakehouse.quality.checks import Check, Presence
from lakehouse.quality.fitting import check_fit, check_known
from lakehouse.quality.logic import always_fails, conflict, fails_each, implies, never_fails
from lakehouse.quality.mistakes import Mistake
from lakehouse.quality.schema_rules import broken_by
from lakehouse.quality.suite import check_aggregate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lakehouse.quality.checks import Scalar
    from lakehouse.quality.suite import Expectation, Suite

Kind = Literal["duplicate", "contradictory", "redundant", "unreachable", "unknown column", "wrong type"]
_RANK = {None: 0, "off": 0, "metric": 1, "tag": 2, "quarantine": 3, "fail": 4}
"""How grave it is to fail, by `Expectation.stream`."""


@dataclass(frozen=True)
class Finding:
    """One thing to mend.

    Attributes:
        kind: what it is.
        rules: rule ids of those concerned, the one to change first.
        places: their indexes in the file.
        what: what is so; remedy: what to do.
    """

    kind: Kind
    rules: tuple[str, ...]
    places: tuple[int, ...]
    what: str
    remedy: str

    def __str__(self) -> str:
        places = ", ".join(f"expectations[{index}] {rule}" for index, rule in zip(self.places, self.rules, strict=True))
        return f"{self.kind}: {self.what}\n  where: {places}\n  to do: {self.remedy}"


@dataclass(frozen=True)
class Lint:
    """What was found in a suite."""

    suite: str
    source: str
    rules: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """For scripts."""
        return asdict(self) | {"ok": self.ok}

    def __str__(self) -> str:
        count = f"{len(self.findings)} findings" if self.findings else "nothing found"
        return "\n\n".join([*map(str, self.findings), f"{self.source}: {self.rules} rules, {count}"])


def lint(suite: Suite, fields: Mapping[str, str] | None = None, silver: Mapping[str, str] | None = None) -> Lint:
    """Look at every rule, and at every two.

    Args:
        suite: a loaded suite.
        fields: the event's fields: name → type; None leaves columns and types out.
        silver: likewise all of silver's columns, in order, of which rules about the table's schema speak.
    """
    findings: list[Finding] = []
    if fields is not None:
        findings += _misfits(suite, fields)
    if silver is not None:
        findings += [_found("wrong type", [one], what, "correct the rule, or source.fields")
                     for one, what in broken_by(suite, silver)]  # fmt: skip
    for expectation in suite.expectations:
        findings += _alone(expectation)
        findings += _hidden(expectation, suite)
    for one, other in combinations(suite.expectations, 2):
        if finding := _together(one, other, suite):
            findings.append(finding)
    return Lint(suite.name, suite.source, len(suite.expectations), tuple(findings))


def _found(kind: Kind, rules: list[Expectation], what: str, remedy: str) -> Finding:
    return Finding(kind, tuple(one.rule_id for one in rules), tuple(one.index for one in rules), what, remedy)


def _misfits(suite: Suite, fields: Mapping[str, str]) -> Iterator[Finding]:
    """Columns that no row has, and checks that the columns' types cannot meet."""
    for expectation in suite.expectations:
        if expectation.kind.family is Family.SCHEMA:
            continue
        terms = expectation.condition.terms if expectation.condition else ()
        try:
            check_known((*expectation.columns, *(column for column, _ in terms)), fields)
        except Mistake as mistake:
            yield _found("unknown column", [expectation], mistake.what, mistake.remedy)
            continue
        try:
            check_fit(expectation.check, terms, fields)
            check_aggregate(expectation.aggregate, fields)
        except Mistake as mistake:
            yield _found("wrong type", [expectation], mistake.what, mistake.remedy)


def _alone(one: Expectation) -> Iterator[Finding]:
    if one.check is not None and always_fails(one.check):
        yield _found("contradictory", [one], f"no value passes {one.rule_id}", "correct its bounds or expressions")
    if one.check is not None and never_fails(one.check):
        yield _found("unreachable", [one], f"no row can fail {one.rule_id}", "remove it, or say what was meant")
    if one.aggregate is not None and any(_is_empty(limits) for limits in one.aggregate.limits):
        yield _found("contradictory", [one], f"no value lies in the limits of {one.rule_id}", "correct its bounds")


def _hidden(one: Expectation, suite: Suite) -> Iterator[Finding]:
    """Rules about rows that another rule refuses, each one."""
    if one.condition is None or one.check is None or one.stream != "tag":
        return  # what is only counted is counted in refused rows, too
    condition = suite.document["expectations"][one.index].get("kwargs", {}).get("row_condition")
    for other in suite.in_stream("quarantine", "fail"):
        if other.condition is not None or other.check is None:
            continue
        for column, values in _only_where(condition):
            if fails_each(other.check, column, values):
                yield _found(
                    "unreachable",
                    [one, other],
                    f"{one.rule_id} speaks of rows that {other.rule_id} keeps out of silver, and tags none",
                    f"remove {one.rule_id}, or let {other.rule_id} pass these rows",
                )


def _only_where(condition: object) -> Iterator[tuple[str, tuple[Scalar, ...]]]:
    """(column, its only values in rows for which a serialised condition is true); None for a missing one."""
    if not isinstance(condition, Mapping):
        return
    match condition.get("type"), condition.get("operator"):
        case "nullity", _ if condition["is_null"]:
            yield condition["column"]["name"], (None,)
        case "comparison", "==":
            yield condition["column"]["name"], (condition["parameter"],)
        case "comparison", "IN":
            yield condition["column"]["name"], tuple(condition["parameter"])
        case "and", _:
            for part in condition["conditions"]:
                yield from _only_where(part)
        case _:
            pass  # of any other, nothing is known


def _together(one: Expectation, other: Expectation, suite: Suite) -> Finding | None:
    if _said(one, suite) == _said(other, suite):
        return _duplicate(one, other)
    if one.check is not None and other.check is not None:
        return _checks(one, one.check, other, other.check)
    if one.aggregate is not None and other.aggregate is not None and one.condition == other.condition:
        return _aggregates(one, one.aggregate, other, other.aggregate)
    return None


def _said(one: Expectation, suite: Suite) -> str:
    """Type and kwargs; whatever else an item has changes nothing about which rows fail."""
    kwargs = suite.document["expectations"][one.index].get("kwargs", {})
    return json.dumps([one.type, kwargs], sort_keys=True)


def _duplicate(one: Expectation, other: Expectation) -> Finding:
    kept, gone = (one, other) if _RANK[one.stream] >= _RANK[other.stream] else (other, one)
    return _found(
        "duplicate",
        [gone, kept],
        f"{gone.rule_id} and {kept.rule_id} demand the same",
        f"remove {gone.rule_id}" + (f"; {kept.rule_id} is the graver" if one.stream != other.stream else ""),
    )


def _checks(one: Expectation, a: Check, other: Expectation, b: Check) -> Finding | None:
    if any(of(check) for of in (never_fails, always_fails) for check in (a, b)):
        return None  # said of that rule alone
    if _same_rows(one, other) or one.condition is None or other.condition is None:
        if conflict(a, b):
            return _contradiction(one, other, a)
        covered, covering = implies(b, a) and _reaches(other, one), implies(a, b) and _reaches(one, other)
        if covered and covering and _same_rows(one, other) and one.mostly == other.mostly:
            return _duplicate(one, other)
        if covered and _stands_for(other, one):
            return _redundant(one, other)
        if covering and _stands_for(one, other):
            return _redundant(other, one)
    return None


def _same_rows(one: Expectation, other: Expectation) -> bool:
    return one.condition == other.condition


def _reaches(wide: Expectation, narrow: Expectation) -> bool:
    """Whether every row of which `narrow` speaks is one of which `wide` speaks."""
    return wide.condition is None or _same_rows(wide, narrow)


def _stands_for(kept: Expectation, gone: Expectation) -> bool:
    """Whether who fails `kept` meets with no less than who fails `gone`, in the stream and in the report."""
    same_share = _same_rows(kept, gone) and kept.columns == gone.columns and not isinstance(kept.check, Presence)
    by_share = kept.mostly == 1 or (same_share and kept.mostly >= gone.mostly)
    return _RANK[kept.stream] >= _RANK[gone.stream] and by_share


def _contradiction(one: Expectation, other: Expectation, check: Check) -> Finding:
    where = one.condition or other.condition
    rows = f"every row where {where.sql}" if where else "every row"
    with_values = "" if isinstance(check, Presence) else f" with a value in {' and '.join(one.columns)}"
    return _found(
        "contradictory",
        [one, other],
        f"{rows}{with_values} fails {one.rule_id} or {other.rule_id}",
        "correct one of them, or give each a row_condition of its own",
    )


def _redundant(gone: Expectation, kept: Expectation) -> Finding:
    if gone.stream == "tag" and kept.stream in ("quarantine", "fail"):
        return _found(
            "unreachable",
            [gone, kept],
            f"every row that fails {gone.rule_id} fails {kept.rule_id}, which keeps it out of silver:"
            f" {gone.rule_id} never tags a row",
            f"remove {gone.rule_id}, or make it the stricter of the two",
        )
    return _found(
        "redundant",
        [gone, kept],
        f"every row that fails {gone.rule_id} fails {kept.rule_id}",
        f"remove {gone.rule_id}, or make it the stricter of the two",
    )


def _aggregates(one: Expectation, a: Aggregate, other: Expectation, b: Aggregate) -> Finding | None:
    if a.column != b.column or "quantiles" in (a.statistic, b.statistic):
        return None
    try:
        if {a.statistic, b.statistic} == {"min", "max"}:
            return _extremes(one, other) if a.statistic == "min" else _extremes(other, one)
        return _limits(one, a.limits[0], other, b.limits[0]) if a.statistic == b.statistic else None
    except TypeError:
        return None  # a number and a time are not compared


def _extremes(smallest: Expectation, largest: Expectation) -> Finding | None:
    low, high = (one.aggregate.limits[0] for one in (smallest, largest) if one.aggregate is not None)
    if not _is_empty(Limits(low.low, high.high)):
        return None
    what = f"the smallest value cannot meet {smallest.rule_id} and the largest {largest.rule_id} at once"
    return _found("contradictory", [smallest, largest], what, "correct one of them")


def _limits(one: Expectation, first: Limits, other: Expectation, second: Limits) -> Finding | None:
    low, strict_low = max((first.low, first.strict_low), (second.low, second.strict_low), key=_low_key)
    high, strict_high = min((first.high, first.strict_high), (second.high, second.strict_high), key=_high_key)
    met = Limits(low, high, strict_low, strict_high)
    if _is_empty(met):
        what = f"no value meets both {one.rule_id} and {other.rule_id}"
        return _found("contradictory", [one, other], what, "correct one of them")
    for kept, limits, gone in ((one, first, other), (other, second, one)):
        if met == limits and _RANK[kept.stream] >= _RANK[gone.stream]:
            what = f"what meets {kept.rule_id} meets {gone.rule_id}"
            return _found("redundant", [gone, kept], what, f"remove {gone.rule_id}")
    return None


def _is_empty(limits: Limits) -> bool:
    if limits.low is None or limits.high is None:
        return False
    return limits.low > limits.high or (limits.low == limits.high and (limits.strict_low or limits.strict_high))  # type: ignore[operator]


def _low_key(side: tuple[Any, bool]) -> tuple[Any, ...]:
    return (0,) if side[0] is None else (1, side[0], side[1])


def _high_key(side: tuple[Any, bool]) -> tuple[Any, ...]:
    return (1,) if side[0] is None else (0, side[0], not side[1])
