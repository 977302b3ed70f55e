"""What a verdict says to a person: the offending value and a sentence.

Plain Python over the few rows that fail: as Spark columns these texts made the plan several times as large, and it is
planned anew for every micro-batch (docs/adr/0009-reasons-outside-the-plan.md).
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, assert_never

from lakehouse.quality.checks import (
    AllDifferent,
    AllEqual,
    Check,
    Greater,
    Length,
    Membership,
    PairEqual,
    PairMembership,
    Pattern,
    Presence,
    Range,
    Scalar,
    SumEquals,
    columns_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lakehouse.quality.checks import Bound
    from lakehouse.quality.suite import Expectation

LONGEST_VALUE = 120
"""Characters of an offending value that a verdict keeps."""

_LISTED = 8
_LONGEST_CONDITION = 200
_EXACT_INTEGER = 2.0**53

# Control characters, line separators, zero-width characters and those that turn the direction of text: a value
# comes from outside and must not move a cursor, break a log line or hide its end. C0 has pictures in Unicode.
_C0 = range(0x20)
_DEL = 0x7F
_UNSEEN = [*_C0, _DEL, *range(0x80, 0xA0), 0xAD, 0x61C, 0x180E, *range(0x200B, 0x2010)]
_UNSEEN += [*range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC)]
_PICTURES = {**{code: chr(0x2400 + code) for code in _C0}, _DEL: "␡"}
_SHOWN_AS = {code: _PICTURES.get(code, "\ufffd") for code in _UNSEEN}


def visible(text: str) -> str:
    """Each character that does not show, such as a newline, replaced by one that does; the length stays."""
    return text.translate(_SHOWN_AS)


def sentence(expectation: Expectation, row: Mapping[str, Any]) -> tuple[str, str | None]:
    """How a row's failure of the expectation reads, and the offending value: cut, and harmless to show.

    Args:
        expectation: one that judges rows.
        row: its columns' values, as Arrow hands them to Python.

    Returns:
        (a sentence such as "latency_ms is -12.5, below the minimum 0", the value as text or None)
    """
    if expectation.check is None:
        message = f"{expectation.rule_id} cannot be judged per row"
        raise AssertionError(message)
    value = _value(expectation.check, row)
    shown = None if value is None else _shortened(value)
    text = _sentence(expectation.check, row, shown or "")
    if expectation.condition is not None:
        sql = expectation.condition.sql
        text += f", where {sql if len(sql) <= _LONGEST_CONDITION else sql[: _LONGEST_CONDITION - 1] + '…'}"
    return visible(text), None if shown is None else visible(shown)


def _shortened(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 1]}…"


def _sentence(check: Check, row: Mapping[str, Any], shown: str) -> str:  # noqa: C901, PLR0911 - one case for each check
    match check:
        case Presence() if check.present:
            return f"{check.column} is missing"
        case Presence():
            return f"{check.column} is {shown}, but must be missing"
        case Membership():
            quote = "'" if any(isinstance(item, str) for item in check.values) else ""
            fault = f"not one of {_listed(check.values)}" if check.inside else "which is not allowed"
            return f"{check.column} is {quote}{shown}{quote}, {fault}"
        case Range():
            return f"{check.column} is {shown}{_outside(check, row[check.column])}"
        case Length():
            return f"{check.column} is '{shown}', with {len(row[check.column])} characters, {_allowed(check)}"
        case Pattern():
            return f"{check.column} is '{shown}', which {_mismatch(check)}"
        case Greater():
            return f"{shown}: {check.a} is {'less than' if check.or_equal else 'not greater than'} {check.b}"
        case PairEqual():
            return f"{shown}: {check.a} and {check.b} differ"
        case PairMembership():
            return f"{shown}: {check.a} and {check.b} do not go together"
        case SumEquals():
            return f"{shown}: the sum is not {_shown(check.total)}"
        case AllEqual():
            return f"{shown}: the values differ"
        case AllDifferent():
            return f"{shown}: a value stands twice"
    assert_never(check)


def _value(check: Check, row: Mapping[str, Any]) -> str | None:
    columns = columns_of(check)
    if len(columns) == 1:
        return _text(row[columns[0]])
    return ", ".join(f"{name}={'null' if (text := _text(row[name])) is None else text}" for name in columns)


def _text(value: Any) -> str | None:  # noqa: ANN401 - a field of any type
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
    return str(value)


def _outside(check: Range, value: Any) -> str:  # noqa: ANN401 - a number or a time
    low = (
        ""
        if check.low is None
        else f"{', not above' if check.strict_low else ', below the minimum'} {_shown(check.low)}"
    )
    high = (
        ""
        if check.high is None
        else f"{', not below' if check.strict_high else ', above the maximum'} {_shown(check.high)}"
    )
    if not (low and high):
        return low or high
    # Only one side can have failed; NaN, which is above every number, is on the high side too.
    bound = _like(check.low, value)
    return low if (value <= bound if check.strict_low else value < bound) else high


def _like(bound: Bound | None, value: Any) -> Any:  # noqa: ANN401 - of the value's own kind, so that both compare
    if isinstance(value, datetime) and isinstance(bound, date):
        moment = bound if isinstance(bound, datetime) else datetime(bound.year, bound.month, bound.day, tzinfo=UTC)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if isinstance(value, date) and isinstance(bound, datetime):
        return bound.date()
    return bound


def _allowed(check: Length) -> str:
    low = None if check.low is None else check.low + check.strict_low
    high = None if check.high is None else check.high - check.strict_high
    if low == high:
        return f"instead of {low}"
    if low is None or high is None:
        return f"more than {high}" if low is None else f"fewer than {low}"
    return f"outside {low} to {high}"


def _mismatch(check: Pattern) -> str:
    one = check.patterns[0] if len(check.patterns) == 1 else None
    listed = f"the pattern {one}" if one else f"the patterns {_listed(check.patterns)}"
    match check.match:
        case "any":
            return f"does not match {listed}" if one else f"matches none of {listed}"
        case "all":
            return f"does not match {listed}" if one else f"does not match all of {listed}"
        case "none":
            return f"matches {listed}" if one else f"matches one of {listed}"


def _listed(values: tuple[Scalar, ...]) -> str:
    shown = [_shown(value) for value in values[:_LISTED]]
    more = len(values) - len(shown)
    return ", ".join(shown) + (f" or {more} more" if more else "")


def _shown(value: Scalar | date) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_INTEGER:
        return str(int(value))
    return value.isoformat() if isinstance(value, date) else str(value)
