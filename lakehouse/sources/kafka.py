"""The Kafka source: a streaming DataFrame of raw records."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from lakehouse.chain import Offsets
    from lakehouse.config.models import Source

_EARLIEST = -2
"""How Spark's starting offsets spell the beginning of a partition."""

_CLIENT = {
    # A broker answers a fetch as soon as there is a byte; this bounds how long it may wait for the first.
    "kafka.fetch.max.wait.ms": "20",
    "kafka.isolation.level": "read_committed",
    # A call that gets no answer fails within this time instead of a minute, and is tried again by us.
    "kafka.default.api.timeout.ms": "15000",
    "kafka.request.timeout.ms": "10000",
}


def read_stream(spark: SparkSession, source: Source, partitions: list[int], starting: Offsets | None) -> DataFrame:
    """Raw records: key, value, headers, topic, partition, offset, timestamp.

    Args:
        spark: the session.
        source: servers, topic, options.
        partitions: the topic's partitions now.
        starting: where a query without a checkpoint begins; None for the pipeline's own `starting_offsets`.
    """
    options = {
        **_CLIENT,
        "kafka.bootstrap.servers": source.servers,
        "subscribe": source.topic,
        "startingOffsets": _starting(source, partitions, starting),
        "maxOffsetsPerTrigger": str(source.max_records_per_batch),
        "includeHeaders": "true",
        # How long a task waits for records that the broker has promised; by default two minutes of silence.
        "kafkaConsumer.pollTimeoutMs": "15000",
        "failOnDataLoss": "true",
        # Offsets are asked of the broker by an admin client with few, quick retries: see streaming.query.
        "fetchOffset.numRetries": "3",
        "fetchOffset.retryIntervalMs": "50",
        **{f"kafka.{name}": secret.get_secret_value() for name, secret in source.options.items()},
    }
    return spark.readStream.format("kafka").options(**options).load()


def _starting(source: Source, partitions: list[int], starting: Offsets | None) -> str:
    if starting is None:
        return source.starting_offsets
    known = starting.get(source.topic, {})
    # A partition that was added while the pipeline was down is read from its beginning.
    return json.dumps({source.topic: {str(number): known.get(number, _EARLIEST) for number in partitions}})
