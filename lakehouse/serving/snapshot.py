"""What the dashboard knows at one version of the hot table: immutable, shared by every viewer.

A cell holds the merged partials of one bucket of time and one combination of dimensions. Buckets come in
several widths (`scale.Level`), so that a question over an hour reads sixty buckets of a minute and a few narrow
ones at its edges instead of 3 600. Sketches stay serialised: opening one costs 0.3 µs, an open one takes ten
times the memory, and bytes cannot change under a reader. Those of one cell are kept side by side (`Cell.
sketches`) and merged when asked for; the follower folds long ones.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.config.models import is_live
from lakehouse.rollups.merge import hll_bytes, kll_bytes
from lakehouse.schemas import TIMESTAMP, gold_schema, wide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from lakehouse.config.models import EventField, Rollup

Key = tuple[Any, ...]
"""The values of a cell's dimensions, in the rollup's order; None is a value like any other."""

Selection = tuple[tuple[int, frozenset[Any]], ...]
"""Filters: (index of a dimension, the values let in). Empty lets in everything."""

US = 1_000_000
"""Microseconds in a second."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """Which dimensions and metrics the cells of a rollup have."""

    dimensions: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]
    """(name, how to merge: sum, min or max) of every metric that is a number."""
    sketches: tuple[tuple[str, str, int], ...]
    """(name, quantiles or distinct, k or lg_k) of every metric that is a sketch."""
    parts: frozenset[str]
    """Names of the counts with a condition: each is a part of the events."""
    schema: pa.Schema

    @classmethod
    def of(cls, rollup: Rollup, fields: dict[str, EventField]) -> Shape:
        """The shape of a rollup's hot table."""
        numbers: list[tuple[str, str]] = []
        sketches: list[tuple[str, str, int]] = []
        parts = set()
        for metric in filter(is_live, rollup.metrics):
            match metric.type:
                case "count":
                    if metric.where:
                        parts.add(metric.name)
                    numbers.append((metric.name, "sum"))
                case "sum" | "min" | "max":
                    numbers.append((metric.name, metric.type))
                case "quantiles":
                    sketches.append((metric.name, metric.type, metric.k))
                case "distinct":
                    sketches.append((metric.name, metric.type, metric.lg_k))
                case _:
                    pass  # not live
        return cls(
            dimensions=tuple(rollup.dimensions),
            numbers=tuple(numbers),
            sketches=tuple(sketches),
            parts=frozenset(parts),
            schema=wide(gold_schema(rollup, fields)),
        )

    def has(self, metric: str) -> bool:
        """Whether cells hold the metric."""
        return any(name == metric for name, *_ in (*self.numbers, *self.sketches))


@dataclass(frozen=True, slots=True)
class Cell:
    """Merged partials. Times are microseconds since 1970 UTC."""

    events: int
    numbers: tuple[float | None, ...]
    sketches: tuple[tuple[bytes, ...], ...]
    """For each sketch metric the serialised sketches that together make it up; empty means no value."""
    first_us: int
    last_us: int


def _sum(left: float | None, right: float | None) -> float | None:
    return right if left is None else left if right is None else left + right


def _min(left: float | None, right: float | None) -> float | None:
    return right if left is None else left if right is None else min(left, right)


def _max(left: float | None, right: float | None) -> float | None:
    return right if left is None else left if right is None else max(left, right)


_MERGE_MANY: dict[str, Callable[[list[float]], float]] = {"sum": sum, "min": min, "max": max}
_MERGE: dict[str, Callable[[float | None, float | None], float | None]] = {
    "sum": _sum,
    "min": _min,
    "max": _max,
}


def merge(left: Cell, right: Cell, shape: Shape) -> Cell:
    """Both cells as one: exact, in any order; sketches are set side by side, not yet folded."""
    return Cell(
        left.events + right.events,
        tuple(_MERGE[how](a, b) for (_, how), a, b in zip(shape.numbers, left.numbers, right.numbers, strict=True)),
        tuple(map(operator.add, left.sketches, right.sketches)),
        min(left.first_us, right.first_us),
        max(left.last_us, right.last_us),
    )


def merge_all(cells: Iterable[Cell], shape: Shape) -> Cell | None:
    """All cells as one, sketches folded to one each; None where there is no cell."""
    found = list(cells)
    return fold(gather(found, shape), shape) if found else None


