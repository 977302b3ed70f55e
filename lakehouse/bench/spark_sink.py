"""Spark's own Delta sink over the same topic, as people run it today: the baseline that a pipeline is held against.

    python -m lakehouse.bench.spark_sink PIPELINE default|tuned

It parses the same fields and appends them to one table, `silver/NAME`. It judges nothing, sets nothing aside and rolls
nothing up. `default` is Spark and Delta as they come; `tuned` has the settings that are known to help it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lakehouse.bench.stack import Writer
from lakehouse.class_archive import class_path
from lakehouse.config.loader import load_pipeline
from lakehouse.jars import ensure_jars
from lakehouse.java import find_java
from lakehouse.session import DELTA

if TYPE_CHECKING:
    from collections.abc import Callable

    from lakehouse.config.models import Pipeline

AS_IT_COMES = {
    "spark.master": "local[*]",
    "spark.driver.memory": "1g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.extensions": DELTA["spark.sql.extensions"],
    "spark.sql.catalog.spark_catalog": DELTA["spark.sql.catalog.spark_catalog"],
}
TUNED = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.streaming.pollingDelay": "5ms",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.databricks.delta.stats.collect": "false",
    "spark.databricks.delta.writeChecksumFile.enabled": "false",
    "spark.databricks.delta.properties.defaults.checkpointInterval": "500",
    "spark.sql.streaming.checkpoint.fileChecksum.enabled": "false",
}
"""What is known to make the sink faster; each costs readers something."""
KINDS = {"default": AS_IT_COMES, "tuned": AS_IT_COMES | TUNED}
_TYPES = {"integer": "int", "long": "bigint"}


def spark_writer(kind: str) -> Callable[[Path, Pipeline], Writer]:
    """The baseline of that kind, a key of `KINDS`."""

    def writer(path: Path, pipeline: Pipeline) -> Writer:
        command = ["-m", "lakehouse.bench.spark_sink", str(path), kind]
        return Writer(f"Spark's Delta sink, {kind}", command, [f"silver/{pipeline.name}"])

    return writer


def main() -> None:
    """Run until SIGTERM."""
    path, kind = Path(sys.argv[1]), sys.argv[2]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    pipeline = load_pipeline(path)
    os.environ["JAVA_HOME"] = str(find_java().parent.parent)
    builder = SparkSession.Builder().appName(f"baseline-{kind}")
    for key, value in KINDS[kind].items():
        builder = builder.config(key, value)
    spark = builder.config("spark.driver.extraClassPath", class_path(ensure_jars("spark"))).getOrCreate()
    fields = pipeline.source.fields
    schema = ", ".join(f"{name} {_TYPES.get(field.type, field.type)}" for name, field in fields.items())
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", pipeline.source.servers)
        .option("subscribe", pipeline.source.topic)
        .option("startingOffsets", "earliest")
        .load()
    )
    rows = records.select(
        F.from_json(F.col("value").cast("string"), schema).alias("event"),
        F.col("partition").alias("_partition"),
        F.col("offset").alias("_offset"),
        F.col("timestamp").alias("_timestamp"),
    ).select("event.*", "_partition", "_offset", "_timestamp")
    root = Path(pipeline.root).absolute()
    query = (
        rows.writeStream.format("delta")
        .option("checkpointLocation", str(root / "_checkpoints" / pipeline.name))
        .start(str(root / "silver" / pipeline.name))
    )
    _tell({"event": "started"})
    while not stop.is_set() and query.isActive:
        time.sleep(0.2)
    query.stop()
    spark.stop()


def _tell(event: dict[str, str]) -> None:
    sys.stdout.write(orjson.dumps(event).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
