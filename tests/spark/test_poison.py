"""Every record of the poison corpus, judged by Spark and written by the one pass, ends where its manifest says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.session import STREAMING
from tests.poison import corpus, poisoned_pipeline
from tests.poison.one_pass import kafka_records, written
from tests.poison.verdict import quarantine_problems, silver_problems

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession


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
