"""The poison corpus through a real broker: the query lives, every byte is kept, and no good event suffers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError, Message, Producer

from lakehouse import kafka_admin
from tests.integration.conftest import KEPT, PARTITIONS
from tests.integration.stack import Stack
from tests.poison import Case, corpus, with_added_fields
from tests.poison.verdict import quarantine_problems, silver_problems

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from lakehouse.broker import Broker

LARGEST_RECORD = 32 * 2**20
"""Kafka's own limit of about 1 MB would keep the largest cases out of the topic."""
ROUNDS = 3


@pytest.fixture
def stack(spark: SparkSession, broker: Broker, tmp_path: Path) -> Stack:
    """An empty topic that takes large records, and the shipped pipeline with the corpus's fields."""
    topic = f"poison_{tmp_path.name}"
    settings = KEPT | {"max.message.bytes": str(LARGEST_RECORD)}
    kafka_admin.create_topic(broker.bootstrap, topic, PARTITIONS, config=settings)
    stack = Stack(spark, broker.bootstrap, topic, tmp_path)
    stack.changes["source"] = with_added_fields(stack.pipeline()).model_dump(mode="json")["source"] | {"options": {}}
    return stack


def send(stack: Stack, cases: list[Case]) -> dict[tuple[int, int], Case]:
    """Put the cases into the topic: where each of them stands."""
    producer = Producer(
        {
            "bootstrap.servers": stack.bootstrap,
            "message.max.bytes": LARGEST_RECORD,
            "queue.buffering.max.kbytes": 2**20,
            "enable.idempotence": True,
        }
    )
    stands: dict[tuple[int, int], Case] = {}
    failures: list[KafkaError] = []

    for number, case in enumerate(cases):

        def note(error: KafkaError | None, message: Message, case: Case = case) -> None:
            if error is not None:
                failures.append(error)
            stands[message.partition() or 0, message.offset() or 0] = case

        producer.produce(
            stack.topic,
            case.value,
            case.key,
            partition=number % PARTITIONS,
            timestamp=case.timestamp_ms,
            headers=list(case.headers),
            on_delivery=note,
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    assert failures == []
    assert len(stands) == len(cases)
    return stands


def held_to_account(stack: Stack, stands: dict[tuple[int, int], Case], good: int) -> list[str]:
    """Every difference between what was sent and what the tables hold."""
    proof = stack.reconcile()
    assert proof.ok, proof
    assert proof.records == good + len(stands)
    silver = {(row["_partition"], row["_offset"]): row for row in stack.rows("silver")}
    quarantine = {(row["_partition"], row["_offset"]): row for row in stack.rows("quarantine")}
    # Each good event is in silver.
    assert len(silver.keys() - stands.keys()) == good
    return [
        problem
        for place, case in stands.items()
        for problem in (
            quarantine_problems(case, quarantine[place])
            if place in quarantine
            else silver_problems(case, silver[place])
        )
    ]


@pytest.mark.timeout(600)
def test_one_record_in_a_hundred_is_poison(stack: Stack) -> None:
    cases = list(corpus())
    good = 99 * len(cases)
    stack.send(good // 2, seed=1, bad_share=0)
    stands = send(stack, cases)
    stack.send(good - good // 2, seed=2, bad_share=0)
    stack.catch_up()
    wrong = held_to_account(stack, stands, good)
    assert not wrong, "\n".join(wrong)


@pytest.mark.timeout(600)
def test_every_record_is_poison(stack: Stack) -> None:
    stands: dict[tuple[int, int], Case] = {}
    for _ in range(ROUNDS):
        stands |= send(stack, list(corpus()))
        stack.catch_up()
    # After all of it the pipeline takes good events as before.
    stack.send(100, bad_share=0)
    stack.catch_up()
    wrong = held_to_account(stack, stands, 100)
    assert not wrong, "\n".join(wrong)
