from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING

import psutil
import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer, Message, TopicPartition

from lakehouse import broker as embedded
from lakehouse import kafka_admin
from lakehouse.errors import ConfigError, SourceUnavailable
from lakehouse.load import producer
from lakehouse.load.faults import Fault
from lakehouse.load.plan import Load, blocks
from lakehouse.load.producer import LoadReport, produce
from tests.loads import FEATURE_EVENTS

if TYPE_CHECKING:
    from pathlib import Path

    from lakehouse.broker import Broker

PAST = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
"""A start that lies in the past: every record is due at once."""


def read_all(bootstrap: str, topic: str) -> list[Message]:
    ends = kafka_admin.offsets(bootstrap, topic)
    wanted = sum(latest for _, latest in ends.values())
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, number, 0) for number in ends])
    found: list[Message] = []
    while len(found) < wanted:
        found += consumer.consume(wanted - len(found), timeout=10)
    consumer.close()
    assert len(found) == wanted
    return found


def test_what_is_stored_is_the_plan_byte_for_byte(broker: Broker, topic: str) -> None:
    load = Load(FEATURE_EVENTS, rate=50_000, count=5_000, seed=4, bad_share=0.1, late_share=0.05, keep_ledger=True)
    report = produce(load, broker.bootstrap, topic, start_at=PAST)
    planned = list(blocks(load, round(PAST.timestamp() * 1000)))
    stored = read_all(broker.bootstrap, topic)

    expected = Counter(
        chain.from_iterable(zip(block.keys, block.values, block.due.tolist(), strict=True) for block in planned)
    )
    assert Counter((m.key(), m.value(), m.timestamp()[1]) for m in stored) == expected
    assert {m.timestamp()[0] for m in stored} == {TIMESTAMP_CREATE_TIME}

    assert (report.sent, report.acked, report.failed) == (5_000, 5_000, 0)
    assert report.bad == Counter(fault for block in planned for fault in block.bad.values())
    assert report.late == sum(len(block.late) for block in planned)


def test_the_ledger_names_each_bad_record(broker: Broker, topic: str) -> None:
    load = Load(FEATURE_EVENTS, count=3_000, bad_share=0.2, late_share=0, keep_ledger=True)
    report = produce(load, broker.bootstrap, topic, start_at=PAST)
    at = {(m.partition(), m.offset()): m.value() for m in read_all(broker.bootstrap, topic)}
    planned = Counter(
        (fault, block.values[position])
        for block in blocks(load, round(PAST.timestamp() * 1000))
        for position, fault in block.bad.items()
    )
    assert Counter((entry.fault, at[entry.partition, entry.offset]) for entry in report.ledger) == planned


def test_empty_and_null_values_stay_two_things(broker: Broker, topic: str) -> None:
    load = Load(FEATURE_EVENTS, count=500, bad_share=1, faults=(Fault.EMPTY, Fault.TOMBSTONE))
    report = produce(load, broker.bootstrap, topic, start_at=PAST)
    stored = Counter(m.value() for m in read_all(broker.bootstrap, topic))
    assert stored == {b"": report.bad[Fault.EMPTY], None: report.bad[Fault.TOMBSTONE]}
    assert report.ledger == ()


def test_a_user_stays_in_one_partition(broker: Broker, topic: str) -> None:
    produce(Load(FEATURE_EVENTS, count=5_000), broker.bootstrap, topic, start_at=PAST)
    homes: dict[bytes | None, set[int | None]] = {}
    for message in read_all(broker.bootstrap, topic):
        homes.setdefault(message.key(), set()).add(message.partition())
    assert all(len(partitions) == 1 for partitions in homes.values())
    assert set.union(*homes.values()) == {0, 1}


