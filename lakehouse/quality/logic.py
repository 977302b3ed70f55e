"""What follows from what among checks, over every value that a column could hold.

Three questions, each answered True only where it is so for every row; False says nothing. Missing values, NaN, the
rounding of large integers to doubles and regular expressions are taken as `rules` has them:

* `implies(b, a)`: every row that fails `a` fails `b`, so that beside `b` the other adds nothing;
* `conflict(a, b)`: every row whose columns all have values fails one of them;
* `never_fails(check)`, and `always_fails(check)` for every row with a value.

Nothing is claimed about what two different regular expressions match, nor about texts that a column of numbers or
times might read otherwise, such as `01` and `1`.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime
from typing import TYPE_CHECKING

from lakehouse.quality.checks import (
    AllDifferent,
    AllEqual,
    Check,
    Greater,
    Length,
    Membership,
    PairEqual,
    Pattern,
    Presence,
    Range,
    columns_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from lakehouse.quality.checks import Bound, Scalar

_EVERYTHING = frozenset({"", "^", ".*", ".*?", "(?s).*", "(?s).*?"})
"""Expressions that are found in every text."""
_READ_OTHERWISE = re.compile(r"\s|[0-9+.-]|(inf|nan|true|false|t|f|y|n|yes|no)\w*\Z", re.IGNORECASE)
"""Beginnings of texts that Spark could read as a number, a time or a boolean, where the column is one."""
_JOINS_BADLY = re.compile(r"\(\?|\\[QEk1-9]")
"""What in one expression changes the meaning of others joined to it: flags, quotations, references by number."""


def implies(b: Check, a: Check) -> bool:
    """Whether every row that fails `a` fails `b`."""
    if a == b or never_fails(a):
        return True
    if isinstance(b, PairEqual | Greater) or isinstance(a, PairEqual | Greater):
        return _pair_implies(b, a)
    if len(columns_of(a)) > 1 or columns_of(a) != columns_of(b):
        return False
    if isinstance(a, Presence):
        return False
    if isinstance(b, Presence):
        return not b.present
    return _value_implies(b, a)


def conflict(a: Check, b: Check) -> bool:
    """Whether every row in which all the columns of both have values fails `a` or `b`."""
    if set(columns_of(a)) != set(columns_of(b)):
        return False
    if isinstance(a, Presence) or isinstance(b, Presence):
        return isinstance(a, Presence) and isinstance(b, Presence) and a.present != b.present
    return any(_conflict(one, other) for one, other in ((a, b), (b, a)))


def always_fails(check: Check) -> bool:
    """Whether every row whose columns have values fails."""
    match check:
        case Range():
            return _empty(*_sides(check))
        case Length():
            low, high = _whole(check)
            return low > high
        case Pattern(match="none"):
            return any(pattern in _EVERYTHING for pattern in check.patterns)
        case _:
            return False


def never_fails(check: Check) -> bool:
    """Whether no row can fail."""
    match check:
        case Membership():
            return None in check.values if check.inside else all(value is None for value in check.values)
        case Length():
            return _whole(check) == (0, math.inf)
        case Pattern(match="all"):
            return all(pattern in _EVERYTHING for pattern in check.patterns)
        case Pattern(match="any"):
            return len(check.patterns) == 1 and check.patterns[0] in _EVERYTHING
        case _:
            return False


def fails_each(check: Check, column: str, values: Collection[Scalar]) -> bool:
    """Whether every row that holds one of the values in the column fails; None stands for a missing one."""
    # Of NaN nothing is said: in Spark it is equal to itself and above every number, in Python neither.
    if columns_of(check) != (column,) or any(isinstance(value, float) and math.isnan(value) for value in values):
        return False
    return all(
        isinstance(check, Presence) and check.present if value is None else _value_fails(check, value)
        for value in values
    )


def _pair_implies(b: Check, a: Check) -> bool:
    # A missing value passes every `Greater`, and equal values pass one that lets equal ones in.
    match b, a:
        case Greater(), Greater():
            return (a.a, a.b) == (b.a, b.b) and a.or_equal
        case PairEqual(), Greater():
            return {a.a, a.b} == {b.a, b.b} and a.or_equal
        case PairEqual(), PairEqual():
            return {a.a, a.b} == {b.a, b.b} and a.ignore == b.ignore
        case _:
            return False


def _value_implies(b: Check, a: Check) -> bool:  # noqa: PLR0911 - one short case for each two kinds
    """For two checks of one column's values, presence aside."""
    match b, a:
        case Membership(inside=True), _ if None not in b.values:
            return all(_value_passes(a, value) for value in b.values)
        case Membership(inside=False), Membership(inside=False):
            return _known(a.values) <= _known(b.values)
        case ((Range() | Length()), Membership(inside=False)):
            return all(_value_fails(b, value) for value in a.values if value is not None)
        case Range(), Range():
            return _of_one_type(a, b) and _covers(_sides(a), _sides(b))
        case Length(), Length():
            (low_a, high_a), (low_b, high_b) = _whole(a), _whole(b)
            return low_a <= low_b and high_b <= high_a
        case Pattern(match="all"), Pattern(match="all"):
            return set(a.patterns) <= set(b.patterns)
        case Pattern(match="none"), Pattern(match="none"):
            return set(a.patterns) <= set(b.patterns)
        case Pattern(match="any"), Pattern(match="any"):
            return set(b.patterns) <= set(a.patterns) and not any(map(_JOINS_BADLY.search, a.patterns))
        case _:
            return False


