"""Replays beside everything else that touches a pipeline's tables: starts, recovery, maintenance, damage."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse import kafka_admin, reconcile
from lakehouse import topic as kafka_topic
from lakehouse.chain import Batch, Past
from lakehouse.config.models import Pipeline
from lakehouse.doctor import examine
from lakehouse.errors import TableDamaged, TableError, TableLost
from lakehouse.kafka_admin import TopicState
from lakehouse.lock import replay_lock
from lakehouse.maintenance.run import Maintainer
from lakehouse.quarantine import Choice, entries, find, overview
from lakehouse.reconcile import Reconciliation
from lakehouse.recover import carry_out, make_plan
from lakehouse.repair import Repair
from lakehouse.replay import Replay, replay
from lakehouse.schemas import TIMESTAMP, quarantine_schema, silver_schema
from lakehouse.sinks import aligned
from lakehouse.sinks import sink as sinks
from lakehouse.sinks.delta_log import TableLog
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.replays import Replays, last_replay
from lakehouse.sinks.sink import Answer, Sink
from lakehouse.topic import Record
from tests.pipelines import small_pipeline
from tests.replays import PlainJudge, append, close_brace, value_of

SILVER, QUARANTINE, GOLD, LATER = (
    "silver/clicks",
    "quarantine/clicks",
    "gold/clicks_by_page_1s",
    "gold/clicks_by_status_1s",
)
TABLES = (SILVER, QUARANTINE, GOLD)
KINDS = ["good", "slow", "torn", "hopeless", "slow", "slow"]
REPAIR = Repair("fix.py:close_brace", "abc", close_brace)
SLOW = Choice(rules=frozenset(["slow"]))
RETENTION_S = 300.0
BY_STATUS = {"dimensions": ["status"], "metrics": [{"name": "ms_sum", "type": "sum", "column": "ms"}]}


class Killed(BaseException):
    """SIGKILL."""


class World:
    """A pipeline's tables, its topic, and what is done to both."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pipeline = small_pipeline(root, maintenance={"retention": "5m", "min_age": "0ms", "checkpoint_every": 10})
        self.one_pass = OnePass(str(root), self.pipeline, {})
        self.append(KINDS)

    @property
    def wider(self) -> Pipeline:
        """The pipeline's file with one more rollup."""
        rollups = {"by_page": self.pipeline.rollups["by_page"].model_dump(mode="json"), "by_status": BY_STATUS}
        return small_pipeline(self.root, rollups=rollups)

    def append(self, kinds: list[str], *, one_pass: OnePass | None = None) -> None:
        one_pass = one_pass or self.one_pass
        sink = Sink.open(one_pass)
        append(sink, one_pass.pipeline, kinds)
        assert sink.end is not None
        self.topic = TopicState("id-1", {0: (0, sink.end["clicks"][0])})

    def replay(self, choice: Choice = SLOW, *, pipeline: Pipeline | None = None, **options: Any) -> Replay:
        judge = options.pop("judge", PlainJudge(strict=False))
        found = replay(pipeline or self.pipeline, choice, judge, suite_sha256="lax", commit=True, **options)
        assert found.state in ("replayed", "already replayed")
        return found

    def killed_replay(self, monkeypatch: pytest.MonkeyPatch, *, before: str) -> None:
        """A replay that was decided and dies before it has reached the table `before`."""

        def dies(self: Replays, name: str, *arguments: Any) -> None:
            if name == before:
                raise Killed
            commit(self, name, *arguments)

        commit = Replays._commit
        with monkeypatch.context() as patched:
            patched.setattr(Replays, "_commit", dies)
            with pytest.raises(Killed):
                self.replay()

    def offsets(self, name: str) -> list[int]:
        return sorted(DeltaTable(str(self.root / name)).to_pyarrow_table()["_offset"].to_pylist())

    def events(self, name: str = GOLD) -> int:
        return sum(DeltaTable(str(self.root / name)).to_pyarrow_table()["events"].to_pylist())

    def replays(self, *names: str) -> dict[str, int]:
        return {name: last_replay(DeltaTable(str(self.root / name))) for name in names or TABLES}

    def log(self, table: str) -> list[Path]:
        return sorted((self.root / table / "_delta_log").glob("*.json"))

    def assert_slow_rows_are_replayed(self) -> None:
        assert set(self.replays().values()) == {1}
        assert self.offsets(SILVER) == [0, 1, 4, 5]
        assert self.offsets(QUARANTINE) == [2, 3]
        assert self.events() == 4

    def reconcile(self, monkeypatch: pytest.MonkeyPatch, records: Iterable[Record]) -> Reconciliation:
        read = list(records)
        monkeypatch.setattr(kafka_admin, "offsets", lambda *_: {0: (0, len(read))})
        monkeypatch.setattr(kafka_topic, "read_range", lambda *_: iter(read))
        monkeypatch.setattr(aligned, "_ALIGN_S", 0)
        return reconcile.reconcile(self.pipeline)


