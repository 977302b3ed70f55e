"""Starting a streaming query, and keeping it running until someone stops it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyspark.errors import StreamingQueryException

from lakehouse.errors import (
    LakehouseError,
    RegistryUnavailable,
    SecondDriver,
    SourceError,
    SourceUnavailable,
    StorageUnavailable,
    first_line,
)
from lakehouse.logs import in_batch

if TYPE_CHECKING:
    import threading

    from pyspark.sql import DataFrame
    from pyspark.sql.streaming.query import StreamingQuery

    from lakehouse.config.models import AvailableNow, ProcessingTime

logger = logging.getLogger(__name__)

WriteBatch = Callable[["DataFrame", int], None]

_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 15.0
"""Waits between attempts to reach Kafka again; each doubles the one before."""

_UNAVAILABLE = (
    "TimeoutException",
    "DisconnectException",
    "BrokerNotAvailableException",
    "NetworkException",
    "CoordinatorNotAvailableException",
    "NotLeaderOrFollowerException",
    "LeaderNotAvailableException",
    "TimeoutError",
)
"""Kafka's own errors that pass when the broker is back."""
_REFUSED = {
    "SaslAuthenticationException": "check the account and its password in source.options; start again with the new one",
    "SslAuthenticationException": "check the truststore and, where Kafka asks for one, your certificate",
    "SSLHandshakeException": "check the truststore and, where Kafka asks for one, your certificate",
    "TopicAuthorizationException": "let the account read the topic (Read)",
    "GroupAuthorizationException": "let the account read groups whose names begin with spark-kafka-source",
}
"""Kafka's own errors that trying again does not mend → what does."""
_SECOND_DRIVER = ("CONCURRENT_STREAM_LOG_UPDATE", "ConcurrentModificationException")
"""How Spark says that someone else wrote its checkpoint."""
_WATCH_EVERY_S = 10.0


class StopRequestedError(Exception):
    """Raised inside a micro-batch that began after a stop was asked for; nothing of it was committed."""


class Handler:
    """Wraps the function that writes a batch, and remembers why it failed: Spark only keeps a text."""

    def __init__(self, write_batch: WriteBatch, stop: threading.Event) -> None:
        self._write_batch = write_batch
        self._stop = stop
        self.failure: Exception | None = None

    def __call__(self, results: DataFrame, batch_id: int) -> None:
        """What Spark calls for each micro-batch."""
        if self._stop.is_set():
            raise StopRequestedError
        try:
            with in_batch(batch_id):
                self._write_batch(results, batch_id)
        except Exception as error:
            self.failure = error
            raise


def start(
    results: DataFrame,
    handler: Handler,
    checkpoint: str,
    *,
    name: str,
    trigger: ProcessingTime | AvailableNow,
) -> StreamingQuery:
    """Start the query that hands each micro-batch's `results` to `handler`.

    Args:
        results: of the stream.
        handler: writes its batches.
        checkpoint: folder of the driver's machine, which alone reads and writes it.
        name: of the query.
        trigger: when a micro-batch starts.
    """
    writer = (
        results.writeStream.queryName(name).option("checkpointLocation", f"file://{checkpoint}").foreachBatch(handler)
    )
    match trigger.kind:
        case "available_now":
            writer = writer.trigger(availableNow=True)
        case "processing_time":
            writer = writer.trigger(processingTime=f"{int(trigger.interval.total_seconds() * 1000)} milliseconds")
    return writer.start()


def await_end(
    query: StreamingQuery, handler: Handler, stop: threading.Event, *, watch: Callable[[], None] = lambda: None
) -> None:
    """Return when the query has ended by itself or `stop` is set; a batch being written is finished first.

    Args:
        query: as `start` returned it.
        handler: writes its batches.
        stop: asks it to end.
        watch: looked at every `_WATCH_EVERY_S`, beside the batches; what it raises ends the query.

    Raises:
        SourceUnavailable: Kafka could not be reached; starting again can help.
        SourceError: the topic no longer holds what the query has to read.
        LakehouseError: what writing a batch raised, or anything else that ended the query.
    """
    watched = time.monotonic()
    try:
        while not query.awaitTermination(timeout=1):
            if time.monotonic() - watched >= _WATCH_EVERY_S:
                watch()
                watched = time.monotonic()
            if stop.is_set() and not query.status["isTriggerActive"]:
                query.stop()
    except StreamingQueryException as error:
        if stop.is_set() and handler.failure is None:
            return
        cause = handler.failure or error
        raise (cause if isinstance(cause, LakehouseError) else explain(cause)) from error
    finally:
        # Spark's query outlives an error of `watch`.
        if query.isActive:
            query.stop()


def explain(error: Exception) -> LakehouseError:
    """A failure of Spark or of the code that writes a batch, in words that say what to do."""
    text = str(error)
    logger.debug("the query failed", exc_info=error)
    if RegistryUnavailable.__name__ in text:
        return RegistryUnavailable(
            "the schema registry does not answer, and records are of a schema that is not known yet",
            remedy="nothing is lost: the pipeline goes on when it is back",
        )
    refusal = next((name for name in _REFUSED if name in text), None)
    if refusal is not None:
        return SourceError(f"Kafka refuses this client: {refusal}", remedy=f"{_REFUSED[refusal]}; nothing is lost")
    if any(name in text for name in _UNAVAILABLE):
        return SourceUnavailable(
            "Kafka does not answer", remedy="nothing is lost: the pipeline goes on when it is back"
        )
    if any(name in text for name in _SECOND_DRIVER):
        return SecondDriver(
            f"another driver of this pipeline uses the same checkpoint: {first_line(text)}",
            remedy="run one driver per pipeline; this one has stopped, and no table shows anything of its batch",
        )
    if "UnknownTopicOrPartition" in text or "data loss" in text.lower() or "KAFKA_DATA_LOSS" in text:
        return SourceError(
            f"the topic no longer holds the records that come next: {first_line(text)}",
            remedy="see whether retention or a deletion removed them; the tables keep what they have",
        )
    return LakehouseError(
        f"the query failed: {type(error).__name__}: {first_line(text)}",
        remedy="nothing is lost: a new start goes on where the tables end; LAKEHOUSE_LOG=debug tells more",
    )


def retry_while_unavailable(
    attempt: Callable[[], None],
    stop: threading.Event,
    *,
    on_wait: Callable[[SourceUnavailable | StorageUnavailable, float], None],
) -> None:
    """Call `attempt` until it returns, waiting longer each time Kafka or the tables' store cannot be reached.

    Raises:
        LakehouseError: any other error of `attempt`.
    """
    wait_s = _FIRST_WAIT_S
    while not stop.is_set():
        try:
            attempt()
        except (SourceUnavailable, StorageUnavailable) as error:
            on_wait(error, wait_s)
            stop.wait(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        else:
            return
