"""Compares kafka-python and confluent-kafka at sending, reading and administration, against KAFKA_BOOTSTRAP.

    KAFKA_BOOTSTRAP=localhost:9092 python benchmarks/kafka_clients.py [--events 200000]

Each line is one client at one task: wall-clock events per second, and microseconds of this process's CPU per event.
Both send the same events to new topics with acks=all, idempotence and a linger of 5 ms, and without compression,
because kafka-python needs another package for each codec but gzip.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import kafka
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from lakehouse import kafka_admin
from lakehouse.config.loader import load_pipeline
from lakehouse.load.events import Generator
from lakehouse.load.plan import Load, blocks

if TYPE_CHECKING:
    from collections.abc import Callable

PARTITIONS = 4
Record = tuple[bytes, bytes | None, int]


@dataclass(frozen=True)
class Measure:
    """One client at one task: seconds of wall clock and of CPU, for `events` events."""

    task: str
    client: str
    events: int
    wall_s: float
    cpu_s: float

    def line(self) -> str:
        """As a row of the table."""
        rate, cost = self.events / self.wall_s, self.cpu_s / self.events * 1e6
        return f"{self.task:<28} {self.client:<16} {rate:>12,.0f} {cost:>12.2f} {self.wall_s:>9.3f}"


def measured(task: str, client: str, events: int, run: Callable[[], None]) -> Measure:
    """Run once, and say what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Measure(task, client, events, time.perf_counter() - wall, time.process_time() - cpu)


def send_with_confluent(bootstrap: str, topic: str, records: list[Record]) -> None:
    """Send all, and wait until all are confirmed."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 2_000_000,
            "delivery.report.only.error": True,
        },
        logger=kafka_admin.SILENT,
    )
    for number, (key, value, timestamp) in enumerate(records):
        producer.produce(topic, value, key, -1, None, None, timestamp)
        if number % 1_000 == 0:
            producer.poll(0)
    producer.flush(60)


def send_with_kafka_python(bootstrap: str, topic: str, records: list[Record]) -> None:
    """Send all, and wait until all are confirmed."""
    producer = kafka.KafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, acks="all", linger_ms=5)
    for key, value, timestamp in records:
        producer.send(topic, value=value, key=key, timestamp_ms=timestamp)
    producer.flush(60)
    producer.close()


def read_with_confluent(bootstrap: str, topic: str, events: int) -> None:
    """Read everything in batches."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    seen = size = 0
    while seen < events:
        for message in consumer.consume(min(10_000, events - seen), 5):
            seen += 1
            size += len(message.value() or b"")
    consumer.close()


def read_with_kafka_python(bootstrap: str, topic: str, events: int) -> None:
    """Read everything in batches."""
    consumer = kafka.KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    places = [kafka.TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    seen = size = 0
    while seen < events:
        for records in consumer.poll(timeout_ms=5_000, max_records=10_000).values():
            for record in records:
                seen += 1
                size += len(record.value or b"")
    consumer.close()


def describe_with_confluent(bootstrap: str, topic: str) -> None:
    """Connect, and list the topic's partitions."""
    AdminClient({"bootstrap.servers": bootstrap}, logger=kafka_admin.SILENT).list_topics(topic, timeout=5)


def describe_with_kafka_python(bootstrap: str, topic: str) -> None:
    """Connect, and list the topic's partitions."""
    with kafka.KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        admin.describe_topics([topic])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    events = parser.parse_args().events
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    bootstrap = os.environ.get("KAFKA_BOOTSTRAP", "localhost:9092")
    path = Path("conf/feature_events.yaml")
    load = Load(Generator.beside(path, load_pipeline(path)), rate=100_000, count=events, shape="flat")
    records = [
        record
        for block in blocks(load, round(time.time() * 1_000))
        for record in zip(block.keys, block.values, block.due.tolist(), strict=True)
    ]
    print(f"{'task':<28} {'client':<16} {'events/s':>12} {'CPU µs/event':>12} {'seconds':>9}")
    topics = {name: f"bench_{uuid.uuid4().hex[:8]}" for name in ("confluent-kafka", "kafka-python")}
    for topic in topics.values():
        kafka_admin.create_topic(bootstrap, topic, PARTITIONS)
    one, other = topics.values()
    for task, amount, confluent, pure in (
        (
            "send",
            events,
            lambda: send_with_confluent(bootstrap, one, records),
            lambda: send_with_kafka_python(bootstrap, other, records),
        ),
        (
            "read",
            events,
            lambda: read_with_confluent(bootstrap, one, events),
            lambda: read_with_kafka_python(bootstrap, one, events),
        ),
        (
            "connect and describe",
            1,
            lambda: describe_with_confluent(bootstrap, one),
            lambda: describe_with_kafka_python(bootstrap, one),
        ),
    ):
        print(measured(task, "confluent-kafka", amount, confluent).line())
        print(measured(task, "kafka-python", amount, pure).line())
    for topic in topics.values():
        kafka_admin.delete_topic(bootstrap, topic)


if __name__ == "__main__":
    main()