def _conflict(a: Check, b: Check) -> bool:  # noqa: PLR0911 - likewise
    match a, b:
        case Membership(inside=True), _ if None not in a.values:
            return all(_value_fails(b, value) for value in a.values)
        case Range(), Range():
            return _of_one_type(a, b) and _empty(*_intersection(_sides(a), _sides(b)))
        case Length(), Length():
            (low_a, high_a), (low_b, high_b) = _whole(a), _whole(b)
            return max(low_a, low_b) > min(high_a, high_b)
        case Pattern(match="none"), Pattern():
            one = b.match == "all" or (b.match == "any" and len(b.patterns) == 1)
            return one and bool(set(a.patterns) & set(b.patterns))
        case Greater(or_equal=False), Greater():
            return (a.a, a.b) == (b.b, b.a)
        case Greater(or_equal=False), PairEqual():
            return True
        case ((PairEqual() | AllEqual()), AllDifferent()):
            return len(b.columns) == len(columns_of(a))
        case _:
            return False


def _value_passes(check: Check, value: Scalar) -> bool:
    """Whether a row with this value certainly passes."""
    match check:
        case Membership(inside=True):
            return None in check.values or any(_surely_same(value, one) for one in check.values)
        case Membership(inside=False):
            return not any(_perhaps_same(value, one) for one in check.values)
        case Range():
            return _is_number(value) and _numeric(check) and _inside(float(value), _sides(check))  # type: ignore[arg-type]
        case Length():
            low, high = _whole(check)
            return isinstance(value, str) and _is_text(value) and low <= len(value) <= high
        case _:
            return False


def _value_fails(check: Check, value: Scalar) -> bool:
    """Whether a row with this value certainly fails."""
    match check:
        case Presence():
            return not check.present
        case Membership(inside=True):
            return None not in check.values and not any(_perhaps_same(value, one) for one in check.values)
        case Membership(inside=False):
            return any(_surely_same(value, one) for one in check.values)
        case Range():
            return _is_number(value) and _numeric(check) and not _inside(float(value), _sides(check))  # type: ignore[arg-type]
        case Length():
            low, high = _whole(check)
            return isinstance(value, str) and _is_text(value) and not low <= len(value) <= high
        case _:
            return False


def _surely_same(value: Scalar, other: Scalar) -> bool:
    return value is not None and type(value) is type(other) and value == other and not _is_negative_zero(value, other)


def _perhaps_same(value: Scalar, other: Scalar) -> bool:
    """Whether one value of a column could be equal to both, as it is where the column rounds them to doubles."""
    if value is None or other is None:
        return False
    if isinstance(value, str) and isinstance(other, str):
        return value == other or not (_is_text(value) and _is_text(other))
    if _is_number(value) and _is_number(other):
        return float(value) == float(other)
    return value == other or type(value) is not type(other)


def _is_negative_zero(*values: Scalar) -> bool:
    return any(isinstance(value, float) and value == 0 and math.copysign(1, value) < 0 for value in values)


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: str) -> bool:
    """Whether it is a text whatever the column; a number's column might read `01` and `1` alike."""
    return bool(value) and not _READ_OTHERWISE.match(value)


def _known(values: tuple[Scalar, ...]) -> set[tuple[type, Scalar]]:
    return {(type(value), value) for value in values if value is not None}


_Sides = tuple["Bound | None", bool, "Bound | None", bool]
"""Low bound, whether it is left out, high bound, whether it is left out."""


def _sides(check: Range) -> _Sides:
    return check.low, check.strict_low, check.high, check.strict_high


def _numeric(check: Range) -> bool:
    return all(isinstance(bound, float) for bound in (check.low, check.high) if bound is not None)


def _of_one_type(a: Range, b: Range) -> bool:
    kinds = {type(bound) for check in (a, b) for bound in (check.low, check.high) if bound is not None}
    return len(kinds) == 1 and kinds <= {float, date, datetime}


def _inside(value: float, sides: _Sides) -> bool:
    low, strict_low, high, strict_high = sides
    above = low is None or (value > low if strict_low else value >= low)  # type: ignore[operator]
    return above and (high is None or (value < high if strict_high else value <= high))  # type: ignore[operator]


def _empty(low: Bound | None, strict_low: bool, high: Bound | None, strict_high: bool) -> bool:  # noqa: FBT001 - `_Sides`
    if low is None or high is None:
        return False
    return low > high or (low == high and (strict_low or strict_high))  # type: ignore[operator]


def _intersection(a: _Sides, b: _Sides) -> _Sides:
    low, strict_low = a[:2] if _low_key(a) >= _low_key(b) else b[:2]
    high, strict_high = a[2:] if _high_key(a) <= _high_key(b) else b[2:]
    return low, strict_low, high, strict_high


def _covers(outer: _Sides, inner: _Sides) -> bool:
    """Whether every value of `inner` is in `outer`; an open upper side holds NaN, too."""
    return _low_key(outer) <= _low_key(inner) and _high_key(inner) <= _high_key(outer)


def _low_key(sides: _Sides) -> tuple[int, object, int]:
    """Orders low bounds by how much they leave out."""
    return (0, 0, 0) if sides[0] is None else (1, sides[0], int(sides[1]))


def _high_key(sides: _Sides) -> tuple[int, object, int]:
    """Orders high bounds by how much they let in."""
    return (1, 0, 0) if sides[2] is None else (0, sides[2], -int(sides[3]))


def _whole(check: Length) -> tuple[float, float]:
    """The smallest and the largest number of characters that pass."""
    low = 0 if check.low is None else check.low + check.strict_low
    high = math.inf if check.high is None else check.high - check.strict_high
    return low, high
