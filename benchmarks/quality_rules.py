"""What judging rows costs: rows per second of a noop write with 0, 10, 20 and 50 rules, and the time to plan it.

    python benchmarks/quality_rules.py [--rows 2000000] [--bad-share 0.01] [--rules 0,10,20,50]

The rows are read from Parquet on a local disk, by Spark on two threads. Wall-clock time depends on what else
the machine does; CPU time of the tasks, from Spark's own metrics, hardly does. Both are the best of the repeats.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lakehouse.quality.rules import compile_rules
from lakehouse.quality.suite import parse_suite
from lakehouse.quality.verdicts import mark

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

FEATURES = ("search", "feed", "cart", "chat", "login", "checkout", "profile", "upload")
REGIONS = ("eu-central", "eu-west", "us-east", "us-west", "ap-south")
VERSION = r"^\d+\.\d+\.\d+\z"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--bad-share", type=float, default=0.01, help="of the rows, failing one rule")
    parser.add_argument("--rules", default="0,10,20,50", help="numbers of rules, separated by commas")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    spark = session()
    with tempfile.TemporaryDirectory() as folder:
        events = write_events(spark, Path(folder) / "events", arguments.rows, arguments.bad_share)
        print("rules  rows/s (wall)  ns/row (wall)  ns/row (CPU)  plan ms")
        for count in map(int, arguments.rules.split(",")):
            wall, cpu, plan = measure(spark, events, count, arguments.repeats)
            per_row = [seconds / arguments.rows * 1e9 for seconds in (wall, cpu)]
            rate = arguments.rows / wall
            print(f"{count:5}  {rate:13,.0f}  {per_row[0]:13.0f}  {per_row[1]:12.0f}  {plan * 1e3:7.1f}", flush=True)
    spark.stop()


def session() -> SparkSession:
    """Two threads, UTC, quiet."""
    return (
        SparkSession.builder.master("local[2]")
        .appName("quality-rules")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )


def write_events(spark: SparkSession, path: Path, rows: int, bad_share: float) -> DataFrame:
    """Events of the example pipeline's shape; the bad ones have a negative latency."""
    number = F.col("id")
    is_bad = number % 10_000 < int(bad_share * 10_000)
    spark.range(rows).select(
        F.format_string("%024x", number).alias("event_id"),
        F.timestamp_micros(F.lit(1_780_000_000_000_000) + number).alias("event_time"),
        _one_of(FEATURES, number).alias("feature"),
        (number % 100_000).alias("user_id"),
        _one_of(REGIONS, number).alias("region"),
        F.lit("5.1.3").alias("app_version"),
        F.lit("ok").alias("status"),
        F.when(is_bad, F.lit(-1.0)).otherwise((number % 500).cast("double")).alias("latency_ms"),
        F.when(number % 5 == 0, (number % 900).cast("double")).alias("amount"),
    ).write.parquet(str(path))
    return spark.read.parquet(str(path))


def _one_of(values: tuple[str, ...], number: Column) -> Column:
    array = F.array(*[F.lit(value) for value in values])
    return F.get(array, (number % len(values)).cast("int"))


def expectations(count: int) -> list[dict[str, Any]]:
    """`count` different expectations in the mixture of a real suite: presence, sets, lengths, ranges, patterns."""
    columns = ("event_id", "event_time", "feature", "user_id", "region", "status", "latency_ms")
    found: list[tuple[str, dict[str, Any]]] = [("values_to_not_be_null", {"column": column}) for column in columns]
    found += [
        ("values_to_be_in_set", {"column": "feature", "value_set": list(FEATURES)}),
        ("values_to_be_in_set", {"column": "region", "value_set": list(REGIONS)}),
        ("values_to_be_between", {"column": "latency_ms", "min_value": 0, "max_value": 60_000}),
        ("values_to_be_in_set", {"column": "status", "value_set": ["ok", "error"]}),
        ("values_to_be_between", {"column": "amount", "min_value": 0, "max_value": 100_000}),
        ("values_to_match_regex", {"column": "app_version", "regex": VERSION}),
    ]
    for step in range(count - len(found)):
        found += [
            ("value_lengths_to_be_between", {"column": "event_id", "min_value": 1, "max_value": 64 + step}),
            ("values_to_be_between", {"column": "user_id", "min_value": 0, "max_value": 1e9 + step}),
            ("values_to_be_between", {"column": "latency_ms", "min_value": -10 - step, "max_value": 1e6}),
            ("values_to_not_be_in_set", {"column": "region", "value_set": ["", f"moon-{step}"]}),
        ]
    return [{"type": f"expect_column_{kind}", "kwargs": kwargs} for kind, kwargs in found[:count]]


def measure(spark: SparkSession, events: DataFrame, count: int, repeats: int) -> tuple[float, float, float]:
    """Seconds of a noop write by the clock, of its tasks' CPUs, and of planning; the best of `repeats` each."""
    judged = judged_by(events, count)
    walls, cpus, plans = [], [], []
    for _ in range(repeats):
        cpu_before, before = task_cpu(spark), time.perf_counter()
        judged.write.format("noop").mode("overwrite").save()
        walls.append(time.perf_counter() - before)
        cpus.append(task_cpu(spark) - cpu_before)
        fresh = judged_by(events, count)
        before = time.perf_counter()
        fresh._jdf.queryExecution().executedPlan()  # noqa: SLF001 - planning alone has no public name
        plans.append(time.perf_counter() - before)
    return min(walls), min(cpus), min(plans)


def judged_by(events: DataFrame, count: int) -> DataFrame:
    """The events marked by so many rules."""
    if count == 0:
        return mark(events, [])
    text = json.dumps({"name": "benchmark", "expectations": expectations(count)})
    return mark(events, compile_rules(parse_suite(text, source="benchmark")))


def task_cpu(spark: SparkSession) -> float:
    """Seconds of CPU that all tasks took so far."""
    jvm = spark.sparkContext._gateway.jvm  # type: ignore[union-attr]  # noqa: SLF001 - Spark's own metrics
    quantiles = spark.sparkContext._gateway.new_array(jvm.double, 0)  # type: ignore[union-attr]  # noqa: SLF001
    stages = spark.sparkContext._jsc.sc().statusStore().stageList(None, False, False, quantiles, None)  # noqa: SLF001
    return float(sum(stages.apply(index).executorCpuTime() for index in range(stages.size()))) / 1e9


if __name__ == "__main__":
    main()
