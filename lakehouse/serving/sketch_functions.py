"""SQL functions over the sketches in gold tables.

    SELECT feature, sum(events), merged_distinct(users_hll) AS users, merged_quantile(latency_ms_kll, 0.99) AS p99
    FROM gold.by_feature GROUP BY feature

The `merged_…` are aggregates: they take a column and merge what a group holds of it. They are macros over functions of
lists, because DuckDB takes no aggregate written in Python. HLL sketches are those of `distinct` metrics, KLL sketches
those of `quantiles` metrics.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - DuckDB evaluates the annotations of a function it is given
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import datasketches
import duckdb
from duckdb.func import FunctionNullHandling
from duckdb.sqltypes import BIGINT, BLOB, DOUBLE, VARCHAR

from lakehouse.rollups import moments, sketches

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_THETA = 16


def register(connection: duckdb.DuckDBPyConnection) -> None:
    """Give the connection the functions of this module, and the aggregates made of them."""
    blobs = duckdb.list_type(BLOB)
    functions: tuple[tuple[Callable[..., Any], list[Any], Any], ...] = (
        (hll_estimate, [BLOB], DOUBLE),
        (hll_merge, [blobs], BLOB),
        (hll_merge_estimate, [blobs], DOUBLE),
        (kll_quantile, [BLOB, DOUBLE], DOUBLE),
        (kll_merge, [blobs], BLOB),
        (kll_merge_quantile, [blobs, DOUBLE], DOUBLE),
        (theta_estimate, [BLOB], DOUBLE),
        (theta_merge, [blobs], BLOB),
        (bitmap_values, [BLOB], BIGINT),
        (bitmap_merge, [blobs], BLOB),
        (top_values, [BLOB, BIGINT], duckdb.list_type(_FREQUENT)),
        (top_merge, [blobs], BLOB),
        (moments_merge, [duckdb.list_type(_MOMENTS)], _MOMENTS),
    )
    for function, arguments, result in functions:
        connection.create_function(
            function.__name__, function, arguments, result, null_handling=FunctionNullHandling.SPECIAL
        )
    for macro in _AGGREGATES:
        connection.execute(f"CREATE TEMP MACRO {macro}")


_AGGREGATES = (
    "merged_distinct(sketch) AS hll_merge_estimate(list(sketch))",
    "merged_quantile(sketch, rank) AS kll_merge_quantile(list(sketch), rank)",
    "merged_theta(sketch) AS theta_estimate(theta_merge(list(sketch)))",
    "merged_bitmap(bits) AS bitmap_values(bitmap_merge(list(bits)))",
    "merged_top(sketch, n) AS top_values(top_merge(list(sketch)), n)",
    'merged_mean(parts) AS sum(parts."values" * parts.mean) / nullif(sum(parts."values"), 0)',
    'merged_variance(parts) AS moments_merge(list(parts)).m2 / nullif(greatest(sum(parts."values") - 1, 0), 0)',
)
_FREQUENT = duckdb.struct_type({"value": VARCHAR, "count": BIGINT, "at_least": BIGINT, "at_most": BIGINT})
_MOMENTS = duckdb.struct_type({"values": BIGINT, "mean": DOUBLE, "m2": DOUBLE})


def hll_merge(parts: Sequence[bytes | None] | None) -> bytes | None:
    """The sketch of what the sketches have seen together; null where there is none."""
    return _merged(parts, lambda present: bytes(_hll_union(present).get_result(datasketches.HLL_8).serialize_compact()))


def hll_estimate(sketch: bytes | None) -> float | None:
    """About how many distinct values the sketch has seen; null for null."""
    return None if sketch is None else float(_hll(sketch).get_estimate())


def hll_merge_estimate(parts: Sequence[bytes | None] | None) -> float | None:
    """About how many distinct values the sketches have seen together; null where there is none."""
    present = [sketch for sketch in parts or () if sketch is not None]
    return float(_hll_union(present).get_estimate()) if present else None


def kll_quantile(sketch: bytes | None, rank: float | None) -> float | None:
    """The value below which about `rank` (0 to 1) of the values lie; null for null or an empty sketch."""
    return kll_merge_quantile([sketch], rank)


def kll_merge(parts: Sequence[bytes | None] | None) -> bytes | None:
    """The sketch of all values of the sketches; null where there is none."""
    return _merged(parts, lambda present: bytes(_kll_merged(present).serialize()))


def kll_merge_quantile(parts: Sequence[bytes | None] | None, rank: float | None) -> float | None:
    """The quantile over all sketches together; null where none holds a value."""
    if rank is not None and not 0 <= rank <= 1:
        raise ValueError(f"the rank of a quantile is between 0 and 1, not {rank}")
    present = [sketch for sketch in parts or () if sketch is not None]
    if rank is None or not present:
        return None
    merged = _kll_merged(present)
    return None if merged.is_empty() else float(merged.get_quantile(rank))


def theta_estimate(sketch: bytes | None) -> float | None:
    """About how many distinct values a Theta sketch has seen; null for null."""
    return None if sketch is None else sketches.count_theta(sketch)


def theta_merge(parts: Sequence[bytes | None] | None) -> bytes | None:
    """The Theta sketch of what the sketches have seen together; null where there is none."""
    # Sketches of lesser accuracy lower that of the union by themselves.
    return _merged(parts, lambda present: sketches.merge_theta(present, _MOST_THETA))


def bitmap_values(bits: bytes | None) -> int | None:
    """How many values a bitmap holds; null for null, and where it was given one that it cannot hold."""
    return None if bits is None else sketches.count_bitmap(bits)


def bitmap_merge(parts: Sequence[bytes | None] | None) -> bytes | None:
    """The bitmap of what the bitmaps hold together; null where there is none."""
    return _merged(parts, sketches.merge_bitmaps)


def top_values(sketch: bytes | None, n: int | None) -> list[dict[str, Any]] | None:
    """The `n` most frequent values that a frequent-items sketch knows; null for null."""
    return None if sketch is None or n is None else [asdict(each) for each in sketches.read_top(sketch, n)]


def top_merge(parts: Sequence[bytes | None] | None) -> bytes | None:
    """The frequent-items sketch of all values of the sketches; null where there is none."""
    return _merged(parts, lambda present: sketches.merge_top(present, max(map(sketches.size_top, present))))


def moments_merge(parts: Sequence[dict[str, Any] | None] | None) -> dict[str, Any]:
    """Number, mean and squared deviations of all values together."""
    return moments.merged(parts or ())


def _merged(parts: Sequence[bytes | None] | None, merge: Callable[[Sequence[bytes]], bytes]) -> bytes | None:
    present = [part for part in parts or () if part is not None]
    if len(present) < 2:  # noqa: PLR2004 - a single one is merged already
        return present[0] if present else None
    try:
        return merge(present)
    except (RuntimeError, ValueError, IndexError):
        raise ValueError("these are no sketches of the kind that the function merges") from None


def _hll_union(parts: Sequence[bytes]) -> Any:  # noqa: ANN401 - datasketches ships no types
    opened = [_hll(part) for part in parts]
    # Sketches of lesser accuracy lower that of the union by themselves; the library's union takes no less than 7.
    union = datasketches.hll_union(max(7, *(sketch.lg_config_k for sketch in opened)))
    for sketch in opened:
        union.update(sketch)
    return union


def _kll_merged(parts: Sequence[bytes]) -> Any:  # noqa: ANN401 - datasketches ships no types
    merged = _kll(parts[0])
    for part in parts[1:]:
        merged.merge(_kll(part))
    return merged


def _hll(sketch: bytes) -> Any:  # noqa: ANN401 - datasketches ships no types
    try:
        return datasketches.hll_sketch.deserialize(sketch)
    except (RuntimeError, ValueError, IndexError):
        raise ValueError("this is not an HLL sketch, which a distinct metric writes") from None


def _kll(sketch: bytes) -> Any:  # noqa: ANN401 - datasketches ships no types
    try:
        return datasketches.kll_doubles_sketch.deserialize(sketch)
    except (RuntimeError, ValueError, IndexError):
        raise ValueError("this is not a KLL sketch, which a quantiles metric writes") from None
