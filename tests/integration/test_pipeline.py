"""From a real topic into real tables: everything once, every bad byte kept, whatever happens in between."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Producer
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lakehouse import broker as embedded
from lakehouse import kafka_admin
from lakehouse import pipeline as flow
from lakehouse.errors import ChainError, CheckpointError, SourceUnavailable
from lakehouse.load.faults import Fault
from lakehouse.metrics.telemetry import Telemetry
from lakehouse.runner import run
from lakehouse.topic import read_range
from tests.integration.stack import Stack, kill, until

GOLD = "gold/feature_events_by_feature_1s"


def test_every_kind_of_bad_event_is_quarantined_with_its_bytes_and_a_reason(stack: Stack) -> None:
    report = stack.send(3_000, bad_share=0.3)
    assert set(report.bad) == set(Fault)
    stack.catch_up()
    proof = stack.reconcile()
    assert proof.ok, proof
    assert proof.records == 3_000

    kept = {(row["_partition"], row["_offset"]): row for row in stack.rows("quarantine")}
    assert set(kept) == {(bad.partition, bad.offset) for bad in report.ledger}
    ends = {number: latest for number, (_, latest) in kafka_admin.offsets(stack.bootstrap, stack.topic).items()}
    sent = {
        (record.partition, record.offset): record.value for record in read_range(stack.bootstrap, stack.topic, {}, ends)
    }
    reasons: dict[Fault, Counter[str]] = {fault: Counter() for fault in Fault}
    for bad in report.ledger:
        row = kept[bad.partition, bad.offset]
        assert row["_value"] == sent[bad.partition, bad.offset]
        assert row["_errors"], f"{bad} has no reason"
        assert all(error["message"] for error in row["_errors"])  # type: ignore[attr-defined]
        reasons[bad.fault].update(error["rule_id"] for error in row["_errors"])  # type: ignore[attr-defined]
    assert set(reasons[Fault.TRUNCATED_JSON]) == {"contract.json"}
    assert set(reasons[Fault.INVALID_UTF8]) == {"contract.encoding"}
    assert all(rule.startswith("contract.type.") for rule in reasons[Fault.MISTYPED_FIELD])
    assert all(counted for counted in reasons.values())


def test_a_restart_goes_on_where_it_stopped(stack: Stack) -> None:
    for seed in (1, 2, 3):
        stack.send(700, seed=seed)
        stack.catch_up()
    proof = stack.reconcile()
    assert proof.ok, proof
    assert proof.records == 2_100
    assert stack.catch_up() == []


def test_a_lost_checkpoint_costs_nothing(stack: Stack) -> None:
    stack.send(800, seed=1)
    stack.catch_up()
    shutil.rmtree(stack.checkpoint)
    stack.send(800, seed=2)
    stack.catch_up()
    proof = stack.reconcile()
    assert proof.ok, proof
    assert proof.records == 1_600


def test_an_old_checkpoint_is_refused_by_name(stack: Stack) -> None:
    stack.send(500, seed=1)
    stack.catch_up()
    yesterday = stack.root / "yesterday"
    shutil.copytree(stack.checkpoint, yesterday)
    stack.send(500, seed=2)
    stack.catch_up()
    shutil.rmtree(stack.checkpoint)
    yesterday.rename(stack.checkpoint)
    with pytest.raises(CheckpointError, match="old copy"):
        stack.catch_up()
    assert stack.reconcile().ok


def test_a_batch_that_spark_did_not_note_is_not_run_again(stack: Stack) -> None:
    stack.send(500, seed=1)
    stack.catch_up()
    commits = stack.checkpoint / "commits"
    max((path for path in commits.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name)).unlink()
    assert stack.catch_up() == []
    proof = stack.reconcile()
    assert proof.ok, proof


def test_a_second_driver_is_stopped_and_leaves_no_row(stack: Stack) -> None:
    stack.send(600, seed=1)
    stack.catch_up()
    stop, ready = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def slow_driver() -> None:
        def on_start() -> None:
            ready.set()

        try:
            flow.run(stack.spark, stack.pipeline("processing_time"), stop, on_start=on_start)
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            failures.append(error)

    slow = threading.Thread(target=slow_driver)
    slow.start()
    assert ready.wait(60)
    # The other driver has a checkpoint of its own and is quicker to see the new records.
    other = Stack(stack.spark, stack.bootstrap, stack.topic, stack.root, {"name": "feature_events"})
    shutil.copytree(stack.checkpoint, stack.root / "kept")
    stack.send(600, seed=2)
    until(lambda: other.reconcile().records == 1_200, "the running driver takes the new records")
    stop.set()
    slow.join(60)
    assert failures == []
    shutil.rmtree(stack.checkpoint)
    (stack.root / "kept").rename(stack.checkpoint)
    with pytest.raises((ChainError, CheckpointError)):
        stack.catch_up()
    assert stack.reconcile().ok


def test_aborted_transactions_are_in_no_table_and_gaps_are_no_loss(stack: Stack) -> None:
    stack.send(300, seed=1, bad_share=0)
    producer = Producer({"bootstrap.servers": stack.bootstrap, "transactional.id": f"tx-{stack.topic}"})
    producer.init_transactions(30)
    value = stack_value(stack)
    for commit in (True, False, True, False):
        producer.begin_transaction()
        for _ in range(50):
            producer.produce(stack.topic, value)
        producer.flush()
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)
    stack.catch_up()
    proof = stack.reconcile()
    assert proof.ok, proof
    assert proof.records == 400


def stack_value(stack: Stack) -> bytes:
    """The bytes of some good event of the topic."""
    ends = {number: latest for number, (_, latest) in kafka_admin.offsets(stack.bootstrap, stack.topic).items()}
    return next(record.value for record in read_range(stack.bootstrap, stack.topic, {}, ends) if record.value)


def test_bronze_keeps_every_record(stack: Stack) -> None:
    stack.changes["tables"] = {"bronze": True}
    stack.send(600, bad_share=0.2)
    stack.catch_up()
    proof = stack.reconcile()
    assert proof.ok, proof
    assert len(stack.rows("bronze")) == 600
    quarantined = {(row["_partition"], row["_offset"]): row["_value"] for row in stack.rows("quarantine")}
    raw = {(row["_partition"], row["_offset"]): row["_value"] for row in stack.rows("bronze")}
    assert quarantined.items() <= raw.items()


def test_spark_merges_the_sketches_to_what_it_computes_from_silver(stack: Stack) -> None:
    stack.send(4_000)
    stack.catch_up()
    # As any Spark reads Delta's Parquet: by the files of the current version, without this project.
    silver = read_files(stack, "silver/feature_events")
    gold = read_files(stack, GOLD)
    exact = silver.groupBy("feature").agg(
        F.count("*").alias("events"),
        F.countDistinct("user_id").alias("users"),
        F.hll_sketch_estimate(F.hll_sketch_agg("user_id", F.lit(12))).alias("users_hll"),
        F.expr("percentile(latency_ms, 0.5)").alias("p50"),
    )
    merged = gold.groupBy("feature").agg(
        F.sum("events").alias("events"),
        F.hll_sketch_estimate(F.hll_union_agg("users_hll")).alias("users_hll"),
        F.expr("kll_sketch_get_rank_double(kll_merge_agg_double(latency_ms_kll), 1e12)").alias("top_rank"),
        F.expr("kll_sketch_get_n_double(kll_merge_agg_double(latency_ms_kll))").alias("n"),
        F.expr("kll_sketch_get_quantile_double(kll_merge_agg_double(latency_ms_kll), 0.5D)").alias("p50"),
    )
    expected = {row["feature"]: row for row in exact.collect()}
    found = {row["feature"]: row for row in merged.collect()}
    assert expected.keys() == found.keys()
    for feature, row in found.items():
        assert row["events"] == row["n"] == expected[feature]["events"]
        assert row["users_hll"] == pytest.approx(expected[feature]["users"], rel=0.05, abs=1)
        assert row["p50"] == pytest.approx(expected[feature]["p50"], rel=0.15)


def read_files(stack: Stack, table: str):  # type: ignore[no-untyped-def]  # noqa: ANN201 - a DataFrame
    from deltalake import DeltaTable

    return stack.spark.read.parquet(*DeltaTable(str(stack.root / table)).file_uris())


@pytest.mark.timeout(600)
def test_kill_9_at_any_moment_loses_and_doubles_nothing(stack: Stack, tmp_path: Path) -> None:
    pipeline_file = stack.file(tmp_path)
    log = stack.root / "silver" / "feature_events" / "_delta_log"
    for round_number in range(2):
        before = len(list(log.glob("*.json"))) if log.exists() else 0
        process = stack.start_process(pipeline_file)
        for part in range(3):
            stack.send(500, seed=10 * round_number + part)
        until(
            lambda before=before: log.exists() and len(list(log.glob("*.json"))) >= before + 1,  # type: ignore[misc]
            "the first commit",
            timeout_s=120,
        )
        stack.send(500, seed=10 * round_number + 5)
        kill(process)
    stack.catch_up()
    proof = stack.reconcile()
    assert proof.ok, proof
    assert proof.records == 2 * 2_000


@pytest.mark.timeout(300)
def test_a_broker_that_is_absent_and_then_lost_is_waited_for(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, port = tmp_path / "broker", embedded.free_port()
    stack = Stack(spark, f"127.0.0.1:{port}", "events", tmp_path)
    stop = threading.Event()
    failures: list[BaseException] = []

    def drive() -> None:
        try:
            pipeline = stack.pipeline("processing_time")
            with closing(Telemetry.open(pipeline)) as telemetry:
                run(spark, pipeline, stop, telemetry, as_json=True)
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            failures.append(error)

    # The topic is there whenever the broker is: a driver that found the one without the other would rightly end.
    embedded.start(folder, port=port)
    kafka_admin.create_topic(stack.bootstrap, stack.topic, 2)
    embedded.stop(folder)
    with pytest.raises(SourceUnavailable):
        stack.catch_up()
    driver = threading.Thread(target=drive)
    driver.start()
    try:
        heard: list[str] = []

        def says(word: str) -> bool:
            assert failures == [], "the driver has ended"
            heard.append(capsys.readouterr().out)
            return word in "".join(heard)

        until(lambda: says('"event":"waiting"'), "the message that Kafka is away")
        embedded.start(folder, port=port)
        stack.send(400, seed=1)
        until(lambda: says('"event":"batch"'), "the first batch", 120)
        heard.clear()
        embedded.stop(folder)
        until(lambda: says('"event":"waiting"'), "the message that Kafka is lost", 120)
        embedded.start(folder, port=port)
        stack.send(400, seed=2)
        until(lambda: says('"event":"batch"'), "a batch after the outage", 120)
    finally:
        stop.set()
        driver.join(60)
    assert failures == []
    stack.catch_up()
    proof = stack.reconcile()
    embedded.stop(folder)
    assert proof.ok, proof
    assert proof.records == 800
