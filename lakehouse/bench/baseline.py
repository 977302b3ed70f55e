"""A pipeline beside Spark's own Delta sink, one after the other on the same machine in the same run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakehouse.bench.latency import LatencyReport, measure
from lakehouse.bench.spark_sink import KINDS, spark_writer
from lakehouse.bench.stack import pipeline_writer

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class BaselineReport:
    """The pipeline's report, and that of each kind of the baseline."""

    pipeline: LatencyReport
    baselines: dict[str, LatencyReport]

    def ratios(self, kind: str) -> dict[str, float]:
        """How many times as long (p99 of the worst table) and as much CPU (writer alone) the baseline took."""
        other = self.baselines[kind]
        return {
            "p99": other.worst_p99_ms / self.pipeline.worst_p99_ms,
            "CPU": other.cpu_s_per_million["pipeline"] / self.pipeline.cpu_s_per_million["pipeline"],
        }

    def __str__(self) -> str:
        parts = [str(self.pipeline), *map(str, self.baselines.values())]
        lines = [
            f"Spark's Delta sink, {kind}: {ratios['p99']:.1f} × the p99, {ratios['CPU']:.2f} × the CPU of the pipeline,"
            " for one table, unjudged"
            for kind in self.baselines
            if (ratios := self.ratios(kind))
        ]
        return "\n\n".join([*parts, "\n".join(lines)])


def compare(
    path: Path,
    *,
    rate: float,
    seconds: float,
    warm_up: float,
    partitions: int,
    stop: threading.Event,
    say: Callable[[str], None] = lambda _: None,
) -> BaselineReport:
    """Measure the pipeline, then each kind of the baseline, with the same load.

    Raises:
        LakehouseError: a part of a stack failed.
    """
    reports = {}
    for name, writer_of in {"": pipeline_writer, **{kind: spark_writer(kind) for kind in KINDS}}.items():
        say(f"measuring {name or 'the pipeline'}")
        reports[name] = measure(
            path,
            rate=rate,
            seconds=seconds,
            warm_up=warm_up,
            partitions=partitions,
            bad_share=0.0,
            stop=stop,
            writer_of=writer_of,
        )
    return BaselineReport(reports.pop(""), reports)
