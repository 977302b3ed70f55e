"""Cells and buckets: merging is exact in any order, and buckets cover a stretch of time exactly once."""

from __future__ import annotations

import random
from types import MappingProxyType

import numpy as np
import pytest

from lakehouse.config.models import CountMetric, Rollup
from lakehouse.serving.figures import figure, values
from lakehouse.serving.scale import LEVELS
from lakehouse.serving.snapshot import (
    Bucket,
    Cell,
    Shape,
    Snapshot,
    coarsen,
    fold,
    gather,
    merge,
    merge_all,
    row_cells,
)
from lakehouse.serving.state import State
from tests.hot_table import FIELDS, ROLLUP, Event, partials

SHAPE = Shape.of(ROLLUP, FIELDS)
NOW = 1_800_000_000


def cell_of(events: list[Event]) -> Cell:
    (row,) = row_cells(partials(events), SHAPE)
    return row[2]


def some_events(count: int, seed: int = 0, at: float = NOW) -> list[Event]:
    rng = random.Random(seed)
    return [
        Event(at + rng.random(), "search", "eu", rng.randrange(500), rng.lognormvariate(3, 1), rng.random() < 0.1)
        for _ in range(count)
    ]


def snapshot_of(state: State, version: int = 1) -> Snapshot:
    return Snapshot(
        shape=SHAPE,
        table_id="t",
        version=version,
        generation=1,
        commit_ms=NOW * 1000,
        published_ms=NOW * 1000.0,
        max_event_ms=NOW * 1000.0,
        batch_id=0,
        levels=MappingProxyType({width: MappingProxyType(dict(held)) for width, held in state.buckets.items()}),
        values=(("search",), ("eu",)),
    )


def median(cell: Cell) -> float | None:
    return values(cell, 1, (figure(SHAPE, "latency_ms_kll", rank=0.5),), SHAPE)[0]


def test_shape_knows_the_kinds_of_metrics() -> None:
    assert SHAPE.dimensions == ("feature", "region")
    assert [name for name, _, _ in SHAPE.sketches] == ["latency_ms_kll", "users_hll"]
    assert SHAPE.parts == {"errors"}
    plain = Shape.of(Rollup(dimensions=["region"], metrics=[CountMetric(name="n", type="count")]), FIELDS)
    assert (plain.has("n"), plain.has("errors"), plain.parts) == (True, False, frozenset())


def test_merging_equals_one_partial_over_all_events() -> None:
    events = some_events(900)
    parts = [cell_of(events[first : first + 50]) for first in range(0, 900, 50)]
    random.Random(1).shuffle(parts)
    whole = cell_of(events)
    stepwise = parts[0]
    for part in parts[1:]:
        stepwise = merge(stepwise, part, SHAPE)
    for merged in (stepwise, gather(parts, SHAPE), fold(stepwise, SHAPE), merge_all(parts, SHAPE)):
        assert merged is not None
        assert merged.events == 900
        assert merged.numbers == pytest.approx(whole.numbers)
        assert (merged.first_us, merged.last_us) == (whole.first_us, whole.last_us)
        true = np.quantile([event.latency for event in events], [0.45, 0.55])
        assert true[0] <= (median(merged) or 0.0) <= true[1]
        (users,) = values(merged, 1, (figure(SHAPE, "users_hll"),), SHAPE)
        assert users == pytest.approx(len({event.user for event in events}), rel=0.05)
    assert [len(held) for held in fold(stepwise, SHAPE).sketches] == [1, 1]


def test_missing_values_stay_missing_until_one_comes() -> None:
    without = cell_of([Event(NOW, "search", "eu", latency=None)])
    assert without.numbers == (0, None, None, None)
    assert median(without) is None
    both = merge(without, cell_of([Event(NOW, "search", "eu", latency=4.0)]), SHAPE)
    assert both.numbers == gather([without, both], SHAPE).numbers == (0, 4.0, 4.0, 4.0)
    assert merge_all([], SHAPE) is None


