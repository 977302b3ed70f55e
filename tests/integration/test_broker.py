from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from confluent_kafka import Producer

from lakehouse import broker as embedded
from lakehouse import kafka_admin
from lakehouse.broker_settings import HOST
from lakehouse.errors import LakehouseError, SourceError, SourceUnavailable
from tests.integration.conftest import PARTITIONS

if TYPE_CHECKING:
    from pathlib import Path

    from lakehouse.broker import Broker

NOBODY = "127.0.0.1:1"


def put(bootstrap: str, topic: str, values: list[bytes], partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(10) == 0


def test_a_second_start_returns_the_running_broker(broker: Broker) -> None:
    assert embedded.start(broker.folder) == broker
    assert embedded.status(broker.folder) == broker
    assert kafka_admin.brokers(broker.bootstrap) == 1


def test_only_the_loopback_address_is_bound(broker: Broker) -> None:
    bound = {c.laddr.ip for c in psutil.Process(broker.pid).net_connections("tcp") if c.status == "LISTEN"}
    assert {address.removeprefix("::ffff:") for address in bound} == {"127.0.0.1"}


def test_offsets_count_what_was_stored(broker: Broker, topic: str) -> None:
    assert kafka_admin.topic_partitions(broker.bootstrap, topic) == list(range(PARTITIONS))
    assert kafka_admin.offsets(broker.bootstrap, topic) == {0: (0, 0), 1: (0, 0)}
    put(broker.bootstrap, topic, [b"a", b"b", b"c"], partition=1)
    assert kafka_admin.offsets(broker.bootstrap, topic) == {0: (0, 0), 1: (0, 3)}


def test_offsets_end_before_an_open_transaction(broker: Broker, topic: str) -> None:
    put(broker.bootstrap, topic, [b"a"])
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": topic})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(topic, b"b", partition=0)
    producer.flush(10)
    assert kafka_admin.offsets(broker.bootstrap, topic)[0] == (0, 1)
    assert kafka_admin.offsets(broker.bootstrap, topic, committed=False)[0] == (0, 2)
    producer.abort_transaction(10)


def test_making_a_topic_twice_keeps_the_first(broker: Broker, topic: str) -> None:
    assert not kafka_admin.create_topic(broker.bootstrap, topic, PARTITIONS + 3)
    assert len(kafka_admin.topic_partitions(broker.bootstrap, topic)) == PARTITIONS


def test_a_topic_made_anew_has_another_id(broker: Broker, topic: str) -> None:
    before = kafka_admin.topic_id(broker.bootstrap, topic)
    assert kafka_admin.topic_id(broker.bootstrap, topic) == before
    assert kafka_admin.delete_topic(broker.bootstrap, topic)
    assert not kafka_admin.delete_topic(broker.bootstrap, topic)
    assert not kafka_admin.topic_exists(broker.bootstrap, topic)
    # The name is free a moment after the deletion was confirmed.
    deadline = time.monotonic() + 10
    while not kafka_admin.create_topic(broker.bootstrap, topic, PARTITIONS):
        assert time.monotonic() < deadline
    assert kafka_admin.topic_id(broker.bootstrap, topic) != before


def test_a_topic_that_is_not_there_is_an_error_with_its_name(broker: Broker) -> None:
    for question in (kafka_admin.topic_partitions, kafka_admin.topic_id, kafka_admin.offsets):
        with pytest.raises(SourceError, match="There is no topic named nowhere") as caught:
            question(broker.bootstrap, "nowhere")
        assert not caught.value.retriable


def test_a_name_that_kafka_refuses_is_an_error(broker: Broker) -> None:
    with pytest.raises(SourceError, match="invalid"):
        kafka_admin.create_topic(broker.bootstrap, "no spaces please", 1)


def test_without_a_broker_every_question_ends_soon(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for question in (
        lambda: kafka_admin.topic_partitions(NOBODY, "t"),
        lambda: kafka_admin.offsets(NOBODY, "t"),
        lambda: kafka_admin.create_topic(NOBODY, "t", 1),
        lambda: kafka_admin.delete_topic(NOBODY, "t"),
        lambda: kafka_admin.brokers(NOBODY, timeout_s=0.5),
    ):
        started = time.monotonic()
        with pytest.raises(SourceUnavailable, match=NOBODY):
            question()
        assert time.monotonic() - started < 5
        monkeypatch.setattr(kafka_admin, "TIMEOUT_S", 0.5)
    assert capfd.readouterr() == ("", "")


def test_a_killed_broker_starts_again_with_its_data_on_its_port(tmp_path: Path) -> None:
    first = embedded.start(tmp_path, port=embedded.free_port())
    try:
        kafka_admin.create_topic(first.bootstrap, "kept", 1)
        put(first.bootstrap, "kept", [b"x"] * 10)
        os.kill(first.pid, signal.SIGKILL)
        psutil.Process(first.pid).wait(10)
        assert embedded.status(tmp_path) is None
        second = embedded.start(tmp_path)
        assert second.pid != first.pid
        assert second.port == first.port
        assert kafka_admin.offsets(second.bootstrap, "kept") == {0: (0, 10)}
    finally:
        assert embedded.stop(tmp_path)
    assert embedded.status(tmp_path) is None
    assert not embedded.stop(tmp_path)


def test_a_broker_that_dies_shows_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        monkeypatch.setattr(embedded, "_is_free", lambda _port: True)
        with pytest.raises(LakehouseError, match="Address already in use") as caught:
            embedded.start(tmp_path, port=taken.getsockname()[1])
    assert caught.value.where == str(tmp_path / "broker.log")
    assert embedded.status(tmp_path) is None
