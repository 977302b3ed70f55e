"""Row-level checks judged in plain Python, value by value: an oracle for what is claimed of rules without Spark.

The semantics are those that `lakehouse.quality.rules` names: a missing value passes but for presence and pairs, NaN is
above every number, bounds are doubles, a regular expression is searched anywhere.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime
from typing import Any

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
    SumEquals,
)


def fails(check: Check, row: dict[str, Any]) -> bool:  # noqa: PLR0911 - one case for each check
    """Whether the row is unexpected."""
    match check:
        case Presence():
            return (row[check.column] is None) == check.present
        case Membership() | Range() | Length() | Pattern():
            value = row[check.column]
            return value is not None and not _passes(check, value)
        case Greater():
            a, b = row[check.a], row[check.b]
            if a is None or b is None:
                return False
            return not (_key(a) >= _key(b) if check.or_equal else _key(a) > _key(b))
        case PairEqual():
            a, b = row[check.a], row[check.b]
            return not _ignored((a, b), check.ignore) and not _same(a, b)
        case PairMembership():
            a, b = row[check.a], row[check.b]
            return not _ignored((a, b), check.ignore) and not any(_same(a, x) and _same(b, y) for x, y in check.pairs)
        case SumEquals():
            values = [row[name] for name in check.columns]
            return not _ignored(values, check.ignore) and float(sum(value or 0 for value in values)) != check.total
        case AllEqual():
            values = [row[name] for name in check.columns]
            return not _ignored(values, check.ignore) and not all(_same(values[0], value) for value in values)
        case AllDifferent():
            values = [row[name] for name in check.columns]
            pairs = [(x, y) for number, x in enumerate(values) for y in values[number + 1 :]]
            return not _ignored(values, check.ignore) and any(_same(x, y) for x, y in pairs)


def _passes(check: Membership | Range | Length | Pattern, value: Any) -> bool:
    match check:
        case Membership():
            if check.inside and None in check.values:
                return True
            return any(_same(value, one) for one in check.values if one is not None) == check.inside
        case Length():
            return _within(float(len(value)), check)
        case Range():
            return _within(value, check)
        case Pattern():
            patterns = [pattern.replace(r"\z", r"\Z") for pattern in check.patterns]
            if check.match == "any":
                return re.search("|".join(patterns), value) is not None  # joined, as Spark is given it
            found = [re.search(pattern, value) is not None for pattern in patterns]
            return all(found) if check.match == "all" else not any(found)


def _within(value: Any, check: Range | Length) -> bool:
    key = _key(value)
    low, high = (None if bound is None else _key(bound) for bound in (check.low, check.high))
    above = low is None or (key > low if check.strict_low else key >= low)
    return above and (high is None or (key < high if check.strict_high else key <= high))


def _key(value: Any) -> Any:
    """NaN after every number; numbers as doubles, as a bound is one; a day as its midnight in UTC, as Spark has it."""
    if isinstance(value, float) and math.isnan(value):
        return (1, 0.0)
    if isinstance(value, bool | str | date | datetime):
        return value
    return (0, float(value))


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    if isinstance(a, float) or isinstance(b, float):
        return _key(a) == _key(b)  # the other is cast to a double
    return bool(a == b)


def _ignored(values: Any, ignore: str) -> bool:
    missing = [value is None for value in values]
    return {"both": all, "all_": all, "eith": any, "any_": any}.get(ignore[:4], lambda _: False)(missing)
