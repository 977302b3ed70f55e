"""The follower: whatever happens to the table, its cells equal a brute-force merge of the live rows."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.serving import follower as module
from lakehouse.serving.follower import Follower
from lakehouse.serving.scale import LEVELS
from lakehouse.serving.snapshot import Shape
from tests.hot_table import FIELDS, ROLLUP, Event, HotTable, partials

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = Shape.of(ROLLUP, FIELDS)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(tmp_path: Path, clock: Clock) -> HotTable:
    return HotTable(tmp_path / "hot", clock=clock)


@pytest.fixture
def follower(table: HotTable, clock: Clock) -> Follower:
    return Follower(str(table.path), SHAPE, clock=clock)


def batch(clock: Clock, seed: int, *, back: float = 20.0, count: int = 60) -> pa.Table:
    rng = random.Random(seed)
    events = [
        Event(
            clock.now - rng.random() * back,
            rng.choice(["search", "login", "share"]),
            rng.choice(["eu", "us"]),
            rng.randrange(300),
            rng.lognormvariate(3, 0.5),
            rng.random() < 0.1,
        )
        for _ in range(count)
    ]
    return partials(events, batch_id=seed)


def brute_force(table: HotTable, width: int) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """(bucket, feature, region) → (events, errors, sum, min, max), straight from the live files."""
    rows = pa.concat_tables([pq.read_table(table.path / name) for name in table.live]).to_pylist()
    merged: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        second = int(row["window_start"].timestamp())
        merged.setdefault((second - second % width, row["feature"], row["region"]), []).append(row)
    return {
        key: (
            sum(row["events"] for row in group),
            sum(row["errors"] for row in group),
            pytest.approx(sum(row["latency_ms_sum"] for row in group)),
            min(row["latency_ms_min"] for row in group),
            max(row["latency_ms_max"] for row in group),
        )
        for key, group in merged.items()
    }


def held(follower: Follower, width: int) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    return {
        (start, *key): (cell.events, *cell.numbers)
        for start, bucket in follower.snapshot.levels[width].items()
        for key, cell in bucket.cells.items()
    }


def assert_exact(follower: Follower, table: HotTable) -> None:
    assert follower.snapshot.version == table.version
    for level in LEVELS:
        assert held(follower, level.width) == brute_force(table, level.width)


def test_waits_for_the_table_and_then_follows(table: HotTable, follower: Follower, clock: Clock) -> None:
    assert not follower.step()
    assert follower.snapshot.version == -1
    table.create()
    assert follower.step()
    assert (follower.snapshot.version, follower.snapshot.max_event_ms) == (0, None)
    table.append(batch(clock, 1))
    assert follower.step()
    assert_exact(follower, table)
    assert not follower.step()


def test_sums_are_exact_over_late_rows_and_many_files(table: HotTable, follower: Follower, clock: Clock) -> None:
    table.create()
    for seed in range(40):
        clock.now += 0.4
        table.append(batch(clock, seed), batch(clock, seed + 100, back=200))
        if seed % 3 == 0:
            follower.step()
            follower.step()
    follower.step()
    assert_exact(follower, table)
    assert follower.snapshot.batch_id == 139
    assert follower.snapshot.values == (("login", "search", "share"), ("eu", "us"))


def test_a_rebuild_equals_following(table: HotTable, follower: Follower, clock: Clock) -> None:
    table.create()
    follower.step()
    for seed in range(6):
        clock.now += 200
        table.append(batch(clock, seed, back=400))
        follower.step()
    fresh = Follower(str(table.path), SHAPE, clock=clock)
    fresh.step()
    for width in follower.snapshot.levels:
        follower_cells, fresh_cells = held(follower, width), held(fresh, width)
        assert follower_cells.keys() == fresh_cells.keys()
        for key, values in follower_cells.items():
            assert fresh_cells[key] == pytest.approx(values)
    assert fresh.snapshot.max_event_ms == follower.snapshot.max_event_ms


def test_compaction_neither_doubles_nor_loses(table: HotTable, follower: Follower, clock: Clock) -> None:
    table.create()
    for seed in range(8):
        table.append(batch(clock, seed))
        if seed == 2:
            follower.step()
        if seed in (3, 6):
            table.compact()
    follower.step()
    assert follower.snapshot.generation == 1, "compaction needs no rebuild"
    assert_exact(follower, table)
    table.vacuum()
    table.append(batch(clock, 9))
    follower.step()
    assert_exact(follower, table)


def test_rows_that_retention_takes_are_gone(table: HotTable, follower: Follower, clock: Clock) -> None:
    table.create()
    table.append(batch(clock, 1))
    table.append(batch(clock, 2))
    follower.step()
    table.delete()
    assert follower.step()
    assert follower.snapshot.generation == 2
    assert_exact(follower, table)


def test_retention_of_rows_that_nobody_holds_needs_no_rebuild(
    table: HotTable, follower: Follower, clock: Clock
) -> None:
    table.create()
    table.append(batch(clock, 1))
    clock.now += 4 * 3600
    table.append(batch(clock, 2))
    follower.step()
    table.compact(count=1)
    follower.step()
    table.live = table.live[1:] + table.live[:1]
    table.delete()
    follower.step()
    assert follower.snapshot.generation == 1
    assert_exact(follower, table)


def test_compacted_rows_that_are_still_held_do(table: HotTable, follower: Follower, clock: Clock) -> None:
    table.create()
    follower.step()
    table.append(batch(clock, 1))
    table.compact()
    table.append(batch(clock, 2))
    follower.step()
    table.delete()
    follower.step()
    assert follower.snapshot.generation == 2
    assert_exact(follower, table)


def test_a_gap_in_the_log_ends_in_a_rebuild(table: HotTable, follower: Follower, clock: Clock) -> None:
    table.create()
    table.append(batch(clock, 1))
    follower.step()
    for seed in range(2, 6):
        table.append(batch(clock, seed))
    table.checkpoint_and_clean()
    assert not follower.step()
    clock.now += module.IDLE_CHECK_S + 1
    assert follower.step()
    assert_exact(follower, table)
    table.append(batch(clock, 7))
    follower.step()
    assert_exact(follower, table)


def test_an_idle_table_is_not_rebuilt(table: HotTable, follower: Follower, clock: Clock) -> None:
    table.create()
    table.append(batch(clock, 1))
    follower.step()
    for _ in range(5):
        clock.now += module.IDLE_CHECK_S + 1
        assert not follower.step()
    assert follower.snapshot.generation == 1


@pytest.mark.parametrize("commits", [1, 5])
def test_a_table_made_anew_replaces_the_old(
    table: HotTable, follower: Follower, clock: Clock, tmp_path: Path, commits: int
) -> None:
    table.create()
    table.append(batch(clock, 1))
    table.append(batch(clock, 2))
    follower.step()
    table.path.rename(tmp_path / "old")
    clock.now += module.SLEEP_S + 1
    anew = HotTable(table.path, clock=clock).create()
    for seed in range(commits):
        anew.append(batch(clock, 10 + seed))
    follower.step()
    assert_exact(follower, anew)
    assert follower.snapshot.table_id == anew.table_id


def test_a_table_that_goes_away_is_waited_for(
    table: HotTable, follower: Follower, clock: Clock, tmp_path: Path
) -> None:
    table.create()
    table.append(batch(clock, 1))
    follower.step()
    table.path.rename(tmp_path / "old")
    clock.now += module.IDLE_CHECK_S + 1
    follower.step()
    assert follower.snapshot.version == -1


def test_a_fast_client_clock_hides_no_stall(table: HotTable, follower: Follower, clock: Clock) -> None:
    table.create()
    follower.step()
    table.append(partials([Event(clock.now + 120, "search", "eu")]))
    follower.step()
    assert follower.snapshot.max_event_ms == clock.now * 1000


def test_rows_older_than_the_horizon_are_not_kept_but_date_the_table(
    table: HotTable, follower: Follower, clock: Clock
) -> None:
    table.create()
    table.append(partials([Event(clock.now - 10, "search", "eu")]))
    clock.now += 5 * 3600
    follower.step()
    assert all(not buckets for buckets in follower.snapshot.levels.values())
    assert follower.snapshot.max_event_ms == (clock.now - 5 * 3600 - 10) * 1000


def test_snapshots_do_not_change_once_published(table: HotTable, follower: Follower, clock: Clock) -> None:
    table.create()
    table.append(batch(clock, 1))
    follower.step()
    old = follower.snapshot
    before = held(follower, 1)
    table.append(batch(clock, 2))
    follower.step()
    now = {
        (start, *key): (cell.events, *cell.numbers)
        for start, bucket in old.levels[1].items()
        for key, cell in bucket.cells.items()
    }
    assert now == before
    assert old.version == 1
    with pytest.raises(TypeError):
        old.levels[1][0] = None  # type: ignore[index]


def test_columns_that_are_missing_name_the_file_and_the_remedy(
    table: HotTable, follower: Follower, clock: Clock
) -> None:
    table.create()
    follower.step()
    table.append(batch(clock, 1).drop_columns(["errors"]))
    with pytest.raises(module.TableError, match="lacks errors"):
        follower.step()


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the follower did not get there in time"
        time.sleep(0.01)


def test_the_thread_publishes_shows_failures_and_recovers(tmp_path: Path) -> None:
    table = HotTable(tmp_path / "hot").create()
    follower = Follower(str(table.path), SHAPE, poll_s=0.005).start()
    try:
        version = table.append(partials([Event(time.time(), "search", "eu")]))
        assert follower.wait_for(version, 5).version == version
        broken = table.path / "_delta_log" / f"{version + 1:020}.json"
        broken.write_text("{", encoding="utf-8")
        wait_until(lambda: follower.snapshot.problem)
        problem = follower.snapshot.problem
        assert problem is not None
        assert "cannot be read" in problem.message or "not a Delta commit" in problem.message
        assert follower.snapshot.version == version, "the last state stays up"
        broken.unlink()
        version = table.append(partials([Event(time.time(), "search", "eu")]))
        wait_until(lambda: follower.snapshot.version == version and follower.snapshot.problem is None)
        assert_exact(follower, table)
        assert follower.start() is follower
    finally:
        follower.stop()


def test_a_problem_passes_with_its_cause_also_before_the_first_version(tmp_path: Path) -> None:
    log = tmp_path / "hot" / "_delta_log"
    log.mkdir(parents=True)
    broken = log / f"{0:020}.json"
    broken.write_text("{", encoding="utf-8")
    follower = Follower(str(tmp_path / "hot"), SHAPE, poll_s=0.005).start()
    try:
        wait_until(lambda: follower.snapshot.problem)
        broken.unlink()
        wait_until(lambda: follower.snapshot.problem is None)
        assert follower.snapshot.version == -1
    finally:
        follower.stop()


def test_a_file_that_is_gone_leads_to_a_rebuild(tmp_path: Path) -> None:
    table = HotTable(tmp_path / "hot").create()
    follower = Follower(str(table.path), SHAPE, poll_s=0.005)
    follower.step()
    table.append(partials([Event(time.time(), "search", "eu")]))
    table.append(partials([Event(time.time(), "login", "eu")]))
    table.compact()
    table.vacuum()
    follower.start()
    try:
        wait_until(lambda: follower.snapshot.version == table.version and follower.snapshot.problem is None)
        assert_exact(follower, table)
    finally:
        follower.stop()
