"""The corruption matrix: every damage is survived, or stopped by name, and never passed over in silence.

Each row damages a pipeline at rest in one way and says what a start makes of it, what doctor says, and what
recover does. docs/recovery.md is the same table for people.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse import kafka_admin
from lakehouse import topic as kafka_topic
from lakehouse.chain import Batch, Offsets
from lakehouse.doctor import Diagnosis, examine
from lakehouse.errors import (
    CheckpointDamaged,
    CheckpointError,
    ForeignCheckpoint,
    LakehouseError,
    OtherTopic,
    RecordsExpired,
    StaleCheckpoint,
    TableDamaged,
    TableLost,
    TopicRecreated,
    TopicTruncated,
    UnknownHistory,
)
from lakehouse.guard import TopicGuard
from lakehouse.kafka_admin import TopicState
from lakehouse.reconcile import reconcile
from lakehouse.recover import carry_out, make_plan
from lakehouse.sinks.delta_log import TableLog
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.sink import Sink
from lakehouse.streaming.checkpoint import Checkpoint
from lakehouse.streaming.resume import starting_offsets
from lakehouse.topic import Record
from tests.pipelines import answers, small_pipeline

SILVER, QUARANTINE, GOLD = "silver/clicks", "quarantine/clicks", "gold/clicks_by_page_1s"
TABLES = (SILVER, QUARANTINE, GOLD)
BATCHES = 4
"""Of three rows each."""


@dataclass
class AtRest:
    """A pipeline whose tables, checkpoint and topic agree, and everything a row does to it."""

    root: Path
    topic: TopicState = field(default_factory=lambda: TopicState("id-1", {0: (0, 3 * BATCHES)}))

    def __post_init__(self) -> None:
        self.pipeline = small_pipeline(self.root)
        self.one_pass = OnePass(str(self.root), self.pipeline, {})
        sink = Sink.open(self.one_pass)
        for number in range(BATCHES):
            self.write(sink, 3 * number, 3, number)
        sink.close()
        self.write_checkpoint(BATCHES)

    def write(self, sink: Sink, first: int, count: int, number: int, query: str = "q") -> None:
        span = {"clicks": {0: first}}, {"clicks": {0: first + count}}
        batch = sink.next_batch(query, number, *span, "sha", {"clicks": "id-1"})
        sink.write(batch, answers(self.one_pass, first, count))

    def write_checkpoint(self, batches: int, *, query: str = "q", initial: int = 0) -> None:
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        for name in ("offsets", "commits", "sources/0"):
            (self.checkpoint / name).mkdir(parents=True)
        (self.checkpoint / "metadata").write_text(json.dumps({"id": query}))
        (self.checkpoint / "sources/0/0").write_bytes(b"\0v1\n" + json.dumps({"clicks": {"0": initial}}).encode())
        for number in range(batches):
            end = {"clicks": {"0": initial + 3 * (number + 1)}}
            (self.checkpoint / f"offsets/{number}").write_text(f'v1\n{{"batchTimestampMs":1}}\n{json.dumps(end)}')
            (self.checkpoint / f"commits/{number}").write_text("v1\n{}")

    @property
    def checkpoint(self) -> Path:
        return self.root / "_checkpoints" / "clicks"

    def log(self, table: str, version: int) -> Path:
        return self.root / table / "_delta_log" / f"{version:020d}.json"

    def data_file(self, table: str = SILVER) -> Path:
        """A data file of the second batch."""
        actions = [json.loads(line) for line in self.log(table, 2).read_text().splitlines()]
        return self.root / table / next(action["add"]["path"] for action in actions if "add" in action)

    def start(self) -> Offsets | None:
        """What a start does before Spark reads anything; where a query without a checkpoint would begin."""
        sink = Sink.open(self.one_pass)
        try:
            TopicGuard(self.pipeline.source, sink.head)
            return starting_offsets(sink.head, Checkpoint(str(self.checkpoint)))
        finally:
            sink.close()

    def offsets(self) -> list[int]:
        return sorted(DeltaTable(str(self.root / SILVER)).to_pyarrow_table()["_offset"].to_pylist())

    def events(self) -> int:
        return sum(DeltaTable(str(self.root / GOLD)).to_pyarrow_table()["events"].to_pylist())

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(self.root.rglob("*")) if path.is_file()}


@pytest.fixture
def rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AtRest:
    at_rest = AtRest(tmp_path)
    monkeypatch.setattr(kafka_admin, "topic_state", lambda *_: at_rest.topic)
    return at_rest


Damage = Callable[[AtRest], object]


@dataclass(frozen=True)
class Row:
    """One damage and what becomes of it.

    `start`: the error of a start and a word of its message; None where it is survived.
    `doctor`: the gravest finding's severity and a word of it; None where there is no finding.
    `steps`: kinds of what recover does; None where it refuses with the start's error.
    `rows`: how many of the rows silver has once a start succeeds again; None for all.
    """

    name: str
    damage: Damage
    start: tuple[type[LakehouseError], str] | None
    doctor: tuple[str, str] | None
    steps: list[str] | None
    rows: int | None = None


def unlink(*names: str) -> Damage:
    return lambda rest: [(rest.checkpoint / name).unlink() for name in names]


def overwrite(name: str, content: bytes) -> Damage:
    return lambda rest: (rest.checkpoint / name).write_bytes(content)


def cut(path: Callable[[AtRest], Path], keep: float) -> Damage:
    def damage(rest: AtRest) -> None:
        body = path(rest).read_bytes()
        path(rest).write_bytes(body[: int(len(body) * keep)])

    return damage


def cut_at_line(table: str, version: int, lines: int) -> Damage:
    def damage(rest: AtRest) -> None:
        whole = rest.log(table, version).read_text().splitlines(keepends=True)
        rest.log(table, version).write_text("".join(whole[:lines]))

    return damage


def last(table: str) -> Callable[[AtRest], Path]:
    return lambda rest: rest.log(table, BATCHES)


def torn_everywhere(rest: AtRest) -> None:
    for table in TABLES:
        cut(last(table), 0.5)(rest)


def table_checkpoint(rest: AtRest, damage: Callable[[Path], object], *, clean_log: bool = False) -> None:
    """A checkpoint of silver's log at its version 3, damaged."""
    DeltaTable(str(rest.root / SILVER), version=3).create_checkpoint()
    if clean_log:
        for version in range(3):
            rest.log(SILVER, version).unlink()
    damage(next((rest.root / SILVER / "_delta_log").glob("*.checkpoint.parquet")))


