"""The pipeline without Spark and Kafka: `pipeline.run` as it is, over a topic that is a list and an engine that plans.

What is simulated is only what this project does not own: the topic, Spark's planning and its checkpoint (whose
files are real), and the parsing and judging in Spark's plan. `Sink`, `TableLog`, `OnePass`, `Checkpoint`, `TopicGuard`,
`resume`, the lock, the chain and `Handler` are the product's own. A kill is an exception that nothing in the product
catches.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import orjson
import pyarrow as pa

from lakehouse import kafka_admin, topic
from lakehouse import pipeline as flow
from lakehouse.errors import LakehouseError
from lakehouse.maintenance.run import Maintainer
from lakehouse.quality.reasons import word
from lakehouse.schemas import ARROW_TYPES, KAFKA_POSITION
from lakehouse.sinks import aligned
from lakehouse.sinks.headers import FLAT_RAW, pack
from lakehouse.torture import mutants
from lakehouse.torture.checks import Check, Stored, check_all
from lakehouse.torture.ledger import ENTRY, Kind, Ledger, Outcome, hash_of
from lakehouse.torture.points import Orders, Patches, arm
from lakehouse.torture.witness import Witness
from tests.pipelines import small_pipeline

TOPIC = "clicks"
PARTITIONS = 2
QUERY = "11111111-2222-3333-4444-555555555555"
_BEGINNING = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Killed(BaseException):
    """SIGKILL: no handler of the product may stop it."""


def die() -> NoReturn:
    raise Killed


@dataclass
class World:
    """A topic, a root, a clock that is the number of records, and the runs of a pipeline over them."""

    root: Path
    slowest_ms: float = 900.0
    """The suite of this world: a row that took longer is refused."""
    records: dict[int, list[Stored]] = field(default_factory=lambda: {number: [] for number in range(PARTITIONS)})
    topic_id: str = "the-one"
    endings: list[str] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.suite = self.root / "suite.json"
        changes = {"tables": {"bronze": True}, "maintenance": {"checkpoint_every": 10}}
        grains = ("1s", "1m", "1h")
        self.pipeline = small_pipeline(self.root, grains=grains, **changes, quality={"suite": str(self.suite)})
        names = [f"{layer}/clicks" for layer in ("silver", "quarantine", "bronze")]
        self.tables = [*names, *(f"gold/{name}" for name, _, _ in self.pipeline.rollup_tables())]
        self.witness = Witness(str(self.root), self.tables)
        self.checkpoint = self.root / "_checkpoints" / "clicks"
        self.on_plan: Callable[[], None] = lambda: None
        self.between_batches: Callable[[], None] = lambda: None

    # --- the topic ---

    def send(self, count: int) -> None:
        """Records of every kind: good, slow, not JSON, empty, tombstones."""
        for _ in range(count):
            number, self.sent = self.sent, self.sent + 1
            partition = number % PARTITIONS
            self.records[partition].append(
                Stored(partition, len(self.records[partition]), _value(number), sequence=number)
            )

    def stored(self) -> list[Stored]:
        return [record for records in self.records.values() for record in records]

    def lead_elsewhere(self) -> Callable[[], None]:
        """The servers' name leads to another cluster: a topic of the same name, longer, of other records.

        Returns:
            Leads back.
        """
        kept = self.records, self.topic_id
        self.records = {
            partition: [
                Stored(partition, offset, _value(number), sequence=number)
                for offset, number in enumerate(range(1_000 + partition, 1_000 + PARTITIONS * (len(records) + 10), 2))
            ]
            for partition, records in self.records.items()
        }
        self.topic_id = "another"

        def back() -> None:
            self.records, self.topic_id = kept

        return back

    def ledger(self) -> Ledger:
        entries = np.zeros(self.sent, ENTRY)
        for at, each in enumerate(self.stored()):
            entries[at] = (each.sequence, each.offset, each.partition, Outcome.ACKED, Kind.PLAIN, hash_of(each.value))
        return Ledger(entries)

    # --- one run of the pipeline ---

    def run(self, orders: Orders | None = None) -> bool:
        """Run until the topic is read, the orders' point is reached (False), or the pipeline refuses to go on."""
        orders = orders or Orders()
        patches = Patches()
        self._replace_what_is_not_ours(patches)
        for side in ("driver", "task"):
            mutants.apply(patches, orders.mutants, side=side)  # type: ignore[arg-type]
            arm(patches, orders, die, side=side)  # type: ignore[arg-type]
        rule = {"column": "ms", "max_value": self.slowest_ms}
        slow = {"type": "expect_column_values_to_be_between", "kwargs": rule, "meta": {"rule_id": "slow"}}
        self.suite.write_bytes(orjson.dumps({"name": "simulation", "expectations": [slow]}))
        try:
            flow.run(_SPARK, self.pipeline, threading.Event())
        except Killed:
            return False
        except LakehouseError as error:
            self.endings.append(str(error))
        finally:
            patches.undo()
            self.witness.look()
        return True

    def maintain(self, orders: Orders | None = None, *, hours_later: float = 3) -> bool:
        """One thorough pass over the tables, as if it were later; False where it was killed."""
        orders = orders or Orders()
        patches = Patches()
        mutants.apply(patches, orders.mutants, side="maintenance")
        arm(patches, orders, die, side="maintenance")
        try:
            reports = Maintainer(self.pipeline, clock=lambda: time.time() + 3_600 * hours_later).maintain()
        except Killed:
            return False
        finally:
            patches.undo()
            self.witness.look()
        self.endings += [report.error for report in reports if report.error]
        return True

    def check(self, monkeypatch: Any) -> list[Check]:
        """What the harness would say."""
        monkeypatch.setattr(aligned, "_ALIGN_S", 0.2)
        monkeypatch.setattr(topic, "read_range", self._read_range)
        monkeypatch.setattr(kafka_admin, "offsets", lambda *_: self._state().offsets)
        self.witness.finish()
        return check_all(self.pipeline, self.stored(), self.ledger(), self.witness)

    def _read_range(self, _servers: str, _topic: str, start: Any, end: Any, _options: Any = None) -> Any:
        for partition, last in end.items():
            for record in self.records[partition][start.get(partition, 0) : last]:
                yield topic.Record(partition, record.offset, None, record.value, [("sequence", _header(record))])

    def _state(self) -> kafka_admin.TopicState:
        return kafka_admin.TopicState(self.topic_id, {number: (0, len(of)) for number, of in self.records.items()})

    def _replace_what_is_not_ours(self, patches: Patches) -> None:
        patches.set(kafka_admin, "topic_state", lambda *_: self._state())
        patches.set(kafka_admin, "topic_id", lambda *_: self.topic_id)
        patches.set(flow.kafka, "read_stream", lambda _spark, _source, _partitions, starting: starting)
        patches.set(flow, "judged_rows", lambda *_: _Rows())
        patches.set(flow, "Prepared", _Prepared)
        patches.set(flow.streaming, "start", lambda starting, handler, *_, **__: (starting, handler))
        patches.set(flow.streaming, "await_end", lambda running, *_, watch: _Engine(self, *running).run(watch))


