"""The buckets of a hot table while they are being built, cell by cell, from the files of each commit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.schemas import TIMESTAMP
from lakehouse.serving.scale import LEVELS
from lakehouse.serving.snapshot import US, Bucket, coarsen, fold, gather, merge, row_cells

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lakehouse.serving.scale import Level
    from lakehouse.serving.snapshot import Cell, Key, Shape

FOLD_AT = 8
"""Sketches side by side in a cell before they are folded to one."""
FOLD_PER_STEP = 96
"""Cells folded between two polls, so that folding never delays a commit by more than some ms."""


class State:
    """The buckets while they are being built. Owned by one thread; buckets themselves never change."""

    def __init__(self, shape: Shape, levels: tuple[Level, ...] = LEVELS) -> None:
        self.shape = shape
        self.levels = levels
        self.buckets: dict[int, dict[int, Bucket]] = {level.width: {} for level in levels}
        self.values: tuple[set[Any], ...] = tuple(set() for _ in shape.dimensions)
        self._horizon = 0
        self._long: dict[tuple[int, int], None] = {}

    def add(self, tables: list[pa.Table], now_s: float) -> None:
        """Merge the rows of hot-table files. Rows older than a level's `keep` do not enter that level."""
        self._horizon = max(self._horizon, int(now_s))
        if not tables:
            return
        windows: dict[int, dict[Key, list[Cell]]] = {}
        for part in self._coarsened(pa.concat_tables(tables)):
            for window, key, cell in row_cells(part, self.shape):
                windows.setdefault(window, {}).setdefault(key, []).append(cell)
        merged = self._gathered(windows)
        for level in self.levels:
            merged = self._widened(merged, level.width)
            for start, cells in merged.items():
                if not self._expired(level, start):
                    self._merge(level.width, start, cells)
        self._evict()

    def _coarsened(self, table: pa.Table) -> Iterator[pa.Table]:
        """The table in parts by age: rows that only wide buckets take are first merged to their width.

        Arrow merges a row some ten times faster than Python does, and most rows of a rebuild are old. The
        cuts between the parts lie on the widest grid, so that no bucket gets half of its rows.
        """
        grid, rest = self.levels[-1].width, table
        for level in self.levels:
            cut = (self._horizon - level.keep - level.width) // grid * grid
            young = pc.greater_equal(rest["window_start"], pa.scalar(cut * US, pa.int64()).cast(TIMESTAMP))
            if level is self.levels[-1] or pc.all(young).as_py():
                yield self._narrowed(rest, level)
                return
            yield self._narrowed(rest.filter(young), level)
            rest = rest.filter(pc.invert(young))

    def _narrowed(self, part: pa.Table, level: Level) -> pa.Table:
        return part if level is self.levels[0] else coarsen(part, level.width, self.shape)

    def _gathered(self, groups: dict[int, dict[Key, list[Cell]]]) -> dict[int, dict[Key, Cell]]:
        return {
            start: {key: gather(cells, self.shape) for key, cells in group.items()} for start, group in groups.items()
        }

    def _widened(self, narrow: dict[int, dict[Key, Cell]], width: int) -> dict[int, dict[Key, Cell]]:
        """Cells of wider buckets from those of narrower ones, so that each row is looked at about once."""
        groups: dict[int, dict[Key, list[Cell]]] = {}
        for start, cells in narrow.items():
            group = groups.setdefault(start - start % width, {})
            for key, cell in cells.items():
                group.setdefault(key, []).append(cell)
        return self._gathered(groups)

    def _merge(self, width: int, start: int, cells: dict[Key, Cell]) -> None:
        old = self.buckets[width].get(start)
        merged = dict(old.cells) if old else {}
        for key, cell in cells.items():
            before = merged.get(key)
            merged[key] = cell if before is None else merge(before, cell, self.shape)
            for seen, value in zip(self.values, key, strict=True):
                seen.add(value)
        self.buckets[width][start] = Bucket(start, width, merged)
        if any(_is_long(merged[key]) for key in cells):
            self._long[width, start] = None

    def fold(self, limit: int = FOLD_PER_STEP) -> bool:
        """Fold the longest-waiting cells, about `limit` of them. What they say stays the same."""
        folded = 0
        while self._long and folded < limit:
            width, start = next(iter(self._long))
            del self._long[width, start]
            bucket = self.buckets[width].get(start)
            if bucket is None:
                continue
            long = {key: fold(cell, self.shape) for key, cell in bucket.cells.items() if _is_long(cell)}
            # What the bucket says stays the same, so its memo (which replace() carries over) stays true.
            self.buckets[width][start] = replace(bucket, cells={**bucket.cells, **long})
            folded += len(long)
        return folded > 0

    def _expired(self, level: Level, start: int) -> bool:
        return start + level.width + level.keep <= self._horizon

    def _evict(self) -> None:
        for level in self.levels:
            buckets = self.buckets[level.width]
            expired = [start for start in buckets if self._expired(level, start)]
            for start in expired:
                del buckets[start]
            if expired and level is self.levels[-1]:
                kept = {key for bucket in buckets.values() for key in bucket.cells}
                self.values = tuple({key[index] for key in kept} for index in range(len(self.shape.dimensions)))


def _is_long(cell: Cell) -> bool:
    return any(len(parts) >= FOLD_AT for parts in cell.sketches)
