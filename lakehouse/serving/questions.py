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
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from lakehouse.serving.snapshot import distinct, fold, gather, quantiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lakehouse.serving.snapshot import Bucket, Cell, Selection, Shape, Snapshot

STALL_MS = 3_000
"""Data this far behind the wall clock counts as stalled: from there on the window follows the clock."""
SETTLE_MS = 250
"""A second is complete once data reaches this far beyond it: partitions of a topic arrive unevenly."""
RANKS = (0.5, 0.95, 0.99)
SERIES_MAX = 7
"""Series in a chart before the rest becomes one: as many hues as people tell apart, and one grey."""
REST = "other"
ALL = "all"
KEPT = 48
"""Merged stretches and series kept for the next version, over all questions."""


@dataclass(frozen=True, slots=True)
class Range:
    """A range's length, the step of its series and the grid that its start lies on, all in seconds."""

    seconds: int
    step: int
    grid: int


RANGES: Mapping[int, Range] = {
    1: Range(60, 1, 1),
    5: Range(300, 1, 5),
    15: Range(900, 5, 15),
    60: Range(3600, 15, 60),
}
"""Minutes → range. Steps give at most 300 points; grids are widths that are kept for twice the length."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a viewer looks at: minutes back, filters per dimension, the dimension that splits the chart."""

    minutes: int = 5
    filters: tuple[tuple[str, frozenset[Any]], ...] = ()
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """[start, end) in whole seconds since 1970 UTC, of which `elapsed` seconds have happened."""

    start: int
    end: int
    elapsed: float


@dataclass(frozen=True, slots=True)
class Figures:
    """The numbers of one stretch of time. Latency in the unit of the field, by the order of `RANKS`."""

    events: int
    rate: float
    errors: float | None
    """Share of events that failed, 0 to 1; None without events or without such a metric."""
    latency: tuple[float | None, ...]
    users: float | None


@dataclass(frozen=True, slots=True)
class Leader:
    """One value of the leading dimension now and in the window before; its share of all events, 0 to 1."""

    name: str
    now: Figures
    before: Figures
    share: float


@dataclass(frozen=True, slots=True)
class Series:
    """Points at `start + i * step` seconds since 1970 UTC. None where there was no event to measure."""

    start: int
    step: int
    rates: tuple[tuple[str, tuple[float, ...]], ...]
    """(value of the splitting dimension, events per second to 0.001); the sum of all is the total."""
    errors: tuple[float | None, ...]
    latency: tuple[tuple[float | None, ...], ...]
    """One tuple per rank of `RANKS`."""
    users: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that the live page draws for one question at one version."""

    version: int
    minutes: int
    now: Figures
    before: Figures
    leaders: tuple[Leader, ...]
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


def answer(snapshot: Snapshot, question: Question, now_ms: float) -> Answer:
    """Tiles, leaderboard and series. `now_ms` is the wall clock, ms since 1970 UTC.

    Raises:
        KeyError: `question.minutes` is not in `RANGES`.
    """
    shape = snapshot.shape
    spec = RANGES[question.minutes]
    frontier = frontier_ms(snapshot, now_ms)
    now, before = windows(frontier, spec)
    selection = select(shape, question)
    here = _by_leader(snapshot, now, selection)
    there = _by_leader(snapshot, before, selection)
    return Answer(
        version=snapshot.version,
        minutes=question.minutes,
        now=figures(_total(here.values(), shape), now.elapsed, shape),
        before=figures(_total(there.values(), shape), before.elapsed, shape),
        leaders=_leaders(here, there, now, before, shape),
        series=_series(snapshot, _series_stretch(frontier, spec), spec.step, selection, question.split),
    )


def windows(frontier: int, spec: Range) -> tuple[Stretch, Stretch]:
    """The range up to `frontier` (ms) and the range of the same length before it, which is complete."""
    last = frontier // 1000
    start = -(-(last + 1 - spec.seconds) // spec.grid) * spec.grid
    now = Stretch(start, last + 1, max(frontier / 1000 - start, 0.001))
    return now, Stretch(start - spec.seconds, start, float(spec.seconds))


def select(shape: Shape, question: Question) -> Selection:
    """The question's filters by index; an empty set of values lets in everything."""
    known = {name: index for index, name in enumerate(shape.dimensions)}
    return tuple(sorted((known[name], values) for name, values in question.filters if name in known and values))


def figures(cell: Cell | None, elapsed: float, shape: Shape) -> Figures:
    """A merged cell as numbers."""
    if cell is None or cell.events == 0:
        users = None if shape.users is None else 0.0
        return Figures(0, 0.0, None, (None,) * len(RANKS), users)
    return Figures(
        events=cell.events,
        rate=cell.events / elapsed,
        errors=_error_share(cell, shape),
        latency=tuple(quantiles(cell, shape, list(RANKS))),
        users=distinct(cell, shape),
    )


def _error_share(cell: Cell, shape: Shape) -> float | None:
    if shape.errors is None or cell.events == 0:
        return None
    return (cell.numbers[shape.errors] or 0) / cell.events


def _by_leader(snapshot: Snapshot, stretch: Stretch, selection: Selection) -> dict[Any, Cell]:
    """The stretch's cells per value of the first dimension, sketches side by side."""
    buckets = tuple(snapshot.cover(stretch.start, stretch.end))
    # All but the newest second stay what they are until that second ends: most versions merge only the last.
    found = {value: [cell] for value, cell in _merged(buckets[:-1], selection, snapshot.shape).items()}
    for bucket in buckets[-1:]:
        for value, cell in bucket.rolled(selection, 0, snapshot.shape).items():
            found.setdefault(value, []).append(cell)
    return {value: gather(cells, snapshot.shape) for value, cells in found.items()}


