"""Delta for Spark reads a maintained table, and Spark's own functions read the merged sketches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lakehouse.jars import ensure_jars
from tests.maintained import GOLD, START_S, Stream, age
from tests.pipelines import MORE_METRICS

READ = """
import json, sys
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

path, jars = sys.argv[1:]
spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.jars", jars)
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.sql.shuffle.partitions", 1)
    .config("spark.ui.enabled", "false")
    .config("spark.driver.memory", "1g")
    .config("spark.log.level", "ERROR")
    .getOrCreate()
)
table = spark.read.format("delta").load(path)
merged = table.agg(
    F.sum("events").alias("events"),
    F.sum("ms_sum").alias("ms_sum"),
    F.expr("hll_sketch_estimate(hll_union_agg(users_hll))").alias("users"),
    F.expr("kll_sketch_get_n_double(kll_merge_agg_double(ms_kll))").alias("values"),
    F.expr("theta_sketch_estimate(theta_union_agg(users_theta))").alias("users_theta"),
    F.expr("bitmap_count(bitmap_or_agg(users_bits))").alias("users_bits"),
    F.expr("sum(ms_mean.values * ms_mean.mean) / sum(ms_mean.values)").alias("ms_mean"),
)
print("ANSWER " + json.dumps({**merged.first().asDict(), "rows": table.count()}))
spark.stop()
"""


@pytest.mark.timeout(240)
def test_delta_for_spark_reads_a_maintained_gold_table_and_its_sketches(tmp_path: Path) -> None:
    stream = Stream(tmp_path, metrics=MORE_METRICS)
    for turn in range(3):
        for number in range(12):
            stream.send(20, at_s=START_S + number / 4, late=2)
        age(tmp_path, 3_600)
        stream.maintain(time.time() + 3_600 * turn)
    stream.send(20, at_s=START_S)
    assert not (stream.path(GOLD) / "_delta_log" / f"{0:020}.json").exists()
    # A session of its own: the shared one of these tests has no Delta.
    jars = ",".join(map(str, ensure_jars("spark")))
    done = subprocess.run(
        [sys.executable, "-c", READ, str(stream.path(GOLD)), jars],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYSPARK_PYTHON": sys.executable},
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert answers, done.stderr[-2_000:]
    answer = json.loads(answers[0].removeprefix("ANSWER "))
    silver = stream.silver()
    assert answer["events"] == answer["values"] == stream.sent == 740
    assert answer["ms_sum"] == sum(silver["ms"].to_pylist())
    assert answer["users"] == answer["users_theta"] == answer["users_bits"] == 50
    assert answer["ms_mean"] == pytest.approx(answer["ms_sum"] / stream.sent, rel=1e-12)
    assert answer["rows"] <= len(stream.expected_gold()) + 30
