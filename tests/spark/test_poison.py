"""Every record of the poison corpus, judged by Spark and written by the one pass, ends where its manifest says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq

from lakehouse.pipeline import judged_rows
from lakehouse.quality.suite import load_suite
from lakehouse.session import STREAMING
from lakehouse.sinks.onepass import RESULT_DDL, OnePass
from tests.poison import corpus, poisoned_pipeline
from tests.poison.verdict import quarantine_problems, silver_problems

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pyspark.sql import DataFrame, SparkSession

    from lakehouse.config.models import Pipeline
    from tests.poison import Case

KAFKA = (
    "key binary, value binary, topic string, partition int, offset long, timestamp timestamp,"
    " headers array<struct<key:string,value:binary>>"
)


def kafka_records(spark: SparkSession, cases: Iterable[Case]) -> DataFrame:
    """The cases as Spark's Kafka source would hand them over, each at the offset that is its number."""
    rows = [
        (
            _bytes(case.key),
            _bytes(case.value),
            "feature_events",
            0,
            number,
            case.timestamp,
            [(name, _bytes(value)) for name, value in case.headers] or None,
        )
        for number, case in enumerate(cases)
    ]
    return spark.createDataFrame(rows, KAFKA)


def written(pipeline: Pipeline, records: DataFrame, root: Path) -> dict[str, list[dict[str, Any]]]:
    """Run the one pass over the records and read back the files that it names: table → rows."""
    one_pass = OnePass(str(root), pipeline, {})
    judged = judged_rows(records, pipeline, load_suite(pipeline.quality.suite))
    answers = judged.mapInArrow(one_pass, RESULT_DDL).collect()
    found: dict[str, list[dict[str, Any]]] = {one_pass.silver: [], one_pass.quarantine: []}
    for answer in answers:
        if answer["table_name"] in found:
            for add in orjson.loads(answer["adds"]):
                rows = pq.read_table(root / answer["table_name"] / add["path"]).to_pylist()
                assert len(rows) == orjson.loads(add["stats"])["numRecords"]
                found[answer["table_name"]] += rows
    return found


def test_the_whole_corpus_ends_where_its_manifest_says(spark: SparkSession, tmp_path: Path) -> None:
    cases = corpus()
    pipeline = poisoned_pipeline(tmp_path)
    spark.conf.set(
        "spark.sql.execution.arrow.maxBytesPerBatch", STREAMING["spark.sql.execution.arrow.maxBytesPerBatch"]
    )
    tables = written(pipeline, kafka_records(spark, cases), tmp_path)
    silver, quarantine = (tables[f"{layer}/feature_events"] for layer in ("silver", "quarantine"))
    assert sorted(row["_offset"] for row in silver + quarantine) == list(range(len(cases)))

    wrong = [problem for row in silver for problem in silver_problems(cases[row["_offset"]], row)]
    wrong += [problem for row in quarantine for problem in quarantine_problems(cases[row["_offset"]], row)]
    assert wrong == []


def _bytes(value: bytes | None) -> bytearray | None:
    return None if value is None else bytearray(value)
