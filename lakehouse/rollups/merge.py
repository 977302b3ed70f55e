"""Merging partial aggregates: the one place that says how each kind of metric combines.

Maintenance merges the rows of gold files with it, the comparison with silver merges both sides, and the
serving layer merges sketches. Any order and any grouping give the same result; only a KLL sketch draws lots
within its error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import datasketches
import pyarrow as pa

from lakehouse.rollups.moments import PARTS, flatten
from lakehouse.rollups.moments import merge as merge_moments
from lakehouse.rollups.partials import GRAIN_US, window_of
from lakehouse.rollups.sketches import merge_bitmaps, merge_theta, merge_top

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lakehouse.config.models import AnyMetric, DistinctMetric, Rollup

_SMALLEST_UNION = 7
"""The library's HLL union takes lg_k from here; a smaller sketch passes through it unharmed."""
_MERGE = {
    "count": "sum", "sum": "sum", "min": "min", "max": "max", "quantiles": "list", "distinct": "list", "top": "list",
}  # fmt: skip
"""Metric type → how Arrow aggregates it; sketches are listed, then merged one group at a time. Moments are listed part
by part, and merged for all groups at once."""


def merge_partials(partials: pa.Table, rollup: Rollup) -> pa.Table:
    """One row for each window and dimensions: counts and sums added, extremes kept, sketches merged.

    Args:
        partials: rows in the shape of `schemas.gold_schema`, with or without `_batch_id`.
        rollup: dimensions and metrics.

    Returns:
        The same columns and types, sorted by window and dimensions. `_batch_id` is the largest.
    """
    return merge_by(partials, ["window_start", *rollup.dimensions], rollup.metrics)


def merge_by(partials: pa.Table, keys: Sequence[str], metrics: Iterable[AnyMetric]) -> pa.Table:
    """`merge_partials` for any columns: one row for each combination of `keys`.

    Args:
        partials: some columns of a rollup's partials; all but the keys are merged.
        keys: columns to group by.
        metrics: those of the rollup whose columns are there.
    """
    own = {"events": "sum", "min_event_time": "min", "max_event_time": "max", "_batch_id": "max"}
    how = {name: kind for name, kind in own.items() if name in partials.column_names}
    metrics = list(metrics)
    triples = {metric.name: [f"{metric.name}.{part}" for part in PARTS] for metric in metrics if _is_moments(metric)}
    how |= {metric.name: _MERGE[metric.type] for metric in metrics if metric.name not in triples}
    how |= dict.fromkeys((name for names in triples.values() for name in names), "list")
    groups = _flattened(partials.combine_chunks(), triples).group_by(keys, use_threads=False)
    found = groups.aggregate(list(how.items()))
    columns = {name: found[name] for name in keys} | {name: found[f"{name}_{kind}"] for name, kind in how.items()}
    columns |= {name: merge_moments([columns[part] for part in names]) for name, names in triples.items()}
    for metric in metrics:
        if _MERGE.get(metric.type) == "list":
            columns[metric.name] = _merge_sketches(columns[metric.name], metric)
    merged = pa.table({name: columns[name] for name in partials.column_names})
    return merged.cast(partials.schema).sort_by([(key, "ascending") for key in keys])


def _is_moments(metric: AnyMetric) -> bool:
    return metric.type in ("mean", "variance")


def _flattened(partials: pa.Table, triples: dict[str, list[str]]) -> pa.Table:
    """The table with three plain columns instead of each of moments, which Arrow can group."""
    for name, names in triples.items():
        for part, values in zip(names, flatten(partials[name]), strict=True):
            partials = partials.append_column(part, values)
        partials = partials.drop_columns([name])
    return partials


def coarsen(partials: pa.Table, rollup: Rollup, grain: str) -> pa.Table:
    """Partial aggregates of wider windows: one row for each window of `grain` and dimensions.

    Args:
        partials: as for `merge_partials`, of a grain whose width divides that of `grain`.
        rollup: dimensions and metrics.
        grain: a key of `partials.GRAIN_US`.
    """
    index = partials.column_names.index("window_start")
    window = window_of(partials["window_start"], GRAIN_US[grain])
    return merge_partials(partials.set_column(index, partials.schema.field(index), window), rollup)


def _merge_sketches(lists: pa.ChunkedArray, metric: AnyMetric) -> pa.Array:
    merged: list[bytes | None] = []
    for found in lists.to_pylist():
        parts = [part for part in found if part is not None]
        if len(parts) < 2:  # noqa: PLR2004 - a single sketch is merged already, to the byte
            merged.append(parts[0] if parts else None)
        elif metric.type == "quantiles":
            merged.append(kll_bytes(parts, metric.k))
        elif metric.type == "top":
            merged.append(merge_top(parts, metric.lg_k))
        elif metric.type == "distinct":
            merged.append(_merge_distinct(parts, metric))
    return pa.array(merged, pa.binary())


def _merge_distinct(parts: list[bytes], metric: DistinctMetric) -> bytes:
    match metric.sketch:
        case "hll":
            return hll_bytes(parts, metric.lg_k)
        case "theta":
            return merge_theta(parts, metric.lg_k)
        case "bitmap":
            return merge_bitmaps(parts)


def merge_kll(parts: Iterable[bytes], k: int) -> datasketches.kll_doubles_sketch:
    """One KLL sketch of all values in `parts`."""
    merged = datasketches.kll_doubles_sketch(k)
    for part in parts:
        merged.merge(datasketches.kll_doubles_sketch.deserialize(part))
    return merged


def merge_hll(parts: Iterable[bytes], lg_k: int) -> datasketches.hll_union:
    """The union of all members in `parts`."""
    merged = datasketches.hll_union(max(lg_k, _SMALLEST_UNION))
    for part in parts:
        merged.update(datasketches.hll_sketch.deserialize(part))
    return merged


def kll_bytes(parts: Sequence[bytes], k: int) -> bytes:
    """`merge_kll`, serialised as a gold table holds it."""
    return bytes(merge_kll(parts, k).serialize())


def hll_bytes(parts: Sequence[bytes], lg_k: int) -> bytes:
    """`merge_hll`, serialised as a gold table holds it."""
    return bytes(merge_hll(parts, lg_k).get_result(datasketches.HLL_8).serialize_compact())
