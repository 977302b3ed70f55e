"""Expectations about one number of a whole column, as typed values: what to measure, and between which bounds.

In the stream they are observed over each batch and each window of time; a report judges all rows. Row counts, sums,
extremes, means, deviations and shares are exact; medians, quantiles and distinct counts come from sketches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

from lakehouse.quality.mistakes import Mistake

if TYPE_CHECKING:
    from lakehouse.quality.checks import Bound

Statistic: TypeAlias = Literal[
    "rows", "max", "min", "mean", "median", "stdev", "sum", "quantiles", "distinct", "share_distinct", "share_present"
]

STATISTICS: dict[str, Statistic] = {
    "expect_table_row_count_to_be_between": "rows",
    "expect_table_row_count_to_equal": "rows",
    "expect_column_max_to_be_between": "max",
    "expect_column_min_to_be_between": "min",
    "expect_column_mean_to_be_between": "mean",
    "expect_column_median_to_be_between": "median",
    "expect_column_stdev_to_be_between": "stdev",
    "expect_column_sum_to_be_between": "sum",
    "expect_column_quantile_values_to_be_between": "quantiles",
    "expect_column_unique_value_count_to_be_between": "distinct",
    "expect_column_proportion_of_unique_values_to_be_between": "share_distinct",
    "expect_column_proportion_of_non_null_values_to_be_between": "share_present",
}
"""Type → the number that it is about."""
OBSERVED = frozenset(STATISTICS)
"""Types that are observed in the stream."""
APPROXIMATE = frozenset({"median", "quantiles", "distinct", "share_distinct"})
"""Statistics that come from sketches."""
OF_EVENTS = frozenset({"max", "min", "median", "quantiles"})
"""Statistics whose value is one that some event has."""
_NUMERIC = ("mean", "median", "stdev", "sum", "quantiles")
_PAIR = 2


@dataclass(frozen=True)
class Limits:
    """`low <= value <= high`; a strict side leaves out the bound itself; None leaves a side open."""

    low: Bound | None
    high: Bound | None
    strict_low: bool = False
    strict_high: bool = False

    def hold(self, value: float | date | None) -> bool:
        """Whether the value lies inside; a value that there is none of does not."""
        if value is None:
            return False
        above = self.low is None or (value > self.low if self.strict_low else value >= self.low)  # type: ignore[operator]
        below = self.high is None or (value < self.high if self.strict_high else value <= self.high)  # type: ignore[operator]
        return bool(above and below)


@dataclass(frozen=True)
class Aggregate:
    """What one expectation measures.

    Attributes:
        statistic: the number.
        column: of which column; None for the number of rows.
        limits: one, or one per quantile.
        quantiles: for `quantiles`, which ones.
    """

    statistic: Statistic
    column: str | None
    limits: tuple[Limits, ...]
    quantiles: tuple[float, ...] = ()


def parse_aggregate(name: str, kwargs: Mapping[str, object]) -> Aggregate | None:
    """What a type and its kwargs measure; None where the stream cannot observe it.

    Raises:
        Mistake: bounds that are no bounds.
    """
    statistic = STATISTICS.get(name)
    if statistic is None or any(isinstance(value, Mapping) and "$PARAMETER" in value for value in kwargs.values()):
        return None
    column = kwargs.get("column")
    named = column if isinstance(column, str) else None
    if statistic == "quantiles":
        return _quantiles(named, kwargs["quantile_ranges"])
    if name == "expect_table_row_count_to_equal":
        value = _number("value", kwargs["value"])
        return Aggregate(statistic, None, (Limits(value, value),))
    low, high = (_bound(statistic, side, kwargs.get(side)) for side in ("min_value", "max_value"))
    if low is None and high is None:
        raise Mistake("Neither min_value nor max_value is given", "give at least one")
    return Aggregate(
        statistic, named, (Limits(low, high, bool(kwargs.get("strict_min")), bool(kwargs.get("strict_max"))),)
    )


def _bound(statistic: Statistic, side: str, value: object) -> Bound | None:
    if isinstance(value, str) and statistic in ("max", "min"):
        try:
            return date.fromisoformat(value) if len(value) == len("2026-01-31") else datetime.fromisoformat(value)
        except ValueError as error:
            raise Mistake(f"{side} is {value!r}", "give a number, 2026-01-31 or 2026-01-31T12:00:00Z") from error
    return _number(side, value)


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Mistake(f"{name} is {value!r}", "give a number")
    return value


def _quantiles(column: str | None, ranges: object) -> Aggregate:
    if not isinstance(ranges, Mapping):
        raise Mistake(f"quantile_ranges is {ranges!r}", 'write {"quantiles": [0.5], "value_ranges": [[0, 10]]}')
    quantiles, limits = ranges.get("quantiles"), ranges.get("value_ranges")
    if not isinstance(quantiles, list) or not isinstance(limits, list) or len(quantiles) != len(limits):
        raise Mistake("quantile_ranges has not as many value_ranges as quantiles", "give one range for each")
    for pair in limits:
        if not isinstance(pair, list) or len(pair) != _PAIR:
            raise Mistake(
                f"value_ranges holds {pair!r}", "each item is a list of two numbers, or null for an open side"
            )
    return Aggregate(
        "quantiles",
        column,
        tuple(Limits(_number("value_ranges", low), _number("value_ranges", high)) for low, high in limits),
        tuple(float(quantile) for quantile in quantiles),
    )


def needs(aggregate: Aggregate) -> frozenset[str]:
    """What has to be kept of the column: `moments`, `extremes`, `kll`, `hll`. The count of values is always kept."""
    match aggregate.statistic:
        case "rows" | "share_present":
            return frozenset()
        case "max" | "min":
            return frozenset({"extremes"})
        case "mean" | "stdev" | "sum":
            return frozenset({"moments"})
        case "median" | "quantiles":
            return frozenset({"kll"})
        case "distinct" | "share_distinct":
            return frozenset({"hll"})


def needs_number(aggregate: Aggregate) -> bool:
    """Whether the column has to be numeric."""
    return aggregate.statistic in _NUMERIC
