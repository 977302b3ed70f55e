"""What grows with what, without Spark and Kafka: partitions, rate, combinations of a rollup, viewers; four points each.

    python -m benchmarks.scaling [--repeat 5] [--json FILE]

Every figure is CPU time, which others on the machine disturb less than a clock, and the smallest of the repetitions.
What Spark and Kafka add is measured by `lakehouse bench latency`.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lakehouse.rollups.partials import aggregate
from lakehouse.schemas import TIMESTAMP, silver_schema
from lakehouse.serving.questions import Question, answer
from lakehouse.serving.snapshot import Shape, Snapshot
from lakehouse.serving.state import State
from lakehouse.sinks.files import write_file
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.sink import Answer, Sink
from tests.pipelines import answers, small_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from lakehouse.config.models import Pipeline

NOW_S = 1_800_000_000
PARTITIONS = (2, 8, 32, 128)
ROWS = (1_000, 10_000, 50_000, 200_000)
COMBINATIONS = (10, 100, 1_000, 10_000)
VIEWERS = (1, 10, 50, 200)
WARM = 2
ERRORS = 0.1


def cpu_ms(work: Callable[[], object], repeat: int) -> float:
    """The smallest CPU time of `work`, ms, of all threads of this process."""
    for _ in range(WARM):
        work()
    taken = []
    for _ in range(repeat):
        began = time.process_time()
        work()
        taken.append(1_000 * (time.process_time() - began))
    return round(min(taken), 2)


def events(rows: int, pages: int) -> pa.Table:
    """Silver rows of one second, spread over `pages` values of the rollup's dimension."""
    rng = np.random.default_rng(1)
    whole = silver_schema(small_pipeline("/nowhere").source.fields)
    times = NOW_S * 1_000_000 + rng.integers(0, 1_000_000, rows)
    columns = {
        "at": pa.array(times, pa.int64()).cast(TIMESTAMP),
        "page": pa.array([f"page-{number}" for number in rng.integers(0, pages, rows)]),
        "user": pa.array(rng.integers(0, 100_000, rows), pa.int64()),
        "ms": pa.array(rng.lognormal(3, 0.5, rows)),
        "status": pa.array(np.where(rng.random(rows) < ERRORS, "error", "ok")),
        "_partition": pa.array(np.zeros(rows, np.int32)),
        "_offset": pa.array(np.arange(rows, dtype=np.int64)),
    }
    return pa.table({name: columns.get(name, pa.nulls(rows, whole.field(name).type)) for name in whole.names}, whole)


def with_partitions(repeat: int) -> dict[int, dict[str, float]]:
    """The driver's commit of one batch, whose tasks are one per partition: 10 rows each."""
    found: dict[int, dict[str, float]] = {}
    for partitions in PARTITIONS:
        with tempfile.TemporaryDirectory() as folder:
            one_pass = OnePass(folder, small_pipeline(folder), {})
            sink = Sink.open(one_pass)
            prepared = []
            for number in range(repeat + WARM):
                start = {"clicks": dict.fromkeys(range(partitions), 10 * number)}
                end = {"clicks": dict.fromkeys(range(partitions), 10 * number + 10)}
                told: list[Answer] = [found for _ in range(partitions) for found in answers(one_pass, 10 * number, 10)]
                prepared.append((number, start, end, told))
            queue = iter(prepared)

            def next_batch(sink: Sink = sink, queue: Any = queue) -> None:  # noqa: ANN401 - an iterator
                number, start, end, told = next(queue)
                sink.write(sink.next_batch("q", number, start, end, "suite"), told)

            found[partitions] = {"commit_cpu_ms": cpu_ms(next_batch, repeat)}
            sink.close()
            log = max(Path(folder, "silver", "clicks", "_delta_log").glob("*.json"))
            found[partitions]["commit_bytes"] = log.stat().st_size
    return found


