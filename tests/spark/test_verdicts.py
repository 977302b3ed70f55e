"""`_errors` and `_warnings`: who gets them, what they say, and that they are of the declared type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as F

from lakehouse.errors import SuiteError
from lakehouse.load.events import BLOCK
from lakehouse.quality.reasons import BITS, word
from lakehouse.quality.rules import compile_rules
from lakehouse.quality.suite import load_suite, parse_suite
from lakehouse.quality.verdicts import REASONS_DDL, is_refused, judge, mark
from lakehouse.schemas import VERDICT_DDL
from tests.loads import FEATURE_EVENTS as LOAD

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

ROOT = Path(__file__).parents[2]
FEATURE_EVENTS = ROOT / "expectations" / "feature_events.json"
EVENT = (
    "event_id string, event_time timestamp, feature string, action string, user_id long, session_id string, "
    "region string, app_version string, status string, latency_ms double, amount double"
)


def judged(frame: DataFrame, *expectations: dict[str, Any]) -> list[Row]:
    suite = parse_suite(json.dumps({"name": "s", "expectations": expectations}), source="s.json")
    return judge(frame, compile_rules(suite)).collect()


def expect(kind: str, stream: str = "quarantine", **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": kwargs, "meta": {"stream": stream}}


def test_the_type_is_that_of_the_schemas(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(None,)], "a long")
    suite = parse_suite(
        json.dumps({"name": "s", "expectations": [expect("column_values_to_not_be_null", column="a")]}), source="s"
    )
    schema = judge(frame, compile_rules(suite)).schema
    for name in ("_errors", "_warnings"):
        assert schema[name].dataType.simpleString() == f"array<{VERDICT_DDL}>"


def test_a_verdict_in_full(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(-12.5,), (3.0,), (None,)], "latency_ms double")
    document = {
        "name": "s",
        "expectations": [
            {
                "type": "expect_column_values_to_be_between",
                "kwargs": {"column": "latency_ms", "min_value": 0},
                "meta": {"rule_id": "plausible"},
            },
            {
                "type": "expect_column_values_to_not_be_null",
                "kwargs": {"column": "latency_ms"},
                "severity": "warning",
                "meta": {"rule_id": "present"},
            },
        ],
    }
    suite = parse_suite(json.dumps(document), source="s.json")
    low = (
        "plausible",
        "expect_column_values_to_be_between",
        ["latency_ms"],
        "critical",
        "latency_ms is -12.5, below the minimum 0",
        "-12.5",
        suite.sha256,
    )
    none = (
        "present",
        "expect_column_values_to_not_be_null",
        ["latency_ms"],
        "warning",
        "latency_ms is missing",
        None,
        suite.sha256,
    )
    expected = spark.createDataFrame(
        [(-12.5, [low], []), (3.0, [], []), (None, [], [none])],
        f"latency_ms double, _errors {REASONS_DDL}, _warnings {REASONS_DDL}",
    )
    assert_df_equality(judge(frame, compile_rules(suite)), expected, ignore_nullable=True)


def test_several_failures_stand_in_the_suites_order(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(None, -1)], "s string, n long")
    [result] = judged(
        frame,
        expect("column_values_to_be_between", column="n", min_value=0),
        expect("column_values_to_not_be_null", "tag", column="s"),
        expect("column_values_to_not_be_null", column="s"),
        expect("column_values_to_be_null", "metric", column="n"),
        expect("column_values_to_be_null", "off", column="n"),
    )
    assert [reason.columns for reason in result._errors] == [["n"], ["s"]]
    assert [reason.columns for reason in result._warnings] == [["s"]]


def test_a_skipped_row_is_not_judged(spark: SparkSession) -> None:
    frame = spark.createDataFrame(
        [("bad", False), ("unparseable", True), ("unsure", None)], "kind string, skip boolean"
    )
    document = {"name": "s", "expectations": [expect("column_values_to_be_in_set", column="kind", value_set=["good"])]}
    rules = compile_rules(parse_suite(json.dumps(document), source="s.json"))
    marked = mark(frame, rules, skip=F.col("skip")).withColumn("refused", is_refused(rules)).collect()
    assert {row["kind"]: (row[word(0)], row["refused"]) for row in marked} == {
        "bad": (1, True),
        "unparseable": (0, False),
        "unsure": (1, True),
    }


def test_without_rules_nothing_is_said(spark: SparkSession) -> None:
    [row] = judge(spark.range(1), []).withColumn("refused", is_refused([])).collect()
    assert (row._errors, row._warnings, row["refused"]) == ([], [], False)


def test_only_rules_of_quarantine_refuse_a_row(spark: SparkSession) -> None:
    """Over more rules than one word holds: the mask of each word has the bits of its own rules."""
    streams = ["tag", *(["metric"] * BITS), "quarantine"]
    document = {
        "name": "s",
        "expectations": [
            expect("column_values_to_be_between", stream, column="n", max_value=number)
            for number, stream in enumerate(streams)
        ],
    }
    rules = compile_rules(parse_suite(json.dumps(document), source="s.json"))
    frame = mark(spark.createDataFrame([(len(streams) - 1,), (len(streams),)], "n long"), rules)
    assert [row["refused"] for row in frame.select(is_refused(rules).alias("refused")).collect()] == [False, True]


@pytest.mark.parametrize(
    ("expectation", "what"),
    [
        (expect("column_values_to_not_be_null", column="nn"), "There is no column 'nn'"),
        (expect("column_values_to_be_in_set", column="n", value_set=["a"]), "n is a long and is compared with 'a'"),
        (
            expect("column_values_to_not_be_null", column="n", row_condition="nope = 1"),
            "Spark cannot judge rows by this",
        ),
        (expect("column_values_to_not_be_null", column="n", row_condition="n + 1"), "Spark cannot judge rows by this"),
    ],
)
def test_a_rule_that_does_not_fit_the_rows_is_named(
    spark: SparkSession, expectation: dict[str, Any], what: str
) -> None:
    frame = spark.createDataFrame([(1,)], "n long")
    with pytest.raises(SuiteError) as caught:
        judged(frame, expect("column_values_to_not_be_null", column="n"), expectation)
    assert what in caught.value.what
    assert (caught.value.where or "").startswith("s.json, expectations[1]")


def test_the_plan_stays_small(spark: SparkSession) -> None:
    """A rule adds its own condition, once, and no text."""
    expectations = [
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "n", "min_value": -number},
            "meta": {"rule_id": f"r{number}"},
        }
        for number in range(50)
    ]
    suite = parse_suite(json.dumps({"name": "s", "expectations": expectations}), source="s")
    rules = compile_rules(suite)
    frame = mark(spark.range(1).withColumnRenamed("id", "n"), rules).withColumn("refused", is_refused(rules))
    text = frame._jdf.queryExecution().optimizedPlan().toString()
    assert text.count("-49.0") == 1
    assert suite.sha256 not in text


def test_many_rules_compile_and_judge(spark: SparkSession) -> None:
    expectations = [expect("column_values_to_be_between", column="n", min_value=number) for number in range(100)]
    results = judged(spark.createDataFrame([(50,), (500,)], "n long"), *expectations)
    assert [len(result._errors) for result in results] == [49, 0]


def test_a_stream_can_be_judged(spark: SparkSession, tmp_path: Path) -> None:
    source = tmp_path / "in"
    spark.createDataFrame([(1,), (None,)], "n long").write.json(str(source))
    suite = parse_suite(
        json.dumps({"name": "s", "expectations": [expect("column_values_to_not_be_null", column="n")]}), source="s"
    )
    stream = judge(spark.readStream.schema("n long").json(str(source)), compile_rules(suite))
    query = (
        stream.writeStream.format("memory")
        .queryName("judged_rows")
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    counts = spark.table("judged_rows").groupBy(F.size("_errors").alias("errors")).count().collect()
    assert {row["errors"]: row["count"] for row in counts} == {0: 1, 1: 1}


def test_every_good_event_of_the_load_is_valid(spark: SparkSession) -> None:
    now = np.full(BLOCK, 1_780_000_000_000, dtype=np.int64)
    lines = [
        line.decode()
        for seed, block, rate in ((0, 0, 1000.0), (7, 3, 1000.0), (1, 900, 20.0))
        for line in LOAD.render(LOAD.draw(seed, block, rate), now)
    ]
    frame = spark.createDataFrame([(line,) for line in lines], "line string").select(
        F.from_json("line", EVENT).alias("event")
    )
    results = judge(frame.select("event.*"), compile_rules(load_suite(FEATURE_EVENTS)))
    unwanted = results.where((F.size("_errors") > 0) | (F.size("_warnings") > 0))
    assert [row.asDict(recursive=True) for row in unwanted.limit(3).collect()] == []
    assert results.count() == 3 * BLOCK
