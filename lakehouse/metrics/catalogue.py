"""Every metric that a pipeline exposes, declared once. Data: no pipeline.

Names follow Prometheus' conventions: base units, and `_total` for what only grows. Each series has the label `pipeline`
besides its own. What a label may hold is bounded: names from the pipeline's file and suite, never from an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lakehouse.serving import beacon

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of histogram buckets, seconds: fine around the second that the pipeline stays below."""
MOST_VALUES = 256
"""Values of one label; further ones are counted together, as `other`."""
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: as Prometheus stores it; a counter's ends in `_total`.
        kind: how it behaves.
        help: what it means, in one sentence.
        labels: besides `pipeline`.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which its samples are stored."""
        parts = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return tuple(f"{self.name}{part}" for part in parts)


BATCHES = Metric("lakehouse_batches_total", "counter", "Micro-batches that are in every table.")
ROWS = Metric("lakehouse_rows_total", "counter", "Rows committed to a table.", ("table",))
FAILED = Metric(
    "lakehouse_rule_failed_rows_total",
    "counter",
    "Rows that failed a rule of the suite or of the contract; a row counts for each rule that it fails.",
    ("rule",),
)
LATE = Metric(
    "lakehouse_late_events_total",
    "counter",
    "Valid events that reached Kafka more than `event_time.late_after` after they happened.",
)
BATCH_SECONDS = Metric(
    "lakehouse_batch_duration_seconds",
    "histogram",
    "Time of a micro-batch, by phase: `job` is Spark's, `commit` writes the partial aggregates and every commit.",
    ("phase",),
)
FRESHNESS = Metric(
    "lakehouse_freshness_seconds",
    "histogram",
    "Age of a micro-batch's oldest valid record at its commit, since it reached Kafka.",
)
NEWEST_EVENT = Metric(
    "lakehouse_newest_event_timestamp_seconds", "gauge", "When the newest event that is in the tables happened."
)
LAST_COMMIT = Metric(
    "lakehouse_last_commit_timestamp_seconds", "gauge", "When the last micro-batch was in every table."
)
LAST_BATCH = Metric("lakehouse_last_batch_id", "gauge", "Number of the last micro-batch within its query.")
LAG = Metric(
    "lakehouse_kafka_lag_records",
    "gauge",
    "Offsets between the end of a partition, as a `read_committed` reader sees it, and the end of the tables.",
    ("partition",),
)
REACHABLE = Metric("lakehouse_kafka_reachable", "gauge", "Whether Kafka answered when it was last asked: 1 or 0.")
WAITS = Metric("lakehouse_kafka_waits_total", "counter", "Times that the query ended and waits for Kafka.")
MEMORY = Metric(
    "lakehouse_resident_memory_bytes",
    "gauge",
    "Resident memory by part: `driver`, `jvm`, `workers` (Spark's Python), `children` (maintenance and alerts).",
    ("part",),
)
FILES = Metric("lakehouse_table_files", "gauge", "Live files of a table after a pass of maintenance.", ("table",))
SIZE = Metric("lakehouse_table_size_bytes", "gauge", "Size of a table's live files.", ("table",))
LOG_FILES = Metric(
    "lakehouse_table_log_files", "gauge", "Files in a table's log, when maintenance last listed it.", ("table",)
)
MAINTAINED = Metric(
    "lakehouse_maintenance_timestamp_seconds", "gauge", "When maintenance last reported about a table.", ("table",)
)
MAINTENANCE_CPU = Metric(
    "lakehouse_maintenance_cpu_seconds_total", "counter", "CPU time that maintenance took for a table.", ("table",)
)
MAINTENANCE_FAILED = Metric(
    "lakehouse_maintenance_failures_total", "counter", "Passes that left a table unmaintained.", ("table",)
)
CLOCK_AHEAD = Metric(
    "lakehouse_clock_ahead_seconds",
    "gauge",
    "How far the last micro-batch's newest event, or Kafka's time of it, lay ahead of the driver's clock.",
)
DISK_FREE = Metric(
    "lakehouse_disk_free_bytes", "gauge", "Bytes left on the disk of the root; 0 of 0 over an object store."
)
DISK_SIZE = Metric("lakehouse_disk_size_bytes", "gauge", "Size of that disk.")
DASHBOARD_BEHIND = Metric(beacon.NAME, "gauge", beacon.HELP, ("table",))
FIRING = Metric(
    "lakehouse_alert_firing", "gauge", "Whether an alert of the pipeline's file fires: 1 or 0.", ("alert", "severity")
)
LEFT_OUT = Metric(
    "lakehouse_ops_left_out_total",
    "counter",
    "Appends to `_ops/NAME`, and figures, that were left out because something failed or was too slow.",
)
INFO = Metric("lakehouse_build_info", "gauge", "Always 1; the label says which version runs.", ("version",))

METRICS: tuple[Metric, ...] = (
    BATCHES,
    ROWS,
    FAILED,
    LATE,
    BATCH_SECONDS,
    FRESHNESS,
    NEWEST_EVENT,
    LAST_COMMIT,
    LAST_BATCH,
    LAG,
    REACHABLE,
    WAITS,
    MEMORY,
    FILES,
    SIZE,
    LOG_FILES,
    MAINTAINED,
    MAINTENANCE_CPU,
    MAINTENANCE_FAILED,
    CLOCK_AHEAD,
    DISK_FREE,
    DISK_SIZE,
    DASHBOARD_BEHIND,
    FIRING,
    LEFT_OUT,
    INFO,
)
"""All of them, in the order in which they are documented."""


def render() -> str:
    """The table of docs/operations.md."""
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in METRICS
    ]
    return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(render())  # noqa: T201 - for docs/operations.md