def with_rows(repeat: int) -> dict[int, dict[str, float]]:
    """One task's own work on the rows of one batch: the partial aggregates, and silver's Parquet file."""
    pipeline, found = small_pipeline("/nowhere"), {}
    for rows in ROWS:
        table = events(rows, 20)
        with tempfile.TemporaryDirectory() as folder:
            found[rows] = {
                "aggregate_cpu_ms": cpu_ms(lambda table=table: partials(pipeline, table), repeat),
                "write_cpu_ms": cpu_ms(
                    lambda table=table, folder=folder: write_file(folder, "silver/clicks", table, "at"), repeat
                ),
            }
    return found


def partials(pipeline: Pipeline, table: pa.Table) -> pa.Table:
    """The partial aggregates of a second of events."""
    return aggregate(table, pipeline.rollups["by_page"], "1s", event_time="at")


def with_combinations(repeat: int) -> dict[int, dict[str, float]]:
    """50 000 events of one second over so many values: the task's aggregation, the file, and a reader's merge of it."""
    pipeline, found = small_pipeline("/nowhere"), {}
    rollup, fields = pipeline.rollups["by_page"], pipeline.source.fields
    for combinations in COMBINATIONS:
        table = events(50_000, combinations)
        made = partials(pipeline, table)
        with tempfile.TemporaryDirectory() as folder:
            size = write_file(folder, "gold/x", made, "max_event_time")["size"]

        def merge(made: pa.Table = made) -> None:
            State(Shape.of(rollup, fields)).add([made], float(NOW_S))

        found[combinations] = {
            "aggregate_cpu_ms": cpu_ms(lambda table=table: partials(pipeline, table), repeat),
            "file_bytes": size,
            "merge_cpu_ms": cpu_ms(merge, repeat),
        }
    return found


def with_viewers(repeat: int) -> dict[int, dict[str, float]]:
    """One refresh of so many viewers of a table with 100 values and 60 s of it: all the same view, or each its own."""
    pipeline = small_pipeline("/nowhere")
    shape = Shape.of(pipeline.rollups["by_page"], pipeline.source.fields)
    state = State(shape)
    second = partials(pipeline, events(5_000, 100))
    starts = second["window_start"].cast(pa.int64()).to_numpy()
    for back in range(60):
        column = pa.array(starts - back * 1_000_000, pa.int64()).cast(TIMESTAMP)
        at = second.column_names.index("window_start")
        state.add([second.set_column(at, "window_start", column)], float(NOW_S))
    names = tuple(f"page-{number}" for number in range(100))
    snapshot = Snapshot(
        shape=shape,
        table_id="t",
        version=1,
        generation=1,
        commit_ms=NOW_S * 1000,
        published_ms=NOW_S * 1000.0,
        max_event_ms=NOW_S * 1000.0,
        batch_id=0,
        levels=MappingProxyType({width: MappingProxyType(dict(held)) for width, held in state.buckets.items()}),
        values=(names,),
    )
    found = {}
    for viewers in VIEWERS:
        own = [Question(1, filters=(("page", frozenset(names[number % 100 :][:3])),)) for number in range(viewers)]

        def different(own: list[Question] = own) -> None:
            for question in own:
                answer(snapshot, question, NOW_S * 1000.0)

        found[viewers] = {
            "same_view_cpu_ms": cpu_ms(lambda: answer(snapshot, Question(1), NOW_S * 1000.0), repeat),
            "own_view_each_cpu_ms": cpu_ms(different, repeat),
        }
    return found


def main() -> None:
    """Measure, print a table each, and keep the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="repetitions of each point; the smallest counts")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    asked = parser.parse_args()
    measured = {
        "partitions": with_partitions(asked.repeat),
        "rows of a batch": with_rows(asked.repeat),
        "combinations": with_combinations(asked.repeat),
        "viewers": with_viewers(asked.repeat),
    }
    for name, points in measured.items():
        columns = list(next(iter(points.values())))
        print(f"\n| {name} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
        for point, values in points.items():
            print(f"| {point:,} | {' | '.join(f'{value:,.1f}' for value in values.values())} |")
    about = {"python": platform.python_version(), "machine": platform.machine(), "repeat": asked.repeat}
    if asked.json:
        asked.json.write_text(json.dumps({"about": about, "measured": measured}, indent=1))


if __name__ == "__main__":
    main()
