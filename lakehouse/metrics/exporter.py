"""The Prometheus endpoint: the catalogue's metrics as the client library holds and serves them."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)

from lakehouse.errors import ConfigError
from lakehouse.metrics import catalogue
from lakehouse.metrics.catalogue import METRICS, MOST_VALUES, OTHER, SECONDS, Metric

if TYPE_CHECKING:
    from collections.abc import Mapping
    from wsgiref.simple_server import WSGIServer

    from lakehouse.metrics.record import Record, TableFigures

_KINDS = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class Exporter:
    """The metrics of one pipeline. Every method is called by one thread; scrapes come from others.

    Args:
        pipeline: its name, a label of every series.
    """

    def __init__(self, pipeline: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter, of no use
        self.registry = CollectorRegistry()
        self._pipeline = pipeline
        self._seen: dict[tuple[Metric, str], set[str]] = {}
        self._instruments = {metric: self._made(metric) for metric in METRICS}
        self._server: WSGIServer | None = None
        self._of(catalogue.INFO, version=version("lakehouse")).set(1)
        for metric in METRICS:
            if not metric.labels:
                self._of(metric)  # a counter that has not counted yet is 0, not absent

    def serve(self, address: str, port: int) -> int:
        """Serve the metrics until `close`; the port, which is chosen where `port` is 0.

        Raises:
            ConfigError: the port is taken, or the address is none of this machine.
        """
        try:
            self._server, _ = start_http_server(port, address, self.registry)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"the Prometheus endpoint cannot listen on {address}:{port}: {error}",
                where="metrics.port and metrics.address",
                remedy="stop what listens there, choose another port, or write 0 to go without the endpoint",
            ) from error
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def text(self) -> str:
        """What a scrape gets."""
        return generate_latest(self.registry).decode()

    def record(self, record: Record) -> None:
        """Take in a micro-batch or a look."""
        if record.batch_id is not None:
            self._batch(record)
        for partition, records in _bounded(record.lag).items():
            self._of(catalogue.LAG, partition=partition).set(records)
        if record.reachable is not None:
            self._of(catalogue.REACHABLE).set(record.reachable)
        for part, size in record.memory.items():
            self._of(catalogue.MEMORY, part=part).set(size)
        if record.disk is not None:
            self._of(catalogue.DISK_FREE).set(record.disk[0])
            self._of(catalogue.DISK_SIZE).set(record.disk[1])

    def _batch(self, record: Record) -> None:
        self._of(catalogue.BATCHES).inc()
        self._of(catalogue.LAST_BATCH).set(record.batch_id)
        self._of(catalogue.LAST_COMMIT).set(record.at_s)
        self._of(catalogue.LATE).inc(record.late or 0)
        self._of(catalogue.BATCH_SECONDS, phase="job").observe(record.job_s)
        self._of(catalogue.BATCH_SECONDS, phase="commit").observe(record.commit_s)
        for table, rows in record.rows.items():
            self._of(catalogue.ROWS, table=table).inc(rows)
        for rule, rows in record.failed.items():
            self._of(catalogue.FAILED, rule=rule).inc(rows)
        if record.freshness_s is not None:
            self._of(catalogue.FRESHNESS).observe(record.freshness_s)
        if record.ahead_s is not None:
            self._of(catalogue.CLOCK_AHEAD).set(record.ahead_s)
        if record.newest_event_s is not None:
            self._of(catalogue.NEWEST_EVENT).set(record.newest_event_s)

    def table(self, name: str, figures: TableFigures, *, at_s: float, cpu_s: float, failed: bool) -> None:
        """Take in what maintenance reported about a table."""
        self._of(catalogue.MAINTAINED, table=name).set(at_s)
        self._of(catalogue.MAINTENANCE_CPU, table=name).inc(cpu_s)
        self._of(catalogue.MAINTENANCE_FAILED, table=name).inc(failed)
        self._of(catalogue.FILES, table=name).set(figures.files)
        self._of(catalogue.SIZE, table=name).set(figures.bytes)
        if figures.log_files is not None:
            self._of(catalogue.LOG_FILES, table=name).set(figures.log_files)

    def waiting(self) -> None:
        """The query ended and waits for Kafka."""
        self._of(catalogue.WAITS).inc()

    def left_out(self, records: int) -> None:
        """So many records in all could not be written."""
        counter = self._of(catalogue.LEFT_OUT)
        counter.inc(max(0, records - counter._value.get()))  # noqa: SLF001 - the library has no other way to ask

    def alert(self, name: str, severity: str, *, firing: bool) -> None:
        """An alert of the pipeline's file fires or does not."""
        self._of(catalogue.FIRING, alert=name, severity=severity).set(firing)

    def _made(self, metric: Metric) -> Any:  # noqa: ANN401 - one of the library's classes
        more = {"buckets": SECONDS} if metric.kind == "histogram" else {}
        return _KINDS[metric.kind](
            metric.name, metric.help, ("pipeline", *metric.labels), registry=self.registry, **more
        )

    def _of(self, metric: Metric, **labels: str) -> Any:  # noqa: ANN401 - one of the library's classes
        known = {label: self._known(metric, label, value) for label, value in labels.items()}
        return self._instruments[metric].labels(pipeline=self._pipeline, **known)

    def _known(self, metric: Metric, label: str, value: str) -> str:
        """The value, or `other` where the label has too many already."""
        seen = self._seen.setdefault((metric, label), set())
        if value not in seen and len(seen) >= MOST_VALUES:
            return OTHER
        seen.add(value)
        return value


def _bounded(lag: Mapping[int, int]) -> dict[str, int]:
    """Partition → lag; partitions beyond the bound are added up, since a gauge cannot be counted on."""
    found: dict[str, int] = {}
    for partition, records in lag.items():
        label = str(partition) if partition < MOST_VALUES - 1 else OTHER
        found[label] = found.get(label, 0) + records
    return found
