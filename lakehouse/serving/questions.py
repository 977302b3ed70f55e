"""Questions to a snapshot: pure functions of (snapshot, question, now).

The clock of an answer is `frontier`: how far the data reaches, as long as that is near the wall clock, and
the wall clock less `STALL_MS` once it is not. Rates count the events of the open second *and* its elapsed
part, so that a tile shows the newest event at once and yet does not dip at every new second; when data
stops, the window goes on sliding and rates fall to zero. Series end with the last complete second.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from lakehouse.rollups.merge import kll_bytes
from lakehouse.serving.figures import values
from lakehouse.serving.heat import heat
from lakehouse.serving.snapshot import fold, gather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lakehouse.serving.figures import Figure
    from lakehouse.serving.heat import Heat
    from lakehouse.serving.scale import Range
    from lakehouse.serving.snapshot import Bucket, Cell, Selection, Shape, Snapshot

STALL_MS = 3_000
"""Data this far behind the wall clock counts as stalled: from there on the window follows the clock."""
SETTLE_MS = 250
"""A second is complete once data reaches this far beyond it: partitions of a topic arrive unevenly."""
SERIES_MAX = 7
"""Series in a chart before the rest becomes one: as many hues as people tell apart, and one grey."""
LEADERS_MAX = 50
"""Rows of a leaderboard."""
REST = "other"
ALL = "all"
KEPT = 48
"""Merged stretches, series and heatmaps kept for the next version, over all questions."""


@dataclass(frozen=True, slots=True)
class Board:
    """A leaderboard: the index of its dimension, and its columns, the first of which ranks."""

    dimension: int
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a page shows of its rollup, whatever its viewers ask.

    Attributes:
        tiles: figures of the range, and of the one before.
        lines: figures at each step: of the tiles' sparklines and of charts.
        stacks: figures at each step, by the value of the dimension that the viewer splits by.
        heats: indices in `Shape.sketches` of the quantiles that are shown as heatmaps.
        boards: the leaderboards.
    """

    tiles: tuple[Figure, ...]
    lines: tuple[Figure, ...] = ()
    stacks: tuple[Figure, ...] = ()
    heats: tuple[int, ...] = ()
    boards: tuple[Board, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """What a viewer looks at.

    Attributes:
        range: how far back, and in which steps.
        filters: per dimension the values let in.
        split: the dimension that splits the charts.
        until: where the range ends, seconds since 1970 UTC; None: with the newest event.
        compared: whether the range before it is held.
    """

    range: Range
    filters: tuple[tuple[str, frozenset[Any]], ...] = ()
    split: str | None = None
    until: int | None = None
    compared: bool = True


@dataclass(frozen=True, slots=True)
class Stretch:
    """[start, end) in whole seconds since 1970 UTC, of which `elapsed` seconds have happened."""

    start: int
    end: int
    elapsed: float


@dataclass(frozen=True, slots=True)
class Leader:
    """One value of a dimension: the board's figures now, and what ranks it in the range before."""

    name: str
    now: tuple[float | None, ...]
    before: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Points at `start + i * step` seconds since 1970 UTC. None where there was no event to measure.

    Equal only to itself, so that what was made of it can be kept by it.
    """

    start: int
    step: int
    points: int
    lines: tuple[tuple[float | None, ...], ...]
    """One for each of `Wanted.lines`."""
    stacks: tuple[tuple[tuple[str, tuple[float, ...]], ...], ...]
    """For each of `Wanted.stacks` (value of the splitting dimension, its points); their sum is the total."""
    heats: tuple[Heat, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that the live page draws for one question at one version."""

    version: int
    stretch: Stretch
    events: int
    now: tuple[float | None, ...]
    before: tuple[float | None, ...]
    boards: tuple[tuple[Leader, ...], ...]
    series: Series


def frontier_ms(snapshot: Snapshot, now_ms: float) -> int:
    """How far the answer reaches, ms since 1970 UTC: the data, or the wall clock where that has stalled.

    In a stall the value moves in whole seconds, so that answers between them can be shared.
    """
    stalled = int(now_ms - STALL_MS) // 1000 * 1000
    return max(int(min(snapshot.max_event_ms or 0.0, now_ms)), stalled)


def freshness_ms(snapshot: Snapshot, now_ms: float) -> int | None:
    """Age of the newest event, ms; None before the first. It grows with `now_ms` whatever the poll does."""
    return None if snapshot.max_event_ms is None else max(0, round(now_ms - snapshot.max_event_ms))


def freshness_state(age_ms: int | None) -> Literal["waiting", "fresh", "late", "stale"]:
    """How to show an age: fresh below 1 s, late below 3 s, then stale."""
    if age_ms is None:
        return "waiting"
    if age_ms < 1_000:  # noqa: PLR2004 - the definition itself
        return "fresh"
    return "late" if age_ms < STALL_MS else "stale"


def answer(snapshot: Snapshot, question: Question, now_ms: float, wanted: Wanted) -> Answer:
    """Tiles, leaderboards and series. `now_ms` is the wall clock, ms since 1970 UTC."""
    shape = snapshot.shape
    width = min(snapshot.levels)
    frontier = frontier_ms(snapshot, now_ms)
    now, before = windows(frontier, question, width)
    selection = select(shape, question)
    here = {index: _by_value(snapshot, now, selection, index) for index in _grouped(wanted)}
    there = {index: _by_value(snapshot, before, selection, index) if question.compared else {} for index in here}
    first = next(iter(here))
    total = _total(here[first].values(), shape)
    earlier = _total(there[first].values(), shape)
    return Answer(
        version=snapshot.version,
        stretch=now,
        events=total.events if total else 0,
        now=values(total, now.elapsed, wanted.tiles, shape),
        before=values(earlier, before.elapsed, wanted.tiles, shape) if question.compared else _unknown(wanted.tiles),
        boards=tuple(
            _leaders(board, here[board.dimension], there[board.dimension], (now, before), question, shape)
            for board in wanted.boards
        ),
        series=_series(snapshot, _series_stretch(frontier, question, width), selection, question, wanted),
    )


def windows(frontier: int, question: Question, width: int = 1) -> tuple[Stretch, Stretch]:
    """The range and the one of the same length before it.

    Args:
        frontier: how far the data reaches, ms since 1970 UTC; the range ends there unless the question says where.
        question: the range.
        width: of the rollup's windows, seconds.
    """
    seconds = question.range.seconds
    if question.until is None:
        end = (frontier // 1000 // width + 1) * width
        start = -(-(end - seconds) // question.range.grid) * question.range.grid
    else:
        end, start = question.until, question.until - seconds
    elapsed = min(max(frontier / 1000 - start, 0.001), float(end - start))
    return Stretch(start, end, elapsed), Stretch(start - seconds, start, float(seconds))


def select(shape: Shape, question: Question) -> Selection:
    """The question's filters by index; an empty set of values lets in everything."""
    known = {name: index for index, name in enumerate(shape.dimensions)}
    return tuple(sorted((known[name], values) for name, values in question.filters if name in known and values))


def _grouped(wanted: Wanted) -> tuple[int, ...]:
    """The dimensions that cells are grouped by: those of the leaderboards, or the first one."""
    return tuple(dict.fromkeys(board.dimension for board in wanted.boards)) or (0,)


def _by_value(snapshot: Snapshot, stretch: Stretch, selection: Selection, dimension: int) -> dict[Any, Cell]:
    """The stretch's cells per value of a dimension, sketches side by side."""
    buckets = tuple(snapshot.cover(stretch.start, stretch.end))
    # All but the newest second stay what they are until that second ends: most versions merge only the last.
    found = {value: [cell] for value, cell in _merged(buckets[:-1], selection, dimension, snapshot.shape).items()}
    for bucket in buckets[-1:]:
        for value, cell in bucket.rolled(selection, dimension, snapshot.shape).items():
            found.setdefault(value, []).append(cell)
    return {value: gather(cells, snapshot.shape) for value, cells in found.items()}


@lru_cache(maxsize=KEPT)
def _merged(buckets: tuple[Bucket, ...], selection: Selection, dimension: int, shape: Shape) -> Mapping[Any, Cell]:
    found: dict[Any, list[Cell]] = {}
    for bucket in buckets:
        for value, cell in bucket.rolled(selection, dimension, shape).items():
            found.setdefault(value, []).append(cell)
    return {value: fold(gather(cells, shape), shape) for value, cells in found.items()}


def _total(cells: Iterable[Cell], shape: Shape) -> Cell | None:
    found = list(cells)
    return gather(found, shape) if found else None


def _unknown(figures: tuple[Figure, ...]) -> tuple[None, ...]:
    return (None,) * len(figures)


def _leaders(
    board: Board,
    here: Mapping[Any, Cell],
    there: Mapping[Any, Cell],
    stretches: tuple[Stretch, Stretch],
    question: Question,
    shape: Shape,
) -> tuple[Leader, ...]:
    """The board's rows, the first ones by its first figure. Only theirs are computed in full: sketches take time."""
    (now, before), ranking = stretches, board.figures[:1]
    ranked = {value: values(cell, now.elapsed, ranking, shape)[0] for value, cell in here.items()}
    order = sorted(ranked, key=lambda value: (ranked[value] is None, -(ranked[value] or 0.0), label(value)))[
        :LEADERS_MAX
    ]
    return tuple(
        Leader(
            label(value),
            values(here[value], now.elapsed, board.figures, shape),
            values(there.get(value), before.elapsed, ranking, shape)[0] if question.compared else None,
        )
        for value in order
    )


def label(value: Any) -> str:  # noqa: ANN401 - a dimension may have any type
    """A dimension's value as text; null has a name of its own."""
    return "(none)" if value is None else str(value)


def _series_stretch(frontier: int, question: Question, width: int) -> Stretch:
    """The last complete window, and the range before it on the grid of the series' steps."""
    end = (frontier - SETTLE_MS) // 1000 // width * width
    if question.until is not None:
        end = max(min(end, question.until), question.until - question.range.seconds)
        start = question.until - question.range.seconds
    else:
        start = -(-(end - question.range.seconds) // question.range.step) * question.range.step
    return Stretch(start, end, float(end - start))


def _series(snapshot: Snapshot, stretch: Stretch, selection: Selection, question: Question, wanted: Wanted) -> Series:
    dimensions = snapshot.shape.dimensions
    split = dimensions.index(question.split) if question.split in dimensions else None
    view = _View(selection, split, wanted, snapshot.shape)
    heat = _covers(snapshot, stretch, question.range.column) if wanted.heats else ()
    return _drawn(_covers(snapshot, stretch, question.range.step), heat, stretch, question.range, view)


def _covers(snapshot: Snapshot, stretch: Stretch, step: int) -> tuple[tuple[Bucket, ...], ...]:
    """The buckets of each step; steps lie on a grid of their own, so that the first may be cut."""
    cuts = [stretch.start, *range(stretch.start // step * step + step, stretch.end, step), stretch.end]
    return tuple(tuple(snapshot.cover(start, end)) for start, end in pairwise(cuts) if end > start)


@dataclass(frozen=True, slots=True)
class _View:
    """What a series shows: the cells let in, the dimension that splits them, and which figures."""

    selection: Selection
    dimension: int | None
    wanted: Wanted
    shape: Shape


@dataclass(frozen=True, slots=True)
class _Point:
    """One step of a series, rounded to what a chart can show: rounding later would cost each viewer."""

    lines: tuple[float | None, ...]
    stacks: tuple[Mapping[Any, float], ...]


@lru_cache(maxsize=KEPT)
def _drawn(
    covers: tuple[tuple[Bucket, ...], ...],
    columns: tuple[tuple[Bucket, ...], ...],
    stretch: Stretch,
    span: Range,
    view: _View,
) -> Series:
    """The series of these buckets; most versions change only the open second, which is not among them."""
    points = []
    for index, buckets in enumerate(covers):
        start = stretch.start + index * span.step
        points.append(_point(buckets, min(span.step, stretch.end - start), view))
    split = _split if view.dimension is not None else _whole
    return Series(
        start=stretch.start,
        step=span.step,
        points=len(points),
        lines=tuple(tuple(point.lines[index] for point in points) for index in range(len(view.wanted.lines))),
        stacks=tuple(split([point.stacks[index] for point in points]) for index in range(len(view.wanted.stacks))),
        heats=tuple(
            heat([_sketch(buckets, index, view) for buckets in columns], stretch.start, stretch.end, span.column)
            for index in view.wanted.heats
        ),
    )


def _point(buckets: tuple[Bucket, ...], seconds: int, view: _View) -> _Point:
    if len(buckets) == 1 and buckets[0].width == seconds:
        bucket = buckets[0]
        # Straight from the cells: folding each value's sketches first would cost more than it saves.
        found: _Point = bucket.remember(
            ("point", view.selection, view.dimension, view.wanted),
            lambda: _measure(bucket.selected(view.selection, view.dimension or 0), seconds, view),
        )
        return found
    return _measure(_grouped_cells(buckets, view), seconds, view)


def _grouped_cells(buckets: tuple[Bucket, ...], view: _View) -> Mapping[Any, list[Cell]]:
    groups: dict[Any, list[Cell]] = {}
    for part in buckets:
        for value, cell in part.rolled(view.selection, view.dimension or 0, view.shape).items():
            groups.setdefault(value, []).append(cell)
    return groups


def _measure(groups: Mapping[Any, list[Cell]], seconds: int, view: _View) -> _Point:
    total = _total((cell for cells in groups.values() for cell in cells), view.shape)
    lines = values(total, seconds, view.wanted.lines, view.shape)
    return _Point(
        lines=tuple(None if value is None else float(f"{value:.5g}") for value in lines),
        stacks=tuple(
            {value: round(_added(cells, one) / seconds, 3) for value, cells in groups.items()}
            for one in view.wanted.stacks
        ),
    )


def _added(cells: list[Cell], one: Figure) -> float:
    if one.index is None:
        return sum(cell.events for cell in cells)
    return sum(cell.numbers[one.index] or 0 for cell in cells)


def _sketch(buckets: tuple[Bucket, ...], index: int, view: _View) -> bytes | None:
    """The values of one column of a heatmap as one sketch."""

    def merged(groups: Mapping[Any, list[Cell]]) -> bytes | None:
        parts = [part for cells in groups.values() for cell in cells for part in cell.sketches[index]]
        return kll_bytes(parts, view.shape.sketches[index][2]) if parts else None

    if len(buckets) == 1:
        bucket = buckets[0]
        found: list[bytes | None] = bucket.remember(
            ("sketch", view.selection, index), lambda: [merged(bucket.selected(view.selection, 0))]
        )
        return found[0]
    return merged(_grouped_cells(buckets, view))


def _whole(points: list[Mapping[Any, float]]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    return ((ALL, tuple(round(sum(point.values()), 3) for point in points)),)


def _split(points: list[Mapping[Any, float]]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """One series per value, by name, so that colours stay; the smallest beyond `SERIES_MAX` are one."""
    weight: dict[Any, float] = {}
    for point in points:
        for value, rate in point.items():
            weight[value] = weight.get(value, 0.0) + rate
    ranked = sorted(weight, key=lambda value: (-weight[value], label(value)))
    shown, rest = sorted(ranked[:SERIES_MAX], key=label), ranked[SERIES_MAX:]
    series = [(label(value), tuple(point.get(value, 0.0) for point in points)) for value in shown]
    if rest:
        others = (sum(point.get(value, 0.0) for value in rest) for point in points)
        series.append((REST, tuple(round(rate, 3) for rate in others)))
    return tuple(series)


T = TypeVar("T")


class Answers(Generic[T]):
    """Answers already given, shared by all viewers: the same question at the same version is asked once.

    Args:
        make: `answer`, or what a caller makes of it; a pure function of its arguments.
        limit: answers kept.
    """

    def __init__(self, make: Callable[[Snapshot, Question, float], T], limit: int = 64) -> None:
        self._make = make
        self._limit = limit
        self._found: OrderedDict[tuple[Any, ...], T] = OrderedDict()
        self._lock = threading.Lock()
        self._building: dict[tuple[Any, ...], threading.Lock] = {}

    def get(self, snapshot: Snapshot, question: Question, now_ms: float) -> T:
        """The answer at this version and `frontier_ms`. One thread makes it; the others wait for that one."""
        key = (*snapshot.identity, question, frontier_ms(snapshot, now_ms))
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
            building = self._building.setdefault(key, threading.Lock())
        with building:
            with self._lock:
                if key in self._found:
                    return self._found[key]
            try:
                made = self._make(snapshot, question, now_ms)
                self._keep(key, made)
            finally:
                with self._lock:
                    self._building.pop(key, None)
        return made

    def _keep(self, key: tuple[Any, ...], made: T) -> None:
        with self._lock:
            self._found[key] = made
            while len(self._found) > self._limit:
                self._found.popitem(last=False)
