"""Number, mean and squared deviations of values: what a mean and a variance need, and what merges without loss.

Two such triples merge by the formula of Chan, Golub and LeVeque, here for any number at once:

    n = Σ nᵢ     mean = Σ nᵢ·meanᵢ / n     m2 = Σ m2ᵢ + Σ nᵢ·(meanᵢ - mean)²

Nothing large is ever subtracted from something large, as it would be with sums of squares: a variance that is small
beside the mean keeps its digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.schemas import MOMENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = tuple(field.name for field in MOMENTS)


def moments(count: pa.ChunkedArray, mean: pa.ChunkedArray, variance: pa.ChunkedArray) -> pa.Array:
    """The triples of groups whose number of values, mean and population variance are known."""
    m2 = pc.multiply(variance, count.cast(pa.float64()))
    return _struct([count.cast(pa.int64()), *(pc.fill_null(part, 0.0) for part in (mean, m2))])


def flatten(column: pa.ChunkedArray) -> list[pa.Array]:
    """The three parts of each triple as columns; a null is a triple of no values."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return [pc.fill_null(pc.struct_field(whole, name), 0) for name in PARTS]


def merge(lists: Sequence[pa.ChunkedArray]) -> pa.Array:
    """One triple for each group.

    Args:
        lists: of the parts in the order of `PARTS`; a row is a group, and none is empty.
    """
    first = lists[0].combine_chunks()
    starts = first.offsets.to_numpy()[:-1] - first.offsets.to_numpy()[0]
    values, mean, m2 = (part.combine_chunks().flatten().to_numpy(zero_copy_only=False) for part in lists)
    if not len(values):
        return pa.array([], MOMENTS)
    total = np.add.reduceat(values, starts)
    # A group without a value has the mean 0, and no weight.
    middle = np.add.reduceat(values * mean, starts) / np.maximum(total, 1)
    apart = mean - np.repeat(middle, np.diff(np.append(starts, len(values))))
    return _struct([pa.array(total), pa.array(middle), pa.array(np.add.reduceat(m2 + values * apart**2, starts))])


def merged(parts: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """`merge` for one group of triples."""
    if not parts:
        return dict.fromkeys(PARTS, 0)
    found = pa.array(parts, MOMENTS)
    triple: dict[str, Any] = merge([pa.chunked_array([pa.array([part.to_pylist()])]) for part in flatten(found)])[
        0
    ].as_py()
    return triple


def means(found: pa.ChunkedArray) -> pa.Array:
    """The mean of each triple; null where there was no value."""
    values, mean, _ = flatten(found)
    return pc.if_else(pc.greater(values, 0), mean, None)


def variances(found: pa.ChunkedArray) -> pa.Array:
    """The sample variance of each triple; null where there were fewer than two values."""
    values, _, m2 = flatten(found)
    degrees = pc.subtract(values, 1)
    return pc.divide(m2, pc.if_else(pc.greater(degrees, 0), degrees, None).cast(pa.float64()))


def _struct(parts: Sequence[pa.Array | pa.ChunkedArray]) -> pa.Array:
    flat = [part.combine_chunks() if isinstance(part, pa.ChunkedArray) else part for part in parts]
    return pa.StructArray.from_arrays(flat, fields=list(MOMENTS))
