"""A pipeline's figures: declared once, told by a Prometheus endpoint and the journal `_ops/NAME`, never in the way."""

from __future__ import annotations

import re
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from prometheus_client.parser import text_string_to_metric_families

from lakehouse.config.models import Source
from lakehouse.errors import ConfigError
from lakehouse.metrics import catalogue, sampler, telemetry
from lakehouse.metrics.catalogue import METRICS, MOST_VALUES, OTHER
from lakehouse.metrics.exporter import Exporter
from lakehouse.metrics.record import Committed, Record, Sample, TableFigures, lag, look, record_of
from lakehouse.metrics.telemetry import Telemetry
from lakehouse.quality.watch import Outcome
from lakehouse.serving import beacon
from tests.maintained import START_S, Stream
from tests.pipelines import small_pipeline

OUTCOMES = (Outcome("page_known", 8, failed=3), Outcome("id_set", 8, failed=0), Outcome("mean_ms", 8, value=2.5))
DOCS = Path(__file__).parents[2] / "docs" / "operations.md"


def committed(stream: Stream, count: int = 8, *, at_s: float = START_S) -> Committed:
    stream.send(count, at_s=at_s)
    assert stream.sink.head is not None
    return Committed(stream.sink.head, 0.2, 0.03, OUTCOMES, 2, at_s + 1.5)


def samples(exporter: Exporter) -> dict[tuple[str, ...], float]:
    """(name, values of its own labels in the order of their names) → value."""
    return {
        (sample.name, *(value for label, value in sorted(sample.labels.items()) if label != "pipeline")): sample.value
        for family in text_string_to_metric_families(exporter.text())
        for sample in family.samples
    }


def test_the_record_of_a_batch_says_what_its_commits_say(tmp_path: Path) -> None:
    done = committed(Stream(tmp_path))
    sample = Sample(START_S, {0: 10, 1: 3, 2: 7}, {"driver": 5})
    record = record_of(done, sample, {"silver/clicks": TableFigures(3, 99, 7)}, "at")
    assert record.batch_id == 0
    assert record.rows == {"silver/clicks": 8, "quarantine/clicks": 0, "gold/clicks_by_page_1s": 7}
    assert record.failed == {"page_known": 3}
    # Four records of each partition are in the tables; what came after the look is no debt.
    assert record.lag == {0: 6, 1: 0, 2: 7}
    assert record.freshness_s == pytest.approx(1.5, abs=0.001)
    assert record.newest_event_s == pytest.approx(START_S, abs=0.002)
    row = record.to_row()
    assert row["lag"] == [(0, 6), (1, 0), (2, 7)]
    assert row["files"] == [("silver/clicks", 3)]
    assert row["log_files"] == [("silver/clicks", 7)]


def test_a_kafka_that_is_away_leaves_the_lag_unknown(tmp_path: Path) -> None:
    done = committed(Stream(tmp_path))
    assert lag(done.batch, None) == {}
    assert record_of(done, None, {}, "at").reachable is None
    record = look(done.batch, Sample(START_S, None, {}), {})
    assert (record.lag, record.reachable, record.batch_id) == ({}, False, None)


def test_every_metric_follows_the_conventions() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"lakehouse_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        if metric.kind == "histogram" or "timestamp" in metric.name:
            assert metric.name.endswith("_seconds")
        assert not re.search(r"_(ms|millis|mib|kb|percent)\b", metric.name)
        assert metric.help.endswith(".")
        assert "pipeline" not in metric.labels


def test_every_declared_metric_is_exposed_and_no_other(tmp_path: Path) -> None:
    exporter = Exporter("clicks")
    record = record_of(committed(Stream(tmp_path)), Sample(START_S, {0: 5}, {"driver": 7}), {}, "at")
    exporter.record(record)
    exporter.table("silver/clicks", TableFigures(3, 99, 7), at_s=START_S, cpu_s=0.5, failed=False)
    exporter.alert("slow", "critical", firing=True)
    exporter.waiting()
    exporter.left_out(2)
    exporter.left_out(2)
    found = samples(exporter)
    declared = {series for metric in METRICS for series in metric.series}
    assert {name for name, *_ in found} == declared - {beacon.NAME}, "a dashboard's process exposes that one"
    assert found["lakehouse_rows_total", "silver/clicks"] == 8
    assert found["lakehouse_rule_failed_rows_total", "page_known"] == 3
    assert found["lakehouse_kafka_lag_records", "0"] == 1
    assert found["lakehouse_batch_duration_seconds_sum", "job"] == 0.2
    assert found["lakehouse_late_events_total",] == 2
    assert found["lakehouse_ops_left_out_total",] == 2
    assert found["lakehouse_alert_firing", "slow", "critical"] == 1
    exporter.record(record)
    assert samples(exporter)["lakehouse_rows_total", "silver/clicks"] == 16


