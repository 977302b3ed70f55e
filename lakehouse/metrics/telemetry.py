"""Gathers a pipeline's figures beside its hot path, and gives them to the exporter and to the journal `_ops/NAME`.

The hot path puts what it has just committed into a queue, and is done. A thread of its own makes the record of it; a
second one looks at Kafka and at the process tree, which may take seconds; the journal's thread writes. Nothing that
fails here reaches the pipeline.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any

from lakehouse import storage
from lakehouse.metrics.exporter import Exporter
from lakehouse.metrics.record import Committed, Record, Sample, TableFigures, look, record_of
from lakehouse.metrics.sampler import take
from lakehouse.schemas import OPS_SCHEMA
from lakehouse.sinks.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from lakehouse.chain import Batch
    from lakehouse.config.models import Pipeline
    from lakehouse.quality.watch import Outcome

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""From one append to `_ops/NAME`, and one look at Kafka and the process tree, to the next; less where alerts are
evaluated more often, since what they see is at most so old."""
_WAITING = 10_000
"""Events that may wait for the thread; a pipeline makes some ten a second."""


class Telemetry:
    """The figures of one running pipeline, from `open` to `close`.

    Every other method may be called by any thread, returns at once and never raises.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        sample: Callable[[Pipeline], Sample] = take,
        flush_s: float | None = None,
        sample_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.exporter = Exporter(pipeline.name)
        self._pipeline = pipeline
        self._take = sample
        look_s = min(LOOK_S, pipeline.alerts.every.total_seconds()) if pipeline.alerts.rules else LOOK_S
        self._flush_s, self._sample_s = flush_s or look_s, sample_s or look_s
        self._clock = clock
        self._queue: Queue[Callable[[], None]] = Queue(_WAITING)
        self._stopping = threading.Event()
        self._journal = Journal(table_url(pipeline), OPS_SCHEMA, what="what the last batches looked like")
        self._pending: list[Record] = []
        self._tables: dict[str, TableFigures] = {}
        # A pipeline that is to maintain its tables and has not begun yet waits since now.
        maintains = pipeline.maintenance.background and pipeline.trigger.kind != "available_now"
        self._began_s = clock() if maintains else None
        self._maintained_at: dict[str, float] = {}
        self._sample: Sample | None = None
        self._batch: Batch | None = None
        self._lost = 0
        self._also: list[Callable[[Committed], None]] = []
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (("telemetry", self._run), ("sampler", self._look))
        ]

    @classmethod
    def open(cls, pipeline: Pipeline, **options: Any) -> Telemetry:  # noqa: ANN401 - those of `__init__`
        """Begin, and serve the endpoint where the pipeline's file names a port.

        Raises:
            ConfigError: the port cannot be listened on.
        """
        telemetry = cls(pipeline, **options)
        if pipeline.metrics.port:
            telemetry.exporter.serve(pipeline.metrics.address, pipeline.metrics.port)
        for thread in telemetry._threads:
            thread.start()
        return telemetry

    def close(self) -> None:
        """Write what is gathered, wait for it, and stop serving."""
        self._put(self._flush)
        self._stopping.set()
        # The sampler may be asking a Kafka that is away; it is a daemon and has nothing to finish.
        self._threads[0].join()
        self._journal.close()
        self.exporter.close()

    def committed(self, batch: Batch, outcomes: tuple[Outcome, ...], late: int, job_s: float, commit_s: float) -> None:
        """A micro-batch is in every table. Called by the hot path."""
        done = Committed(batch, job_s, commit_s, outcomes, late, self._clock())
        self._put(lambda: self._note(done))

    def tell(self, listener: Callable[[Committed], None]) -> None:
        """From now on `listener` hears of each micro-batch too, in the thread that makes the records."""
        self._also.append(listener)

    def waiting(self) -> None:
        """The query ended and waits for Kafka."""
        self._put(self.exporter.waiting)

    def maintained(self, report: dict[str, Any]) -> None:
        """Maintenance has looked after a table: the JSON of its `TableReport`."""
        self._put(lambda: self._maintained(report, self._clock()))

    def alert(self, name: str, severity: str, *, firing: bool) -> None:
        """An alert of the pipeline's file fires or does not."""
        self._put(lambda: self.exporter.alert(name, severity, firing=firing))

    def _put(self, event: Callable[[], None]) -> None:
        try:
            self._queue.put_nowait(event)
        except Full:
            self._lost += 1

    def _run(self) -> None:
        due = time.monotonic() + self._flush_s
        while not (self._stopping.is_set() and self._queue.empty()):
            event: Callable[[], None] | None = None
            with suppress(Empty):
                event = self._queue.get(timeout=max(0.0, due - time.monotonic()))
            if time.monotonic() >= due:
                due = time.monotonic() + self._flush_s
                self._safely(self._flush)
            if event is not None:
                self._safely(event)

    def _look(self) -> None:
        while not self._stopping.is_set():
            self._safely(self._sampled)
            self._stopping.wait(self._sample_s)

    def _sampled(self) -> None:
        sample = self._take(self._pipeline)
        self._put(lambda: self._keep(sample))

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - figures about the stream must not stop the stream
            logger.warning("a figure is left out: %s: %s", type(error).__name__, error)

    def _keep(self, sample: Sample) -> None:
        """Without a micro-batch in between, what was seen becomes a record by itself: so a stall can be seen too."""
        self._sample = sample
        record = look(self._batch, sample, dict(self._tables), self._maintained_s)
        self.exporter.record(record)
        if not self._pending:
            self._pending.append(record)

    def _note(self, committed: Committed) -> None:
        self._batch = committed.batch
        column = self._pipeline.event_time.column
        record = record_of(committed, self._sample, dict(self._tables), column, self._maintained_s)
        self.exporter.record(record)
        self._pending.append(record)
        for listener in self._also:
            listener(committed)

    def _maintained(self, report: dict[str, Any], at_s: float) -> None:
        name, log_files = report["table"], report["log_files"]
        if log_files is None and name in self._tables:
            log_files = self._tables[name].log_files
        figures = TableFigures(report["files_after"], report["bytes_after"], log_files)
        self._tables[name] = figures
        failed = report["error"] is not None
        self._maintained_at.setdefault(name, self._began_s or at_s)
        if not failed:
            self._maintained_at[name] = at_s
        self.exporter.table(name, figures, at_s=at_s, cpu_s=report["cpu_s"], failed=failed)

    @property
    def _maintained_s(self) -> float | None:
        """When the table that has waited longest was last maintained."""
        return min(self._maintained_at.values(), default=self._began_s)

    def _flush(self) -> None:
        """Write what is gathered; where that is nothing, as while Kafka keeps the sampler waiting, that we live."""
        self.exporter.left_out(self._journal.left_out + self._lost)
        records, self._pending = self._pending, []
        records = records or [Record(self._clock(), tables=dict(self._tables), maintained_s=self._maintained_s)]
        self._journal.append(lambda: [record.to_row() for record in records])


def table_url(pipeline: Pipeline) -> str:
    """Where the journal lies."""
    return storage.layer_url(pipeline.root, "_ops", pipeline.name)