def gather(cells: list[Cell], shape: Shape) -> Cell:
    """At least one cell, merged in one pass; sketches are set side by side, not yet folded."""
    if len(cells) == 1:
        return cells[0]
    numbers: list[float | None] = []
    for index, (_, how) in enumerate(shape.numbers):
        present = [value for cell in cells if (value := cell.numbers[index]) is not None]
        numbers.append(_MERGE_MANY[how](present) if present else None)
    return Cell(
        sum([cell.events for cell in cells]),
        tuple(numbers),
        tuple(tuple(chain.from_iterable(parts)) for parts in zip(*(cell.sketches for cell in cells), strict=True)),
        min([cell.first_us for cell in cells]),
        max([cell.last_us for cell in cells]),
    )


def fold(cell: Cell, shape: Shape) -> Cell:
    """The same cell with each of its sketches merged to one."""
    sketches = tuple(
        _fold(parts, kind, size) for parts, (_, kind, size) in zip(cell.sketches, shape.sketches, strict=True)
    )
    return Cell(cell.events, cell.numbers, sketches, cell.first_us, cell.last_us)


def _fold(parts: tuple[bytes, ...], kind: str, size: int) -> tuple[bytes, ...]:
    if len(parts) < 2:  # noqa: PLR2004 - one sketch is already folded
        return parts
    return (kll_bytes(parts, size) if kind == "quantiles" else hll_bytes(parts, size),)


def coarsen(table: pa.Table, width: int, shape: Shape) -> pa.Table:
    """The rows of a hot-table file merged to windows of `width` seconds; sketch columns become lists."""
    start = table["window_start"].cast(TIMESTAMP).cast(pa.int64())
    span = pa.scalar(width * US, pa.int64())
    # Integer division truncates, which is the floor for every time since 1970.
    table = table.set_column(
        table.schema.get_field_index("window_start"),
        "window_start",
        pc.multiply(pc.divide(start, span), span).cast(TIMESTAMP),
    )
    how = {"events": "sum", "min_event_time": "min", "max_event_time": "max", **dict(shape.numbers)}
    how |= {name: "list" for name, _, _ in shape.sketches}
    keys = ["window_start", *shape.dimensions]
    grouped = table.group_by(keys).aggregate(list(how.items()))
    columns = {name: grouped[name] for name in keys}
    return pa.table(columns | {name: grouped[f"{name}_{kind}"] for name, kind in how.items()})


