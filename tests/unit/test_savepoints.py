"""Savepoints: what is shown before anything is done, what is refused, what vacuum leaves, and what a start finishes."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable
from typer.testing import CliRunner

from lakehouse import savepoints
from lakehouse.cli import app
from lakehouse.config.models import Pipeline
from lakehouse.errors import ConfigError, RecordsExpired, TableDamaged, TableError, TopicRecreated
from lakehouse.kafka_admin import TopicState
from lakehouse.maintenance.run import Maintainer
from lakehouse.quality.archive import Archive
from lakehouse.recover import make_plan
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.restores import Restores
from lakehouse.sinks.savepoints import Savepoints, live_adds
from lakehouse.sinks.sink import Sink
from lakehouse.storage import open_store
from tests.maintained import GOLD, QUARANTINE, SILVER, START_S, Stream, age
from tests.pipelines import small_pipeline

GRAINS = ("1s", "1m")


class Kafka:
    """What the topic is said to hold."""

    def __init__(self) -> None:
        self.state = TopicState("topic-id", {0: (0, 1_000), 1: (0, 1_000)})

    def topic_state(self, *_: Any) -> TopicState:
        return self.state


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    found = Kafka()
    monkeypatch.setattr("lakehouse.savepoints.kafka_admin.topic_state", found.topic_state)
    return found


def streamed(root: Path, count: int = 4) -> Stream:
    stream = Stream(root, grains=GRAINS)
    stream.send(count, at_s=START_S)
    return stream


def maintained(stream: Stream) -> None:
    """Merge everything and delete whatever may go, as if hours had passed."""
    age(stream.root, 7_200)
    for hours in (1, 2, 3):
        reports = Maintainer(stream.pipeline, clock=lambda hours=hours: time.time() + 3_600 * hours).maintain()  # type: ignore[misc]
        assert not [report.error for report in reports if report.error]


@pytest.mark.usefixtures("kafka")
def test_the_plan_says_what_a_restore_would_do_and_then_it_does(tmp_path: Path) -> None:
    stream = streamed(tmp_path)
    made = savepoints.create(stream.pipeline, "first", note="why")
    assert {name: of.rows for name, of in made.tables.items() if not name.startswith("gold")} == {
        SILVER: 4,
        QUARANTINE: 0,
    }
    stream.send(8, at_s=START_S)
    stream.sink.close()
    plan = savepoints.plan_restore(stream.pipeline, "first")
    assert (plan.again, plan.stands, plan.goes_on) == (8, {"clicks": {0: 6, 1: 6}}, {"clicks": {0: 2, 1: 2}})
    silver = next(change for change in plan.changes if change.table == SILVER)
    assert (silver.rows_now, silver.rows_then, silver.files_back, silver.files_gone) == (12, 4, 0, 2)
    for part in ("savepoint first", "clicks 0:6 1:6", "goes on at clicks 0:2 1:2", "8 offsets are read again"):
        assert part in str(plan)
    before = DeltaTable(str(stream.path(SILVER))).version()
    savepoints.restore(stream.pipeline, "first")
    table = DeltaTable(str(stream.path(SILVER)))
    assert table.version() == before + 1, "by a commit, not by taking history away"
    assert table.history(1)[0]["operation"] == "RESTORE"
    assert savepoints.plan_restore(stream.pipeline, "first").nothing_to_do
    stream.open()
    assert stream.sent == 4
    stream.send(8, at_s=START_S)
    assert stream.silver().num_rows == 12
    assert stream.gold() == stream.expected_gold()


@pytest.mark.usefixtures("kafka")
def test_vacuum_leaves_what_a_savepoint_names_until_it_is_dropped(tmp_path: Path) -> None:
    stream = streamed(tmp_path)
    made = savepoints.create(stream.pipeline, "kept")
    files = {add["path"] for add in made.tables[SILVER].adds}
    for _ in range(12):
        stream.send(4, at_s=START_S)
    maintained(stream)
    assert not files & {Path(uri).name for uri in DeltaTable(str(stream.path(SILVER))).file_uris()}, "all replaced"
    assert files <= {path.name for path in stream.path(SILVER).glob("*.parquet")}
    [listed] = savepoints.listed(stream.pipeline, gb_month=0.023)
    assert listed.held == sum(of.size for of in made.tables.values())
    assert listed.dollars_month == pytest.approx(listed.held / 1e9 * 0.023, abs=1e-4)
    assert "kept" in savepoints.render([listed])
    stream.sink.close()
    savepoints.restore(stream.pipeline, "kept")
    stream.open()
    assert (stream.sent, stream.silver().num_rows) == (4, 4)
    stream.send(4, at_s=START_S)
    maintained(stream)
    savepoints.drop(stream.pipeline, "kept")
    assert savepoints.listed(stream.pipeline, gb_month=1) == []
    for _ in range(3):
        stream.send(4, at_s=START_S)
        maintained(stream)
    assert not files & {path.name for path in stream.path(SILVER).glob("*.parquet")}
    assert stream.gold() == stream.expected_gold()


def test_adds_are_read_verbatim_from_checkpoint_and_commits(tmp_path: Path) -> None:
    stream = streamed(tmp_path)
    stream.send(4, at_s=START_S)
    store = open_store(str(stream.path(SILVER)))
    plain = live_adds(store, SILVER, 2)
    DeltaTable(str(stream.path(SILVER))).create_checkpoint()
    stream.path(SILVER).joinpath("_delta_log", f"{1:020d}.json").unlink()
    again = live_adds(store, SILVER, 2)
    assert [add["path"] for add in plain] == sorted(
        (add["path"] for add in again), key=[a["path"] for a in plain].index
    )
    assert {add["path"]: json.loads(add["stats"]) for add in again} == {
        add["path"]: json.loads(add["stats"]) for add in plain
    }
    stream.send(4, at_s=START_S)
    stream.path(SILVER).joinpath("_delta_log", f"{3:020d}.json").unlink()
    with pytest.raises(TableDamaged, match="missing"):
        live_adds(store, SILVER, 3)


def test_names_are_checked_and_taken_once(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    with pytest.raises(TableError, match="no batch yet"):
        savepoints.create(stream.pipeline, "early")
    stream.send(4, at_s=START_S)
    savepoints.create(stream.pipeline, "one")
    with pytest.raises(ConfigError, match="already"):
        savepoints.create(stream.pipeline, "one")
    for name in ("../x", "A", "", "x/y"):
        with pytest.raises(ConfigError, match="names no savepoint"):
            savepoints.create(stream.pipeline, name)
    with pytest.raises(ConfigError, match="no savepoint two") as caught:
        savepoints.drop(stream.pipeline, "two")
    assert "one" in str(caught.value)


def test_tables_one_batch_apart_are_saved_at_the_batch_that_both_have(tmp_path: Path) -> None:
    """A crash left silver ahead; a savepoint is of the batch before, and comes back whole."""
    stream = streamed(tmp_path)
    stream.send(4, at_s=START_S)
    for table in (QUARANTINE, GOLD):
        newest = DeltaTable(str(stream.path(table))).version()
        stream.path(table).joinpath("_delta_log", f"{newest:020d}.json").unlink()
    made = savepoints.create(stream.pipeline, "apart")
    assert made.batch.end == {"clicks": {0: 2, 1: 2}}
    assert made.tables[SILVER].rows == 4


def test_a_topic_that_no_longer_holds_what_comes_after_is_no_way_back(tmp_path: Path, kafka: Kafka) -> None:
    stream = streamed(tmp_path)
    savepoints.create(stream.pipeline, "old")
    stream.send(4, at_s=START_S)
    kafka.state = TopicState("topic-id", {0: (3, 9), 1: (0, 9)})
    with pytest.raises(RecordsExpired):
        savepoints.plan_restore(stream.pipeline, "old")
    stream.sink.close()
    head = Stream(tmp_path, grains=GRAINS)
    head.sink.close()
    kafka.state = TopicState("another", {0: (0, 9), 1: (0, 9)})
    saved = Savepoints(str(tmp_path), "clicks").find("old")
    object.__setattr__(saved.batch, "topic_ids", {"clicks": "topic-id"})
    with pytest.raises(TopicRecreated):
        savepoints._require_readable(stream.pipeline, saved)


@pytest.mark.usefixtures("kafka")
def test_a_file_of_the_savepoint_that_is_gone_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    stream = streamed(tmp_path)
    made = savepoints.create(stream.pipeline, "torn")
    lost = made.tables[SILVER].adds[0]["path"]
    stream.path(SILVER).joinpath(lost).unlink()
    with pytest.raises(TableDamaged, match=lost):
        savepoints.plan_restore(stream.pipeline, "torn")


def test_a_restore_that_was_decided_is_finished_by_the_next_start_and_refused_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = streamed(tmp_path)
    savepoints.create(stream.pipeline, "first")
    stream.send(4, at_s=START_S)
    stream.sink.close()
    checkpoint = tmp_path / "_checkpoints" / "clicks"
    checkpoint.mkdir(parents=True)
    (checkpoint / "metadata").write_text("{}")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Restores, "_commit", killed)
        with pytest.raises(KeyboardInterrupt):
            savepoints.restore(stream.pipeline, "first")
    with pytest.raises(TableError, match="not in every table"):
        make_plan(stream.pipeline)
    with pytest.raises(ConfigError, match="not finished"):
        savepoints.drop(stream.pipeline, "first")
    stream.open()
    assert (stream.sent, stream.silver().num_rows) == (4, 4)
    assert not checkpoint.exists()
    assert list((tmp_path / "_set_aside").glob("*/_checkpoints/clicks/metadata"))
    assert Restores(str(tmp_path), "clicks").pending() is None
    # A table that is made anew later is not given the restore once more.
    stream.send(4, at_s=START_S)
    stream.sink.close()
    stream.open()
    assert stream.sent == 8


@pytest.mark.usefixtures("kafka")
def test_a_table_that_came_after_the_savepoint_is_empty_and_joins_again(tmp_path: Path) -> None:
    stream = streamed(tmp_path)
    savepoints.create(stream.pipeline, "before")
    stream.send(4, at_s=START_S)
    stream.sink.close()
    wider = small_pipeline(tmp_path, tables={"bronze": True}, maintenance={"retention": "5m"})
    Sink.open(OnePass(str(tmp_path), wider, {})).close()
    plan = savepoints.plan_restore(wider, "before")
    assert plan.joining == ("bronze/clicks",)
    assert "bronze/clicks" in str(plan)
    savepoints.restore(wider, "before")
    sink = Sink.open(OnePass(str(tmp_path), wider, {}))
    assert sink.past.joined.keys() == {"bronze/clicks"}
    sink.close()


def test_the_history_of_suites_goes_back_with_the_tables(tmp_path: Path) -> None:
    stream = streamed(tmp_path)
    head = stream.sink.head
    assert head is not None
    archive = Archive(str(tmp_path))

    def judged(suite: str, start: int) -> None:
        archive._noted.clear()
        archive.note(replace(head, suite_sha256=suite, start={"clicks": {0: start}}))

    for suite, start in (("a", 0), ("b", 10), ("b", 12)):
        judged(suite, start)
    assert [(use.suite_sha256, use.start["clicks"][0]) for use in archive.uses("clicks")] == [("a", 0), ("b", 10)]
    judged("b", 4)
    uses = archive.uses("clicks")
    assert [(use.suite_sha256, use.start["clicks"][0]) for use in uses] == [("a", 0), ("b", 4)]
    assert uses[0].end == {"clicks": {0: 4}}
    judged("c", 7)
    assert [use.suite_sha256 for use in archive.uses("clicks")] == ["a", "b", "c"]


def described(root: Path, name: str = "clicks") -> tuple[Path, Pipeline]:
    pipeline = small_pipeline(root, grains=GRAINS, name=name, maintenance={"retention": "5m"})
    path = root.parent / f"{name}.yaml"
    path.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_defaults=True)))
    return path, pipeline


@pytest.mark.usefixtures("kafka")
def test_the_commands_show_ask_and_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "localhost:1")
    root = tmp_path / "old"
    stream = streamed(root)
    path, _ = described(root)
    run = CliRunner().invoke

    def tell(*arguments: str, exits: int = 0, says: str | None = None) -> str:
        found = run(app, ["savepoint", *arguments], input=says)
        assert found.exit_code == exits, found.output
        return found.output

    assert "goes on at clicks 0:2 1:2" in tell("create", str(path), "a")
    assert json.loads(tell("create", str(path), "b", "--json"))["end"] == {"clicks": {"0": 2, "1": 2}}
    assert [one["name"] for one in json.loads(tell("list", str(path), "--json"))] == ["a", "b"]
    assert isinstance(run(app, ["savepoint", "create", str(path), "a"]).exception, ConfigError)
    stream.send(4, at_s=START_S)
    stream.sink.close()
    assert "do this?" in tell("restore", str(path), "a", exits=1, says="n\n")
    assert json.loads(tell("restore", str(path), "a", "--json", exits=1))["done"] is False
    assert Stream(root, grains=GRAINS).sent == 8
    tell("restore", str(path), "a", "--yes")
    assert "stands at savepoint a already" in tell("restore", str(path), "a")
    other, forked = described(tmp_path / "new", "taps")
    assert "linked" in tell("fork", str(path), "a", "--into", str(other), "--yes")
    assert DeltaTable(f"{forked.root}/silver/taps").to_pyarrow_table().num_rows == 4
    assert json.loads(tell("fork", str(path), "a", "--into", str(other), "--yes", "--json"))["into"] == "taps"
    tell("drop", str(path), "b", exits=1, says="n\n")
    tell("drop", str(path), "b", "--yes")
    assert [one["name"] for one in json.loads(tell("list", str(path), "--json"))] == ["a"]


@pytest.mark.usefixtures("kafka")
def test_a_fork_needs_a_root_of_its_own_and_the_same_records(tmp_path: Path) -> None:
    stream = streamed(tmp_path / "old")
    savepoints.create(stream.pipeline, "a")
    with pytest.raises(ConfigError, match="root of the old one"):
        savepoints.plan_fork(stream.pipeline, "a", stream.pipeline)
    source = stream.pipeline.source.model_copy(update={"topic": "other"})
    other = stream.pipeline.model_copy(update={"root": str(tmp_path / "new"), "source": source})
    with pytest.raises(ConfigError, match="another topic"):
        savepoints.plan_fork(stream.pipeline, "a", other)
    taken = Stream(tmp_path / "new", grains=GRAINS)
    taken.send(4, at_s=START_S)
    into = stream.pipeline.model_copy(update={"root": str(tmp_path / "new")})
    with pytest.raises(TableError, match="not of this fork"):
        savepoints.fork(stream.pipeline, "a", into)
