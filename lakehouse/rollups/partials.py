"""Rows → partial aggregates of one rollup, in Arrow, without Spark.

A partial is a row of the gold table: counts, sums, extremes and sketches over some of a window's events.
Partials of the same window and dimensions merge to the same result whatever the order, so that a late
event is just one more partial and nothing is ever updated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import datasketches
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.rollups.moments import moments
from lakehouse.rollups.sketches import bitmap, theta, top
from lakehouse.schemas import TIMESTAMP, metric_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lakehouse.config.models import AnyMetric, DistinctMetric, Rollup

GRAIN_US = {"1s": 1_000_000, "1m": 60_000_000, "1h": 3_600_000_000, "1d": 86_400_000_000}
"""Width of each grain's window, microseconds."""


def aggregate(rows: pa.Table, rollup: Rollup, grain: str, *, event_time: str) -> pa.Table:
    """Partial aggregates of `rows` per window and dimensions.

    Args:
        rows: valid events; `event_time` holds no null.
        rollup: dimensions and metrics.
        grain: a key of `GRAIN_US`; windows begin at its multiples since 1970-01-01 UTC.
        event_time: the column that places an event in a window.

    Returns:
        A table in the shape of `schemas.gold_schema`, without `_batch_id`.
    """
    inputs = {"window_start": window_of(rows[event_time], GRAIN_US[grain]), "_time": rows[event_time]}
    inputs |= {name: rows[name] for name in rollup.dimensions}
    aggregations: list[tuple[str, str]] = [("_time", "count"), ("_time", "min"), ("_time", "max")]
    for index, metric in enumerate(rollup.metrics):
        inputs[f"_{index}"] = _input(rows, metric)
        aggregations += [(f"_{index}", how) for how in _AGGREGATION[metric.type]]
    groups = pa.table(inputs).combine_chunks().group_by(["window_start", *rollup.dimensions]).aggregate(aggregations)
    metrics = {
        metric.name: _finish([groups[f"_{index}_{how}"] for how in _AGGREGATION[metric.type]], metric)
        for index, metric in enumerate(rollup.metrics)
    }
    return pa.table(
        {
            "window_start": groups["window_start"],
            **{name: groups[name] for name in rollup.dimensions},
            "events": groups["_time_count"],
            **metrics,
            "min_event_time": groups["_time_min"],
            "max_event_time": groups["_time_max"],
        }
    )


_AGGREGATION = {
    "count": ("sum",), "sum": ("sum",), "min": ("min",), "max": ("max",), "mean": ("count", "mean", "variance"),
    "variance": ("count", "mean", "variance"), "quantiles": ("list",), "distinct": ("list",), "top": ("list",),
}  # fmt: skip


def window_of(times: pa.ChunkedArray, width: int) -> pa.ChunkedArray:
    """Where the window of each time begins.

    Args:
        times: timestamps without null.
        width: of a window, µs; windows begin at its multiples since 1970-01-01 UTC.
    """
    micros = times.cast(pa.int64())
    # Floor, not truncation: before 1970 a window must not begin after its events.
    return pc.subtract(micros, pa.array(np.mod(micros.to_numpy(), width))).cast(TIMESTAMP)


def matches(rows: pa.Table, metric: AnyMetric) -> pa.ChunkedArray | None:
    """Which rows the metric's `where` lets in (null counts as no); None where it lets in all."""
    mask = None
    for column, wanted in metric.where.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        here = pc.is_in(rows[column], value_set=pa.array(values).cast(rows[column].type))
        mask = here if mask is None else pc.and_(mask, here)
    return mask


def _input(rows: pa.Table, metric: AnyMetric) -> pa.ChunkedArray | pa.Array:
    mask = matches(rows, metric)
    if metric.type == "count":
        return pa.array(np.ones(rows.num_rows, dtype=np.int64)) if mask is None else mask.cast(pa.int64())
    values = rows[metric.column]
    if metric.type not in ("distinct", "top"):
        values = values.cast(pa.float64())
    if metric.type in ("mean", "variance"):
        values = pc.if_else(pc.is_finite(values), values, None)
    return values if mask is None else pc.if_else(mask, values, None)


def _finish(found: list[pa.ChunkedArray], metric: AnyMetric) -> pa.ChunkedArray | pa.Array:
    match metric.type:
        case "mean" | "variance":
            return moments(*found)
        case "quantiles":
            return pa.array([_kll(group, metric.k) for group in _numbers(found[0])], pa.binary())
        case "top":
            return pa.array([top(group, metric.lg_k) for group in _values(found[0])], pa.binary())
        case "distinct":
            return pa.array(_distinct(found[0], metric), pa.binary())
        case _:
            return found[0].cast(metric_type(metric))


def _distinct(lists: pa.ChunkedArray, metric: DistinctMetric) -> Iterator[bytes]:
    match metric.sketch:
        case "hll":
            return (_hll(group, metric.lg_k) for group in _values(lists))
        case "theta":
            return (theta(group, metric.lg_k) for group in _values(lists))
        case "bitmap":
            return (bitmap(np.array(group, dtype=np.int64)) for group in _values(lists))


def _numbers(lists: pa.ChunkedArray) -> Iterator[np.ndarray]:
    """Each group's values that are neither null nor NaN, which a quantile sketch cannot hold."""
    for group in lists.combine_chunks():
        values = group.values.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
        yield values[~np.isnan(values)]


def _values(lists: pa.ChunkedArray) -> Iterator[list[Any]]:
    for group in lists.combine_chunks():
        yield group.values.drop_null().to_pylist()


def _kll(values: np.ndarray, k: int) -> bytes:
    sketch = datasketches.kll_doubles_sketch(k)
    sketch.update(values)
    return bytes(sketch.serialize())


def _hll(values: list[int] | list[str], lg_k: int) -> bytes:
    sketch = datasketches.hll_sketch(lg_k, datasketches.HLL_8)
    for value in values:
        # Spark's sketches ignore empty strings; the library would count them as a member.
        if value != "":
            sketch.update(value)
    return bytes(sketch.serialize_compact())