def test_coarsening_changes_no_figure() -> None:
    events = [event for second in range(120) for event in some_events(3, second, NOW + second)]
    fine: dict[tuple[int, tuple[str, ...]], list[Cell]] = {}
    table = partials(events)
    for window, key, cell in row_cells(table, SHAPE):
        fine.setdefault((window - window % 60, key), []).append(cell)
    coarse = {(window, key): cell for window, key, cell in row_cells(coarsen(table, 60, SHAPE), SHAPE)}
    assert coarse.keys() == fine.keys()
    for place, cells in fine.items():
        gathered = gather(cells, SHAPE)
        assert coarse[place].events == gathered.events
        assert coarse[place].numbers == pytest.approx(gathered.numbers)
        assert sorted(coarse[place].sketches[1]) == sorted(gathered.sketches[1])


@pytest.mark.parametrize(("start", "end"), [(-60, 1), (-61, -3), (-300, 1), (-900, 0), (-120, -60)])
def test_a_cover_holds_each_second_once(start: int, end: int) -> None:
    state = State(SHAPE)
    state.add([partials([Event(NOW - back, "search", "eu", user=back) for back in range(1000)])], NOW)
    snapshot = snapshot_of(state)
    first = (NOW + start) // 15 * 15 if start < -300 else NOW + start
    buckets = list(snapshot.cover(first, NOW + end))
    covered = [second for bucket in buckets for second in range(bucket.start, bucket.start + bucket.width)]
    assert sorted(set(covered)) == sorted(covered)
    assert sum(cell.events for bucket in buckets for cell in bucket.cells.values()) == NOW + end - first
    assert len(buckets) < 60


def test_a_cover_of_nothing_is_empty() -> None:
    assert list(snapshot_of(State(SHAPE)).cover(NOW - 3600, NOW)) == []


def test_rolled_filters_and_is_remembered() -> None:
    events = [Event(NOW, "search", "eu"), Event(NOW, "search", "us"), Event(NOW, "login", "eu")]
    cells = {key: cell for _, key, cell in row_cells(partials(events), SHAPE)}
    bucket = Bucket(NOW, 1, cells)
    europe = ((1, frozenset({"eu"})),)
    assert {name: cell.events for name, cell in bucket.rolled((), 0, SHAPE).items()} == {"search": 2, "login": 1}
    assert {name: cell.events for name, cell in bucket.rolled(europe, 0, SHAPE).items()} == {"search": 1, "login": 1}
    assert bucket.rolled((), 0, SHAPE) is bucket.rolled((), 0, SHAPE)
    for index in range(40):
        bucket.remember(index, lambda: 1)
    assert len(bucket._memo) <= 24


def test_cells_come_back_in_the_tables_own_schema() -> None:
    state = State(SHAPE)
    state.add([partials(some_events(20)), partials(some_events(30, 1))], NOW)
    table = snapshot_of(state).cells()
    assert table.schema == SHAPE.schema
    ((window, key, cell),) = row_cells(table, SHAPE)
    assert (window, key, cell.events) == (NOW, ("search", "eu"), 50)


def test_state_is_bounded_by_its_levels() -> None:
    state = State(SHAPE)
    for hour in range(4):
        at = NOW + hour * 3600
        state.add([partials([Event(at - back, "search", "eu") for back in range(3600)])], at)
    for level in LEVELS:
        assert len(state.buckets[level.width]) <= level.keep // level.width + 2
    state.add([partials([Event(NOW + 6 * 3600 * 10, "login", "us")])], NOW + 6 * 3600 * 10)
    assert [len(held) for held in state.buckets.values()] == [1, 1, 1, 1]
    assert state.values == ({"login"}, {"us"})


def test_folding_keeps_figures_and_memo() -> None:
    state = State(SHAPE)
    for seed in range(20):
        state.add([partials(some_events(5, seed))], NOW)
    before = state.buckets[1][NOW]
    remembered = before.rolled((), 0, SHAPE)
    assert state.fold()
    after = state.buckets[1][NOW]
    assert [len(held) for held in after.cells["search", "eu"].sketches] == [1, 1]
    assert after.cells["search", "eu"].events == 100
    assert after.rolled((), 0, SHAPE) is remembered
    while state.fold():
        pass
    assert not state.fold()
