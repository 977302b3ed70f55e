"""Every record of the poison corpus, judged by Spark and written by the one pass, ends where its manifest says."""

from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa
from pyspark.sql import functions as F

from lakehouse.pipeline import judged_rows
from lakehouse.quality.reasons import Reasons
from lakehouse.quality.suite import load_suite
from lakehouse.session import STREAMING
from lakehouse.sinks.onepass import CHUNK_BYTES, RESULT_DDL, OnePass
from tests.poison import KAFKA_TIME, corpus, poisoned_pipeline
from tests.poison.one_pass import kafka_records, written
from tests.poison.verdict import quarantine_problems, silver_problems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the system counts memory."""


def test_the_whole_corpus_ends_where_its_manifest_says(spark: SparkSession, tmp_path: Path) -> None:
    cases = corpus()
    pipeline = poisoned_pipeline(tmp_path)
    spark.conf.set(
        "spark.sql.execution.arrow.maxBytesPerBatch", STREAMING["spark.sql.execution.arrow.maxBytesPerBatch"]
    )
    tables = written(pipeline, kafka_records(spark, cases, tmp_path / "records.parquet"), tmp_path)
    silver, quarantine = (tables[f"{layer}/feature_events"] for layer in ("silver", "quarantine"))
    assert sorted(row["_offset"] for row in silver + quarantine) == list(range(len(cases)))

    wrong = [problem for row in silver for problem in silver_problems(cases[row["_offset"]], row)]
    wrong += [problem for row in quarantine for problem in quarantine_problems(cases[row["_offset"]], row)]
    assert not wrong, "\n".join(wrong)


def test_a_batch_of_large_values_takes_the_memory_of_a_few(spark: SparkSession, tmp_path: Path) -> None:
    count, size = 60, 16_000_000
    for name in ("spark.sql.execution.arrow.maxBytesPerBatch", "spark.sql.execution.arrow.maxRecordsPerBatch"):
        spark.conf.set(name, STREAMING[name])
    text = F.concat(F.lit('{"user_id":"'), F.repeat(F.lit("x"), size), F.lit('"}'))
    records = spark.range(count, numPartitions=1).select(
        F.lit(None).cast("binary").alias("key"),
        text.cast("binary").alias("value"),
        F.lit("feature_events").alias("topic"),
        F.lit(0).alias("partition"),
        F.col("id").alias("offset"),
        F.lit(KAFKA_TIME).alias("timestamp"),
        F.lit(None).cast("array<struct<key:string,value:binary>>").alias("headers"),
    )
    pipeline = poisoned_pipeline(tmp_path)
    suite = load_suite(pipeline.quality.suite)
    one_pass = OnePass(str(tmp_path), pipeline, {}, Reasons.by(suite))

    def with_memory(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answers = list(one_pass(batches))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        memory = {"table_name": "memory", "adds": str(grown).encode(), "partials": None}
        yield from [*answers, pa.RecordBatch.from_pylist([memory], schema=answers[0].schema)]

    judged = judged_rows(records, pipeline, suite)
    *answers, memory = judged.mapInArrow(with_memory, RESULT_DDL).collect()
    adds = [add for answer in answers for add in orjson.loads(answer["adds"] or b"[]")]
    rows = [orjson.loads(add["stats"])["numRecords"] for add in adds]
    assert sum(rows) == count
    # A file is full at `CHUNK_BYTES`, give or take one of Spark's batches, and a batch is full with its last value.
    assert max(rows) * size <= CHUNK_BYTES + int(STREAMING["spark.sql.execution.arrow.maxBytesPerBatch"]) + size
    assert int(memory["adds"]) * UNIT < 0.6 * count * size
