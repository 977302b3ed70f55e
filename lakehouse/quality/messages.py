"""What a verdict says to a person: the offending value and a sentence, as Spark strings.

These columns are evaluated only for rows that fail, so they may cost more than a rule itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, assert_never

from pyspark.sql import functions as F

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
    from pyspark.sql import Column

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
_FROM = "".join(map(chr, _UNSEEN))
_TO = "".join(_PICTURES.get(code, "\ufffd") for code in _UNSEEN)
_SHOWN_AS = str.maketrans(_FROM, _TO)


@dataclass(frozen=True, eq=False)
class Wording:
    """A verdict's sentence is `before`, the value, then `after`.

    Attributes:
        value: the offending value as text, not yet cut; null where there is none.
        before: constant text.
        after: constant text, or a column where the sentence depends on the row.
    """

    value: Column
    before: str
    after: str | Column


def harmless(text: Column) -> Column:
    """Replace each character that does not show, such as a newline, by one that does; the length stays."""
    return F.translate(text, _FROM, _TO)


def visible(text: str) -> str:
    """`harmless`, for a text of Python."""
    return text.translate(_SHOWN_AS)


def shortened(value: Column) -> Column:
    """At most `LONGEST_VALUE` characters; an ellipsis at the end says that some were cut."""
    kept = F.concat(F.substring(value, 1, LONGEST_VALUE - 1), F.lit("…"))
    is_long = F.length(F.substring(value, 1, LONGEST_VALUE + 1)) > LONGEST_VALUE
    return F.when(is_long, kept).otherwise(value)


def wording(expectation: Expectation) -> Wording:
    """How a failure of the expectation reads, such as "latency_ms is -12.5, below the minimum 0"."""
    if expectation.check is None:
        message = f"{expectation.rule_id} cannot be judged per row"
        raise AssertionError(message)
    plain = _wording(expectation.check)
    if expectation.condition is None:
        return plain
    sql = expectation.condition.sql
    where = f", where {sql if len(sql) <= _LONGEST_CONDITION else sql[: _LONGEST_CONDITION - 1] + '…'}"
    after = plain.after + where if isinstance(plain.after, str) else F.concat(plain.after, F.lit(where))
    return Wording(plain.value, plain.before, after)


def _wording(check: Check) -> Wording:  # noqa: C901, PLR0911 - one short case for each check
    value = _value(check)
    match check:
        case Presence() if check.present:
            return Wording(value, f"{check.column} is missing", "")
        case Presence():
            return Wording(value, f"{check.column} is ", ", but must be missing")
        case Membership():
            quote = "'" if any(isinstance(item, str) for item in check.values) else ""
            fault = f"not one of {_listed(check.values)}" if check.inside else "which is not allowed"
            return Wording(value, f"{check.column} is {quote}", f"{quote}, {fault}")
        case Range():
            return Wording(value, f"{check.column} is ", _outside(check))
        case Length():
            return Wording(value, f"{check.column} is '", _wrong_length(check))
        case Pattern():
            return Wording(value, f"{check.column} is '", f"', which {_mismatch(check)}")
        case Greater():
            than = "less than" if check.or_equal else "not greater than"
            return Wording(value, "", f": {check.a} is {than} {check.b}")
        case PairEqual():
            return Wording(value, "", f": {check.a} and {check.b} differ")
        case PairMembership():
            return Wording(value, "", f": {check.a} and {check.b} do not go together")
        case SumEquals():
            return Wording(value, "", f": the sum is not {_shown(check.total)}")
        case AllEqual():
            return Wording(value, "", ": the values differ")
        case AllDifferent():
            return Wording(value, "", ": a value stands twice")
    assert_never(check)


def _value(check: Check) -> Column:
    columns = columns_of(check)
    if len(columns) == 1:
        return F.col(columns[0]).cast("string")
    named = [F.concat(F.lit(f"{name}="), F.coalesce(F.col(name).cast("string"), F.lit("null"))) for name in columns]
    return F.concat_ws(", ", *named)


def _outside(check: Range) -> str | Column:
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
    column = F.col(check.column)
    is_low = column <= F.lit(check.low) if check.strict_low else column < F.lit(check.low)
    return F.when(is_low, F.lit(low)).otherwise(F.lit(high))


def _wrong_length(check: Length) -> Column:
    low = None if check.low is None else check.low + check.strict_low
    high = None if check.high is None else check.high - check.strict_high
    if low == high:
        allowed = f"instead of {low}"
    elif low is None or high is None:
        allowed = f"more than {high}" if low is None else f"fewer than {low}"
    else:
        allowed = f"outside {low} to {high}"
    return F.concat(F.lit("', with "), F.length(F.col(check.column)).cast("string"), F.lit(f" characters, {allowed}"))


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
