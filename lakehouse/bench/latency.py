"""How fresh the tables are: the time from an event's scheduled sending to the Delta version that holds it.

Broker, load, pipeline and observer are processes of their own. The load is open loop: each record's Kafka
timestamp is the moment at which it was due, so time that a stalled sender loses counts as latency. The observer
knows only the tables' logs: it opens the next version by its name, every few milliseconds, and notes when it
could. Percentiles are over events.
"""

from __future__ import annotations

import os
import platform
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse import broker, kafka_admin
from lakehouse.chain import COMMIT_KEY
from lakehouse.config.loader import load_pipeline
from lakehouse.errors import LakehouseError
from lakehouse.processes import Child, Usage
from lakehouse.serving.log import LogTail

if TYPE_CHECKING:
    from collections.abc import Callable

    from lakehouse.config.models import Pipeline
    from lakehouse.serving.log import Commit

PERCENTILES = (50, 90, 95, 99, 99.9)
_LOOK_EVERY_S = 0.002
_START_TIMEOUT_S = 180.0
_CATCH_UP_S = 60.0
_PACKAGES = ("pyspark", "deltalake", "pyarrow", "obstore", "datasketches", "confluent-kafka")


@dataclass(frozen=True)
class Freshness:
    """Latency of one table's events, milliseconds."""

    events: int
    percentiles_ms: dict[str, float]
    mean_ms: float
    max_ms: float


@dataclass(frozen=True)
class LatencyReport:
    """Everything that a run measured, and what it was measured on."""

    rate: float
    seconds: float
    warm_up_s: float
    partitions: int
    bad_share: float
    sent: int
    tables: dict[str, Freshness]
    batches: int
    batch_ms: dict[str, float]
    memory_mb: dict[str, Usage]
    cpu_s_per_million: dict[str, float]
    machine: dict[str, Any]
    versions: dict[str, str]
    configuration: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        lines = [
            (
                f"{self.rate:,.0f} events/s for {self.seconds:.0f} s after {self.warm_up_s:.0f} s of warm-up,"
                f" {self.bad_share:.0%} of them bad,"
                f" {self.partitions} partitions, {self.machine['cores']} cores for everything"
            ),
            "",
            f"{'table':<42}{'events':>10}" + "".join(f"{'p' + str(p):>8}" for p in PERCENTILES) + f"{'max':>8}  ms",
        ]
        for name, table in self.tables.items():
            figures = "".join(f"{value:>8.0f}" for value in table.percentiles_ms.values())
            lines.append(f"{name:<42}{table.events:>10}{figures}{table.max_ms:>8.0f}")
        batch = ", ".join(f"{name} {value:.0f}" for name, value in self.batch_ms.items())
        lines += ["", f"{self.batches} batches; median ms: {batch}", ""]
        lines.append(f"{'process':<12}{'peak MiB':>10}{'last MiB':>10}{'CPU s':>9}{'CPU s per million events':>27}")
        for name, usage in self.memory_mb.items():
            per_million = self.cpu_s_per_million[name]
            lines.append(
                f"{name:<12}{usage.peak_rss_mb:>10.0f}{usage.last_rss_mb:>10.0f}{usage.cpu_s:>9.1f}{per_million:>27.1f}"
            )
        return "\n".join(lines)


class Observer(threading.Thread):
    """Notes when each version of each table could first be read, by one who knows only the log."""

    def __init__(self, root: str, tables: list[str]) -> None:
        super().__init__(name="observer", daemon=True)
        self.seen: dict[str, list[tuple[float, Commit]]] = {name: [] for name in tables}
        self._tails = {name: LogTail(f"{root}/{name}") for name in tables}
        self._done = threading.Event()

    def run(self) -> None:
        """Look until `finish` is called."""
        while not self._done.wait(_LOOK_EVERY_S):
            for name, tail in self._tails.items():
                try:
                    commits = tail.poll()
                except FileNotFoundError:
                    continue  # the table is not made yet
                now = time.time()
                # Other commits are maintenance: they bring no event.
                self.seen[name].extend((now, commit) for commit in commits if commit.commit_info.get(COMMIT_KEY))

    def finish(self) -> None:
        """Stop looking."""
        self._done.set()
        self.join()