def test_no_label_has_more_values_than_the_bound() -> None:
    exporter = Exporter("clicks")
    many = MOST_VALUES + 50
    exporter.record(
        Record(
            at_s=START_S,
            batch_id=1,
            job_s=0.1,
            commit_s=0.1,
            failed={f"rule_{number}": 1 for number in range(many)},
            lag=dict.fromkeys(range(many), 1),
        )
    )
    found = samples(exporter)
    of_rules = {key: value for key, value in found.items() if key[0] == "lakehouse_rule_failed_rows_total"}
    of_lag = {key: value for key, value in found.items() if key[0] == "lakehouse_kafka_lag_records"}
    for series in (of_rules, of_lag):
        assert len(series) <= MOST_VALUES + 1
        assert sum(series.values()) == many
        assert any(key[1] == OTHER for key in series)


@contextmanager
def running(root: Path, **options: Any) -> Iterator[Telemetry]:
    """Figures of `clicks` with a Kafka that holds 10 records of each partition; one look, at the start."""
    looked = options.pop("sample", lambda _: Sample(time.time(), {0: 10, 1: 10}, {"driver": 1}))
    opened = Telemetry.open(small_pipeline(root, **options), sample=looked, sample_s=3_600)
    try:
        yield opened
    finally:
        opened.close()


def ops(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DeltaTable(f"{root}/_ops/clicks").to_pyarrow_table().to_pylist()
    return sorted(found, key=lambda row: row["time"])


def test_batches_reach_the_journal_and_the_endpoint(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with running(tmp_path, metrics={"port": port}) as told:
        for number in range(3):
            done = committed(stream, at_s=START_S + number)
            told.committed(done.batch, OUTCOMES, 2, 0.2, 0.03)
        told.maintained(
            {"table": "silver/clicks", "files_after": 6, "bytes_after": 9, "log_files": 4, "error": None, "cpu_s": 0.1}
        )
        told.maintained(
            {
                "table": "silver/clicks",
                "files_after": 1,
                "bytes_after": 8,
                "log_files": None,
                "error": "x",
                "cpu_s": 0.1,
            }
        )
        done = committed(stream, at_s=START_S + 3)
        told.committed(done.batch, OUTCOMES, 2, 0.2, 0.03)
        until(lambda: samples(told.exporter)["lakehouse_batches_total",] == 4)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert b'lakehouse_rows_total{pipeline="clicks",table="silver/clicks"} 32.0' in answer.read()
        found = samples(told.exporter)
        assert found["lakehouse_table_files", "silver/clicks"] == 1
        assert found["lakehouse_table_log_files", "silver/clicks"] == 4
        assert found["lakehouse_maintenance_failures_total", "silver/clicks"] == 1
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)
    batches = [row for row in ops(tmp_path) if row["batch_id"] is not None]
    assert [row["batch_id"] for row in batches] == [0, 1, 2, 3]
    assert dict(batches[-1]["rows"])["silver/clicks"] == 8
    assert dict(batches[-1]["files"]) == {"silver/clicks": 1}
    assert batches[-1]["late"] == 2


def until(condition: Any) -> None:
    deadline, waiting = time.monotonic() + 20, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        waiting.wait(0.005)


def test_a_pipeline_without_batches_still_says_how_far_behind_it_is(tmp_path: Path) -> None:
    looked = threading.Event()

    def sample(_: Source) -> Sample:
        looked.set()
        return Sample(START_S, {0: 10}, {"driver": 1})

    with running(tmp_path, sample=sample) as told:
        until(lambda: looked.is_set() and "lakehouse_kafka_reachable{" in told.exporter.text())
        until(lambda: samples(told.exporter)["lakehouse_kafka_reachable",] == 1)
    [row] = ops(tmp_path)
    assert (row["batch_id"], row["kafka_reachable"]) == (None, True)


def test_no_port_is_opened_unless_the_file_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Exporter, "serve", None)
    with running(tmp_path):
        pass


