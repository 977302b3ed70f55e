"""The producer of a torture run: one process, open loop from the first step to the last, with a ledger.

    python -m lakehouse.torture.sender BOOTSTRAP PIPELINE FOLDER RATE SEED

It sends the load of `lakehouse.load` at its scheduled moments, whatever the broker does meanwhile. The harness
appends lines to `orders.jsonl`; each makes it do something unusual beside. SIGTERM ends it: it waits for what is
under way, writes the ledger to its end, and prints what it has sent.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from lakehouse import kafka_admin
from lakehouse.config.loader import load_pipeline
from lakehouse.errors import LakehouseError
from lakehouse.load.events import Generator
from lakehouse.load.plan import Load, blocks
from lakehouse.torture.ledger import Kind, LedgerWriter, Outcome, hash_of, numbered

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDERS = "orders.jsonl"
LEDGER = "ledger.bin"
PROGRESS = "progress.json"
TRANSACTION_TIMEOUT_S = 8
"""After which the broker aborts a transaction that its producer left open."""
_TICK_S = 0.005
_PROGRESS_S = 0.25
_FLUSH_S = 60.0
_SECOND_SEQUENCE = 1 << 40
"""Transactions count from here: their records are not in one order with the others."""
_TIME = b'"event_time":"'
_TIME_LENGTH = len("2026-01-31T12:00:00.000")


@dataclass(frozen=True)
class Event:
    """One record to send; `due_ms` is its timestamp in Kafka."""

    key: bytes
    value: bytes | None
    due_ms: int
    kind: Kind


class Orders:
    """The harness's lines, each read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def new(self) -> list[dict[str, Any]]:
        """Orders that have come since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                lines = file.read()
        except FileNotFoundError:
            return []
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        return [orjson.loads(line) for line in whole.splitlines()]


class Sender:
    """One idempotent producer and its ledger, and the transactions beside it."""

    def __init__(self, bootstrap: str, topic: str, folder: Path) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._ledger = LedgerWriter(folder / LEDGER)
        self._lock = threading.Lock()
        self._open: dict[int, tuple[bytes, Kind]] = {}
        self._numbers, self._transaction_numbers = count(), count(_SECOND_SEQUENCE)
        self._transactions: list[threading.Thread] = []
        self._hanging: list[Producer] = []
        self.sent = self.acked = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "compression.type": "lz4",
                "message.timeout.ms": 0,
                "queue.buffering.max.messages": 1_000_000,
                "reconnect.backoff.max.ms": 500,
            },
            logger=kafka_admin.SILENT,
        )

    def send(self, event: Event) -> None:
        """Hand one event to the client; its outcome comes to the ledger later."""
        sequence = next(self._numbers)
        self._open[sequence] = (hash_of(event.value), event.kind)
        headers, report = numbered(sequence), partial(self._delivered, sequence)
        while True:
            try:
                self._producer.produce(
                    self._topic, event.value, event.key, on_delivery=report, timestamp=event.due_ms, headers=headers
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                break
        self.sent += 1

    def _delivered(self, sequence: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            return  # given up at the end: its entry stays open and becomes INFO
        sha256, kind = self._open.pop(sequence)
        self._note(sequence, sha256, Outcome.ACKED, kind, message)
        self.acked += 1

    def _note(self, sequence: int, sha256: bytes, outcome: Outcome, kind: Kind, message: Message | None) -> None:
        partition = None if message is None else message.partition()
        offset = None if message is None else message.offset()
        with self._lock:
            self._ledger.write(
                sequence,
                sha256,
                outcome,
                kind,
                -1 if partition is None else partition,
                -1 if offset is None else offset,
            )

    def serve(self, wait_s: float) -> None:
        """Let the client report what was confirmed."""
        self._producer.poll(wait_s)

    def transact(self, events: list[Event], end: str) -> None:
        """Send events in one transaction and `commit`, `abort` or `hang`; beside the open loop, which never waits."""
        thread = threading.Thread(target=self._transact, args=(events, end), daemon=True)
        self._transactions.append(thread)
        thread.start()

    def _transact(self, events: list[Event], end: str) -> None:
        events_by_number = {next(self._transaction_numbers): event for event in events}
        reports: dict[int, Message] = {}
        outcome = Outcome.INFO

        def delivered(sequence: int, error: KafkaError | None, message: Message) -> None:
            if error is None:
                reports[sequence] = message

        producer = Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "transactional.id": f"torture-{min(events_by_number)}",
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_S * 1_000,
                "message.timeout.ms": TRANSACTION_TIMEOUT_S * 1_000,
            },
            logger=kafka_admin.SILENT,
        )
        try:
            producer.init_transactions(20)
            producer.begin_transaction()
            for sequence, event in events_by_number.items():
                producer.produce(
                    self._topic,
                    event.value,
                    event.key,
                    on_delivery=partial(delivered, sequence),
                    timestamp=event.due_ms,
                    headers=numbered(sequence),
                )
            producer.flush(20)
            if end == "commit":
                producer.commit_transaction(20)
                outcome = Outcome.ACKED if len(reports) == len(events_by_number) else Outcome.INFO
            elif end == "abort":
                producer.abort_transaction(20)
                outcome = Outcome.ABORTED
            else:
                # Neither committed nor ever touched again: only the broker's timeout ends it.
                self._hanging.append(producer)
                outcome = Outcome.ABORTED
        except KafkaException:
            # Without a commit having been asked for, no reader may ever see them; else nobody knows.
            outcome = Outcome.INFO if end == "commit" else Outcome.ABORTED
        for sequence, event in events_by_number.items():
            self._note(sequence, hash_of(event.value), outcome, Kind.TRANSACTION, reports.get(sequence))
        self.sent += len(events_by_number)

    def finish(self) -> None:
        """Wait for what is under way; what is still open then is written down as unknown."""
        for thread in self._transactions:
            thread.join(_FLUSH_S)
        if self._producer.flush(_FLUSH_S):
            self._producer.purge()
            self._producer.flush(1)
        for sequence, (sha256, kind) in self._open.items():
            self._note(sequence, sha256, Outcome.INFO, kind, None)
        self._ledger.close()


def shifted(value: bytes | None, by_ms: int) -> bytes | None:
    """The value with its event time moved; as it is where it has none in the usual form."""
    at = value.find(_TIME) if value else -1
    if value is None or at < 0:
        return value
    first = at + len(_TIME)
    try:
        moment = datetime.fromisoformat(value[first : first + _TIME_LENGTH].decode()).replace(tzinfo=UTC)
    except ValueError:
        return value
    moved = datetime.fromtimestamp(moment.timestamp() + by_ms / 1_000, UTC)
    return (
        value[:first]
        + f"{moved:%Y-%m-%dT%H:%M:%S}.{moved.microsecond // 1_000:03d}".encode()
        + value[first + _TIME_LENGTH :]
    )


def events(generator: Generator, rate: float, seed: int) -> Iterator[Event]:
    """The load, one by one and endless."""
    load = Load(generator, rate=rate, seed=seed, bad_share=0.02, late_share=0.01, shape="flat")
    for block in blocks(load, time.time_ns() // 1_000_000):
        for key, value, due in zip(block.keys, block.values, block.due.tolist(), strict=True):
            yield Event(key, value, due, Kind.PLAIN)


class Stream:
    """The load with what the harness has ordered done to it."""

    def __init__(self, sender: Sender, load: Iterator[Event]) -> None:
        self._sender, self._load = sender, load
        self._next = next(load)
        self._doubled = self._shifted = self._shift_ms = 0
        self._transactions: deque[tuple[int, str]] = deque()
        self._collected: list[Event] = []

    def obey(self, order: dict[str, Any]) -> None:
        """Take one of the harness's orders; it holds for the next `size` events."""
        match str(order["do"]):
            case "duplicates":
                self._doubled = order["size"]
            case "clock":
                self._shifted, self._shift_ms = order["size"], order["by_ms"]
            case "transaction":
                self._transactions.append((order["size"], order["end"]))
            case unknown:
                raise LakehouseError(f"the sender knows no order {unknown!r}")

    def send_due(self, now_ms: int) -> None:
        """Send everything whose moment has come."""
        while self._next.due_ms <= now_ms:
            event, self._next = self._next, next(self._load)
            self._send(event)

    def _send(self, event: Event) -> None:
        if self._shifted:
            self._shifted -= 1
            event = Event(event.key, shifted(event.value, self._shift_ms), event.due_ms, Kind.CLOCK)
        if self._transactions:
            size, end = self._transactions[0]
            self._collected.append(event)
            if len(self._collected) == size:
                self._transactions.popleft()
                self._sender.transact(self._collected, end)
                self._collected = []
            return
        self._sender.send(event)
        if self._doubled:
            self._doubled -= 1
            self._sender.send(Event(event.key, event.value, event.due_ms, Kind.DUPLICATE))

    def finish(self) -> None:
        """Send what a transaction was still waiting for."""
        for event in self._collected:
            self._sender.send(event)


