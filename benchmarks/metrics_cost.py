"""What figures cost: µs per micro-batch on the hot path, and CPU beside it. No JVM, no Kafka.

python benchmarks/metrics_cost.py
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from lakehouse.metrics.record import Sample
from lakehouse.metrics.telemetry import Telemetry
from lakehouse.quality.watch import Outcome
from lakehouse.schemas import TIMESTAMP
from lakehouse.sinks.onepass import count_late
from tests.maintained import START_S, Stream
from tests.pipelines import small_pipeline

BATCHES, EVERY_S = 1_000, 0.01


def main() -> None:
    """Hand over batches as the driver does, at a hundred a second, and tell what that took."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        stream = Stream(root / "tables")
        stream.send(2_000, at_s=START_S)
        head = stream.sink.head
        if head is None:
            raise SystemExit("the batch is in no table")
        outcomes = tuple(Outcome(f"rule_{number}", 2_000, failed=number % 3) for number in range(20))
        telemetry = Telemetry.open(
            small_pipeline(root / "ops"), sample=lambda _: Sample(time.time(), {0: 9, 1: 9}, {"driver": 1})
        )
        took, began, pause = [], time.process_time(), threading.Event()
        for _ in range(BATCHES):
            start = time.perf_counter_ns()
            telemetry.committed(head, outcomes, 3, 0.2, 0.03)
            took.append((time.perf_counter_ns() - start) / 1_000)
            pause.wait(EVERY_S)
        telemetry.close()
        cpu_us = (time.process_time() - began) / BATCHES * 1e6
    print(f"hot path: p50 {statistics.median(took):.1f} µs, p99 {sorted(took)[int(0.99 * BATCHES)]:.1f} µs per batch")
    print(f"beside it: {cpu_us:.0f} µs CPU per batch, the appends to _ops and this loop included")
    rng = np.random.default_rng(1)
    for rows in (1_000, 10_000, 100_000):
        times = rng.integers(0, 10**9, rows)
        table = pa.table(
            {
                "_timestamp": pa.array(times + 10**8, pa.int64()).cast(TIMESTAMP),
                "at": pa.array(times, pa.int64()).cast(TIMESTAMP),
            }
        )
        start = time.perf_counter_ns()
        for _ in range(100):
            count_late(table, "at", timedelta(minutes=1))
        print(f"counting late events in a task: {(time.perf_counter_ns() - start) / 1e5:.0f} µs for {rows:,} rows")


if __name__ == "__main__":
    main()
