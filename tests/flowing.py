"""A shipped pipeline's tables in the making, from its own load, without Spark or Kafka.

The load, the one pass, the sink, the observations and the archive of suites are the product's own; what Spark does (it
parses and judges) is done here in plain Python for the few kinds of rules that the shipped suites have. As a program it
fills a root and goes on until it is stopped:

    python -m tests.flowing data feature_events card_payments
"""

from __future__ import annotations

import argparse
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pyarrow as pa

from lakehouse.config.loader import load_pipeline
from lakehouse.load.events import Generator
from lakehouse.load.faults import Fault
from lakehouse.load.plan import Load, blocks
from lakehouse.maintenance.run import Maintainer
from lakehouse.quality.archive import Archive
from lakehouse.quality.checks import Length, Membership, Pattern, Presence, Range
from lakehouse.quality.observe import Wanted
from lakehouse.quality.reasons import BITS, Reasons, word
from lakehouse.quality.suite import Expectation, load_suite
from lakehouse.schemas import ARROW_TYPES, KAFKA_POSITION
from lakehouse.sinks import delta_log, files
from lakehouse.sinks.headers import FLAT_RAW
from lakehouse.sinks.observed import Watch
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.sink import Sink
from tests.loads import CONF

PARTITIONS = 2
QUERY = "11111111-2222-3333-4444-555555555555"
_FITTING = {Fault.MISSING_FIELD, Fault.NULL_FIELD, Fault.OUT_OF_RANGE, Fault.UNKNOWN_MEMBER, Fault.FUTURE}
"""Faults under which a value still is an object of the right types."""


@dataclass(frozen=True)
class Record:
    """One record of the topic; `at_ms` is its Kafka time."""

    key: bytes
    value: bytes | None
    at_ms: int
    fault: Fault | None


