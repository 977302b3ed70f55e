"""`_errors` and `_warnings`: who gets them, what they say, and that they are of the declared type."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as F

from lakehouse.errors import SuiteError
from lakehouse.load import events
from lakehouse.quality.messages import LONGEST_VALUE
from lakehouse.quality.rules import compile_rules
from lakehouse.quality.suite import load_suite, parse_suite
from lakehouse.quality.verdicts import REASONS_DDL, judge
from lakehouse.schemas import VERDICT_DDL

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

ROOT = Path(__file__).parents[2]
FEATURE_EVENTS = ROOT / "expectations" / "feature_events.json"
EVENT = (
    "event_id string, event_time timestamp, feature string, action string, user_id long, session_id string, "
    "region string, app_version string, status string, latency_ms double, amount double"
)


def judged(frame: DataFrame, *expectations: dict[str, Any], **options: Any) -> list[Row]:
    suite = parse_suite(json.dumps({"name": "s", "expectations": expectations}), source="s.json")
    return judge(frame, compile_rules(suite), **options).collect()


def expect(kind: str, stream: str = "quarantine", **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": kwargs, "meta": {"stream": stream}}


def prior_reason() -> Any:
    fields = ("unparseable", "parse", None, "critical", "not JSON", None, None)
    names = ("rule_id", "type", "columns", "severity", "message", "value", "suite_sha256")
    literals = [F.lit(field).alias(name) for name, field in zip(names, fields, strict=True)]
    return F.array(F.struct(*literals)).cast(REASONS_DDL)


def test_the_type_is_that_of_the_schemas(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(None,)], "a long")
    suite = parse_suite(
        json.dumps({"name": "s", "expectations": [expect("column_values_to_not_be_null", column="a")]}), source="s"
    )
    schema = judge(frame, compile_rules(suite)).schema
    for name in ("_errors", "_warnings"):
        assert schema[name].dataType.simpleString() == f"array<{VERDICT_DDL}>"
        assert not schema[name].nullable


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


@pytest.mark.parametrize(
    ("kind", "kwargs", "row", "message"),
    [
        ("column_values_to_be_null", {"column": "s"}, {"s": "x"}, "s is x, but must be missing"),
        (
            "column_values_to_be_in_set",
            {"column": "s", "value_set": ["ok", "error"]},
            {"s": ""},
            "s is '', not one of ok, error",
        ),
        ("column_values_to_be_in_set", {"column": "n", "value_set": [1, 2.5]}, {"n": 3}, "n is 3, not one of 1, 2.5"),
        (
            "column_values_to_be_in_set",
            {"column": "n", "value_set": list(range(10))},
            {"n": 11},
            "n is 11, not one of 0, 1, 2, 3, 4, 5, 6, 7 or 2 more",
        ),
        (
            "column_values_to_not_be_in_set",
            {"column": "s", "value_set": ["x"]},
            {"s": "x"},
            "s is 'x', which is not allowed",
        ),
        ("column_values_to_be_between", {"column": "n", "max_value": 1.5}, {"n": 2}, "n is 2, above the maximum 1.5"),
        (
            "column_values_to_be_between",
            {"column": "n", "min_value": 0, "max_value": 5},
            {"n": -1},
            "n is -1, below the minimum 0",
        ),
        (
            "column_values_to_be_between",
            {"column": "n", "min_value": 0, "max_value": 5},
            {"n": 6},
            "n is 6, above the maximum 5",
        ),
        (
            "column_values_to_be_between",
            {"column": "n", "min_value": 0, "max_value": 5, "strict_min": True, "strict_max": True},
            {"n": 0},
            "n is 0, not above 0",
        ),
        (
            "column_values_to_be_between",
            {"column": "n", "min_value": 0, "max_value": 5, "strict_min": True, "strict_max": True},
            {"n": 5},
            "n is 5, not below 5",
        ),
        (
            "column_values_to_be_between",
            {"column": "t", "min_value": "2026-01-01T00:00:00Z"},
            {"t": datetime(2025, 1, 1, tzinfo=UTC)},
            "t is 2025-01-01 00:00:00, below the minimum 2026-01-01T00:00:00+00:00",
        ),
        (
            "column_value_lengths_to_equal",
            {"column": "s", "value": 3},
            {"s": "ab"},
            "s is 'ab', with 2 characters, instead of 3",
        ),
        (
            "column_value_lengths_to_be_between",
            {"column": "s", "min_value": 3, "max_value": 9},
            {"s": "ab"},
            "s is 'ab', with 2 characters, outside 3 to 9",
        ),
        (
            "column_value_lengths_to_be_between",
            {"column": "s", "min_value": 3},
            {"s": ""},
            "s is '', with 0 characters, fewer than 3",
        ),
        (
            "column_value_lengths_to_be_between",
            {"column": "s", "max_value": 3, "strict_max": True},
            {"s": "abc"},
            "s is 'abc', with 3 characters, more than 2",
        ),
        (
            "column_values_to_match_regex",
            {"column": "s", "regex": "^a$"},
            {"s": "b"},
            "s is 'b', which does not match the pattern ^a$",
        ),
        (
            "column_values_to_not_match_regex",
            {"column": "s", "regex": "b"},
            {"s": "b"},
            "s is 'b', which matches the pattern b",
        ),
        (
            "column_values_to_match_regex_list",
            {"column": "s", "regex_list": ["a", "c"]},
            {"s": "b"},
            "s is 'b', which matches none of the patterns a, c",
        ),
        (
            "column_values_to_match_regex_list",
            {"column": "s", "regex_list": ["a", "c"], "match_on": "all"},
            {"s": "a"},
            "s is 'a', which does not match all of the patterns a, c",
        ),
        (
            "column_values_to_not_match_regex_list",
            {"column": "s", "regex_list": ["a", "c"]},
            {"s": "a"},
            "s is 'a', which matches one of the patterns a, c",
        ),
        (
            "column_pair_values_a_to_be_greater_than_b",
            {"column_A": "n", "column_B": "m"},
            {"n": 1, "m": 2},
            "n=1, m=2: n is not greater than m",
        ),
        (
            "column_pair_values_a_to_be_greater_than_b",
            {"column_A": "n", "column_B": "m", "or_equal": True},
            {"n": 1, "m": 2},
            "n=1, m=2: n is less than m",
        ),
        ("column_pair_values_to_be_equal", {"column_A": "n", "column_B": "m"}, {"n": 1}, "n=1, m=null: n and m differ"),
        (
            "column_pair_values_to_be_in_set",
            {"column_A": "n", "column_B": "m", "value_pairs_set": [[1, 1]]},
            {"n": 1, "m": 2},
            "n=1, m=2: n and m do not go together",
        ),
        (
            "multicolumn_sum_to_equal",
            {"column_list": ["n", "m"], "sum_total": 4},
            {"n": 1, "m": 2},
            "n=1, m=2: the sum is not 4",
        ),
        (
            "multicolumn_values_to_be_equal",
            {"column_list": ["n", "m"]},
            {"n": 1, "m": 2},
            "n=1, m=2: the values differ",
        ),
        (
            "select_column_values_to_be_unique_within_record",
            {"column_list": ["n", "m"]},
            {"n": 1, "m": 1},
            "n=1, m=1: a value stands twice",
        ),
        (
            "column_values_to_not_be_null",
            {"column": "s", "row_condition": "n = 1"},
            {"n": 1},
            "s is missing, where n = 1",
        ),
        (
            "column_value_lengths_to_equal",
            {"column": "s", "value": 3, "row_condition": "n = 1"},
            {"s": "ab", "n": 1},
            "s is 'ab', with 2 characters, instead of 3, where n = 1",
        ),
    ],
)
def test_message(spark: SparkSession, kind: str, kwargs: dict[str, Any], row: dict[str, Any], message: str) -> None:
    values = tuple(row.get(name) for name in ("s", "n", "m", "t"))
    frame = spark.createDataFrame([values], "s string, n long, m long, t timestamp")
    [result] = judged(frame, expect(kind, **kwargs))
    assert [reason.message for reason in result._errors] == [message]


def test_a_hostile_value_is_cut_and_shown(spark: SparkSession) -> None:
    values = ["\x1b[2J\r\n\x00\u202e\u2028\x85", "a" * LONGEST_VALUE, "b" * (LONGEST_VALUE + 1), "𝒳" * 1_000_000]
    frame = spark.createDataFrame([(value,) for value in values], "s string")
    results = judged(frame, expect("column_values_to_be_in_set", column="s", value_set=["ok"]))
    shown = [result._errors[0].value for result in results]
    assert shown == [
        "␛[2J␍␊␀\ufffd\ufffd\ufffd",
        "a" * LONGEST_VALUE,
        "b" * (LONGEST_VALUE - 1) + "…",
        "𝒳" * (LONGEST_VALUE - 1) + "…",
    ]
    assert results[0]._errors[0].message == f"s is '{shown[0]}', not one of ok"
    assert all(len(result._errors[0].message) < 2 * LONGEST_VALUE for result in results)


def test_a_suite_cannot_smuggle_control_characters_into_messages(spark: SparkSession) -> None:
    frame = spark.createDataFrame([("x",)], "s string")
    [result] = judged(frame, expect("column_values_to_be_in_set", column="s", value_set=["a\nb\x1b"]))
    assert result._errors[0].message == "s is 'x', not one of a␊b␛"


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


def test_prior_errors_come_first_and_skip_leaves_them_alone(spark: SparkSession) -> None:
    frame = spark.createDataFrame(
        [("good", False, False), ("bad", True, False), ("unparseable", True, True), ("unsure", True, None)],
        "kind string, has_prior boolean, skip boolean",
    )
    results = judged(
        frame,
        expect("column_values_to_be_in_set", column="kind", value_set=["good"]),
        expect("column_values_to_be_in_set", "tag", column="kind", value_set=["good"]),
        prior_errors=F.when(F.col("has_prior"), prior_reason()),
        skip=F.col("skip"),
    )
    reasons = {
        row.kind: ([each.rule_id for each in row._errors], [each.rule_id for each in row._warnings]) for row in results
    }
    rule, warning = "kind:values_to_be_in_set", "kind:values_to_be_in_set#2"
    assert reasons == {
        "good": ([], []),
        "bad": (["unparseable", rule], [warning]),
        "unparseable": (["unparseable"], []),
        "unsure": (["unparseable", rule], [warning]),
    }


def test_without_rules_prior_errors_stand(spark: SparkSession) -> None:
    [row] = judge(spark.range(1), [], prior_errors=prior_reason()).collect()
    assert [reason.rule_id for reason in row._errors] == ["unparseable"]
    assert row._warnings == []


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
    """Constant texts stand once in a literal, however many rules there are; a rule's condition stands twice."""
    expectations = [
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "n", "min_value": -number},
            "meta": {"rule_id": f"r{number}"},
        }
        for number in range(50)
    ]
    suite = parse_suite(json.dumps({"name": "s", "expectations": expectations}), source="s")
    plan = judge(spark.range(1).withColumnRenamed("id", "n"), compile_rules(suite))._jdf.queryExecution()
    text = plan.optimizedPlan().expressions().toString()
    assert text.count("cast(-49.0") + text.count(">= -49.0") <= 2
    assert text.count(suite.sha256) == 50
    assert "from_json" not in text


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
    now = np.full(events.BLOCK, 1_780_000_000_000, dtype=np.int64)
    lines = [
        line.decode()
        for seed, block, rate in ((0, 0, 1000.0), (7, 3, 1000.0), (1, 900, 20.0))
        for line in events.render(events.draw(seed, block, rate), now)
    ]
    frame = spark.createDataFrame([(line,) for line in lines], "line string").select(
        F.from_json("line", EVENT).alias("event")
    )
    results = judge(frame.select("event.*"), compile_rules(load_suite(FEATURE_EVENTS)))
    unwanted = results.where((F.size("_errors") > 0) | (F.size("_warnings") > 0))
    assert [row.asDict(recursive=True) for row in unwanted.limit(3).collect()] == []
    assert results.count() == 3 * events.BLOCK
