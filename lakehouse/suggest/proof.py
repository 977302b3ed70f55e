"""Proposals held against rows: how many rows break each. Independent of how they were found.

The checks mean what `quality.rules` makes of them for Spark, over the types that a field can have.
"""

from __future__ import annotations

from collections import Counter
from functools import reduce
from typing import TYPE_CHECKING, assert_never

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.quality.checks import Greater, Length, Membership, Pattern, Presence, Range

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lakehouse.quality.suite import Suite

Provable = Presence | Membership | Range | Length | Pattern | Greater


def broken(suite: Suite, parts: Iterable[pa.Table]) -> dict[str, int]:
    """Rule id → rows that fail it, for each expectation that judges rows and that some row fails.

    Args:
        suite: without row conditions, and with the checks of `Provable` alone.
        parts: rows, with every column that the suite reads.
    """
    failing: Counter[str] = Counter()
    for part in parts:
        for expectation in suite.expectations:
            if isinstance(expectation.check, Provable):
                count = pc.sum(unexpected(expectation.check, part)).as_py()
                failing[expectation.rule_id] += count or 0
    return {rule_id: count for rule_id, count in failing.items() if count}


def unexpected(check: Provable, rows: pa.Table) -> pa.ChunkedArray:
    """Which rows fail the check; never null."""
    match check:
        case Presence():
            column = rows[check.column]
            return pc.is_null(column) if check.present else pc.is_valid(column)
        case Membership():
            return _of_present(rows[check.column], _membership(rows[check.column], check))
        case Range():
            return _of_present(rows[check.column], _within(rows[check.column], check))
        case Length():
            return _of_present(rows[check.column], _within(pc.utf8_length(rows[check.column]), check))
        case Pattern():
            return _of_present(rows[check.column], _matches(rows[check.column], check))
        case Greater():
            a, b = rows[check.a], rows[check.b]
            if a.type != b.type:
                a, b = a.cast(pa.float64(), safe=False), b.cast(pa.float64(), safe=False)
            # Where one is missing the comparison is null, which passes, whatever `ignore` says.
            holds = (pc.greater_equal if check.or_equal else pc.greater)(a, b)
            return pc.fill_null(pc.invert(holds), fill_value=False)
    assert_never(check)


def _of_present(column: pa.ChunkedArray, holds: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.and_(pc.is_valid(column), pc.invert(pc.fill_null(holds, fill_value=False)))


def _membership(column: pa.ChunkedArray, check: Membership) -> pa.ChunkedArray:
    if check.inside and None in check.values:
        return pc.is_valid(column)  # SQL's IN with a null in the set is never false
    inside = pc.is_in(column, value_set=pa.array([one for one in check.values if one is not None]).cast(column.type))
    return inside if check.inside else pc.invert(inside)


def _within(column: pa.ChunkedArray, check: Range | Length) -> pa.ChunkedArray:
    numbers = column.cast(pa.float64(), safe=False)
    # NaN is above every number to Spark; Arrow compares it with nothing.
    sides = []
    if check.low is not None:
        low = (pc.greater if check.strict_low else pc.greater_equal)(numbers, pa.scalar(float(check.low)))  # type: ignore[arg-type]
        sides.append(pc.or_(low, pc.is_nan(numbers)))
    if check.high is not None:
        sides.append((pc.less if check.strict_high else pc.less_equal)(numbers, pa.scalar(float(check.high))))  # type: ignore[arg-type]
    return reduce(pc.and_, sides)


def _matches(column: pa.ChunkedArray, check: Pattern) -> pa.ChunkedArray:
    found = [pc.match_substring_regex(column, pattern) for pattern in check.patterns]
    merged = reduce(pc.and_ if check.match == "all" else pc.or_, found)
    return pc.invert(merged) if check.match == "none" else merged