@lru_cache(maxsize=KEPT)
def _merged(buckets: tuple[Bucket, ...], selection: Selection, shape: Shape) -> Mapping[Any, Cell]:
    found: dict[Any, list[Cell]] = {}
    for bucket in buckets:
        for value, cell in bucket.rolled(selection, 0, shape).items():
            found.setdefault(value, []).append(cell)
    return {value: fold(gather(cells, shape), shape) for value, cells in found.items()}


def _total(cells: Iterable[Cell], shape: Shape) -> Cell | None:
    found = list(cells)
    return gather(found, shape) if found else None


def _leaders(
    here: Mapping[Any, Cell], there: Mapping[Any, Cell], now: Stretch, before: Stretch, shape: Shape
) -> tuple[Leader, ...]:
    total = sum(cell.events for cell in here.values()) or 1
    leaders = [
        Leader(
            label(value),
            figures(cell, now.elapsed, shape),
            figures(there.get(value), before.elapsed, shape),
            cell.events / total,
        )
        for value, cell in here.items()
    ]
    return tuple(sorted(leaders, key=lambda leader: (-leader.now.events, leader.name)))


def label(value: Any) -> str:  # noqa: ANN401 - a dimension may have any type
    """A dimension's value as text; null has a name of its own."""
    return "(none)" if value is None else str(value)


def _series_stretch(frontier: int, spec: Range) -> Stretch:
    """The last complete second, and `seconds` before it on the grid of the series' steps."""
    end = (frontier - SETTLE_MS) // 1000
    start = -(-(end - spec.seconds) // spec.step) * spec.step
    return Stretch(start, end, end - start)


def _series(snapshot: Snapshot, stretch: Stretch, step: int, selection: Selection, split: str | None) -> Series:
    dimensions = snapshot.shape.dimensions
    steps = range(stretch.start, stretch.end, step)
    covers = tuple(tuple(snapshot.cover(start, min(start + step, stretch.end))) for start in steps)
    view = _View(selection, dimensions.index(split) if split in dimensions else None, snapshot.shape)
    return _drawn(covers, stretch, step, view)


@dataclass(frozen=True, slots=True)
class _View:
    """What a series shows: the cells let in, and the dimension that splits them."""

    selection: Selection
    dimension: int | None
    shape: Shape


@dataclass(frozen=True, slots=True)
class _Point:
    """One step of a series, rounded to what a chart can show: rounding later would cost each viewer."""

    rates: Mapping[Any, float]
    errors: float | None
    latency: tuple[float | None, ...]
    users: float | None


@lru_cache(maxsize=KEPT)
def _drawn(covers: tuple[tuple[Bucket, ...], ...], stretch: Stretch, step: int, view: _View) -> Series:
    """The series of these buckets; most versions change only the open second, which is not among them."""
    points = []
    for index, buckets in enumerate(covers):
        start = stretch.start + index * step
        points.append(_point(buckets, min(step, stretch.end - start), view))
    return Series(
        start=stretch.start,
        step=step,
        rates=_rates(points) if view.dimension is not None else _whole(points),
        errors=tuple(point.errors for point in points),
        latency=tuple(tuple(point.latency[rank] for point in points) for rank in range(len(RANKS))),
        users=tuple(point.users for point in points),
    )


def _point(buckets: tuple[Bucket, ...], seconds: int, view: _View) -> _Point:
    if len(buckets) == 1 and buckets[0].width == seconds:
        bucket = buckets[0]
        # Straight from the cells: folding each value's sketches first would cost more than it saves.
        found: _Point = bucket.remember(
            ("point", view.selection, view.dimension),
            lambda: _measure(bucket.selected(view.selection, view.dimension or 0), seconds, view.shape),
        )
        return found
    groups: dict[Any, list[Cell]] = {}
    for part in buckets:
        for value, cell in part.rolled(view.selection, view.dimension or 0, view.shape).items():
            groups.setdefault(value, []).append(cell)
    return _measure(groups, seconds, view.shape)


def _measure(groups: Mapping[Any, list[Cell]], seconds: int, shape: Shape) -> _Point:
    total = _total((cell for cells in groups.values() for cell in cells), shape)
    shown = figures(total, seconds, shape)
    return _Point(
        rates={value: round(sum(cell.events for cell in cells) / seconds, 3) for value, cells in groups.items()},
        errors=None if shown.errors is None else round(shown.errors, 5),
        latency=tuple(None if value is None else round(value, 2) for value in shown.latency),
        users=None if shown.users is None else round(shown.users),
    )


def _whole(points: list[_Point]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    return ((ALL, tuple(round(sum(point.rates.values()), 3) for point in points)),)


def _rates(points: list[_Point]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """One series per value, by name, so that colours stay; the smallest beyond `SERIES_MAX` are one."""
    weight: dict[Any, float] = {}
    for point in points:
        for value, rate in point.rates.items():
            weight[value] = weight.get(value, 0.0) + rate
    ranked = sorted(weight, key=lambda value: (-weight[value], label(value)))
    shown, rest = sorted(ranked[:SERIES_MAX], key=label), ranked[SERIES_MAX:]
    series = [(label(value), tuple(point.rates.get(value, 0.0) for point in points)) for value in shown]
    if rest:
        others = (sum(point.rates.get(value, 0.0) for value in rest) for point in points)
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