def run(bootstrap: str, pipeline_file: Path, folder: Path, rate: float, seed: int, stop: threading.Event) -> None:
    """Send until `stop` is set."""
    pipeline = load_pipeline(pipeline_file)
    sender, orders = Sender(bootstrap, pipeline.source.topic, folder), Orders(folder / ORDERS)
    stream = Stream(sender, events(Generator.beside(pipeline_file, pipeline), rate, seed))
    reported = 0.0
    while not stop.is_set():
        stream.send_due(time.time_ns() // 1_000_000)
        sender.serve(_TICK_S)
        for order in orders.new():
            stream.obey(order)
        if time.monotonic() - reported > _PROGRESS_S:
            reported = time.monotonic()
            _report(folder, sender)
    stream.finish()
    sender.finish()
    _report(folder, sender)


def _report(folder: Path, sender: Sender) -> None:
    fresh = folder / f"{PROGRESS}.new"
    fresh.write_bytes(orjson.dumps({"sent": sender.sent, "acked": sender.acked}))
    fresh.replace(folder / PROGRESS)


def main() -> None:
    """The process."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    bootstrap, pipeline_file, folder, rate, seed = sys.argv[1:]
    run(bootstrap, Path(pipeline_file), Path(folder), float(rate), int(seed), stop)


if __name__ == "__main__":
    main()