def test_the_schedule_is_kept_in_real_time(broker: Broker, topic: str) -> None:
    reports: list[LoadReport] = []
    seen_after_s: list[float] = []

    def note(report: LoadReport) -> None:
        reports.append(report)
        seen_after_s.append(time.time() - started)

    load = Load(FEATURE_EVENTS, rate=1_000, seconds=2.5, shape="flat", bad_share=0)
    started = time.time()
    report = produce(load, broker.bootstrap, topic, on_progress=note)
    assert (report.sent, report.acked) == (2_500, 2_500)
    assert time.time() - started > 2.4
    assert [each.sent for each in reports] == sorted(each.sent for each in reports)
    # Never ahead of the clock; held against a clock that started before the schedule did.
    assert all(0 < each.sent <= 1_000 * after_s + 1 for each, after_s in zip(reports, seen_after_s, strict=True))
    stamps = sorted(m.timestamp()[1] for m in read_all(broker.bootstrap, topic))
    assert stamps[-1] - stamps[0] == 2_499


def test_a_start_in_the_future_is_waited_for(broker: Broker, topic: str) -> None:
    begin = datetime.now(UTC) + timedelta(seconds=1)
    report = produce(Load(FEATURE_EVENTS, count=10), broker.bootstrap, topic, start_at=begin)
    assert datetime.now(UTC) >= begin
    assert report.acked == 10


def test_a_missing_topic_is_made_with_its_partitions(broker: Broker, topic: str) -> None:
    name = f"{topic}_new"
    produce(Load(FEATURE_EVENTS, count=10, partitions=3), broker.bootstrap, name, start_at=PAST)
    assert kafka_admin.topic_partitions(broker.bootstrap, name) == [0, 1, 2]
    kafka_admin.delete_topic(broker.bootstrap, name)


def test_stop_ends_an_endless_load(broker: Broker, topic: str) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    report = produce(Load(FEATURE_EVENTS, rate=1_000), broker.bootstrap, topic, stop=stop)
    assert report.sent == report.acked > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_endless_load_and_its_handler_returns(
    broker: Broker, topic: str, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    threading.Timer(0.5, lambda: os.kill(os.getpid(), number)).start()
    report = produce(Load(FEATURE_EVENTS, rate=1_000), broker.bootstrap, topic)
    assert report.sent == report.acked > 0
    assert signal.getsignal(number) is before


def test_without_a_broker_nothing_is_started() -> None:
    with pytest.raises(SourceUnavailable):
        produce(Load(FEATURE_EVENTS, count=10), "127.0.0.1:1", "topic")


def test_a_wrong_option_is_named(broker: Broker, topic: str) -> None:
    with pytest.raises(ConfigError, match="compression"):
        produce(Load(FEATURE_EVENTS, count=10, compression="rar"), broker.bootstrap, topic)


def test_the_load_outlives_its_broker_and_catches_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A broker that starts on a busy machine may take longer than an impatient user would wait.
    monkeypatch.setattr(producer, "FLUSH_S", 90)
    broker = embedded.start(tmp_path, port=embedded.free_port())
    reports: list[LoadReport] = []

    def bounce() -> None:
        os.kill(broker.pid, signal.SIGKILL)
        psutil.Process(broker.pid).wait(10)
        time.sleep(2)
        embedded.start(tmp_path)

    try:
        kafka_admin.create_topic(broker.bootstrap, "bounced", 2)
        outage = threading.Timer(1, bounce)
        outage.start()
        load = Load(FEATURE_EVENTS, rate=2_000, seconds=8, shape="flat", bad_share=0, late_share=0)
        report = produce(load, broker.bootstrap, "bounced", on_progress=reports.append)
        outage.join()
        stored = read_all(broker.bootstrap, "bounced")
    finally:
        embedded.stop(tmp_path)

    assert (report.sent, report.acked, report.failed) == (16_000, 16_000, 0)
    assert len({m.value() for m in stored}) == len(stored) == 16_000
    # The schedule did not wait: the timestamps have no hole where the broker was away.
    assert {m.timestamp()[1] for m in stored} == set(
        range(min(m.timestamp()[1] for m in stored), max(m.timestamp()[1] for m in stored) + 1)
    )
    assert any(each.broker_away for each in reports)
    assert not report.broker_away
    assert [r.message.split(" at ")[0] for r in caplog.records] == ["No Kafka broker answers", "Kafka"]
