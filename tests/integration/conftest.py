"""A real Kafka broker for the whole session, and a new topic for each test."""

from __future__ import annotations

import uuid
import warnings
from typing import TYPE_CHECKING

import pytest

from lakehouse import broker as embedded
from lakehouse import kafka_admin
from lakehouse.session import local_session
from tests.integration.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

    from lakehouse.broker import Broker

PARTITIONS = 2
KEPT = {"retention.ms": "-1"}
"""Settings of a test's topic: without them the broker removes records of long ago five minutes after its start."""
LONGEST = ("test_torture", "test_cluster", "a_report_agrees", "is_waited_for", "test_replay", "test_kill_9")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that at the end no process waits for one that began late."""
    items.sort(key=lambda item: [name in item.nodeid for name in LONGEST], reverse=True)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker on a free port, with a data folder of its own; tests must leave it running."""
    folder = tmp_path_factory.mktemp("broker")
    try:
        yield embedded.start(folder, port=embedded.free_port())
    finally:
        embedded.stop(folder)


@pytest.fixture
def topic(broker: Broker) -> Iterator[str]:
    """Name of an empty topic with `PARTITIONS` partitions."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    kafka_admin.create_topic(broker.bootstrap, name, PARTITIONS, config=KEPT)
    yield name
    kafka_admin.delete_topic(broker.bootstrap, name)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """The session that `lakehouse run` would build."""
    session = local_session("integration", cores=2)
    yield session
    with warnings.catch_warnings():
        # Python may notice the gateway's closed sockets while the session stops.
        warnings.simplefilter("ignore", ResourceWarning)
        session.stop()


@pytest.fixture
def stack(spark: SparkSession, broker: Broker, topic: str, tmp_path: Path) -> Stack:
    """An empty topic and an empty root."""
    return Stack(spark, broker.bootstrap, topic, tmp_path)
