"""Runs cases through Spark's judgement and the one pass, without Kafka and without a Delta log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq

from lakehouse.pipeline import judged_rows
from lakehouse.quality.suite import load_suite
from lakehouse.sinks.onepass import RESULT_DDL, OnePass

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


def _bytes(value: bytes | None) -> bytearray | None:
    return None if value is None else bytearray(value)