def records(kinds: Iterable[str], *, header: bytes = b"\x01") -> Iterator[Record]:
    for offset, kind in enumerate(kinds):
        yield Record(0, offset, b"k", value_of(kind, offset), [("h", header)])


def age(root: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setattr(kafka_admin, "topic_state", lambda *_: world.topic)
    return world


# A start


@pytest.mark.parametrize("before", TABLES)
def test_a_start_finishes_a_batch_and_a_replay_that_were_both_cut_in_two(
    world: World, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    sink = Sink.open(world.one_pass)
    world.killed_replay(monkeypatch, before=before)

    def only_silver(self: TableLog, batch: Batch) -> bool:
        if self.name != SILVER:
            raise Killed
        return append_batch(self, batch)

    append_batch = TableLog.append
    with monkeypatch.context() as patched:
        patched.setattr(TableLog, "append", only_silver)
        with pytest.raises(Killed):
            append(sink, world.pipeline, ["good", "torn"])
    again = Sink.open(world.one_pass)
    assert again.end == {"clicks": {0: 8}}
    assert world.offsets(SILVER) == [0, 1, 4, 5, 6]
    assert world.offsets(QUARANTINE) == [2, 3, 7]
    assert (world.events(), set(world.replays().values())) == (5, {1})
    append(again, world.pipeline, ["good"])


def test_a_replay_is_finished_in_a_rollup_that_the_file_no_longer_has(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.killed_replay(monkeypatch, before=GOLD)
    without = OnePass(str(world.root), small_pipeline(world.root, rollups={}), {})
    Sink.open(without)
    world.assert_slow_rows_are_replayed()
    Sink.open(world.one_pass)


def test_a_replay_passes_over_a_rollup_that_left_the_pipeline_and_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.killed_replay(monkeypatch, before=GOLD)
    shutil.rmtree(world.root / GOLD)
    Sink.open(OnePass(str(world.root), small_pipeline(world.root, rollups={}), {}))
    assert world.replays(SILVER, QUARANTINE) == {SILVER: 1, QUARANTINE: 1}
    assert not (world.root / GOLD).exists()


def test_a_lost_table_is_named_before_a_replay_looks_for_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.append(["good"])
    world.killed_replay(monkeypatch, before=GOLD)
    shutil.rmtree(world.root / GOLD)
    with pytest.raises(TableLost, match="is gone"):
        Sink.open(world.one_pass)
    with pytest.raises(TableError, match="cannot be opened"):
        world.replay(Choice(rules=frozenset(["contract.json"])))


def test_a_table_that_joins_has_every_replay_so_far_behind_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.replay()
    Sink.open(OnePass(str(world.root), world.wider, {}))
    assert world.replays(*TABLES, LATER) == dict.fromkeys([*TABLES, LATER], 1)
    assert world.events(LATER) == 0
    world.pipeline = world.wider
    assert world.replay(Choice(rules=frozenset(["contract.json"])), repair=REPAIR).accepted == 1
    assert world.events(LATER) == 1
    proof = world.reconcile(monkeypatch, records(KINDS))
    assert proof.ok, proof
    assert proof.replayed == 4


def test_a_replay_that_ends_while_a_table_waits_to_join_is_behind_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def waited(root: str, name: str) -> Iterator[None]:
        # Judged by a process that knows the earlier file.
        assert (root, name) == (str(world.root), "clicks")
        world.replay()
        yield

    monkeypatch.setattr(sinks, "replay_lock", waited)
    Sink.open(OnePass(str(world.root), world.wider, {}))
    world.pipeline = world.wider
    assert world.replays(*TABLES, LATER) == dict.fromkeys([*TABLES, LATER], 1)
    proof = world.reconcile(monkeypatch, records(KINDS))
    assert proof.ok, proof


def test_the_lock_of_replays_is_held_and_let_go(tmp_path: Path) -> None:
    with (
        replay_lock(str(tmp_path), "clicks"),
        (tmp_path / "_replays" / "clicks.lock").open() as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with replay_lock(str(tmp_path), "clicks"), replay_lock(f"{tmp_path}/another", "clicks"):
        pass


def test_a_replay_with_an_earlier_file_is_refused_naming_the_rollup_that_it_lacks(world: World) -> None:
    wider = OnePass(str(world.root), world.wider, {})
    world.append(["good"], one_pass=wider)
    with pytest.raises(TableError, match=LATER):
        world.replay()
    assert world.replay(pipeline=world.wider).accepted == 3


def test_rows_of_a_replay_are_ingested_after_the_last_mark_whatever_the_clock_says(world: World) -> None:
    mark = time.time_ns() // 1_000 + 3_600_000_000
    sink = Sink.open(world.one_pass)
    batch = sink.next_batch("q", 9, {"clicks": {0: 6}}, {"clicks": {0: 7}}, "sha")
    sink.write(replace(batch, past=Past(joined={GOLD: mark})), [])
    world.replay()
    rows = DeltaTable(str(world.root / SILVER)).to_pyarrow_table()
    late = rows.filter(rows["_replayed_from"].is_valid())["_ingested_at"].cast(pa.int64()).to_pylist()
    assert len(late) == 3
    assert min(late) > mark


def test_tables_of_an_earlier_version_are_left_alone_by_maintenance_and_say_why(tmp_path: Path) -> None:
    pipeline = small_pipeline(tmp_path)
    silver, quarantine = silver_schema(pipeline.source.fields), quarantine_schema()
    with pytest.MonkeyPatch.context() as before:
        before.setattr("lakehouse.sinks.onepass.silver_schema", lambda _: silver.remove(len(silver) - 1))
        before.setattr("lakehouse.sinks.onepass.quarantine_schema", lambda: quarantine.remove(len(quarantine) - 1))
        append(Sink.open(OnePass(str(tmp_path), pipeline, {})), pipeline, KINDS)
    errors = {report.table: report.error for report in Maintainer(pipeline).maintain() if report.error}
    assert errors.keys() == {SILVER, QUARANTINE}
    assert all("earlier version" in str(error) for error in errors.values())
    sink = Sink.open(OnePass(str(tmp_path), pipeline, {}))
    for name, log in sink._logs.items():
        table = DeltaTable(str(tmp_path / name))
        assert (log.columns, log.version) == (table.schema(), table.version())
    assert not [report.error for report in Maintainer(pipeline).maintain() if report.error]


# Recovery


@pytest.mark.parametrize("before", TABLES)
def test_doctor_knows_a_replay_that_was_cut_in_two(world: World, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    world.killed_replay(monkeypatch, before=before)
    found = examine(world.pipeline)
    (told,) = [finding for finding in found.findings if finding.where == "replays"]
    assert (told.severity, found.healthy) == ("info", True)
    assert before in told.what
    assert make_plan(world.pipeline).healthy
    Sink.open(world.one_pass)
    assert not [finding for finding in examine(world.pipeline).findings if finding.where == "replays"]
    world.assert_slow_rows_are_replayed()


@pytest.mark.parametrize("before", TABLES)
def test_a_recovery_commit_does_not_disturb_a_replay(
    world: World, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    world.killed_replay(monkeypatch, before=before)
    world.topic = TopicState("id-1", {0: (9, 12)})
    plan = make_plan(world.pipeline)
    assert [step.kind for step in plan.steps] == ["acknowledge"]
    carry_out(world.pipeline, plan)
    world.assert_slow_rows_are_replayed()
    assert Sink.open(world.one_pass).end == {"clicks": {0: 9}}


def test_a_replayed_row_of_a_former_topic_stays_one_of_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.topic = TopicState("id-1", {0: (0, 1)})  # it lost all but its first record
    carry_out(world.pipeline, make_plan(world.pipeline))
    world.replay()  # brought to silver after the mark of the former content
    world.append(["good", "slow", "good", "hopeless"])
    world.replay()
    proof = world.reconcile(monkeypatch, records(["good", "good", "slow", "good", "hopeless"]))
    assert proof.ok, proof
    assert (proof.records, proof.silver, proof.quarantine, proof.replayed, proof.former_rows) == (5, 4, 1, 1, 5)
    assert proof.rollups[GOLD].ok


@pytest.mark.parametrize("before", TABLES)
def test_a_lost_rollup_joins_anew_beside_a_replay_that_was_cut_in_two(
    world: World, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    world.append(["good"])
    world.killed_replay(monkeypatch, before=before)
    shutil.rmtree(world.root / GOLD)
    plan = make_plan(world.pipeline)
    assert [step.kind for step in plan.steps] == ["rejoin_table"]
    carry_out(world.pipeline, plan)
    assert world.replays() == dict.fromkeys(TABLES, 1)
    assert world.events() == 0
    assert not [finding for finding in examine(world.pipeline).findings if finding.severity != "info"]
    world.append(["good"])
    world.replay(Choice(rules=frozenset(["contract.json"])), repair=REPAIR)
    assert world.events() == 2
    proof = world.reconcile(monkeypatch, records([*KINDS, "good", "good"]))
    assert proof.ok, proof


@pytest.mark.parametrize("keep", [0.5, 1, 2], ids=["torn", "cut after one action", "cut after two"])
@pytest.mark.parametrize("table", TABLES)
def test_a_torn_commit_of_a_replay_is_refused_and_done_anew(world: World, table: str, keep: float) -> None:
    world.replay()
    commit = world.log(table)[-1]
    lines = commit.read_bytes().splitlines(keepends=True)
    assert len(lines) > 2
    whole = commit.read_bytes()
    commit.write_bytes(whole[: int(len(whole) * keep)] if keep < 1 else b"".join(lines[: int(keep)]))
    with pytest.raises(TableDamaged, match=r"cut|read"):
        Sink.open(world.one_pass)
    assert not examine(world.pipeline).healthy
    plan = make_plan(world.pipeline)
    assert [step.kind for step in plan.steps] == ["set_log_files_aside"]
    carry_out(world.pipeline, plan)
    world.assert_slow_rows_are_replayed()
    assert make_plan(world.pipeline).healthy


def test_replays_of_tables_that_are_gone_are_not_taken_for_those_of_new_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.killed_replay(monkeypatch, before=SILVER)
    for table in TABLES:
        shutil.rmtree(world.root / table)
    with pytest.raises(TableLost, match="1 replays"):
        Sink.open(world.one_pass)
    assert not (world.root / SILVER).exists()
    assert not examine(world.pipeline).healthy
    plan = make_plan(world.pipeline)
    assert [step.kind for step in plan.steps] == ["set_replays_aside"]
    carry_out(world.pipeline, plan)
    world.append(KINDS)
    assert world.offsets(SILVER) == [0]
    assert make_plan(world.pipeline).healthy
    world.replay()
    world.assert_slow_rows_are_replayed()


# Maintenance


def test_a_replay_is_known_when_its_commits_have_left_the_log(world: World) -> None:
    world.replay(replay_id="mine")
    replayed = {table: world.log(table)[-1] for table in TABLES}
    for _ in range(30):
        world.append(["good", "slow"])
    Maintainer(world.pipeline).maintain()
    age(world.root, 2 * RETENTION_S)
    for _ in range(12):
        world.append(["good", "slow"])
    assert not [report.error for report in Maintainer(world.pipeline).maintain() if report.error]
    assert not [path for path in replayed.values() if path.exists()]
    assert set(world.replays().values()) == {1}
    before = world.offsets(SILVER)
    Sink.open(world.one_pass)
    assert world.replay(replay_id="mine").state == "already replayed"
    assert world.offsets(SILVER) == before
    assert world.replay().accepted == 42
    assert set(world.replays().values()) == {2}


@pytest.mark.parametrize("before", TABLES)
def test_vacuum_and_clean_up_leave_what_an_unfinished_replay_needs(
    world: World, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    sink = Sink.open(world.one_pass)  # opened before: a pipeline that runs on
    world.killed_replay(monkeypatch, before=before)
    for _ in range(30):
        append(sink, world.pipeline, ["good"])
    Maintainer(world.pipeline).maintain()
    age(world.root, 100 * RETENTION_S)
    append(sink, world.pipeline, ["good"])
    for _ in range(2):
        assert not [report.error for report in Maintainer(world.pipeline).maintain() if report.error]
    Sink.open(world.one_pass)
    assert set(world.replays().values()) == {1}
    assert world.offsets(SILVER) == [0, 1, *range(4, 37)]
    assert world.offsets(QUARANTINE) == [2, 3]
    assert world.events() == 35


def test_a_file_that_vacuum_took_before_the_replay_committed_it_is_put_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed: list[Path] = []

    def dies(self: TableLog, actions: list[dict[str, Any]], *_: Any) -> bool:
        placed.extend(world.root / self.name / action["add"]["path"] for action in actions if "add" in action)
        raise Killed

    sink = Sink.open(world.one_pass)
    with monkeypatch.context() as patched:
        patched.setattr(TableLog, "commit", dies)
        with pytest.raises(Killed):
            world.replay()
    assert placed
    assert all(path.exists() for path in placed)
    age(world.root, 2 * RETENTION_S)
    append(sink, world.pipeline, ["good"])
    Maintainer(world.pipeline).maintain()
    assert not any(path.exists() for path in placed)
    Sink.open(world.one_pass)
    assert all(path.exists() for path in placed)
    assert world.offsets(SILVER) == [0, 1, 4, 5, 6]


# The one pass, and what it wrote


def test_a_judgement_in_several_answers_brings_each_row_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_pieces(records: pa.Table, one_pass: OnePass, /) -> list[Answer]:
        judge = PlainJudge(strict=False)
        return [answer for at in range(records.num_rows) for answer in judge(records.slice(at, 1), one_pass)]

    found = world.replay(Choice(), judge=in_pieces)
    assert (found.accepted, found.refused) == (3, 2)
    (plan,) = Replays(str(world.root), world.pipeline).plans()
    assert {name: len(adds) for name, adds in plan.adds.items()} == {SILVER: 3, GOLD: 1}
    world.assert_slow_rows_are_replayed()
    proof = world.reconcile(monkeypatch, records(KINDS))
    assert proof.ok, proof


def test_key_and_headers_of_a_replayed_row_are_compared_with_the_topic(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.replay()
    assert world.reconcile(monkeypatch, records(KINDS)).ok
    proof = world.reconcile(monkeypatch, records(KINDS, header=b"\x02"))
    assert proof.altered.first == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]


def test_a_kafka_time_beyond_pythons_years_is_listed_and_shown(world: World) -> None:
    table = DeltaTable(str(world.root / QUARANTINE))
    rows = table.to_pyarrow_table()
    times = pa.array([300_000_000_000_000_000] * rows.num_rows, pa.int64()).cast(TIMESTAMP)
    rows = rows.set_column(rows.column_names.index("_timestamp"), "_timestamp", times)
    write_deltalake(table, rows, mode="overwrite")
    last = datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)
    assert {rule.last for rule in overview(world.pipeline, Choice()).rules} == {last}
    assert {entry.timestamp for entry in entries(world.pipeline, Choice())} == {last}
    assert find(world.pipeline, 0, 1).timestamp == last
