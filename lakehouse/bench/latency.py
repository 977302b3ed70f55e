"""How fresh the tables are at one rate: the time from an event's scheduled sending to the Delta version that holds it.

Percentiles are over events; what was due during the warm-up is cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from lakehouse.bench import stack
from lakehouse.bench.stack import Events, pipeline_writer, running

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from lakehouse.bench.stack import Stack, Writer
    from lakehouse.config.models import Pipeline
    from lakehouse.processes import Usage

PERCENTILES = (50, 90, 95, 99, 99.9)
CURVE = (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.9, 99.99, 100)
"""Percentiles of a table's freshness that are kept for a plot of its distribution."""
SLICE_S = 5.0
"""Width of the slices of time whose percentiles show whether freshness changes while a run lasts."""


@dataclass(frozen=True)
class Freshness:
    """Latency of one table's events, milliseconds.

    Attributes:
        curve: percent → latency that so many percent of the events did not exceed.
        over_time: seconds after the warm-up → p50 and p99 of the events due in the following `SLICE_S`.
    """

    events: int
    percentiles_ms: dict[str, float]
    mean_ms: float
    max_ms: float
    curve: dict[float, float] = field(default_factory=dict, repr=False)
    over_time: dict[float, tuple[float, float]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class LatencyReport:
    """Everything that a run measured, and what it was measured on."""

    writer: str
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

    @property
    def worst_p99_ms(self) -> float:
        """The p99 of the table that is worst in it; NaN where there is none."""
        return max(table.percentiles_ms.get("p99", float("nan")) for table in self.tables.values())

    def __str__(self) -> str:
        lines = [
            (
                f"{self.writer}: {self.rate:,.0f} events/s for {self.seconds:.0f} s after {self.warm_up_s:.0f} s of"
                f" warm-up, {self.bad_share:.0%} of them bad,"
                f" {self.partitions} partitions, {self.machine['cores']} cores for everything"
            ),
            "",
            f"{'table':<42}{'events':>10}" + "".join(f"{'p' + str(p):>8}" for p in PERCENTILES) + f"{'max':>8}  ms",
        ]
        for name, table in self.tables.items():
            figures = "".join(f"{value:>8.0f}" for value in table.percentiles_ms.values())
            lines.append(f"{name:<42}{table.events:>10}{figures}{table.max_ms:>8.0f}")
        if self.batches:
            batch = ", ".join(f"{name} {value:.0f}" for name, value in self.batch_ms.items())
            lines += ["", f"{self.batches} batches; median ms: {batch}"]
        lines += ["", f"{'process':<12}{'peak MiB':>10}{'last MiB':>10}{'CPU s':>9}{'CPU s per million events':>27}"]
        for name, usage in self.memory_mb.items():
            per_million = self.cpu_s_per_million[name]
            lines.append(
                f"{name:<12}{usage.peak_rss_mb:>10.0f}{usage.last_rss_mb:>10.0f}{usage.cpu_s:>9.1f}{per_million:>27.1f}"
            )
        return "\n".join(lines)


def measure(
    path: Path,
    *,
    rate: float,
    seconds: float,
    warm_up: float,
    partitions: int,
    bad_share: float,
    stop: threading.Event,
    writer_of: Callable[[Path, Pipeline], Writer] = pipeline_writer,
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
        writer_of: what writes the tables.

    Raises:
        LakehouseError: a part of the stack failed; its last lines are in the message.
    """
    with running(path, partitions, writer_of) as running_stack:
        running_stack.drive(rate, warm_up + seconds, bad_share=bad_share, stop=stop)
        running_stack.await_all()
        found = running_stack.events()
        first_ms = min(float(events.sent_ms.min()) for events in found.values() if len(events.sent_ms))
        first_ms += 1_000 * warm_up
        steady = [batch for batch in running_stack.batches if batch["event"] == "batch" and batch["time_ms"] > first_ms]
        return LatencyReport(
            writer=running_stack.writer.name,
            rate=rate,
            seconds=seconds,
            warm_up_s=warm_up,
            partitions=partitions,
            bad_share=bad_share,
            sent=running_stack.sent,
            tables={
                name: _freshness(events.between(first_ms, first_ms + 1_000 * seconds), first_ms)
                for name, events in found.items()
            },
            batches=len(steady),
            batch_ms=_batch_times(steady),
            memory_mb=running_stack.usage,
            cpu_s_per_million=_per_million(running_stack),
            machine=stack.machine(),
            versions=stack.versions(),
            configuration=orjson.loads(running_stack.pipeline.model_dump_json()),
        )


def _per_million(running_stack: Stack) -> dict[str, float]:
    return {name: round(used.cpu_s / running_stack.sent * 1e6, 1) for name, used in running_stack.usage.items()}


def _freshness(events: Events, first_ms: float) -> Freshness:
    if not len(events.age_ms):
        return Freshness(0, {}, float("nan"), float("nan"))
    found = np.percentile(events.age_ms, PERCENTILES)
    last_ms = float(events.sent_ms.max())
    over_time = {}
    for start_ms in np.arange(first_ms, last_ms, 1_000 * SLICE_S).tolist():
        part = events.between(start_ms, start_ms + 1_000 * SLICE_S)
        if len(part.age_ms):
            over_time[round((start_ms - first_ms) / 1_000, 1)] = (
                round(part.percentile(50), 1),
                round(part.percentile(99), 1),
            )
    return Freshness(
        events=len(events.age_ms),
        percentiles_ms={f"p{p}": round(float(value), 1) for p, value in zip(PERCENTILES, found, strict=True)},
        mean_ms=round(float(events.age_ms.mean()), 1),
        max_ms=round(float(events.age_ms.max()), 1),
        curve={percent: round(events.percentile(percent), 1) for percent in CURVE},
        over_time=over_time,
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
