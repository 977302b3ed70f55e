"""Sends a load to Kafka, open loop: the schedule never waits for the broker.

Each record carries its scheduled send time as its Kafka timestamp. What is late because this process, the
broker or the machine was busy therefore looks late to whoever measures freshness from it: there is no
coordinated omission.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from lakehouse import kafka_admin
from lakehouse.errors import ConfigError, SourceError
from lakehouse.kafka_options import librdkafka_options
from lakehouse.load.plan import Block, Load, blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from lakehouse.load.faults import Fault

    _Callback = Callable[[KafkaError | None, Message], None]

log = logging.getLogger(__name__)

TICK_S = 0.005
"""Records are handed over in groups this far apart. Finer ticks cost CPU, coarser ones freshness."""
IDLE_S = 0.2
"""Longest sleep of a slow load, so that it ends and reports in time."""
FLUSH_S = 10.0
"""How long the end waits for the broker to confirm what was sent."""
QUEUE_RECORDS = 500_000
QUEUE_KIB = 256 * 1024
"""What the client holds while the broker is away; the rest of the backlog is only numbers, drawn when due."""
_PROGRESS_S = 1.0
_LOOK_S = 0.1


class BadRecord(NamedTuple):
    """Where a spoiled record was stored, and what is wrong with it."""

    partition: int
    offset: int
    fault: Fault


@dataclass(frozen=True)
class LoadReport:
    """What has been sent so far.

    Attributes:
        sent: records handed to the client.
        acked: of these, confirmed by the broker.
        failed: given up; the others are still under way.
        bad: spoiled records by fault.
        late: good records whose event time lies in the past.
        seconds: since the start, wall clock.
        cpu_s: processor time of this process since the start, all threads.
        max_behind_ms: longest that a record waited here after it was due.
        broker_away: no broker answers at present.
        ledger: every spoiled record, if the load keeps one.
    """

    sent: int
    acked: int
    failed: int
    bad: Mapping[Fault, int]
    late: int
    seconds: float
    cpu_s: float
    max_behind_ms: float
    broker_away: bool
    ledger: tuple[BadRecord, ...] = ()


def produce(
    load: Load,
    bootstrap: str,
    topic: str,
    *,
    on_progress: Callable[[LoadReport], None] | None = None,
    stop: threading.Event | None = None,
    client_options: Mapping[str, str] | None = None,
    start_at: datetime | None = None,
) -> LoadReport:
    """Send the load until it is over or `stop` is set; makes the topic where there is none.

    Args:
        load: what to send.
        bootstrap: host:port, or several separated by commas.
        topic: where to.
        on_progress: called about once a second.
        stop: ends the load early. Without it, SIGINT and SIGTERM do, where this is the main thread.
        client_options: how to connect, by the names of Kafka's Java clients.
        start_at: when the first record is due; now if None. What is due in the past is sent at once, so an
            earlier moment gives a fixed set of records at full speed.

    Raises:
        SourceUnavailable: no broker answers at the start. Later the load goes on and catches up.
        SourceError: the cluster refuses the topic or the client for good.
        ConfigError: an option is wrong.
    """
    if not kafka_admin.topic_exists(bootstrap, topic, client_options):
        kafka_admin.create_topic(bootstrap, topic, load.partitions, client_options=client_options)
    load.events.prepare(load.seed)
    start_ms = round((start_at or datetime.now(UTC)).timestamp() * 1000)
    sender = _Sender(_connect(load, bootstrap, client_options), topic, bootstrap, keep_ledger=load.keep_ledger)
    with _stopped_by_signals(stop) as stopping:
        _run(sender, blocks(load, start_ms), stopping, on_progress)
    sender.finish()
    return sender.report()


def _connect(load: Load, bootstrap: str, client_options: Mapping[str, str] | None) -> dict[str, Any]:
    return {
        **librdkafka_options(client_options or {}),
        "bootstrap.servers": bootstrap,
        "acks": "all",
        "enable.idempotence": True,
        # Java's choice of partition for a key, so that other producers put a user into the same one.
        "partitioner": "murmur2_random",
        "linger.ms": load.linger_ms,
        "compression.type": load.compression,
        "message.timeout.ms": 0,  # a record waits for the broker as long as the load runs
        "queue.buffering.max.messages": QUEUE_RECORDS,
        "queue.buffering.max.kbytes": QUEUE_KIB,
        "reconnect.backoff.max.ms": 500,
        # A report for each success would double the work of this process; only a ledger needs them.
        "delivery.report.only.error": not load.keep_ledger,
    }


def _run(
    sender: _Sender,
    records: Iterator[Block],
    stopping: threading.Event,
    on_progress: Callable[[LoadReport], None] | None,
) -> None:
    """Hand over what is due, tick by tick; the next block is drawn in a pause, before it is needed."""
    block, position = next(records, None), 0
    upcoming: Block | None = None
    next_progress = time.monotonic() + _PROGRESS_S
    while block is not None and not stopping.is_set():
        now_ms = time.time() * 1000
        due = int(np.searchsorted(block.due, now_ms, side="right"))
        accepted = sender.send(block, position, due, now_ms)
        position, is_full = accepted, accepted < due
        sender.serve(TICK_S if is_full else 0)
        if time.monotonic() >= next_progress:
            next_progress += _PROGRESS_S
            if on_progress is not None:
                on_progress(sender.report())
        if position == len(block):
            block = next(records, None) if upcoming is None else upcoming
            upcoming, position = None, 0
            continue
        if upcoming is None:
            upcoming = next(records, None)
        elif not is_full:
            stopping.wait(min(max((int(block.due[position]) - now_ms) / 1000, TICK_S), IDLE_S))


@dataclass
class _Counts:
    sent: int = 0
    failed: int = 0
    late: int = 0
    max_behind_ms: float = 0.0
    bad: Counter[Fault] = field(default_factory=Counter)
    ledger: list[BadRecord] = field(default_factory=list)


class _Sender:
    """One Kafka client, what went through it, and whether its broker is there."""

    def __init__(self, settings: dict[str, Any], topic: str, bootstrap: str, *, keep_ledger: bool) -> None:
        self._topic = topic
        self._bootstrap = bootstrap
        self._keeps_ledger = keep_ledger
        self._counts = _Counts()
        self._started_s, self._cpu_s = time.monotonic(), time.process_time()
        self._is_away, self._acked_before = False, 0
        self._fatal: KafkaError | None = None
        self._refusal: KafkaError | None = None
        callbacks = {"error_cb": self._on_error, "on_delivery": self._on_delivery}
        try:
            self._producer = Producer(settings | callbacks, logger=kafka_admin.SILENT)
        except KafkaException as error:
            raise ConfigError(
                f"The Kafka client refuses its options: {error.args[0].str()}.",
                where=bootstrap,
                remedy="mend source.options in the pipeline file, or the options of the load",
            ) from error

    def send(self, block: Block, first: int, last: int, now_ms: float) -> int:
        """Hand over the block's records `first` to `last`; the position of the first that found no room."""
        if first >= last:
            return first
        self._counts.max_behind_ms = max(self._counts.max_behind_ms, now_ms - int(block.due[first]))
        end = self._enqueue(block, first, last)
        self._counts.sent += end - first
        self._counts.bad.update(fault for at, fault in block.bad.items() if first <= at < end)
        self._counts.late += sum(first <= at < end for at in block.late)
        return end

    def _enqueue(self, block: Block, first: int, last: int) -> int:
        produce, topic, at = self._producer.produce, self._topic, first
        columns = (
            block.values[first:last],
            block.keys[first:last],
            block.due[first:last].tolist(),
            self._callbacks(block, first, last),
        )
        try:
            # By position: this line runs 100 000 times a second. -1 leaves the partition to the key.
            for at, (value, key, timestamp, callback) in enumerate(zip(*columns, strict=False), first):  # noqa: B007
                produce(topic, value, key, -1, callback, None, timestamp)
        except BufferError:
            return at
        except KafkaException as error:
            self._fatal = error.args[0]
            self._raise_if_fatal()
        return last

    def _callbacks(self, block: Block, first: int, last: int) -> Iterable[_Callback | None]:
        """For each record the function that its delivery calls in place of the common one."""
        if not self._keeps_ledger:
            return repeat(None)
        faults = (block.bad.get(at) for at in range(first, last))
        return [partial(self._on_bad_delivery, fault) if fault else None for fault in faults]

    def serve(self, wait_s: float) -> None:
        """Let the client call back; notice that the broker has returned."""
        with self._explaining():
            self._producer.poll(wait_s)
        self._notice_return()

    def finish(self) -> None:
        """Wait for what is under way, at most `FLUSH_S`; the rest is given up and counted as failed."""
        self._drain(FLUSH_S)
        if len(self._producer):
            self._producer.purge()
            self._drain(1)

    def _drain(self, wait_s: float) -> None:
        # Not by the client's `flush`: one that meets a fatal error may end in a SystemError that has no reason.
        deadline = time.monotonic() + wait_s
        while len(self._producer) and time.monotonic() < deadline:
            self.serve(_LOOK_S)
        self.serve(0)

    def report(self) -> LoadReport:
        """What has been sent so far."""
        return LoadReport(
            sent=self._counts.sent,
            acked=self._acked(),
            failed=self._counts.failed,
            bad=dict(self._counts.bad),
            late=self._counts.late,
            seconds=time.monotonic() - self._started_s,
            cpu_s=time.process_time() - self._cpu_s,
            max_behind_ms=self._counts.max_behind_ms,
            broker_away=self._is_away,
            ledger=tuple(self._counts.ledger),
        )

    def _acked(self) -> int:
        # The client's queue also holds its own events for a moment, hence never below zero.
        return max(self._counts.sent - self._counts.failed - len(self._producer), 0)

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._counts.failed += 1

    def _on_bad_delivery(self, fault: Fault, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._counts.failed += 1
            return
        self._counts.ledger.append(BadRecord(int(message.partition() or 0), int(message.offset() or 0), fault))

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        elif kafka_admin.is_refusal(error) and not self._acked():
            self._refusal = error
        elif error.code() in kafka_admin.AWAY and not self._is_away:
            self._is_away, self._acked_before = True, self._acked()
            log.warning(
                "No Kafka broker answers at %s; the load keeps its schedule and catches up later.",
                self._bootstrap,
            )

    def _notice_return(self) -> None:
        if self._is_away and self._acked() > self._acked_before:
            self._is_away = False
            log.warning("Kafka at %s answers again; the load catches up.", self._bootstrap)

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Say why the client gave up. It raises a fatal error by itself, or in whichever callback comes next."""
        try:
            yield
        except (KafkaException, SystemError) as error:
            cause = error if isinstance(error, KafkaException) else error.__cause__
            if isinstance(cause, KafkaException):
                self._fatal = cause.args[0]
            self._raise_if_fatal()
            raise
        self._raise_if_fatal()

    def _raise_if_fatal(self) -> None:
        if self._refusal is not None:
            raise kafka_admin.refused(self._refusal, f"{self._bootstrap}, topic {self._topic}")
        if self._fatal is not None and kafka_admin.is_refusal(self._fatal):
            raise kafka_admin.refused(self._fatal, f"{self._bootstrap}, topic {self._topic}")
        if self._fatal is not None:
            raise SourceError(
                f"Kafka refuses further records: {self._fatal.str()}.",
                where=f"{self._bootstrap}, topic {self._topic}",
                remedy="start the load again; if the topic was removed, it is made anew",
            )


@contextmanager
def _stopped_by_signals(stop: threading.Event | None) -> Iterator[threading.Event]:
    """The given event, or one that SIGINT and SIGTERM set."""
    if stop is not None or threading.current_thread() is not threading.main_thread():
        yield stop or threading.Event()
        return
    stopping = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
