"""Recovery on a real broker: topics, partitions, checkpoints and tables that change under a pipeline."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from lakehouse import kafka_admin
from lakehouse import pipeline as flow
from lakehouse.doctor import examine
from lakehouse.errors import LakehouseError, RecordsExpired, SecondDriver, StaleCheckpoint, TopicRecreated
from lakehouse.recover import carry_out, make_plan
from lakehouse.sinks.sink import Sink
from lakehouse.streaming import query as streaming
from lakehouse.topic import read_range
from tests.integration.stack import Stack, until

GOLD = "gold/feature_events_by_feature_1s"
TABLES = ("silver/feature_events", "quarantine/feature_events", GOLD)


def recover(stack: Stack) -> list[str]:
    """Carry out what recover plans; the kinds of its steps. A second call finds nothing to do."""
    plan = make_plan(stack.pipeline())
    carry_out(stack.pipeline(), plan)
    assert make_plan(stack.pipeline()).healthy
    return [step.kind for step in plan.steps]


@contextmanager
def running(stack: Stack) -> Iterator[list[BaseException]]:
    """The pipeline in a thread, for ever; what it failed with stands in the list afterwards."""
    stop, ready = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def drive() -> None:
        try:
            flow.run(stack.spark, stack.pipeline("processing_time"), stop, on_start=ready.set)
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            failures.append(error)
            ready.set()

    thread = threading.Thread(target=drive)
    thread.start()
    assert ready.wait(60)
    try:
        yield failures
    finally:
        stop.set()
        thread.join(60)


def good_value(stack: Stack) -> bytes:
    """The bytes of some event of the topic."""
    ends = {number: latest for number, (_, latest) in kafka_admin.offsets(stack.bootstrap, stack.topic).items()}
    return next(record.value for record in read_range(stack.bootstrap, stack.topic, {}, ends) if record.value)


def test_partitions_added_while_it_runs_are_read_and_a_second_driver_is_refused(stack: Stack) -> None:
    stack.send(300, seed=1)
    value = good_value(stack)
    with running(stack) as failures:
        until(lambda: caught_up(stack, 300), "the first records")
        with pytest.raises(SecondDriver, match="process"):
            stack.catch_up()
        admin = AdminClient({"bootstrap.servers": stack.bootstrap})
        admin.create_partitions([NewPartitions(stack.topic, 4)])[stack.topic].result()
        until(lambda: len(kafka_admin.topic_partitions(stack.bootstrap, stack.topic)) == 4, "the new partitions")
        producer = Producer({"bootstrap.servers": stack.bootstrap})
        for number in range(100):
            producer.produce(stack.topic, value, partition=2 + number % 2)
        producer.flush()
        until(lambda: caught_up(stack, 400), "the records of the new partitions")
        assert failures == []
    proof = stack.reconcile()
    assert proof.ok, proof
    assert sorted(proof.end) == [0, 1, 2, 3]


def caught_up(stack: Stack, records: int) -> bool:
    try:
        return stack.reconcile().records == records
    except LakehouseError:
        return False


def test_a_lost_checkpoint_over_a_half_committed_batch_costs_nothing(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.send(500, seed=1)
    stack.catch_up()
    stack.send(500, seed=2)
    commit = Sink._commit

    def cut_in_two(self: Sink, batch: object) -> object:
        next(iter(self._logs.values())).append(batch)  # type: ignore[arg-type]
        raise RuntimeError("killed between two tables")

    with monkeypatch.context() as patched:
        patched.setattr(Sink, "_commit", cut_in_two)
        with pytest.raises(LakehouseError, match="killed"):
            stack.catch_up()
    assert Sink._commit is commit
    shutil.rmtree(stack.checkpoint)
    assert next(iter(examine(stack.pipeline()).findings)).severity == "warning"
    stack.send(500, seed=3)
    stack.catch_up()
    proof = stack.reconcile()
    assert proof.ok, proof
    assert proof.records == 1_500
    assert examine(stack.pipeline()).healthy


def test_expired_records_stop_the_start_and_are_acknowledged_once(stack: Stack) -> None:
    stack.send(400, seed=1)
    stack.catch_up()
    end = {number: latest for number, (_, latest) in kafka_admin.offsets(stack.bootstrap, stack.topic).items()}
    stack.send(400, seed=2)
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    for future in admin.delete_records([TopicPartition(stack.topic, 0, end[0] + 50)]).values():
        future.result()
    with pytest.raises(RecordsExpired, match=f"partition 0 offsets {end[0]}–{end[0] + 50}"):
        stack.catch_up()
    assert recover(stack) == ["set_checkpoint_aside", "acknowledge"]
    stack.catch_up()
    proof = stack.reconcile()
    assert proof.ok, proof
    assert [(gap.partition, gap.start, gap.end) for gap in proof.gaps] == [(0, end[0], end[0] + 50)]
    assert f"ACKNOWLEDGED GAP: partition 0, offsets {end[0]}–{end[0] + 50}" in str(proof)
    assert proof.silver + proof.quarantine == proof.former_rows + proof.expired_rows + proof.records == 750
    assert proof.expired_rows == end[0]


@pytest.mark.timeout(400)
def test_a_topic_made_anew_is_noticed_while_it_runs_and_at_the_start(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "_WATCH_EVERY_S", 0.0)
    stack.send(600, seed=1)
    with running(stack) as failures:
        until(lambda: caught_up(stack, 600), "the first records")
        kafka_admin.delete_topic(stack.bootstrap, stack.topic)
        until(lambda: made_anew(stack), "the new topic")
        stack.send(900, seed=2)
        until(lambda: bool(failures), "the driver's end")
    assert isinstance(failures[0], LakehouseError), failures
    # A topic that is gone for a moment is named as such; the next start sees the new one.
    with pytest.raises(TopicRecreated, match="made anew"):
        stack.catch_up()
    assert recover(stack) == ["set_checkpoint_aside", "acknowledge"]
    stack.catch_up()
    proof = stack.reconcile()
    assert proof.ok, proof
    # What was read of the new topic before the driver looked is told apart too.
    assert proof.records == 900
    assert 600 <= proof.former_rows <= 900
    assert "ACKNOWLEDGED LOSS: the topic was made anew" in str(proof)
    # The same positions stand in the tables twice, once of each content; a third time would be noticed.
    assert stack.catch_up() == []


def made_anew(stack: Stack) -> bool:
    try:
        return kafka_admin.create_topic(stack.bootstrap, stack.topic, 2)
    except LakehouseError:
        return False


def test_a_rollup_and_bronze_join_later_and_are_compared_from_there(stack: Stack) -> None:
    rollups = stack.pipeline().model_dump(mode="json")["rollups"]
    stack.changes = {"rollups": {}}
    stack.send(500, seed=1)
    stack.catch_up()
    stack.changes = {"rollups": rollups, "tables": {"bronze": True}}
    stack.send(500, seed=2)
    stack.catch_up()
    proof = stack.reconcile()
    assert proof.ok, proof
    assert proof.records == 1_000
    assert len(stack.rows("bronze")) == 500
    # It is left out for a batch, and may not come back as if nothing had been missed.
    stack.changes = {"rollups": {}}
    stack.send(100, seed=3)
    stack.catch_up()
    stack.changes = {"rollups": rollups}
    with pytest.raises(LakehouseError, match="while the pipeline's other tables"):
        stack.catch_up()
    assert recover(stack) == ["rejoin_table"]
    stack.send(100, seed=4)
    stack.catch_up()
    proof = stack.reconcile()
    assert proof.ok, proof
    assert proof.records == 1_200
    assert (stack.root / "_set_aside").is_dir()


def test_yesterdays_checkpoint_is_set_aside_and_costs_nothing(stack: Stack) -> None:
    stack.send(400, seed=1)
    stack.catch_up()
    yesterday: Path = stack.root / "yesterday"
    shutil.copytree(stack.checkpoint, yesterday)
    stack.send(400, seed=2)
    stack.catch_up()
    shutil.rmtree(stack.checkpoint)
    yesterday.rename(stack.checkpoint)
    with pytest.raises(StaleCheckpoint, match="old copy"):
        stack.catch_up()
    assert recover(stack) == ["set_checkpoint_aside"]
    stack.send(400, seed=3)
    stack.catch_up()
    proof = stack.reconcile()
    assert proof.ok, proof
    assert proof.records == 1_200
