"""The running stack that a benchmark looks at: broker, writer, loads and an observer, each a process of its own.

The load is open loop: each record's Kafka timestamp is the moment at which it was due, so time that a stalled sender
loses counts as latency. The observer knows only the tables' logs: it opens the next version by its name, every few
milliseconds, and notes when it could. What is measured is therefore the same for every writer of Delta tables.
"""

from __future__ import annotations

import os
import platform
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from lakehouse.config.models import Pipeline
    from lakehouse.serving.log import Commit

_LOOK_EVERY_S = 0.002
_START_TIMEOUT_S = 180.0
_CATCH_UP_S = 60.0
_PACKAGES = ("pyspark", "deltalake", "delta-spark", "pyarrow", "obstore", "datasketches", "confluent-kafka")


@dataclass(frozen=True)
class Writer:
    """What brings records from the topic into Delta tables.

    Attributes:
        name: in reports.
        command: arguments of Python; it prints a JSON line `{"event": "started"}` when records would be taken.
        tables: those that hold one row per record, with Kafka's timestamp in `_timestamp`.
        rollups: tables that hold aggregates of the first table's rows, committed batch by batch with it.
    """

    name: str
    command: Sequence[str]
    tables: Sequence[str]
    rollups: Sequence[str] = ()


def pipeline_writer(path: Path, pipeline: Pipeline) -> Writer:
    """This project's own pipeline."""
    return Writer(
        name="pipeline",
        command=["-m", "lakehouse", "run", str(path), "--json"],
        tables=[f"silver/{pipeline.name}", f"quarantine/{pipeline.name}"],
        rollups=[f"gold/{name}" for name, _, _ in pipeline.rollup_tables()],
    )


@dataclass(frozen=True)
class Events:
    """Every event of one table: when it was due, and how old it was when a version that holds it could be read.

    Attributes:
        sent_ms: ms since 1970 UTC.
        age_ms: ms.
    """

    sent_ms: NDArray[np.float64]
    age_ms: NDArray[np.float64]

    def between(self, first_ms: float, last_ms: float) -> Events:
        """Those that were due from `first_ms` on and before `last_ms`."""
        kept = (self.sent_ms >= first_ms) & (self.sent_ms < last_ms)
        return Events(self.sent_ms[kept], self.age_ms[kept])

    def percentile(self, percent: float) -> float:
        """Age that so many percent of the events did not exceed, ms; NaN where there is none."""
        return float(np.percentile(self.age_ms, percent)) if len(self.age_ms) else float("nan")


class Observer(threading.Thread):
    """Notes when each version of each table could first be read, by one who knows only the log."""

    def __init__(self, root: str, tables: Sequence[str]) -> None:
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
                self.seen[name].extend(
                    (now, commit) for commit in commits if any(add.data_change for add in commit.adds)
                )

    def finish(self) -> None:
        """Stop looking."""
        self._done.set()
        self.join()


@dataclass(frozen=True)
class Driven:
    """What one load did: when its first and last record was due (ms since 1970 UTC), and how many it sent."""

    first_ms: float
    last_ms: float
    sent: int