def row_cells(table: pa.Table, shape: Shape) -> Iterator[tuple[int, Key, Cell]]:
    """(window start in whole seconds since 1970 UTC, dimensions, cell) of each row, coarsened or not."""
    windows = [value // US for value in _micros(table["window_start"])]
    dimensions = [table[name].to_pylist() for name in shape.dimensions]
    numbers = [table[name].to_pylist() for name, _ in shape.numbers]
    sketches = [table[name].to_pylist() for name, _, _ in shape.sketches]
    keys = zip(*dimensions, strict=True)
    values = zip(*numbers, strict=True) if numbers else ((),) * table.num_rows
    parts = zip(*sketches, strict=True) if sketches else ((),) * table.num_rows
    events = table["events"].to_pylist()
    first, last = _micros(table["min_event_time"]), _micros(table["max_event_time"])
    for window, key, count, value, part, begin, end in zip(
        windows, keys, events, values, parts, first, last, strict=True
    ):
        yield window, key, Cell(count, value, tuple(map(_held, part)), begin, end)


def _held(sketch: bytes | list[bytes | None] | None) -> tuple[bytes, ...]:
    """A sketch column's value: one sketch in a file, a list of them after `coarsen`, or none."""
    if isinstance(sketch, bytes):
        return (sketch,)
    return tuple(part for part in sketch or () if part is not None)


def _micros(column: pa.ChunkedArray) -> list[int]:
    whole: list[int] = column.cast(TIMESTAMP).cast(pa.int64()).to_pylist()
    return whole


_MEMO_LIMIT = 24
"""Views kept per bucket: a dozen different filters at once before the oldest is computed anew."""


@dataclass(frozen=True, slots=True, eq=False)
class Bucket:
    """The cells of one stretch of time. A change makes a new bucket, which also empties its memo.

    Buckets are told apart by identity, so that what was computed from some of them can be kept by them.
    """

    start: int
    width: int
    cells: Mapping[Key, Cell]
    _memo: dict[Any, Any] = field(default_factory=dict, repr=False)

    def selected(self, selection: Selection, dimension: int) -> dict[Any, list[Cell]]:
        """The cells that `selection` lets in, per value of one dimension."""
        groups: dict[Any, list[Cell]] = {}
        for key, cell in self.cells.items():
            if all(key[index] in allowed for index, allowed in selection):
                groups.setdefault(key[dimension], []).append(cell)
        return groups

    def rolled(self, selection: Selection, dimension: int, shape: Shape) -> Mapping[Any, Cell]:
        """`selected`, each value's cells merged to one and folded. Kept for the next asker."""

        def build() -> dict[Any, Cell]:
            groups = self.selected(selection, dimension)
            return {value: fold(gather(cells, shape), shape) for value, cells in groups.items()}

        rolled: Mapping[Any, Cell] = self.remember(("rolled", selection, dimension), build)
        return rolled

    def remember(self, view: Any, build: Callable[[], Any]) -> Any:  # noqa: ANN401 - a memo of any view
        """The view's value, computed once per state of this bucket.

        Threads may compute the same view at the same time; both get the same value and the last one stays.
        """
        found = self._memo.get(view)
        if found is None:
            found = build()
            if len(self._memo) >= _MEMO_LIMIT:
                self._memo.pop(next(iter(self._memo), None), None)
            self._memo[view] = found
        return found


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps the follower from going on, in a sentence for a person."""

    message: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The hot table's recent past at one version. Times ending in `_ms` are ms since 1970 UTC."""

    shape: Shape
    table_id: str
    version: int
    generation: int
    """Grows with each rebuild, so that (generation, version) never names two different states."""
    commit_ms: int
    """When the version was committed, by its writer's clock."""
    published_ms: float
    """When this process made it visible."""
    max_event_ms: float | None
    """The newest event's time, but never later than its commit: a fast client clock must not hide a stall."""
    batch_id: int | None
    """The newest micro-batch that reached the table."""
    levels: Mapping[int, Mapping[int, Bucket]]
    """width in seconds → start in seconds since 1970 → bucket."""
    values: tuple[tuple[Any, ...], ...]
    """The values that each dimension has shown, sorted."""
    problem: Problem | None = None
    loading: float | None = None
    """Share of the files already read, 0 to 1, while the first state is being built; then None."""

    @property
    def identity(self) -> tuple[str, int, int]:
        """What a cached answer may be keyed by."""
        return (self.table_id, self.generation, self.version)

    def cover(self, start: int, end: int) -> Iterator[Bucket]:
        """The fewest buckets that hold exactly the events of [start, end), seconds since 1970 UTC.

        Both ends must be multiples of a width that is still kept for their age; where they are not, the
        part that no bucket covers exactly is left out.
        """
        at = start
        widths = sorted(self.levels, reverse=True)
        while at < end:
            for width in widths:
                if at % width == 0 and at + width <= end:
                    bucket = self.levels[width].get(at)
                    if bucket is not None:
                        yield bucket
                        at += width
                        break
            else:
                at += widths[-1]

    def cells(self, width: int = 1) -> pa.Table:
        """The merged cells of one width in the hot table's own schema, sketches folded."""
        rows: list[tuple[int, Key, Cell]] = []
        for start, bucket in sorted(self.levels[width].items()):
            rows += [(start, key, fold(cell, self.shape)) for key, cell in bucket.cells.items()]
        return _arrow(rows, self.shape, self.batch_id)


def _arrow(rows: list[tuple[int, Key, Cell]], shape: Shape, batch_id: int | None) -> pa.Table:
    columns: dict[str, list[Any]] = {
        "window_start": [start * US for start, _, _ in rows],
        "events": [cell.events for _, _, cell in rows],
        "min_event_time": [cell.first_us for _, _, cell in rows],
        "max_event_time": [cell.last_us for _, _, cell in rows],
        "_batch_id": [batch_id] * len(rows),
    }
    columns |= {name: [key[index] for _, key, _ in rows] for index, name in enumerate(shape.dimensions)}
    columns |= {name: [cell.numbers[i] for _, _, cell in rows] for i, (name, _) in enumerate(shape.numbers)}
    for index, (name, _, _) in enumerate(shape.sketches):
        columns[name] = [next(iter(cell.sketches[index]), None) for _, _, cell in rows]
    # Of metrics that are not live there is nothing here.
    arrays = [
        _column(columns.get(name, [None] * len(rows)), shape.schema.field(name).type) for name in shape.schema.names
    ]
    return pa.Table.from_arrays(arrays, schema=shape.schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.int64()).cast(TIMESTAMP) if kind == TIMESTAMP else pa.array(values, kind)
