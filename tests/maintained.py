"""A pipeline's tables without Spark or Kafka: batches go in through the sink, maintenance runs beside it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from lakehouse.config.models import Pipeline
from lakehouse.maintenance.run import Maintainer, TableReport
from lakehouse.rollups.merge import coarsen, merge_partials
from lakehouse.rollups.partials import aggregate
from lakehouse.schemas import SPARSE_COLUMNS, TIMESTAMP, gold_schema, quarantine_schema, silver_schema
from lakehouse.serving.history import grains_of, open_history, read_rows
from lakehouse.sinks import delta_log, files
from lakehouse.sinks.files import write_file
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.sink import Sink
from tests.pipelines import small_pipeline

START_S = 1_800_000_000.0
SILVER, QUARANTINE, GOLD = "silver/clicks", "quarantine/clicks", "gold/clicks_by_page_1s"
RETENTION_S = 300.0


class FakeTime:
    """A stand-in for the `time` module, moved by the test. Files get its time once `settle` is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now_s: float = START_S) -> None:
        self.now_s = now_s
        for module in (delta_log, files):
            monkeypatch.setattr(module, "time", self)

    def time(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return int(self.now_s * 1e9)

    def settle(self, root: Path) -> None:
        """Everything that was written since the last call was written now."""
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder) / name
                if path.stat().st_mtime > self.now_s + 1_000_000 or path.stat().st_mtime < START_S - 1_000_000:
                    os.utime(path, (self.now_s, self.now_s))


