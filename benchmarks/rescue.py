"""What the rescue of unknown fields costs: a micro-batch judged and through the one pass, with it and without.

    python benchmarks/rescue.py [--rows 200000] [--rounds 7]

Three kinds of events: the shipped load's (every field there, most `amount` null and spelled out), the same with one
more field in each, and with one more in each hundredth. Prints the median seconds of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.config.loader import load_pipeline
from lakehouse.load.events import BLOCK, Generator
from lakehouse.pipeline import judged_rows
from lakehouse.quality.reasons import Reasons
from lakehouse.quality.suite import load_suite
from lakehouse.session import local_session
from lakehouse.sinks.onepass import RESULT_DDL, OnePass

PIPELINE = Path(__file__).parents[1] / "conf" / "feature_events.yaml"
MORE = b',"experiment":"checkout-button-b"}'


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    shipped = load_pipeline(PIPELINE, {})
    events = _events(arguments.rows)
    kinds = {
        "no other field": events,
        "one more in each": [value[:-1] + MORE for value in events],
        "one more in 1 %": [value[:-1] + MORE if at % 100 == 0 else value for at, value in enumerate(events)],
    }
    suite = load_suite(shipped.quality.suite)
    spark = local_session("rescue")
    with tempfile.TemporaryDirectory() as folder:
        for kind, values in kinds.items():
            path = f"{folder}/{len(list(Path(folder).iterdir()))}.parquet"
            pq.write_table(_records(values), path)
            records = spark.read.parquet(path).repartition(2).cache()
            records.count()
            passes = {}
            for rescue in (False, True):
                tables = shipped.tables.model_copy(update={"rescue": rescue})
                pipeline = shipped.model_copy(update={"tables": tables, "root": folder})
                one_pass = OnePass(f"{folder}/tables", pipeline, {}, Reasons.by(suite))
                passes[rescue] = judged_rows(records, pipeline, suite).mapInArrow(one_pass, RESULT_DDL)
            taken: dict[bool, list[float]] = {False: [], True: []}
            for round_ in range(arguments.rounds + 2):
                for rescue, work in passes.items():
                    began = time.perf_counter()
                    work.collect()
                    if round_ > 1:  # the first ones compile
                        taken[rescue].append(time.perf_counter() - began)
            without, with_it = (statistics.median(taken[rescue]) for rescue in (False, True))
            print(f"{kind}: {without:.3f} s without, {with_it:.3f} s with, {with_it / without - 1:+.1%}", flush=True)
    spark.stop()


def _events(count: int) -> list[bytes]:
    generator = Generator.beside(PIPELINE, load_pipeline(PIPELINE, {}))
    now_ms = int(time.time() * 1_000)
    found: list[bytes] = []
    for block in range(-(-count // BLOCK)):
        found += generator.render(generator.draw(1, block, 2_000), np.full(BLOCK, now_ms, dtype=np.int64))
    return found[:count]


def _records(values: list[bytes]) -> pa.Table:
    count = len(values)
    header = pa.struct([("key", pa.string()), ("value", pa.binary())])
    return pa.table(
        {
            "key": pa.array([b"k"] * count, pa.binary()),
            "value": pa.array(values, pa.binary()),
            "topic": pa.repeat("t", count),
            "partition": pa.array([0] * count, pa.int32()),
            "offset": pa.array(range(count), pa.int64()),
            "timestamp": pa.repeat(pa.scalar(time.time_ns() // 1_000, pa.timestamp("us", tz="UTC")), count),
            "headers": pa.nulls(count, pa.list_(header)),
        }
    )


if __name__ == "__main__":
    main()