def test_a_port_that_is_taken_is_told_before_the_start(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(ConfigError, match="cannot listen"),
            running(tmp_path, metrics={"port": taken.getsockname()[1]}),
        ):
            pass


def test_the_hot_path_neither_waits_nor_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_WAITING", 3)
    stuck = threading.Event()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "_ops").write_text("a file where the folder should be")
    done = committed(Stream(tmp_path / "other"))
    with running(tmp_path / "data", sample=lambda _: stuck.wait(10) and Sample(START_S)) as told:
        told._put(lambda: stuck.wait(10) and None)  # the thread stands still
        began = time.monotonic()
        for _ in range(10):
            told.committed(done.batch, OUTCOMES, 0, 0.1, 0.1)
        assert time.monotonic() - began < 1
        stuck.set()
        until(told._queue.empty)
    assert told._lost > 0
    assert told._journal.left_out == 1


def test_what_fails_in_a_figure_is_said_and_the_next_one_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = committed(Stream(tmp_path))
    with running(tmp_path) as told:
        told.maintained({"table": "half a report"})
        told.committed(done.batch, OUTCOMES, 0, 0.1, 0.1)
    assert "a figure is left out: KeyError" in caplog.text
    assert samples(told.exporter)["lakehouse_batches_total",] == 1


def test_without_news_it_is_told_that_the_driver_lives_and_how_long_tables_wait(tmp_path: Path) -> None:
    stuck = threading.Event()
    now = [START_S]
    told = Telemetry.open(
        small_pipeline(tmp_path, alerts={"every": "1s", "rules": {"behind": {"kind": "lag", "limit": 1}}}),
        sample=lambda _: stuck.wait(30) and Sample(START_S),
        flush_s=0.05,
        clock=lambda: now[0],
    )
    report = {"files_after": 1, "bytes_after": 9, "log_files": None, "cpu_s": 0.1}
    told.maintained(report | {"table": "silver/clicks", "error": None})
    now[0] += 5
    told.maintained(report | {"table": "quarantine/clicks", "error": "torn"})
    while not told._maintained_at.get("quarantine/clicks"):
        time.sleep(0.01)
    told.close()
    stuck.set()
    last = ops(tmp_path)[-1]
    assert (last["batch_id"], last["kafka_reachable"], last["lag"]) == (None, None, [])
    assert last["maintained"].timestamp() == START_S, "a table that could not be maintained waits since the start"


def test_how_far_a_batch_lies_ahead_of_the_clock(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    with running(tmp_path) as told:
        told.committed(committed(stream, at_s=time.time() + 90).batch, OUTCOMES, 0, 0.1, 0.1)
        told.committed(committed(stream, at_s=time.time() - 90).batch, OUTCOMES, 0, 0.1, 0.1)
    ahead = [row["ahead_seconds"] for row in ops(tmp_path) if row["batch_id"] is not None]
    assert ahead == [pytest.approx(90, abs=30), 0.0]
    assert samples(told.exporter)["lakehouse_clock_ahead_seconds",] == 0.0


def test_memory_is_that_of_the_process_tree() -> None:
    found = sampler.memory()
    assert set(found) == {"driver", "jvm", "workers", "children"}
    assert found["driver"] > 2**20
    assert sampler.memory(2**22 + 1) == {"driver": 0, "jvm": 0, "workers": 0, "children": 0}


def test_a_kafka_that_does_not_answer_gives_no_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lakehouse.errors import SourceUnavailable

    def away(*_: object) -> None:
        raise SourceUnavailable("away")

    pipeline = small_pipeline(tmp_path)
    monkeypatch.setattr(sampler.kafka_admin, "offsets", away)
    assert sampler.take(pipeline).ends is None
    monkeypatch.setattr(sampler.kafka_admin, "offsets", lambda *_: {0: (3, 9)})
    found = sampler.take(pipeline)
    assert found.ends == {0: 9}
    assert found.disk is not None
    assert 0 < found.disk[0] <= found.disk[1]


def test_the_documented_metrics_are_the_declared_ones() -> None:
    assert catalogue.render() in DOCS.read_text(), "put `python -m lakehouse.metrics.catalogue` into docs/operations.md"
