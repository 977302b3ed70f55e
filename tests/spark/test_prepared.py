"""What is planned once does to every micro-batch what its plan says."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from chispa import assert_df_equality
from pyspark.errors import AnalysisException
from pyspark.sql import functions as F

from lakehouse.session import STREAMING
from lakehouse.streaming.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import DataFrame, SparkSession

_SETTING = "spark.sql.execution.usePartitionEvaluator"
_SCHEMA = "text string, number long"


@contextmanager
def with_steps(spark: SparkSession, setting: str = STREAMING[_SETTING]) -> Iterator[None]:
    before = spark.conf.get(_SETTING)
    spark.conf.set(_SETTING, setting)
    try:
        yield
    finally:
        spark.conf.set(_SETTING, before or "false")


def through_python(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.append_column("twice", pa.array([2 * (number or 0) for number in batch["number"].to_pylist()]))


def transformed(rows: DataFrame) -> DataFrame:
    """With every kind of step: compiled, interpreted (`from_json`), in Python, and compiled again."""
    read = rows.withColumn("event", F.from_json("text", "a int")).withColumn("a", F.col("event.a") + F.col("number"))
    flat = read.select("number", "a").filter("number is not null")
    return flat.mapInArrow(through_python, "number long, a long, twice long").withColumn("more", F.col("twice") + 1)


def test_each_batch_of_a_stream_is_made_what_its_own_plan_would_make_of_it(spark: SparkSession, tmp_path: Path) -> None:
    numbers = iter(range(100))
    planned = []

    def transform(rows: DataFrame) -> DataFrame:
        planned.append(rows)
        return transformed(rows)

    def land() -> None:
        rows = [(f'{{"a": {number}}}', number) for number in (next(numbers), next(numbers))]
        spark.createDataFrame([*rows, ("no json", next(numbers)), (None, None)], _SCHEMA).coalesce(1).write.json(
            str(tmp_path / "in"), mode="append"
        )

    land()
    stream = spark.readStream.schema(_SCHEMA).json(str(tmp_path / "in"))
    compared = []
    with with_steps(spark):
        prepared = Prepared(transform, stream)

        def look(batch: DataFrame, _batch_id: int) -> None:
            assert_df_equality(prepared(batch), transformed(batch), ignore_nullable=True)
            compared.append(prepared(batch).count())

        for _ in range(3):
            query = (
                stream.writeStream.foreachBatch(look)
                .option("checkpointLocation", str(tmp_path / "checkpoint"))
                .trigger(availableNow=True)
                .start()
            )
            query.awaitTermination()
            land()
    assert compared == [3, 3, 3]
    assert len(planned) == 1


def test_what_spark_cannot_plan_is_told_before_the_first_batch(spark: SparkSession) -> None:
    rows = spark.createDataFrame([], _SCHEMA)
    with with_steps(spark), pytest.raises(AnalysisException, match="nowhere"):
        Prepared(lambda frame: frame.select("nowhere"), rows)


@pytest.mark.parametrize(
    ("setting", "shuffled"), [("false", False), ("true", True)], ids=["no evaluators", "a shuffle"]
)
def test_a_plan_that_is_not_made_of_steps_is_refused(spark: SparkSession, setting: str, shuffled: bool) -> None:  # noqa: FBT001
    rows = spark.createDataFrame([], _SCHEMA)
    with with_steps(spark, setting), pytest.raises(AssertionError, match="not all is made by steps"):
        Prepared(lambda frame: transformed(frame.repartition(2) if shuffled else frame), rows)
