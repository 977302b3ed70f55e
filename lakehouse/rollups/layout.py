"""In which order the rows of a merged rollup file stand, so that a question reads a small part of it.

Rows come by time. Within a *block* of them they are put in the order of their dimensions, then of time:

    block 1, hours 0 to 91:   a a a … b b b … z z z        block 2, hours 92 to 183:   a a a … b b b …

A question for a stretch of time finds its blocks, and one for a value of the dimensions finds its row groups in each
block, both by the statistics in the file's footer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lakehouse.config.models import Rollup

BLOCK_BYTES = 64 * 2**20
"""Of a block's rows in memory."""
_GROUP_BYTES = 1 * 2**20
_GROUP_ROWS = 1_024, 16_384
"""Least and most rows of a row group; a row may hold KiB of sketches."""


def row_groups(rows: Iterable[pa.Table], rollup: Rollup) -> Iterator[pa.Table]:
    """The rows as row groups to write, one after the other.

    Args:
        rows: tables of merged partials, each of later windows than the one before it.
        rollup: whose dimensions order a block.
    """
    waiting: list[pa.Table] = []
    size = 0
    for table in rows:
        waiting.append(table)
        size += table.nbytes
        if size >= BLOCK_BYTES:
            yield from _ordered(waiting, rollup)
            waiting, size = [], 0
    if waiting:
        yield from _ordered(waiting, rollup)


def _ordered(block: list[pa.Table], rollup: Rollup) -> Iterator[pa.Table]:
    rows = pa.concat_tables(block).combine_chunks()
    keys = [rows["window_start"].cast(pa.int64()).to_numpy(), *(_ranks(rows[name]) for name in rollup.dimensions[::-1])]
    rows = rows.take(pa.array(np.lexsort(keys)))
    least, most = _GROUP_ROWS
    count = min(most, max(least, _GROUP_BYTES * rows.num_rows // max(1, rows.nbytes)))
    for first in range(0, rows.num_rows, count):
        yield rows.slice(first, count)


def _ranks(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers that are ordered as the values are, nulls last: few values are compared instead of every row's."""
    encoded = column.combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    ranks = np.empty(len(order) + 1, dtype=np.int64)
    ranks[order] = np.arange(len(order))
    ranks[-1] = len(order)
    found: np.ndarray = ranks[pc.fill_null(encoded.indices, len(order)).to_numpy()]
    return found
