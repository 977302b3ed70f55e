"""Reading a range of a topic in bulk, the way the pipeline sees it: committed records only."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from lakehouse.errors import SourceUnavailable
from lakehouse.kafka_admin import SILENT, is_refusal, refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from confluent_kafka import Message

_CHUNK = 10_000
_WAIT_S = 0.2
"""A call returns when its chunk is full or this is over; the last chunk of a range is never full."""
_HARMLESS = frozenset(
    {
        KafkaError._PARTITION_EOF,  # noqa: SLF001 - its only name
        KafkaError.GROUP_AUTHORIZATION_FAILED,  # the client looks its group up by itself; nothing here uses one
    }
)
_SILENCE_S = 20.0
"""A broker that hands out nothing for this long is taken for gone; a fetch waits half a second at most."""


@dataclass(frozen=True)
class Record:
    """One Kafka record.

    Attributes:
        partition: where it stands; offset: and at which place.
        key: its bytes, None without one.
        value: its bytes, None for a tombstone.
        headers: (name, bytes or None) in their order; names may repeat.
        timestamp_ms: as Kafka has it, ms since 1970 UTC.
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp_ms: int | None = None


def read_range(
    servers: str,
    topic: str,
    start: Mapping[int, int],
    end: Mapping[int, int],
    client_options: Mapping[str, str] | None = None,
) -> Iterator[Record]:
    """Every record at `read_committed` with start ≤ offset < end, in offset order within each partition.

    Raises:
        SourceUnavailable: where the broker stops answering.
    """
    for message in read_messages(servers, topic, start, end, client_options):
        headers: Any = message.headers() or ()
        position = int(message.partition() or 0), int(message.offset() or 0)
        yield Record(*position, message.key(), message.value(), headers, message.timestamp()[1])


def read_messages(
    servers: str,
    topic: str,
    start: Mapping[int, int],
    end: Mapping[int, int],
    client_options: Mapping[str, str] | None = None,
) -> Iterator[Message]:
    """As `read_range`, with the timestamp of each record too.

    Gaps (transaction markers, aborted and compacted records) are passed over: the range ends where the
    consumer's position reaches `end`, not where a record with a certain offset was seen.

    Raises:
        SourceUnavailable: where the broker stops answering.
        SourceError: where it refuses this client.
    """
    refusals: list[KafkaError] = []
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "lakehouse-read-range",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            # Tells when a partition is read to its end, which gaps at the end would otherwise hide.
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 100,
            "error_cb": lambda error: refusals.append(error) if is_refusal(error) else None,
            **(client_options or {}),
        },
        logger=SILENT,
    )
    open_partitions = {partition for partition in end if start.get(partition, 0) < end[partition]}
    consumer.assign([TopicPartition(topic, partition, start.get(partition, 0)) for partition in open_partitions])
    try:
        heard = time.monotonic()
        while open_partitions:
            messages = consumer.consume(_CHUNK, timeout=_WAIT_S)
            _require_service([*refusals, *(message.error() for message in messages)], servers, topic)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE_S:
                raise SourceUnavailable(
                    f"Kafka at {servers} handed out nothing for {_SILENCE_S:g} s",
                    where=f"topic {topic}, partitions {sorted(open_partitions)}",
                    remedy="see whether the broker runs, then start again",
                )
            for message in messages:
                partition, offset, error = message.partition(), message.offset(), message.error()
                if partition is None or offset is None or partition not in open_partitions:
                    continue
                if error is None and offset < end[partition]:
                    yield message
                at_end = error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001 - its only name
                if at_end or offset + 1 >= end[partition]:
                    open_partitions.discard(partition)
    except KafkaException as error:
        raise SourceUnavailable(f"Kafka at {servers} failed: {error}", where=f"topic {topic}") from error
    finally:
        consumer.close()


def _require_service(errors: Iterable[KafkaError | None], servers: str, topic: str) -> None:
    for error in errors:
        if error is None or error.code() in _HARMLESS:
            continue
        if is_refusal(error):
            raise refused(error, f"{servers}, topic {topic}")
        raise SourceUnavailable(f"Kafka at {servers} failed: {error.str()}", where=f"topic {topic}")