_SPARK: Any = None


class _Rows:
    """Stands in for the judged rows: what becomes of them is what `mapInArrow` gets."""

    def mapInArrow(self, one_pass: Any, _ddl: str) -> Any:  # noqa: N802 - Spark's name
        return one_pass


class _Prepared:
    """Stands in for the plan: gives the one pass to each micro-batch."""

    def __init__(self, transform: Callable[[Any], Any], records: Any) -> None:
        self._one_pass = transform(records)

    def __call__(self, batch: _Batch) -> _Batch:
        return replace(batch, one_pass=self._one_pass)


@dataclass
class _Batch:
    """One micro-batch: a task per partition."""

    world: World
    start: dict[int, int]
    end: dict[int, int]
    one_pass: Any = None

    def collect(self) -> list[tuple[str, bytes | None, bytes | None]]:
        answers = []
        for partition, end in self.end.items():
            rows = self.world.records[partition][self.start[partition] : end]
            if rows:
                batch = _judged(self.world, rows)
                for answer in self.one_pass(iter([batch])):
                    answers += [tuple(row.values()) for row in answer.to_pylist()]
        return answers


class _Engine:
    """Spark's part: plans a range, writes offsets/N, calls the handler, writes commits/N; goes on where it was."""

    SIZE = 7
    """Records per partition and batch."""

    def __init__(self, world: World, starting: Any, handler: Callable[[Any, int], None]) -> None:
        self.world, self.handler = world, handler
        self.folder = world.checkpoint
        for name in ("offsets", "commits", "sources/0"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if not (self.folder / "metadata").exists():
            (self.folder / "metadata").write_text(f'{{"id":"{QUERY}"}}')
            known = (starting or {}).get(TOPIC, {})
            self._write("sources/0/0", {number: known.get(number, 0) for number in range(PARTITIONS)})

    def run(self, watch: Callable[[], None]) -> None:
        while True:
            self.world.between_batches()
            watch()
            number = len(list((self.folder / "commits").iterdir()))
            planned = self.folder / "offsets" / str(number)
            start = self._read(f"offsets/{number - 1}" if number else "sources/0/0")
            if planned.exists():
                end = self._read(f"offsets/{number}")
            else:
                ends = {partition: len(of) for partition, of in self.world.records.items()}
                end = {partition: min(start[partition] + self.SIZE, ends[partition]) for partition in ends}
                if end == start:
                    return
                self._write(f"offsets/{number}", end)
            self.world.on_plan()
            self.handler(_Batch(self.world, start, end), number)
            self._write(f"commits/{number}", {})

    def _write(self, name: str, offsets: dict[int, int]) -> None:
        text = orjson.dumps({TOPIC: {str(partition): offset for partition, offset in offsets.items()}}).decode()
        (self.folder / name).write_text(f"v1\n{{}}\n{text}")

    def _read(self, name: str) -> dict[int, int]:
        raw = orjson.loads((self.folder / name).read_text().splitlines()[-1])
        return {int(partition): offset for partition, offset in raw[TOPIC].items()}


def _value(number: int) -> bytes | None:
    match number % 11:
        case 3:
            return None
        case 5:
            return b""
        case 7:
            return b'{"id": "cut'
    at = _BEGINNING + timedelta(milliseconds=137 * number)
    event = {
        "id": f"e{number}",
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "page": ("home", "cart")[number % 2],
        "user": number % 5,
        "ms": 100.25 * (number % 10) + 0.5,
        "status": ("ok", "error")[number % 3 == 0],
    }
    return orjson.dumps(event)


def _header(record: Stored) -> bytes:
    return record.sequence.to_bytes(8, "big")


def _judged(world: World, records: list[Stored]) -> pa.RecordBatch:
    """What `pipeline.judged_rows` would make of the records."""
    fields = {name: ARROW_TYPES[each.type] for name, each in world.pipeline.source.fields.items()}
    rows = list(_rows(world, records))
    schema = pa.schema(
        [*fields.items(), *KAFKA_POSITION, *FLAT_RAW, ("_fits", pa.bool_()), ("_timely", pa.bool_()),
         (word(0), pa.int64()), ("_refused", pa.bool_())]
    )  # fmt: skip
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def _rows(world: World, records: list[Stored]) -> Iterator[dict[str, Any]]:
    for record in records:
        try:
            event = orjson.loads(record.value or b"")
        except orjson.JSONDecodeError:
            event = None
        is_slow = event is not None and event["ms"] > world.slowest_ms
        yield {
            **(event or {}),
            "at": datetime.fromisoformat(event["at"]) if event else None,
            "_topic": TOPIC,
            "_partition": record.partition,
            "_offset": record.offset,
            "_timestamp": _BEGINNING + timedelta(milliseconds=137 * record.sequence + 5),
            "_key": None,
            "_value": record.value,
            "_headers": pack([{"key": "sequence", "value": _header(record)}]),
            "_fits": event is not None,
            "_timely": event is not None,
            word(0): int(is_slow),
            "_refused": event is None or is_slow,
        }


def forget_checkpoint(world: World) -> None:
    """As if someone had removed it."""
    shutil.rmtree(world.checkpoint)