class Flow:
    """One pipeline's writer: takes what its load has due and commits it, batch by batch."""

    def __init__(self, root: Path, name: str, *, rate: float = 200, seed: int = 1, window_s: float = 60) -> None:
        path = CONF / f"{name}.yaml"
        self.pipeline = load_pipeline(path, {"LAKEHOUSE_ROOT": str(root)})
        self.suite = load_suite(self.pipeline.quality.suite)
        self.rules = self.suite.in_stream()
        self.one_pass = OnePass(str(root), self.pipeline, {}, Reasons.by(self.suite), Wanted.by(self.suite))
        self.sink = Sink.open(self.one_pass)
        self.watch = Watch(str(root), name, self.suite, window_s=window_s)
        self.archive = Archive.of(str(root), self.suite, self.sink.head)
        self.load = Load(Generator.beside(path, self.pipeline), rate=rate, seed=seed, bad_share=0.03)
        self.ends = dict.fromkeys(range(PARTITIONS), 0)
        self.numbers = count()

    def batches(self, start_s: float, every_s: float) -> Iterator[tuple[float, list[Record]]]:
        """What is due by each moment, `every_s` apart; endless."""
        held: list[Record] = []
        until = start_s + every_s
        for block in blocks(self.load, round(start_s * 1000)):
            for at, (key, value, due) in enumerate(zip(block.keys, block.values, block.due.tolist(), strict=True)):
                while due >= until * 1000:
                    yield until, held
                    held, until = [], until + every_s
                held.append(Record(key, value, due, block.bad.get(at)))

    def commit(self, records: list[Record]) -> None:
        """One micro-batch of these records."""
        topic = self.pipeline.source.topic
        start = {topic: dict(self.ends)}
        answers: list[Any] = []
        for partition in range(PARTITIONS):
            mine = [record for record in records if sum(record.key) % PARTITIONS == partition]
            if mine:
                for answer in self.one_pass(iter([self._judged(mine, partition)])):
                    answers += [tuple(row.values()) for row in answer.to_pylist()]
            self.ends[partition] += len(mine)
        observation = self.watch.look(answers)
        batch = self.sink.next_batch(QUERY, next(self.numbers), start, {topic: dict(self.ends)}, self.suite.sha256)
        self.archive.note(self.sink.write(batch, answers))
        self.watch.record(observation)

    def close(self) -> None:
        self.watch.close()
        self.sink.close()

    def _judged(self, records: list[Record], partition: int) -> pa.RecordBatch:
        fields = {name: ARROW_TYPES[field.type] for name, field in self.pipeline.source.fields.items()}
        words = [word(number) for number in range(-(-len(self.rules) // BITS))]
        schema = pa.schema(
            [*fields.items(), *KAFKA_POSITION, *FLAT_RAW, ("_fits", pa.bool_()), ("_timely", pa.bool_()),
             *((name, pa.int64()) for name in words), ("_refused", pa.bool_())]
        )  # fmt: skip
        rows = [
            self._row(record, words) | {"_partition": partition, "_offset": self.ends[partition] + index}
            for index, record in enumerate(records)
        ]
        return pa.RecordBatch.from_pylist(rows, schema=schema)

    def _row(self, record: Record, words: list[str]) -> dict[str, Any]:
        fits = record.fault is None or record.fault in _FITTING
        timely = fits and record.fault is not Fault.FUTURE
        event = orjson.loads(record.value or b"null") if fits else {}
        column = self.pipeline.event_time.column
        if event.get(column):
            event[column] = datetime.fromisoformat(event[column])
        failed = [number for number, rule in enumerate(self.rules) if fits and not _holds(rule, event)]
        marks = dict.fromkeys(words, 0)
        for number in failed:
            marks[words[number // BITS]] |= 1 << number % BITS
        refused = not timely or any(self.rules[number].stream == "quarantine" for number in failed)
        return {
            **event,
            **marks,
            "_topic": self.pipeline.source.topic,
            "_timestamp": datetime.fromtimestamp(record.at_ms / 1000, UTC),
            "_key": record.key,
            "_value": record.value,
            "_headers": None,
            "_fits": fits,
            "_timely": timely,
            "_refused": refused,
        }


def _holds(rule: Expectation, event: dict[str, Any]) -> bool:
    """Whether the event meets the rule; a missing value meets all but one that wants it there."""
    check = rule.check
    value = event.get(getattr(check, "column", ""))
    if rule.condition is not None and event.get("feature") in ("checkout", "subscription"):
        return True
    match check:
        case Presence():
            return (value is not None) == check.present
        case _ if value is None:
            return True
        case Membership():
            return value in check.values
        case Range() | Length():
            size: Any = len(value) if isinstance(check, Length) else value
            return (check.low is None or size >= check.low) and (check.high is None or size <= check.high)
        case Pattern():
            return all(re.search(pattern.replace(r"\z", r"\Z"), value) for pattern in check.patterns)
    raise AssertionError(rule)


@contextmanager
def at(moment: list[float]) -> Iterator[None]:
    """Commits and files are made at `moment[0]`, seconds since 1970 UTC."""
    shim: Any = SimpleNamespace(time=lambda: moment[0], time_ns=lambda: int(moment[0] * 1e9))
    kept = delta_log.time, files.time
    delta_log.time = files.time = shim
    try:
        yield
    finally:
        delta_log.time, files.time = kept


def backfill(flows: list[Flow], *, seconds: float, every_s: float, lag_s: float = 0.3) -> None:
    """Commit the last `seconds` as if they had been committed then."""
    end = time.time()
    for flow in flows:
        moment = [end - seconds]
        flow.watch._clock = lambda moment=moment: moment[0]  # type: ignore[misc]
        with at(moment):
            for until, records in flow.batches(end - seconds, every_s):
                if until + lag_s > end:
                    break
                moment[0] = until + lag_s
                flow.commit(records)
        flow.watch._clock = time.time


def main() -> None:
    """Fill a root and go on until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--backfill", type=float, default=120, help="seconds of history to begin with")
    arguments = parser.parse_args()
    flows = [Flow(arguments.root.resolve(), name, rate=arguments.rate, window_s=15) for name in arguments.names]
    backfill(flows, seconds=arguments.backfill, every_s=1)
    keep_small = [Maintainer(flow.pipeline) for flow in flows]
    lives = [flow.batches(time.time(), 0.5) for flow in flows]
    rounds = count(1)
    try:
        while True:
            for flow, live in zip(flows, lives, strict=True):
                until, records = next(live)
                threading.Event().wait(max(0.0, until - time.time()))
                if records:
                    flow.commit(records)
            if next(rounds) % 40 == 0:
                for maintainer in keep_small:
                    maintainer.maintain()
    except KeyboardInterrupt:
        for flow in flows:
            flow.close()


if __name__ == "__main__":
    main()