class Stack:
    """A broker, a writer that has started, and an observer of its tables; see `running`."""

    def __init__(self, path: Path, pipeline: Pipeline, writer: Writer, environment: dict[str, str]) -> None:
        self.pipeline = pipeline
        self.writer = writer
        self.batches: list[dict[str, Any]] = []
        self.usage: dict[str, Usage] = {}
        self.sent = 0
        self._path, self._environment = path, environment
        self._observer = Observer(pipeline.root, [*writer.tables, *writer.rollups])
        self._trees: dict[str, Callable[[], list[psutil.Process]]] = {}
        self._loads_cpu_s = 0.0

    def start(self, served: broker.Broker, folder: Path, ending: ExitStack) -> None:
        """Start the writer, wait until it would take records, and begin to look."""
        started = threading.Event()

        def on_line(line: str) -> None:
            if line.startswith("{"):
                event = orjson.loads(line)
                started.set() if event["event"] == "started" else self.batches.append(event)

        child = Child.start(
            "pipeline",
            self.writer.command,
            environment=self._environment,
            log=folder / "writer.log",
            on_line=on_line,
        )
        ending.callback(child.stop)
        self._child, self._folder = child, folder
        self._trees = {
            "pipeline": child.tree,
            "broker": lambda: [psutil.Process(served.pid)],
            "observer": lambda: [psutil.Process()],
        }
        _wait(started, child, _START_TIMEOUT_S)
        self._observer.start()
        ending.callback(self._observer.finish)

    def drive(self, rate: float, seconds: float, *, bad_share: float, stop: threading.Event, seed: int = 1) -> Driven:
        """Send a load to its end, looking at what every process uses.

        Raises:
            LakehouseError: the writer or the load ended.
        """
        load = Child.start(
            "load",
            ["-m", "lakehouse", "produce", "--pipeline", str(self._path), "--rate", str(rate), "--shape", "flat",
             "--json", "--seconds", str(seconds), "--bad-share", str(bad_share), "--seed", str(seed)],
            environment=self._environment,
            log=self._folder / f"load-{seed}.log",
        )  # fmt: skip
        usage = self.usage.setdefault("load", Usage())
        try:
            while load.wait(1.0) is None and not stop.is_set():
                self._child.require_running()
                self.look()
                usage.look(load.tree())
        finally:
            load.stop()
        try:
            report = orjson.loads(load.log.read_text().splitlines()[-1])
        except (IndexError, orjson.JSONDecodeError):
            raise load.ended() from None
        self.sent += report["sent"]
        ended_ms = 1_000 * time.time()
        return Driven(ended_ms - 1_000 * report["seconds"], ended_ms, report["sent"])

    def look(self) -> None:
        """Note what every process but the load uses."""
        for name, tree in self._trees.items():
            self.usage.setdefault(name, Usage()).look(tree())

    def await_all(self, timeout_s: float = _CATCH_UP_S) -> None:
        """Until every record that was sent has been seen in a table: one that is never seen must not look fast.

        Raises:
            LakehouseError: not within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while (seen := self.rows_seen()) < self.sent:
            self._child.require_running()
            if time.monotonic() > deadline:
                raise LakehouseError(
                    f"{self.sent} records were sent, but only {seen} were in the tables {timeout_s:.0f} s later"
                )
            time.sleep(0.1)

    def rows_seen(self) -> int:
        """Rows of the tables' versions so far."""
        return sum(
            add.num_records or 0
            for name in self.writer.tables
            for _, commit in list(self._observer.seen[name])
            for add in commit.adds
        )

    def events(self) -> dict[str, Events]:
        """Each table's events; the files must all still be there.

        A rollup's rows are not events. Its events are those of the batch that its version holds, which the
        version's own record of the batch tells.
        """
        rollup_seen = {
            name: {_key(commit): seen for seen, commit in self._observer.seen[name]} for name in self.writer.rollups
        }
        sent: dict[str, list[NDArray[np.float64]]] = {name: [] for name in [*self.writer.tables, *self.writer.rollups]}
        ages: dict[str, list[NDArray[np.float64]]] = {name: [] for name in sent}
        for name in self.writer.tables:
            for seen, commit in self._observer.seen[name]:
                for add in commit.adds:
                    rows = pq.read_table(f"{self.pipeline.root}/{name}/{add.path}", columns=["_timestamp"])
                    due = rows["_timestamp"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 1_000
                    sent[name].append(due)
                    ages[name].append(1_000 * seen - due)
                    if name == self.writer.tables[0]:
                        for rollup, by_batch in rollup_seen.items():
                            sent[rollup].append(due)
                            ages[rollup].append(1_000 * by_batch[_key(commit)] - due)
        empty = [np.empty(0)]
        return {name: Events(np.concatenate(sent[name] or empty), np.concatenate(ages[name] or empty)) for name in sent}


@contextmanager
def running(
    path: Path, partitions: int, writer_of: Callable[[Path, Pipeline], Writer] = pipeline_writer
) -> Iterator[Stack]:
    """A stack in a temporary folder, which is ended and removed afterwards.

    Args:
        path: the pipeline's file; its root and servers are replaced.
        partitions: of the topic.
        writer_of: the writer under test.

    Raises:
        LakehouseError: a part of the stack failed; its last lines are in the message.
    """
    with ExitStack() as ending:
        ground = ending.enter_context(prepared(path, partitions))
        stack = Stack(path, ground.pipeline, writer_of(path, ground.pipeline), ground.environment)
        stack.start(ground.served, ground.folder, ending)
        yield stack


@dataclass(frozen=True)
class Ground:
    """What a benchmark stands on, removed afterwards: a folder, a broker with an empty topic, a pipeline over both.

    Attributes:
        folder: where everything lies.
        served: the broker.
        environment: in which processes find both.
        pipeline: as they read it.
    """

    folder: Path
    served: broker.Broker
    environment: dict[str, str]
    pipeline: Pipeline


@contextmanager
def prepared(path: Path, partitions: int) -> Iterator[Ground]:
    """A broker, the empty topic and a root for the pipeline file `path`, all in a temporary folder."""
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="lakehouse-bench-")))
        served = broker.start(folder / "_broker")
        ending.callback(broker.stop, folder / "_broker")
        environment = {**os.environ, "LAKEHOUSE_ROOT": str(folder / "root"), "KAFKA_BOOTSTRAP": served.bootstrap}
        pipeline = load_pipeline(path, environment)
        kafka_admin.create_topic(served.bootstrap, pipeline.source.topic, partitions)
        yield Ground(folder, served, environment, pipeline)


def machine() -> dict[str, Any]:
    """What a figure was measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Of the packages that a figure depends on."""
    return {name: version(name) for name in _PACKAGES}


def _wait(event: threading.Event, child: Child, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not event.wait(0.2):
        child.require_running()
        if time.monotonic() > deadline:
            raise LakehouseError(f"the {child.name} did not start within {timeout_s:.0f} s", where=str(child.log))


def _key(commit: Commit) -> tuple[str, int]:
    batch = commit.commit_info[COMMIT_KEY]
    return batch["query_id"], batch["batch_id"]
