"""Avro by a schema registry, from the load through a real broker to the tables."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer

from lakehouse.config.models import Source
from lakehouse.load.events import Generator
from lakehouse.load.plan import Load
from lakehouse.load.producer import produce
from tests.loads import FEATURE_EVENTS
from tests.registry import serving

if TYPE_CHECKING:
    from tests.integration.stack import Stack

EVENTS = 2_000
STRANGE = [b"{}", b"\0\0\0\x03\xe7", b"\0\0\0\0\x01\x02", b"", None]
"""JSON; a schema that the registry has not; a value that ends too early; nothing, twice."""


def test_avro_reaches_silver_and_what_is_none_is_quarantined_with_its_bytes(stack: Stack) -> None:
    with serving() as registry:
        shipped = stack.pipeline().model_dump(mode="json")["source"]
        spelled = shipped | {"format": "avro", "registry": {"url": registry.url}}
        stack.changes = {"source": spelled}
        source = Source.model_validate(spelled)
        events = Generator(FEATURE_EVENTS.description, source.fields, timedelta(minutes=5), source)
        load = Load(events, rate=2_000, count=EVENTS, seed=1, bad_share=0.05, shape="flat", partitions=2)
        sent = produce(load, stack.bootstrap, stack.topic, start_at=datetime.now(UTC) - timedelta(seconds=1))
        strange = Producer({"bootstrap.servers": stack.bootstrap})
        for value in STRANGE:
            strange.produce(stack.topic, value, b"k")
        strange.flush()
        stack.catch_up()
    found = stack.reconcile()
    assert found.ok, str(found)
    assert found.silver + found.quarantine == EVENTS + len(STRANGE)
    assert found.quarantine == sum(sent.bad.values()) + len(STRANGE)
    refused: list[dict[str, Any]] = stack.rows("quarantine")
    rules = Counter(row["_errors"][0]["rule_id"] for row in refused if row["_key"] == b"k")
    assert rules == {"contract.encoding": 1, "contract.schema_id": 1, "contract.avro": 1, "contract.empty": 2}
    assert {row["_value"] for row in refused if row["_key"] == b"k"} == set(STRANGE)
