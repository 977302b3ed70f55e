"""SQL functions over the sketches in gold tables, so that a query can merge partials by itself.

    SELECT feature, sum(events), hll_merge_estimate(list(users_hll)) AS users,
           kll_merge_quantile(list(latency_ms_kll), 0.99) AS p99
    FROM gold.feature_events_by_feature_1s GROUP BY feature

HLL sketches are those of `distinct` metrics, KLL sketches those of `quantiles` metrics.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - DuckDB evaluates the annotations of a function it is given
from typing import TYPE_CHECKING, Any

import datasketches
import duckdb
from duckdb.func import FunctionNullHandling
from duckdb.sqltypes import BLOB, DOUBLE

if TYPE_CHECKING:
    from collections.abc import Callable


def register(connection: duckdb.DuckDBPyConnection) -> None:
    """Give the connection `hll_estimate`, `hll_merge_estimate`, `kll_quantile` and `kll_merge_quantile`."""
    blobs = duckdb.list_type(BLOB)
    functions: tuple[tuple[str, Callable[..., float | None], list[Any]], ...] = (
        ("hll_estimate", hll_estimate, [BLOB]),
        ("hll_merge_estimate", hll_merge_estimate, [blobs]),
        ("kll_quantile", kll_quantile, [BLOB, DOUBLE]),
        ("kll_merge_quantile", kll_merge_quantile, [blobs, DOUBLE]),
    )
    for name, function, arguments in functions:
        connection.create_function(name, function, arguments, DOUBLE, null_handling=FunctionNullHandling.SPECIAL)


def hll_estimate(sketch: bytes | None) -> float | None:
    """About how many distinct values the sketch has seen; null for null."""
    return None if sketch is None else float(_hll(sketch).get_estimate())


def hll_merge_estimate(sketches: Sequence[bytes | None] | None) -> float | None:
    """About how many distinct values the sketches have seen together; null where there is none."""
    opened = [_hll(sketch) for sketch in sketches or () if sketch is not None]
    if not opened:
        return None
    # Sketches of lesser accuracy lower that of the union by themselves.
    union = datasketches.hll_union(max(sketch.lg_config_k for sketch in opened))
    for sketch in opened:
        union.update(sketch)
    return float(union.get_estimate())


def kll_quantile(sketch: bytes | None, rank: float | None) -> float | None:
    """The value below which about `rank` (0 to 1) of the values lie; null for null or an empty sketch."""
    return kll_merge_quantile([sketch], rank)


def kll_merge_quantile(sketches: Sequence[bytes | None] | None, rank: float | None) -> float | None:
    """The quantile over all sketches together; null where none holds a value."""
    if rank is not None and not 0 <= rank <= 1:
        raise ValueError(f"the rank of a quantile is between 0 and 1, not {rank}")
    opened = [_kll(sketch) for sketch in sketches or () if sketch is not None]
    if rank is None or not opened:
        return None
    merged = opened[0]
    for sketch in opened[1:]:
        merged.merge(sketch)
    return None if merged.is_empty() else float(merged.get_quantile(rank))


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