def last_checkpoint(content: str) -> Damage:
    def damage(rest: AtRest) -> None:
        table_checkpoint(rest, lambda path: (path.parent / "_last_checkpoint").write_text(content))

    return damage


def garble(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def half_committed(rest: AtRest) -> None:
    """The last batch stands in silver only."""
    for table in (QUARANTINE, GOLD):
        rest.log(table, BATCHES).unlink()


def two_behind(table: str) -> Damage:
    return lambda rest: [rest.log(table, version).unlink() for version in (BATCHES - 1, BATCHES)]


def two_runs(rest: AtRest) -> None:
    """Quarantine's last commit names other files of silver than silver's own does."""
    path = rest.log(QUARANTINE, BATCHES)
    path.write_text(path.read_text().replace("part-", "port-"))


def topic(topic_id: str = "id-1", **offsets: tuple[int, int]) -> Damage:
    def damage(rest: AtRest) -> None:
        rest.topic = TopicState(topic_id, {int(number[1:]): of for number, of in offsets.items()})

    return damage


def other_topic(rest: AtRest) -> None:
    source = rest.pipeline.source.model_copy(update={"topic": "views"})
    rest.pipeline = rest.pipeline.model_copy(update={"source": source})
    rest.one_pass = replace(rest.one_pass, pipeline=rest.pipeline)


def unknown_history(rest: AtRest) -> None:
    """Someone else's table in the place of quarantine."""
    rows = DeltaTable(str(rest.root / QUARANTINE)).to_pyarrow_table()
    shutil.rmtree(rest.root / QUARANTINE)
    write_deltalake(str(rest.root / QUARANTINE), rows)
    write_deltalake(str(rest.root / QUARANTINE), rows, mode="append")


ASIDE = ["set_checkpoint_aside"]
LOG = ["set_log_files_aside"]
MATRIX = [
    Row("nothing at all", lambda _: None, None, None, []),
    # The checkpoint.
    Row(
        "metadata missing", unlink("metadata"), (CheckpointDamaged, "metadata is missing"), ("error", "metadata"), ASIDE
    ),
    Row("metadata cut", overwrite("metadata", b'{"id'), (CheckpointDamaged, "metadata"), ("error", "metadata"), ASIDE),
    Row(
        "offsets/N cut",
        overwrite("offsets/3", b'v1\n{}\n{"clicks":{"0"'),
        (CheckpointDamaged, "offsets/3"),
        ("error", "offsets/3"),
        ASIDE,
    ),
    Row(
        "offsets/N cut at a line",
        overwrite("offsets/3", b'v1\n{"batchTimestampMs":1}\n'),
        (CheckpointDamaged, "offsets/3"),
        ("error", "offsets/3"),
        ASIDE,
    ),
    Row(
        "offsets/N zeroed",
        overwrite("offsets/3", b"\0" * 60),
        (CheckpointDamaged, "offsets/3"),
        ("error", "offsets/3"),
        ASIDE,
    ),
    Row(
        "offsets/N empty", overwrite("offsets/3", b""), (CheckpointDamaged, "offsets/3"), ("error", "offsets/3"), ASIDE
    ),
    Row(
        "offsets/N missing",
        unlink("offsets/3"),
        (CheckpointDamaged, "offsets/3 is missing"),
        ("error", "offsets/3"),
        ASIDE,
    ),
    Row(
        "offsets/N-1 missing",
        unlink("offsets/2"),
        (CheckpointDamaged, "offsets/2 is missing"),
        ("error", "offsets/2"),
        ASIDE,
    ),
    Row("an old offsets file damaged", overwrite("offsets/0", b""), None, ("info", "offsets/0"), []),
    Row(
        "offsets/N and commits/N missing",
        unlink("offsets/3", "commits/3"),
        (StaleCheckpoint, "old copy"),
        ("error", "old copy"),
        ASIDE,
    ),
    Row("commits/N missing", unlink("commits/3"), None, ("info", "commits/3"), []),
    Row("commits/N and N-1 missing", unlink("commits/3", "commits/2"), None, ("info", "commits/3"), []),
    Row(
        "commits/N empty", overwrite("commits/3", b""), (CheckpointDamaged, "commits/3"), ("error", "commits/3"), ASIDE
    ),
    Row("checkpoint deleted", lambda rest: shutil.rmtree(rest.checkpoint), None, ("info", "no checkpoint"), []),
    Row(
        "yesterday's checkpoint",
        lambda rest: rest.write_checkpoint(2),
        (StaleCheckpoint, "clicks 0:6"),
        ("error", "0:6"),
        ASIDE,
    ),
    Row(
        "a checkpoint from the future",
        lambda rest: rest.write_checkpoint(6),
        (StaleCheckpoint, "clicks 0:18"),
        ("error", "0:18"),
        ASIDE,
    ),
    Row(
        "another pipeline's checkpoint",
        lambda rest: rest.write_checkpoint(BATCHES, query="x"),
        (ForeignCheckpoint, "query x"),
        ("error", "query x"),
        ASIDE,
    ),
    Row(
        "a checkpoint that begins elsewhere",
        lambda rest: rest.write_checkpoint(0, initial=5),
        (StaleCheckpoint, "begins at clicks 0:5"),
        ("error", "0:5"),
        ASIDE,
    ),
    Row(
        "tables gone, checkpoint there",
        lambda rest: [shutil.rmtree(rest.root / table) for table in TABLES],
        (CheckpointError, "tables are empty"),
        ("error", "tables are empty"),
        ASIDE,
        0,
    ),
    # The log.
    Row(
        "torn last commit of silver",
        cut(last(SILVER), 0.5),
        (TableDamaged, "log cannot be read"),
        ("error", "torn"),
        [*LOG, "finish_batch"],
    ),
    Row(
        "torn last commit of gold",
        cut(last(GOLD), 0.9),
        (TableDamaged, "log cannot be read"),
        ("error", "torn"),
        [*LOG, "finish_batch"],
    ),
    Row(
        "torn last commit of every table",
        torn_everywhere,
        (TableDamaged, "log cannot be read"),
        ("error", "torn"),
        [*LOG * 3, *ASIDE],
        9,
    ),
    Row("empty last commit", cut(last(SILVER), 0), (TableDamaged, "empty"), ("error", "empty"), [*LOG, "finish_batch"]),
    Row(
        "last commit cut at a line",
        cut_at_line(SILVER, BATCHES, 2),
        (TableDamaged, "is cut"),
        ("error", "is cut"),
        [*LOG, "finish_batch"],
    ),
    Row(
        "last commit of one table missing",
        lambda rest: last(SILVER)(rest).unlink(),
        None,
        ("warning", "cut in two"),
        ["finish_batch"],
    ),
    Row(
        "missing middle version",
        lambda rest: rest.log(SILVER, 2).unlink(),
        (TableDamaged, "log cannot be read"),
        ("error", "JSON is missing"),
        None,
    ),
    Row(
        "missing middle version of gold",
        lambda rest: rest.log(GOLD, 2).unlink(),
        (TableDamaged, "log cannot be read"),
        ("error", "JSON is missing"),
        ["rejoin_table"],
    ),
    Row(
        "missing first version",
        lambda rest: rest.log(SILVER, 0).unlink(),
        (TableDamaged, "log cannot be read"),
        ("error", "JSON is missing"),
        None,
    ),
    Row("_last_checkpoint garbled", last_checkpoint("{gar"), None, ("warning", "_last_checkpoint"), []),
    Row(
        "_last_checkpoint names what is not there",
        last_checkpoint('{"version":99,"size":1}'),
        (TableDamaged, "log cannot be read"),
        ("error", "version 99"),
        LOG,
    ),
    Row(
        "log checkpoint corrupt, commits there",
        lambda rest: table_checkpoint(rest, garble),
        (TableDamaged, "log cannot be read"),
        ("error", "checkpoint"),
        LOG,
    ),
    Row(
        "log checkpoint corrupt, commits cleaned",
        lambda rest: table_checkpoint(rest, garble, clean_log=True),
        (TableDamaged, "log cannot be read"),
        ("error", "older commits"),
        None,
    ),
    Row(
        "log checkpoint missing, commits there",
        lambda rest: table_checkpoint(rest, Path.unlink),
        (TableDamaged, "log cannot be read"),
        ("error", "_last_checkpoint"),
        LOG,
    ),
    # Data files.
    Row(
        "data file missing",
        lambda rest: rest.data_file().unlink(),
        (TableDamaged, "is missing"),
        ("error", "is missing"),
        None,
    ),
    Row("data file truncated", cut(AtRest.data_file, 0.5), (TableDamaged, "instead of"), ("error", "instead of"), None),
    Row(
        "data file of gold missing",
        lambda rest: rest.data_file(GOLD).unlink(),
        (TableDamaged, "is missing"),
        ("error", "is missing"),
        ["rejoin_table"],
    ),
    Row(
        "data file overwritten with zeros", lambda rest: garble(rest.data_file()), None, ("error", "cannot be read"), []
    ),
    Row(
        "orphan files",
        lambda rest: (rest.root / SILVER / "part-0.parquet").write_bytes(b"12345"),
        None,
        ("info", "1 files (5 bytes)"),
        [],
    ),
    # The tables against each other.
    Row("half-committed batch", half_committed, None, ("warning", "cut in two"), ["finish_batch"]),
    Row("gold two batches behind", two_behind(GOLD), (TableLost, "clicks 0:6"), ("error", "0:6"), ["rejoin_table"]),
    Row("quarantine two batches behind", two_behind(QUARANTINE), (TableLost, "clicks 0:6"), ("error", "0:6"), None),
    Row(
        "gold gone",
        lambda rest: shutil.rmtree(rest.root / GOLD),
        (TableLost, "is gone"),
        ("error", "is gone"),
        ["rejoin_table"],
    ),
    Row(
        "silver gone",
        lambda rest: shutil.rmtree(rest.root / SILVER),
        (TableLost, "is gone"),
        ("error", "is gone"),
        None,
    ),
    Row(
        "one batch of two runs", two_runs, (LakehouseError, "two different runs"), ("error", "two different runs"), None
    ),
    Row("unknown history", unknown_history, (UnknownHistory, "which Kafka offsets"), ("error", ""), None),
    # The topic.
    Row(
        "topic made anew",
        topic("id-2", p0=(0, 2)),
        (TopicRecreated, "id-2"),
        ("error", "made anew"),
        [*ASIDE, "acknowledge"],
    ),
    Row(
        "topic truncated",
        topic(p0=(0, 10)),
        (TopicTruncated, "partition 0 offsets 10–12"),
        ("error", "10–12"),
        [*ASIDE, "acknowledge"],
    ),
    Row(
        "records expired",
        topic(p0=(20, 30)),
        (RecordsExpired, "partition 0 offsets 12–20"),
        ("error", "12–20"),
        [*ASIDE, "acknowledge"],
    ),
    Row(
        "beginning of a new partition expired",
        topic(p0=(0, 12), p1=(4, 9)),
        (RecordsExpired, "partition 1 offsets 0–4"),
        ("error", "0–4"),
        [*ASIDE, "acknowledge"],
    ),
    Row("partition added", topic(p0=(0, 12), p1=(0, 9)), None, None, []),
    Row("another topic in the file", other_topic, (OtherTopic, "views"), ("error", "views"), None),
]


@pytest.mark.parametrize("row", MATRIX, ids=lambda row: row.name)
def test_damage_is_survived_or_stopped_by_name(rest: AtRest, row: Row) -> None:
    row.damage(rest)
    before = rest.files()
    found = examine(rest.pipeline)
    assert_doctor(found, row)

    # Recover, on a copy of its own plan: it reads only.
    if row.steps is None:
        assert row.start is not None
        with pytest.raises(row.start[0]):
            make_plan(rest.pipeline)
    else:
        plan = make_plan(rest.pipeline)
        assert [step.kind for step in plan.steps] == row.steps, str(plan)
    assert rest.files() == before, "doctor and plan write nothing"

    if row.start is None:
        rest.start()
    else:
        with pytest.raises(row.start[0], match=row.start[1]) as refused:
            rest.start()
        assert refused.value.remedy
        if row.steps is None:
            return
        carry_out(rest.pipeline, plan)
        rest.start()
        assert make_plan(rest.pipeline).healthy
        assert before.keys() - set(rest.files()) <= moved(rest)
    assert_whole(rest, row)


def assert_doctor(found: Diagnosis, row: Row) -> None:
    if row.doctor is None:
        assert found.findings == ()
        return
    severity, word = row.doctor
    assert any(
        finding.severity == severity and word in f"{finding.what} {finding.remedy}" for finding in found.findings
    ), str(found)
    assert found.findings[0].severity == severity
    assert found.healthy == (severity == "info")
    assert all(finding.remedy and finding.where for finding in found.findings)


def moved(rest: AtRest) -> set[Path]:
    """Where the files stood that are under `_set_aside` now."""
    aside = {
        path.relative_to(folder): path
        for folder in (rest.root / "_set_aside").glob("*")
        for path in folder.rglob("*")
        if path.is_file()
    }
    return {rest.root / relative for relative in aside}


def assert_whole(rest: AtRest, row: Row) -> None:
    """Each row once, and the next batch goes on exactly there."""
    rows = 3 * BATCHES if row.rows is None else row.rows
    if "zeros" in row.name:
        return
    assert rest.offsets() == list(range(rows))
    if row.steps and "rejoin_table" in row.steps:
        assert rest.events() == 0
    else:
        assert rest.events() == rows
    head = TableLog.open(f"{rest.root}/{SILVER}", SILVER, rest.one_pass.schemas[SILVER]).head
    if head is None:
        return
    sink = Sink.open(rest.one_pass)
    batch = sink.next_batch("q2", 0, head.end, {"clicks": {p: at + 3 for p, at in head.end["clicks"].items()}}, "sha")
    sink.write(batch, answers(rest.one_pass, rows, 3))
    sink.close()
    assert len(rest.offsets()) == rows + 3


def heads(rest: AtRest) -> dict[str, Batch]:
    logs = {name: TableLog.find(f"{rest.root}/{name}", name) for name in TABLES}
    return {name: log.head for name, log in logs.items() if log and log.head}


def test_an_expired_range_is_recorded_in_every_chain_and_carried_on(rest: AtRest) -> None:
    rest.topic = TopicState("id-1", {0: (20, 30)})
    plan = make_plan(rest.pipeline)
    assert plan.next_offsets == {"clicks": {0: 20}}
    assert any("12–20" in loss for loss in plan.lost)
    carry_out(rest.pipeline, plan)
    sink = Sink.open(rest.one_pass)
    rest.write(sink, 20, 3, 0, "q2")
    for head in heads(rest).values():
        assert [(gap.partition, gap.start, gap.end) for gap in head.past.gaps] == [(0, 12, 20)]
        assert head.origin == {"clicks": {0: 0}}


def test_a_topic_made_anew_begins_a_new_account(rest: AtRest) -> None:
    rest.topic = TopicState("id-2", {0: (0, 2), 1: (5, 9)})
    plan = make_plan(rest.pipeline)
    assert plan.next_offsets == {"clicks": {0: 0, 1: 5}}
    carry_out(rest.pipeline, plan)
    for head in heads(rest).values():
        (former,) = head.past.former
        assert (former.topic_id, former.cut, former.end) == ("id-1", {0: 0}, {0: 12})
        assert former.mark == 1_700_000_000_000_000 + 9  # the last batch's rows
        assert head.topic_ids == {"clicks": "id-2"}
        assert head.origin == {"clicks": {0: 0, 1: 5}}
        assert [(gap.partition, gap.start, gap.end) for gap in head.past.gaps] == [(1, 0, 5)]


@pytest.mark.parametrize("reached", [1, 2])
def test_a_recovery_that_was_killed_is_finished_by_the_next_start_or_recovery(
    rest: AtRest, monkeypatch: pytest.MonkeyPatch, reached: int
) -> None:
    rest.topic = TopicState("id-2", {0: (0, 2)})
    append = TableLog.append
    written: list[str] = []

    def killed(self: TableLog, batch: Batch) -> bool:
        if len(written) == reached:
            raise RuntimeError("killed")
        written.append(self.name)
        return append(self, batch)

    plan = make_plan(rest.pipeline)
    with monkeypatch.context() as patched:
        patched.setattr(TableLog, "append", killed)
        with pytest.raises(RuntimeError):
            carry_out(rest.pipeline, plan)
    again = make_plan(rest.pipeline)
    assert [step.kind for step in again.steps] == ["finish_batch"]
    assert rest.start() == {"clicks": {0: 0}}
    assert make_plan(rest.pipeline).healthy
    assert {head.end["clicks"][0] for head in heads(rest).values()} == {0}


def test_a_recovery_that_was_killed_before_it_committed_is_planned_again(
    rest: AtRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest.topic = TopicState("id-1", {0: (20, 30)})
    plan = make_plan(rest.pipeline)
    with monkeypatch.context() as patched:
        patched.setattr(Sink, "write", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError):
            carry_out(rest.pipeline, plan)
    assert [step.kind for step in make_plan(rest.pipeline).steps] == ["acknowledge"]
    with pytest.raises(RecordsExpired):
        rest.start()


def test_records_that_took_the_offsets_of_lost_ones_are_told_apart(
    rest: AtRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topic lost offsets 10 and 11, which the tables keep, and then got three other records from 10 on."""
    rest.topic = TopicState("id-1", {0: (0, 10)})
    carry_out(rest.pipeline, make_plan(rest.pipeline))
    sink = Sink.open(rest.one_pass)
    rest.write(sink, 10, 3, 0, "q2")
    sink.close()
    assert rest.offsets() == [*range(10), 10, 10, 11, 11, 12]
    monkeypatch.setattr(kafka_admin, "offsets", lambda *_: {0: (2, 13)})
    read = [Record(0, offset, None, b"", []) for offset in range(2, 13)]
    monkeypatch.setattr(kafka_topic, "read_range", lambda *_: iter(read))
    proof = reconcile(rest.pipeline)
    assert proof.ok, proof
    assert (proof.records, proof.former_rows, proof.expired_rows) == (11, 2, 2)
    assert "ACKNOWLEDGED LOSS: the topic lost its end: partition 0 from 10 (tables had read up to 12)" in str(proof)
    # One that is there twice in the same content is still noticed.
    write_deltalake(str(rest.root / SILVER), DeltaTable(str(rest.root / SILVER)).to_pyarrow_table(), mode="append")
    assert reconcile(rest.pipeline).doubled.count == 15