def events(first: int, count: int, *, at_s: float, late: int = 0) -> pa.Table:
    """`count` silver rows; the first `late` of them happened two minutes earlier. Sums are exact in binary."""
    numbers = range(first, first + count)
    times = [int((at_s - (120 if index < late else 0)) * 1e6) + 7 * index for index in range(count)]
    whole = silver_schema(small_pipeline(Path("/nowhere")).source.fields)
    schema = pa.schema([field for field in whole if field.name not in SPARSE_COLUMNS])  # as the stream writes it
    return pa.table(
        {
            "id": [f"e{number}" for number in numbers],
            "at": pa.array(times, pa.int64()).cast(TIMESTAMP),
            "page": [None if number % 11 == 0 else "abc"[number % 3] for number in numbers],
            "user": pa.array([number % 50 for number in numbers], pa.int64()),
            "ms": [0.25 * (number % 64) for number in numbers],
            "status": ["error" if number % 5 == 0 else "ok" for number in numbers],
            "_topic": ["clicks"] * count,
            "_partition": pa.array([number % 2 for number in numbers], pa.int32()),
            "_offset": pa.array([number // 2 for number in numbers], pa.int64()),
            "_timestamp": pa.array(times, pa.int64()).cast(TIMESTAMP),
            "_ingested_at": pa.array(times, pa.int64()).cast(TIMESTAMP),
            "_warnings": pa.array([[]] * count, schema.field("_warnings").type),
        },
        schema,
    )


@dataclass
class Stream:
    """The writer of a pipeline's tables."""

    root: Path
    changes: dict[str, Any] = field(default_factory=dict)
    grains: tuple[str, ...] = ("1s",)
    retention: list[dict[str, str]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    sent: int = 0
    batches: int = 0

    def __post_init__(self) -> None:
        settings = {"retention": "5m", "min_age": "10s", "checkpoint_every": 10, **self.changes}
        self.pipeline: Pipeline = small_pipeline(
            self.root, grains=self.grains, more=self.metrics, maintenance=settings, retention=self.retention
        )
        self.one_pass = OnePass(str(self.root), self.pipeline, {})
        self.rollup = self.pipeline.rollups["by_page"]
        self.open()

    def open(self) -> None:
        """Start anew from the folder, as after a crash."""
        self.sink = Sink.open(self.one_pass)
        head = self.sink.head
        self.batches = head.batch_id + 1 if head else 0
        self.sent = sum(head.end["clicks"].values()) if head else 0

    def send(self, count: int, *, at_s: float, late: int = 0) -> None:
        """One batch of `count` (even) rows through the sink: two files of silver, one of gold, none of quarantine."""
        start = {"clicks": {0: self.sent // 2, 1: self.sent // 2}}
        end = {"clicks": dict.fromkeys((0, 1), (self.sent + count) // 2)}
        rows = events(self.sent, count, at_s=at_s, late=late)
        batch = self.sink.next_batch("q", self.batches, start, end, "sha")
        answers = []
        for partition in (0, 1):
            part = rows.filter(pa.compute.equal(rows["_partition"], partition))
            add = write_file(str(self.root), SILVER, part, "at")
            answers.append((SILVER, orjson.dumps([add]), None))
            answers.append((GOLD, None, _stream(aggregate(part, self.rollup, "1s", event_time="at"))))
        self.sink.write(batch, answers)
        self.sent, self.batches = self.sent + count, self.batches + 1

    def maintainer(self, now_s: float, **options: Any) -> Maintainer:
        return Maintainer(self.pipeline, clock=lambda: now_s, **options)

    def maintain(self, now_s: float, **options: Any) -> dict[str, TableReport]:
        reports = {report.table: report for report in self.maintainer(now_s, **options).maintain()}
        assert not [report.error for report in reports.values() if report.error]
        return reports

    def path(self, table: str) -> Path:
        return self.root / table

    def live(self, table: str) -> int:
        return len(DeltaTable(str(self.path(table))).file_uris())

    def log(self, table: str) -> list[str]:
        return sorted(path.name for path in (self.path(table) / "_delta_log").iterdir())

    def silver(self) -> pa.Table:
        return contents(self.path(SILVER)).sort_by([("_partition", "ascending"), ("_offset", "ascending")])

    def gold(self) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """Cell → everything in it that does not depend on the order of merging."""
        return cells(merge_partials(contents(self.path(GOLD)), self.rollup))

    def expected_gold(
        self, grain: str = "1s", silver: pa.Table | None = None
    ) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """The same from silver, read anew unless it is given."""
        rows = self.silver() if silver is None else silver
        return cells(merge_partials(aggregate(rows, self.rollup, grain, event_time="at"), self.rollup))

    def history(self, grain: str) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """As `gold`, of a derived grain: its table as far as there is one, and what the finer ones hold beyond it."""
        history = open_history(str(self.root), grains_of(self.pipeline, "by_page"))
        assert history is not None
        known = grain if grain in history.tables else list(history.tables)[-1]
        rows = read_rows(history.sources(known), gold_schema(self.rollup, self.pipeline.source.fields))
        return cells(coarsen(rows, self.rollup, grain))


def contents(path: Path) -> pa.Table:
    return pa.table(DeltaTable(str(path)).to_pyarrow_table())


def cells(merged: pa.Table) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    import datasketches

    found = {}
    for row in merged.to_pylist():
        key = (row["window_start"], row["page"])
        assert key not in found
        plain = (row[name] for name in ("events", "errors", "ms_sum", "ms_min", "ms_max", "min_event_time"))
        kll = datasketches.kll_doubles_sketch.deserialize(row["ms_kll"])
        hll = datasketches.hll_sketch.deserialize(row["users_hll"])
        found[key] = (*plain, row["max_event_time"], kll.n, round(hll.get_estimate(), 3))
    return found


def _stream(table: pa.Table) -> bytes:
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table)
    return bytes(buffer.getvalue().to_pybytes())


def age(root: Path, seconds: float) -> None:
    """Make every file under `root` older."""
    then = time.time() - seconds
    for folder, _, names in os.walk(root):
        for name in names:
            os.utime(Path(folder) / name, (then, then))


__all__ = ["GOLD", "QUARANTINE", "RETENTION_S", "SILVER", "FakeTime", "Stream", "quarantine_schema"]
