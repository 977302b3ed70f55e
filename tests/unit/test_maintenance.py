"""Maintenance of real tables: they stay small, say the same, and lose nothing beside the writer and old readers."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from lakehouse.errors import ChainError
from lakehouse.maintenance import vacuum
from lakehouse.maintenance.choose import Limits, choose
from lakehouse.maintenance.cleanup import LogFile, expired
from lakehouse.maintenance.rewrite import Form, rewrite
from lakehouse.maintenance.view import open_view
from lakehouse.rollups.merge import merge_partials
from lakehouse.rollups.partials import aggregate
from lakehouse.schemas import quarantine_schema
from lakehouse.serving.follower import Follower
from lakehouse.serving.scale import Level
from lakehouse.serving.snapshot import Shape
from lakehouse.sinks.delta_log import TableLog, commit_path, configuration, find_recorded, last_checkpoint
from lakehouse.storage import open_store
from tests.maintained import (
    GOLD,
    QUARANTINE,
    RETENTION_S,
    SILVER,
    START_S,
    FakeTime,
    Stream,
    age,
    cells,
    contents,
    events,
)

HOUR = 3_600.0
KEEP_ALL = (Level(1, 10 * 365 * 86_400),)


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    return Stream(tmp_path)


def filled(stream: Stream, batches: int = 12, *, late: int = 0) -> Stream:
    for number in range(batches):
        stream.send(20, at_s=START_S + number / 4, late=late)
    return stream


def follower(stream: Stream, now_s: float) -> Follower:
    shape = Shape.of(stream.rollup, stream.pipeline.source.fields)
    return Follower(str(stream.path(GOLD)), shape, levels=KEEP_ALL, clock=lambda: now_s)


def test_rows_are_copied_in_kafkas_order_with_the_same_statistics(stream: Stream) -> None:
    filled(stream)
    before = stream.silver()
    report = stream.maintain(time.time() + 60)[SILVER]
    assert (report.files_before, report.files_after, report.rewrites) == (24, 1, 1)
    assert stream.silver().equals(before)
    (path,) = DeltaTable(str(stream.path(SILVER))).file_uris()
    positions = pq.read_table(path, columns=["_partition", "_offset"]).to_pylist()
    assert positions == sorted(positions, key=lambda row: (row["_partition"], row["_offset"]))
    lines = (stream.path(SILVER) / commit_path(13)).read_text().splitlines()
    stats = json.loads(json.loads(lines[-1])["add"]["stats"])
    assert (stats["numRecords"], stats["nullCount"]["_offset"]) == (240, 0)
    assert (stats["minValues"]["_offset"], stats["maxValues"]["_offset"]) == (0, 119)
    assert stats["minValues"]["at"] == "2027-01-15T08:00:00.000Z"


@pytest.mark.parametrize(
    ("partitions", "offsets"),
    [
        ([], []),
        ([0, 0, 1, 1], [5, 9, 2, 3]),
        ([0, 0, 1], [5, 5, 0]),
        ([1, 0], [1, 2]),
        ([0, 0, 1], [2, 1, 3]),
        ([0, None], [1, 2]),
    ],
)
def test_rows_in_kafkas_order_are_taken_as_they_are(partitions: list[int | None], offsets: list[int]) -> None:
    columns = [pa.array(partitions, pa.int32()), pa.array(offsets, pa.int64())]
    rows = pa.table(columns, names=["_partition", "_offset"])
    ordered = rows.sort_by([("_partition", "ascending"), ("_offset", "ascending")])
    finished = Form(rows.schema, "at").finish(rows)
    assert finished.equals(ordered)
    assert (finished is rows) == (rows.equals(ordered) and None not in partitions)


def test_partials_of_one_cell_become_one_row(stream: Stream) -> None:
    filled(stream, late=3)
    expected = stream.expected_gold()
    assert stream.gold() == expected
    stream.maintain(time.time() + 60)
    rows = contents(stream.path(GOLD))
    assert rows.num_rows == len(expected) < 12 * 4
    assert max(rows["_batch_id"].to_pylist()) == 11
    assert stream.gold() == expected


def test_late_partials_join_the_row_of_a_window_merged_long_ago(stream: Stream) -> None:
    filled(stream)
    stream.maintain(time.time() + 60)
    for _ in range(120):
        stream.send(20, at_s=START_S, late=20)
    stream.maintain(time.time() + 60)
    rows = contents(stream.path(GOLD))
    assert rows.num_rows == len(stream.expected_gold())
    assert stream.gold() == stream.expected_gold()


def test_a_rewrite_says_that_it_changes_no_row_and_carries_no_batch(stream: Stream) -> None:
    filled(stream)
    stream.maintain(time.time() + 60)
    path = stream.path(GOLD) / commit_path(13)
    actions = [json.loads(line) for line in path.read_text().splitlines()]
    info, *changes = actions
    assert info["commitInfo"]["operation"] == "OPTIMIZE"
    assert "lakehouse" not in info["commitInfo"]
    assert {next(iter(change)) for change in changes} == {"add", "remove"}
    assert not any(change["dataChange"] for action in changes for change in action.values())
    found = find_recorded(open_store(str(stream.path(GOLD))), GOLD, 13)
    assert found is not None
    assert (found.version, found.batch.batch_id) == (12, 11)


def test_a_large_table_is_streamed_into_files_of_about_the_target(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.maintenance.rewrite._ROWS", 64)
    monkeypatch.setattr("lakehouse.maintenance.rewrite._CELLS", 5)
    monkeypatch.setattr("lakehouse.rollups.layout.BLOCK_BYTES", 1)  # a block is what is complete at once
    filled(stream, 40, late=5)
    for name, form in (
        (SILVER, Form(stream.one_pass.schemas[SILVER], "at")),
        (GOLD, Form(stream.one_pass.schemas[GOLD], "max_event_time", stream.rollup)),
    ):
        view = open_view(str(stream.path(name)), name, form.schema)
        assert view is not None
        run = choose(view.files, Limits(2**30, 0), int(time.time() * 1_000) + 1_000)
        assert run is not None
        adds = rewrite(view.store, name, run, form, 2_000)
        assert len(adds) > 2
        tables = [pq.read_table(stream.path(name) / add["path"]) for add in adds]
        assert [json.loads(add["stats"])["numRecords"] for add in adds] == [table.num_rows for table in tables]
        together = pa.concat_tables(tables)
        if name == SILVER:
            assert together.equals(stream.silver())
        else:
            spans = [pc.min_max(table["window_start"]).as_py() for table in tables]
            assert all(one["max"] < other["min"] for one, other in pairwise(spans))
            assert together.num_rows == len(stream.expected_gold())


def test_a_second_maintainer_finds_its_work_done_and_leaves_no_trace(stream: Stream) -> None:
    filled(stream)
    now = time.time() + 60
    view = open_view(str(stream.path(GOLD)), GOLD, stream.one_pass.schemas[GOLD])
    assert view is not None
    slow = TableLog(GOLD, view.store, 12, None, view.table.schema())
    stream.maintain(now)
    expected = stream.gold()
    run = choose(view.files, Limits(2**30, 0), int(now * 1_000))
    assert run is not None
    adds = rewrite(view.store, GOLD, run, Form(stream.one_pass.schemas[GOLD], "at", stream.rollup), 2**30)
    assert slow.rewrite([(file.path, file.size) for file in run.files], adds, fence=timedelta(hours=1)) is False
    assert stream.gold() == expected
    assert stream.live(GOLD) == 1


def test_a_rewrite_goes_in_after_appends_and_the_chain_goes_on(stream: Stream) -> None:
    filled(stream)
    view = open_view(str(stream.path(SILVER)), SILVER, stream.one_pass.schemas[SILVER])
    assert view is not None
    run = choose(view.files, Limits(2**30, 0), int(time.time() * 1_000) + 60_000)
    assert run is not None
    adds = rewrite(view.store, SILVER, run, Form(stream.one_pass.schemas[SILVER], "at"), 2**30)
    filled(stream, 3)
    log = TableLog(SILVER, view.store, view.version, None, view.table.schema())
    assert log.rewrite([(file.path, file.size) for file in run.files], adds, fence=timedelta(hours=1)) is True
    assert stream.silver().num_rows == stream.sent
    filled(stream, 2)
    assert stream.silver()["_offset"].to_pylist() == [*range(stream.sent // 2)] * 2


def test_a_rewrite_that_a_vacuum_may_have_overtaken_is_given_up(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime(monkeypatch)
    filled(stream)
    view = open_view(str(stream.path(SILVER)), SILVER, stream.one_pass.schemas[SILVER])
    assert view is not None
    run = choose(view.files, Limits(2**30, 0), int(clock.now_s * 1_000) + 60_000)
    assert run is not None
    adds = rewrite(view.store, SILVER, run, Form(stream.one_pass.schemas[SILVER], "at"), 2**30)
    clock.now_s += RETENTION_S
    filled(stream, 1)
    log = TableLog(SILVER, view.store, view.version, None, view.table.schema())
    fence = stream.pipeline.maintenance.retention
    assert log.rewrite([(file.path, file.size) for file in run.files], adds, fence=fence) is False


def test_a_process_that_stood_still_while_the_log_was_cleaned_notices(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime(monkeypatch)
    filled(stream, 3)
    stalled = Stream(stream.root)
    for _ in range(4):
        clock.now_s += HOUR
        filled(stream, 15)
        age(stream.root, HOUR)
        stream.maintain(time.time())
    assert not (stream.path(SILVER) / commit_path(4)).exists()
    before = stream.silver()
    clock.now_s += HOUR
    with pytest.raises(ChainError, match="stood still"):
        stalled.send(20, at_s=START_S)
    assert stream.silver().equals(before)


def test_files_outlive_their_removal_by_the_retention(stream: Stream) -> None:
    filled(stream)
    pinned = DeltaTable(str(stream.path(SILVER)))
    now = time.time()
    stream.maintain(now + 60)
    stream.maintain(now + RETENTION_S - 10)
    assert pinned.to_pyarrow_table().num_rows == stream.sent
    assert len(list(stream.path(SILVER).glob("part-*"))) == 24
    report = stream.maintain(now + RETENTION_S + 120)[SILVER]
    assert report.vacuumed_files == 24
    assert not list(stream.path(SILVER).glob("part-*"))
    assert stream.silver().num_rows == stream.sent


def orphan(stream: Stream, age_s: float) -> Path:
    path = stream.path(SILVER) / "part-orphan.parquet"
    path.write_bytes(b"x")
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_an_orphan_goes_once_a_batch_was_committed_long_after_it(stream: Stream) -> None:
    filled(stream)
    path = orphan(stream, RETENTION_S + 60)
    staged = stream.path(SILVER) / "_delta_log" / "00000000000000000099.json#1"
    staged.write_bytes(b"x")
    os.utime(staged, (1, 1))
    report = stream.maintain(time.time())[SILVER]
    assert (report.orphans_deleted, report.orphan_bytes) == (1, 1)
    assert not path.exists()
    assert not staged.exists()


def test_an_orphan_that_a_stopped_driver_may_still_commit_stays_however_old(stream: Stream) -> None:
    filled(stream)
    path = orphan(stream, 60)
    stream.maintain(time.time() + 100 * HOUR)
    assert path.exists()


def test_files_that_only_another_tables_last_batch_names_stay(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(stream, 3)
    append = TableLog.append

    def killed(self: TableLog, batch: object) -> bool:
        if self.name != SILVER:
            raise KeyboardInterrupt
        return append(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(TableLog, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        filled(stream, 1)
    monkeypatch.undo()
    stream.sink.close()
    age(stream.root, 10 * HOUR)  # a clock that jumped: the age alone would not protect them
    for _ in range(2):
        stream.maintain(time.time() + 100 * HOUR)
    stream.open()
    assert stream.sent == 80
    assert stream.silver().num_rows == 80
    assert stream.gold() == stream.expected_gold()


def test_the_log_is_cleaned_only_up_to_a_checkpoint_that_every_kept_version_can_start_from(stream: Stream) -> None:
    filled(stream, 30)
    stream.maintain(time.time() + 60)
    assert last_checkpoint(open_store(str(stream.path(GOLD)))) == 31
    filled(stream, 15)
    age(stream.root, 2 * RETENTION_S)
    filled(stream, 3)
    stream.maintain(time.time())
    versions = [int(name[:20]) for name in stream.log(GOLD) if name.endswith(".json")]
    assert versions == [*range(min(versions), max(versions) + 1)]
    assert min(versions) == 31
    for version in (31, 40, max(versions)):
        assert DeltaTable(str(stream.path(GOLD)), version=version).to_pyarrow_table().num_rows
    stream.open()
    assert stream.batches == 48


def test_an_idle_pipeline_keeps_the_commit_of_its_last_batch(stream: Stream) -> None:
    filled(stream, 40)
    for turn in range(1, 6):
        age(stream.root, turn * HOUR)
        stream.maintain(time.time() + turn * HOUR)
    store = open_store(str(stream.path(GOLD)))
    version = DeltaTable(str(stream.path(GOLD))).version()
    found = find_recorded(store, GOLD, version)
    assert found is not None
    assert found.version == 40
    assert version - found.version < 5
    stream.open()
    filled(stream, 1)
    assert stream.gold() == stream.expected_gold()


def logged(*versions: int, checkpoints: tuple[int, ...], fresh_from: int) -> list[LogFile]:
    files = [LogFile(version, "json", 2_000 if version >= fresh_from else 0) for version in versions]
    return files + [LogFile(version, "checkpoint.parquet", 0) for version in checkpoints]


def test_what_may_leave_the_log() -> None:
    def cut(
        head: int = 99, hint: int = 99, *, fresh_from: int = 35, versions: tuple[int, ...] = tuple(range(60))
    ) -> int:
        files = logged(*versions, checkpoints=(10, 20, 30, 40, 50), fresh_from=fresh_from)
        gone = expired(files, head=head, hint=hint, before_ms=1_000)
        assert gone == sorted(gone, key=lambda file: (file.version, file.kind))
        return max((file.version for file in gone), default=-1) + 1

    assert cut() == 30
    assert cut(fresh_from=99) == 50
    assert cut(head=29) == 20
    assert cut(hint=15) == 10
    assert cut(hint=-1) == 0
    assert cut(fresh_from=0) == 0
    # A checkpoint whose own commit is missing has no known age.
    assert cut(versions=(*range(30), *range(31, 60))) == 20


def test_a_checkpoint_leaves_the_log_alone_and_lists_removed_files_for_the_retention_only(tmp_path: Path) -> None:
    url, log = str(tmp_path), tmp_path / "_delta_log"
    properties = configuration(timedelta(minutes=5))
    DeltaTable.create(url, pa.schema([("a", pa.int64())]), configuration=properties)
    now_ms = int(time.time() * 1_000)
    for version, moment in ((1, now_ms - 400_000), (2, now_ms - 200_000)):
        removed = {"path": f"f{version}.parquet", "deletionTimestamp": moment, "dataChange": False}
        (log / f"{version:020}.json").write_text(json.dumps({"remove": removed}))
    age(log, 86_400 * 60)
    DeltaTable(url).create_checkpoint()
    kept = pq.read_table(log / f"{2:020}.checkpoint.parquet")["remove"].to_pylist()
    assert [row["path"] for row in kept if row] == ["f2.parquet"]
    assert len(list(log.glob("*.json"))) == 3


def test_a_damaged_file_is_left_alone_named_and_does_not_keep_the_rest_from_being_maintained(stream: Stream) -> None:
    filled(stream, 12)
    damaged = sorted(stream.path(SILVER).glob("part-*"))[3]
    body = damaged.read_bytes()
    damaged.write_bytes(body[: len(body) // 2])
    reports = {report.table: report for report in stream.maintainer(time.time() + 60).maintain()}
    assert damaged.name in (reports[SILVER].error or "")
    assert reports[SILVER].checkpoint == 13
    assert (reports[SILVER].files_after, reports[GOLD].files_after) == (2, 1)
    damaged.write_bytes(body)
    assert stream.silver().num_rows == stream.sent


def test_a_plan_changes_nothing_and_tells_what_the_pass_will_do(stream: Stream) -> None:
    filled(stream, 25)
    orphan(stream, RETENTION_S + 60)
    now = time.time() + 60
    before = {path: path.stat().st_mtime_ns for path in stream.root.rglob("*")}
    plan = {report.table: report for report in stream.maintainer(now).plan()}
    assert {path: path.stat().st_mtime_ns for path in stream.root.rglob("*")} == before
    done = stream.maintain(now)
    for name in (SILVER, GOLD, QUARANTINE):
        for key in ("rewrites", "rewritten_files", "files_after", "checkpoint", "vacuumed_files", "orphans_deleted"):
            assert getattr(plan[name], key) == getattr(done[name], key), (name, key)


def test_a_follower_that_slept_through_clean_up_comes_to_the_same_cells(stream: Stream) -> None:
    filled(stream, 12)
    sleeper = follower(stream, START_S + 10)
    sleeper.step()
    for _ in range(4):
        filled(stream, 12)
        age(stream.root, HOUR)
        stream.maintain(time.time() + 2 * HOUR)
    assert not (stream.path(GOLD) / commit_path(13)).exists()
    sleeper._clock = lambda: START_S + 20
    fresh = follower(stream, START_S + 20)
    fresh.step()
    sleeper.step()
    assert sleeper.snapshot.version == fresh.snapshot.version
    assert sum(sleeper.snapshot.cells(1)["events"].to_pylist()) == stream.sent
    assert cells(sleeper.snapshot.cells(1)) == cells(fresh.snapshot.cells(1)) == stream.expected_gold()


def test_a_table_of_thousands_of_commits_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime(monkeypatch)
    every, per_second, retention, spacing = 10, 2, 300, 100
    stream = Stream(tmp_path, {"checkpoint_every": spacing})
    watcher = follower(stream, START_S + 10)
    maintainer = stream.maintainer(0, thorough=False)
    maintainer._clock = clock.time
    pinned: list[tuple[float, DeltaTable, int]] = []
    for turn in range(45):
        for _ in range(every * per_second):
            stream.send(2, at_s=START_S + turn % 30)
            clock.now_s += 1 / per_second
        clock.settle(tmp_path)
        reports = {report.table: report for report in maintainer.maintain()}
        clock.settle(tmp_path)
        assert not [report.error for report in reports.values() if report.error]
        watcher.step()
        files_per_s = {GOLD: per_second, SILVER: 2 * per_second}
        for name, rate in files_per_s.items():
            commits = (turn + 1) * every * per_second
            assert reports[name].files_after <= rate * 2 * every + 9 * (2 + len(str(rate * commits)))
            logs = stream.log(name)
            bound = (per_second + 1.2 / every) * (retention + every) + 2 * spacing
            assert len(logs) <= bound + bound / spacing + 2
        if turn % 10 == 0:
            pinned.append((clock.now_s, DeltaTable(str(stream.path(GOLD))), stream.sent))
        for when, table, sent in pinned if turn % 10 == 9 else ():
            if clock.now_s - when < retention:
                assert sum(table.to_pyarrow_table(columns=["events"])["events"].to_pylist()) == sent
    assert stream.sent == 1_800
    assert stream.live(GOLD) < 60
    assert stream.silver()["_offset"].to_pylist() == [*range(900)] * 2
    assert stream.gold() == stream.expected_gold()
    fresh = follower(stream, START_S + 10)
    fresh.step()
    assert watcher.snapshot.version == fresh.snapshot.version
    assert watcher.snapshot.generation == 1
    assert cells(watcher.snapshot.cells(1)) == cells(fresh.snapshot.cells(1)) == stream.expected_gold()
    stream.open()
    assert stream.batches == 900


def test_merging_keeps_columns_types_and_what_cannot_be_merged(stream: Stream) -> None:
    rows = aggregate(events(0, 40, at_s=START_S), stream.rollup, "1s", event_time="at")
    merged = merge_partials(pa.concat_tables([rows, rows]), stream.rollup)
    assert merged.schema == rows.schema
    assert merged.num_rows == rows.num_rows
    assert sum(merged["events"].to_pylist()) == 80
    alone = merge_partials(rows, stream.rollup)
    assert sorted(alone["ms_kll"].to_pylist()) == sorted(rows["ms_kll"].to_pylist())


def test_removed_files_from_before_the_first_pass_are_found_piece_by_piece(stream: Stream) -> None:
    filled(stream, 12)
    stream.maintain(time.time() + 60)
    filled(stream, 8)
    view = open_view(str(stream.path(SILVER)), SILVER, stream.one_pass.schemas[SILVER])
    assert view is not None
    tombstones = vacuum.Tombstones()
    found = []
    for _ in range(5):
        tombstones.advance(view, backwards=4)
        found.append(len(tombstones.removed))
    assert found == [0, 0, 24, 24, 24]


def test_quarantine_and_bronze_are_copied_byte_for_byte(tmp_path: Path) -> None:
    from lakehouse.sinks.files import write_file

    schema = quarantine_schema()
    rows = pa.Table.from_pylist(
        [
            {
                "_topic": "clicks",
                "_partition": 0,
                "_offset": number,
                "_value": bytes([number, 0, 255]),
                "_headers": [{"key": "h", "value": b"\x00"}] if number % 2 else None,
                "_errors": [{"rule_id": "r", "columns": ["a", "b"], "message": "m"}],
            }
            for number in range(12)
        ],
        schema=schema,
    )
    stream = Stream(tmp_path)
    filled(stream, 1)
    view = open_view(str(stream.path(QUARANTINE)), QUARANTINE, schema)
    assert view is not None
    adds = [write_file(str(tmp_path), QUARANTINE, rows.slice(n, 1), "at") for n in range(12)]
    log = TableLog(QUARANTINE, view.store, view.version, None, view.table.schema())
    assert log.rewrite([], adds, fence=timedelta(hours=1))
    assert stream.maintain(time.time() + 60)[QUARANTINE].files_after == 1
    assert contents(stream.path(QUARANTINE)).sort_by("_offset").equals(rows)