def measure(
    path: Path,
    *,
    rate: float,
    seconds: float,
    warm_up: float,
    partitions: int,
    bad_share: float,
    stop: threading.Event,
) -> LatencyReport:
    """Run the whole stack in a temporary folder and measure it.

    Args:
        path: the pipeline's file.
        rate: events per second, constant.
        seconds: measured time.
        warm_up: seconds before it.
        partitions: of the topic.
        bad_share: share of the events that are spoiled.
        stop: ends the load early.

    Raises:
        LakehouseError: a part of the stack failed; its last lines are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="lakehouse-bench-") as temporary:
        folder = Path(temporary)
        served = broker.start(folder / "_broker")
        try:
            return _measure(path, folder, served, rate, seconds, warm_up, partitions, bad_share, stop)
        finally:
            broker.stop(folder / "_broker")


def _measure(
    path: Path,
    folder: Path,
    served: broker.Broker,
    rate: float,
    seconds: float,
    warm_up: float,
    partitions: int,
    bad_share: float,
    stop: threading.Event,
) -> LatencyReport:
    environment = {**os.environ, "LAKEHOUSE_ROOT": str(folder / "root"), "KAFKA_BOOTSTRAP": served.bootstrap}
    pipeline = load_pipeline(path, environment)
    kafka_admin.create_topic(served.bootstrap, pipeline.source.topic, partitions)
    tables = [f"silver/{pipeline.name}", f"quarantine/{pipeline.name}"]
    gold = [f"gold/{name}" for name, _, _ in pipeline.rollup_tables()]
    observer = Observer(pipeline.root, [*tables, *gold])
    batches: list[dict[str, Any]] = []
    started = threading.Event()

    def on_line(line: str) -> None:
        if line.startswith("{"):
            event = orjson.loads(line)
            started.set() if event["event"] == "started" else batches.append(event)

    runner = Child.start(
        "pipeline",
        ["-m", "lakehouse", "run", str(path), "--json"],
        environment=environment,
        log=folder / "pipeline.log",
        on_line=on_line,
    )
    load = None
    try:
        _wait(started, runner, _START_TIMEOUT_S)
        observer.start()
        load = Child.start(
            "load",
            ["-m", "lakehouse", "produce", "--pipeline", str(path), "--rate", str(rate), "--shape", "flat", "--json",
             "--seconds", str(warm_up + seconds), "--bad-share", str(bad_share)],
            environment=environment,
            log=folder / "load.log",
        )  # fmt: skip
        usage = {name: Usage() for name in ("pipeline", "broker", "load", "observer")}
        trees: dict[str, Callable[[], list[psutil.Process]]] = {
            "pipeline": runner.tree,
            "broker": lambda: [psutil.Process(served.pid)],
            "load": load.tree,
            "observer": lambda: [psutil.Process()],
        }
        while load.wait(1.0) is None and not stop.is_set():
            runner.require_running()
            for name, tree in trees.items():
                usage[name].look(tree())
        sent = orjson.loads(load.log.read_text().splitlines()[-1])["sent"]
        _await_all(observer, tables, sent)
    finally:
        for child in (load, runner):
            if child is not None:
                child.stop()
    observer.finish()
    sends = _events(observer, pipeline, tables, gold)
    first = min(float(moments.min()) for moments, _ in sends.values() if len(moments))
    measured = {
        name: _freshness(moments, ages, first + 1_000 * warm_up, first + 1_000 * (warm_up + seconds))
        for name, (moments, ages) in sends.items()
    }
    steady = [batch for batch in batches if batch["event"] == "batch" and batch["time_ms"] > first + 1_000 * warm_up]
    return LatencyReport(
        rate=rate,
        seconds=seconds,
        warm_up_s=warm_up,
        partitions=partitions,
        bad_share=bad_share,
        sent=sent,
        tables=measured,
        batches=len(steady),
        batch_ms=_batch_times(steady),
        memory_mb=usage,
        cpu_s_per_million={name: round(used.cpu_s / sent * 1e6, 1) for name, used in usage.items()},
        machine={
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "system": platform.platform(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "python": platform.python_version(),
        },
        versions={name: version(name) for name in _PACKAGES},
        configuration=orjson.loads(pipeline.model_dump_json()),
    )


def _wait(event: threading.Event, child: Child, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not event.wait(0.2):
        child.require_running()
        if time.monotonic() > deadline:
            raise LakehouseError(f"the {child.name} did not start within {timeout_s:.0f} s", where=str(child.log))


def _await_all(observer: Observer, tables: list[str], sent: int) -> None:
    """Until every record that was sent has been seen in a table: one that is never seen must not look fast."""
    deadline = time.monotonic() + _CATCH_UP_S
    while True:
        seen = sum(
            add.num_records or 0 for name in tables for _, commit in list(observer.seen[name]) for add in commit.adds
        )
        if seen >= sent:
            return
        if time.monotonic() > deadline:
            raise LakehouseError(
                f"{sent} records were sent, but only {seen} were in the tables {_CATCH_UP_S:.0f} s later"
            )
        time.sleep(0.1)


def _events(
    observer: Observer, pipeline: Pipeline, tables: list[str], gold: list[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Table → (send time of every event, ms since 1970; its age when the version was readable, ms).

    A rollup's rows are not events. Its events are those of the batch that its version holds, which the
    version's own record of the batch tells.
    """
    rollup_seen = {name: {_key(commit): seen for seen, commit in observer.seen[name]} for name in gold}
    moments: dict[str, list[np.ndarray]] = defaultdict(list)
    ages: dict[str, list[np.ndarray]] = defaultdict(list)
    for name in tables:
        for seen, commit in observer.seen[name]:
            for add in commit.adds:
                rows = pq.read_table(f"{pipeline.root}/{name}/{add.path}", columns=["_timestamp"])
                sent = rows["_timestamp"].cast(pa.int64()).to_numpy() / 1_000
                moments[name].append(sent)
                ages[name].append(1_000 * seen - sent)
                if name.startswith("silver/"):
                    for rollup, by_batch in rollup_seen.items():
                        moments[rollup].append(sent)
                        ages[rollup].append(1_000 * by_batch[_key(commit)] - sent)
    empty = [np.empty(0)]
    return {
        name: (np.concatenate(moments[name] or empty), np.concatenate(ages[name] or empty)) for name in [*tables, *gold]
    }


def _key(commit: Commit) -> tuple[str, int]:
    batch = commit.commit_info[COMMIT_KEY]
    return batch["query_id"], batch["batch_id"]


def _freshness(moments: np.ndarray, ages: np.ndarray, first_ms: float, last_ms: float) -> Freshness:
    kept = ages[(moments >= first_ms) & (moments < last_ms)]
    if not len(kept):
        return Freshness(0, {}, float("nan"), float("nan"))
    found = np.percentile(kept, PERCENTILES)
    return Freshness(
        events=len(kept),
        percentiles_ms={f"p{p}": round(float(value), 1) for p, value in zip(PERCENTILES, found, strict=True)},
        mean_ms=round(float(kept.mean()), 1),
        max_ms=round(float(kept.max()), 1),
    )


def _batch_times(batches: list[dict[str, Any]]) -> dict[str, float]:
    if not batches:
        return {}
    ends = np.array([batch["time_ms"] for batch in batches])
    return {
        "job": float(np.median([batch["job_ms"] for batch in batches])),
        "commit": float(np.median([batch["commit_ms"] for batch in batches])),
        "from batch to batch": float(np.median(np.diff(ends))) if len(ends) > 1 else float("nan"),
    }
