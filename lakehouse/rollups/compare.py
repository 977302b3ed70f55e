"""A rollup table against silver: is the merged rollup the same aggregate over the valid rows?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.rollups.merge import merge_hll, merge_kll, merge_partials
from lakehouse.rollups.partials import GRAIN_US, aggregate
from lakehouse.rollups.sketches import count_bitmap, count_theta, read_top
from lakehouse.schemas import TIMESTAMP

if TYPE_CHECKING:
    import datasketches
    import pyarrow.dataset as ds

    from lakehouse.config.models import AnyMetric, DistinctMetric, Rollup

_SHOWN = 10
_SUM_TOLERANCE = 1e-9
"""Relative: floating-point sums depend on the order of addition, which differs between the two sides."""
_RANK_ERRORS = 3.0
"""A KLL sketch is random; its stated rank error holds with 99 %, three times that practically always."""
_THETA_ERRORS = 6.0
"""Both sides of a Theta sketch are random: so many standard deviations apart they practically never are."""
_ESTIMATE_TOLERANCE = 1e-6
"""Relative: both HLL estimates come from unions of the same hashes."""


@dataclass(frozen=True)
class RollupDifference:
    """How many cells (window × dimensions) were compared, how many differ, and the first few that do."""

    cells: int
    differing: int
    first: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every cell agrees."""
        return self.differing == 0


def compare_rollup(
    silver: ds.Dataset,
    gold: ds.Dataset,
    rollup: Rollup,
    grain: str,
    *,
    event_time: str,
    start_us: int | None = None,
) -> RollupDifference:
    """Compare every cell of a rollup table with the aggregate of silver's rows.

    Args:
        silver: valid rows.
        gold: partial aggregates of them.
        rollup: dimensions and metrics.
        grain: of gold's windows.
        event_time: the column that places an event in a window.
        start_us: compare only windows that begin at this, µs since 1970 UTC, or later; None compares all.

    Counts and extremes have to be equal, sums up to rounding, distinct counts up to the estimator's rounding,
    quantiles within the sketch's stated rank error.
    """
    if start_us is not None:
        start = pa.scalar(-(-start_us // GRAIN_US[grain]) * GRAIN_US[grain], pa.int64()).cast(TIMESTAMP)
        silver, gold = silver.filter(pc.field(event_time) >= start), gold.filter(pc.field("window_start") >= start)
    # In chunks: silver may be larger than memory; its partial aggregates are not.
    expected = (
        pa.concat_tables(
            aggregate(pa.Table.from_batches([batch]), rollup, grain, event_time=event_time)
            for batch in silver.to_batches(columns=_columns(rollup, event_time), batch_size=1_000_000)
            if batch.num_rows
        )
        if silver.count_rows()
        else None
    )
    found = _merged(gold.to_table(), rollup)
    wanted = _merged(expected, rollup) if expected is not None else {}
    problems = [
        problem
        for cell in sorted(wanted.keys() | found.keys(), key=str)
        if (problem := _differs(cell, wanted.get(cell), found.get(cell), rollup))
    ]
    return RollupDifference(len(wanted.keys() | found.keys()), len(problems), problems[:_SHOWN])


def _columns(rollup: Rollup, event_time: str) -> list[str]:
    wanted = {event_time, *rollup.dimensions}
    for metric in rollup.metrics:
        wanted.update(metric.where)
        if metric.type != "count":
            wanted.add(metric.column)
    return sorted(wanted)


def _merged(partials: pa.Table, rollup: Rollup) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Cell → merged metrics."""
    keys = ["window_start", *rollup.dimensions]
    return {tuple(row.pop(key) for key in keys): row for row in merge_partials(partials, rollup).to_pylist()}


def _differs(
    cell: tuple[Any, ...], wanted: dict[str, Any] | None, found: dict[str, Any] | None, rollup: Rollup
) -> str | None:
    where = " ".join(map(str, cell))
    if wanted is None or found is None:
        return f"{where}: only in {'gold' if wanted is None else 'silver'}"
    for name in ("events", "min_event_time", "max_event_time"):
        if wanted[name] != found[name]:
            return f"{where}: {name} is {found[name]} in gold, {wanted[name]} over silver"
    for metric in rollup.metrics:
        if not _agrees(metric, wanted[metric.name], found[metric.name]):
            return f"{where}: {metric.name} differs between gold and silver"
    return None


def _agrees(metric: AnyMetric, wanted: Any, found: Any) -> bool:  # noqa: ANN401 - a number or a sketch
    match metric.type:
        case "sum":
            return bool(
                wanted == found or (None not in (wanted, found) and np.isclose(wanted, found, rtol=_SUM_TOLERANCE))
            )
        case "mean" | "variance":
            return wanted["values"] == found["values"] and bool(
                np.isclose(wanted["mean"], found["mean"], rtol=_SUM_TOLERANCE)
                and np.isclose(wanted["m2"], found["m2"], rtol=_ESTIMATE_TOLERANCE)
            )
        case "top":
            return _same_heads(wanted, found)
        case "distinct":
            return _same_members(wanted, found, metric)
        case "quantiles":
            return _same_distribution(merge_kll([wanted], metric.k), merge_kll([found], metric.k))
        case _:
            return bool(wanted == found)


def _same_members(wanted: bytes, found: bytes, metric: DistinctMetric) -> bool:
    match metric.sketch:
        case "bitmap":
            return count_bitmap(wanted) == count_bitmap(found)
        case "theta":
            # Which members a full sketch keeps depends on the order in which they came.
            tolerance = _THETA_ERRORS * 2 ** (-metric.lg_k / 2)
            return bool(np.isclose(count_theta(wanted), count_theta(found), rtol=tolerance))
        case "hll":
            here, there = (_hll_estimate(sketch, metric.lg_k) for sketch in (wanted, found))
            return bool(np.isclose(here, there, rtol=_ESTIMATE_TOLERANCE))


def _same_heads(wanted: bytes, found: bytes) -> bool:
    """Whether two frequent-items sketches can be of the same values: no value's bounds exclude each other."""
    here, there = ({each.value: each for each in read_top(sketch, 100_000)} for sketch in (wanted, found))
    common = here.keys() & there.keys()
    return bool(common or not (here or there)) and all(
        here[value].at_least <= there[value].at_most and there[value].at_least <= here[value].at_most
        for value in common
    )


def _hll_estimate(sketch: bytes, lg_k: int) -> float:
    """The estimate that depends on the members alone.

    A sketch that was never merged estimates from the order in which its members came; one that was merged does not.
    Merging a sketch with itself changes no member and settles the difference.
    """
    return float(merge_hll([sketch, sketch], lg_k).get_estimate())


def _same_distribution(wanted: datasketches.kll_doubles_sketch, found: datasketches.kll_doubles_sketch) -> bool:
    if wanted.n != found.n:
        return False
    if wanted.is_empty():
        return True
    if (wanted.get_min_value(), wanted.get_max_value()) != (found.get_min_value(), found.get_max_value()):
        return False
    allowed = _RANK_ERRORS * found.normalized_rank_error(False) if found.is_estimation_mode() else 0.0
    return all(
        abs(found.get_rank(wanted.get_quantile(rank)) - wanted.get_rank(wanted.get_quantile(rank))) <= allowed + 1e-12
        for rank in (0.1, 0.5, 0.9, 0.99)
    )
