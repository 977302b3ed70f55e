"""Runs cases through Spark's judgement and the one pass, without Kafka and without a Delta log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.pipeline import judged_rows
from lakehouse.quality.reasons import Reasons
from lakehouse.quality.suite import load_suite
from lakehouse.schemas import TIMESTAMP
from lakehouse.sinks.onepass import RESULT_DDL, OnePass

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pyspark.sql import DataFrame, SparkSession

    from lakehouse.config.models import Pipeline
    from tests.poison import Case

KAFKA = pa.schema(
    [
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", TIMESTAMP),
        ("headers", pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
    ]
)
FEW = 8
"""Rows of a row group: Spark then holds a few of the large values at a time, as it does with Kafka."""


def kafka_records(spark: SparkSession, cases: Iterable[Case], file: Path) -> DataFrame:
    """The cases as Spark's Kafka source would hand them over, each at the offset that is its number."""
    rows = [
        {
            "key": case.key,
            "value": case.value,
            "topic": "feature_events",
            "partition": 0,
            "offset": number,
            "timestamp": case.timestamp,
            "headers": [{"key": name, "value": value} for name, value in case.headers] or None,
        }
        for number, case in enumerate(cases)
    ]
    with pq.ParquetWriter(file, KAFKA, use_dictionary=False, write_statistics=False) as writer:
        for first in range(0, len(rows), FEW):
            writer.write_table(pa.Table.from_pylist(rows[first : first + FEW], KAFKA))
    spark.conf.set("spark.sql.parquet.enableVectorizedReader", "false")
    return spark.read.parquet(str(file))


def written(pipeline: Pipeline, records: DataFrame, root: Path) -> dict[str, list[dict[str, Any]]]:
    """Run the one pass over the records and read back the files that it names: table → rows."""
    suite = load_suite(pipeline.quality.suite)
    one_pass = OnePass(str(root), pipeline, {}, Reasons.by(suite))
    judged = judged_rows(records, pipeline, suite)
    answers = judged.mapInArrow(one_pass, RESULT_DDL).collect()
    found: dict[str, list[dict[str, Any]]] = {one_pass.silver: [], one_pass.quarantine: []}
    for answer in answers:
        if answer["table_name"] in found:
            for add in orjson.loads(answer["adds"]):
                rows = pq.read_table(root / answer["table_name"] / add["path"]).to_pylist()
                assert len(rows) == orjson.loads(add["stats"])["numRecords"]
                found[answer["table_name"]] += rows
    return found
