"""One suite, two meanings, one verdict: our Spark columns against Great Expectations on the same rows."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from lakehouse.quality.aggregates import OBSERVED
from lakehouse.quality.catalogue import CATALOGUE
from lakehouse.quality.like import as_regex
from lakehouse.quality.observe import Observation, Wanted, merge_all
from lakehouse.quality.rules import compile_rules, count_unexpected
from lakehouse.quality.suite import parse_suite
from lakehouse.quality.verdicts import judge
from lakehouse.quality.watch import outcomes
from lakehouse.schemas import VERDICT
from tests.property import examples
from tests.property.oracle import Oracle, quick
from tests.property.suites import AGGREGATES, KWARGS, SCHEMA, aggregate_documents, documents, like_patterns, rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Great Expectations takes seconds for a suite, so few frames meet many expectations each; a failure names the
# expectation itself, and shrinking would take minutes.
COSTLY = settings(
    max_examples=examples(3),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
PER_TYPE = 2
COLUMNS = [field.split()[0] for field in SCHEMA.split(", ")]


def read_by_regex(document: dict[str, Any]) -> dict[str, Any]:
    """LIKE replaced, as in the report: the package cannot judge it on Spark."""
    items = []
    for item in document["expectations"]:
        kind, kwargs = as_regex(item["type"], item["kwargs"])
        items.append({**item, "type": kind, "kwargs": kwargs})
    return {**document, "expectations": items}


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


def test_every_row_level_type_is_generated() -> None:
    assert set(KWARGS) == {name for name, entry in CATALOGUE.items() if entry.judges_rows}


@COSTLY
@given(drawn=rows, document=documents(PER_TYPE))
def test_counts_are_those_of_great_expectations(
    spark: SparkSession, oracle: Oracle, drawn: list[tuple[Any, ...]], document: dict[str, Any]
) -> None:
    frame = spark.createDataFrame(drawn, SCHEMA).coalesce(1).cache()
    try:
        theirs = oracle.unexpected_counts(frame, read_by_regex(document))
        rules = compile_rules(parse_suite(json.dumps(document), source="generated.json"))
        # Both ways in which Spark can run them: the counts compiled, the verdicts interpreted.
        [row] = frame.agg(*count_unexpected(rules)).collect()
        ours = row.asDict()
        with quick(spark):
            judged = judge(frame, rules)
            reasons = judged.select(F.explode("_errors.rule_id").alias("rule_id")).groupBy("rule_id").count()
            verdicts = {reason["rule_id"]: reason["count"] for reason in reasons.collect()}
            valid = {row["id"] for row in judged.where(F.size("_errors") == 0).select("id").collect()}
            quarantined = {row["id"] for row in judged.where(F.size("_errors") > 0).select("id").collect()}
    finally:
        frame.unpersist()
    wrong = [
        (expectation["type"], expectation["kwargs"], f"ours {ours[rule_id]}, theirs {theirs[rule_id]}")
        for expectation in document["expectations"]
        if ours[rule_id := expectation["meta"]["rule_id"]] != theirs[rule_id]
    ]
    assert wrong == []
    assert verdicts == {rule_id: count for rule_id, count in theirs.items() if count}
    assert valid | quarantined == {row[0] for row in drawn}
    assert not valid & quarantined


@settings(COSTLY, max_examples=examples(20))
@given(drawn=rows, patterns=like_patterns)
def test_like_is_what_spark_calls_like(
    spark: SparkSession, drawn: list[tuple[Any, ...]], patterns: list[tuple[str, str]]
) -> None:
    """The package has no Spark code for LIKE: Spark's own is the judge."""
    frame = spark.createDataFrame(drawn, SCHEMA).coalesce(1)
    expectations = [
        {
            "type": "expect_column_values_to_match_like_pattern",
            "kwargs": {"column": "s1", "like_pattern": pattern, "escape": escape},
            "meta": {"rule_id": str(number)},
        }
        for number, (pattern, escape) in enumerate(patterns)
    ]
    rules = compile_rules(parse_suite(json.dumps({"name": "like", "expectations": expectations}), source="like.json"))
    theirs = [
        F.count_if(F.col("s1").isNotNull() & ~F.like(F.col("s1"), F.lit(pattern), F.lit(escape))).alias(
            f"spark{number}"
        )
        for number, (pattern, escape) in enumerate(patterns)
    ]
    with quick(spark):
        [row] = frame.agg(*count_unexpected(rules), *theirs).collect()
    assert [row[str(number)] for number in range(len(patterns))] == [
        row[f"spark{number}"] for number in range(len(patterns))
    ]


def test_every_observed_type_is_generated() -> None:
    assert set(AGGREGATES) == OBSERVED


@COSTLY
@given(drawn=rows, document=aggregate_documents(), cut=st.integers(0, 30))
def test_observed_values_are_those_of_great_expectations(
    spark: SparkSession, oracle: Oracle, drawn: list[tuple[Any, ...]], document: dict[str, Any], cut: int
) -> None:
    # Of a column without any value the package cannot store the quantiles that it found.
    assume(any(row[COLUMNS.index("i3")] is not None for row in drawn))
    frame = spark.createDataFrame(drawn, SCHEMA).coalesce(1).cache()
    try:
        theirs = oracle.results(frame, document)
        whole = frame.toArrow()
    finally:
        frame.unpersist()
    suite = parse_suite(json.dumps(document), source="generated.json")
    seen = merge_all(observed(Wanted.by(suite), part) for part in (whole[:cut], whole[cut:]))
    ours = {one.rule_id: one for one in outcomes(suite, seen)}
    wrong = [
        (item["type"], item["kwargs"], ours[rule_id], theirs[rule_id].result, theirs[rule_id].success)
        for item in document["expectations"]
        if not same(ours[rule_id := item["meta"]["rule_id"]], theirs[rule_id])
    ]
    assert wrong == []


def observed(wanted: Wanted, rows: pa.Table) -> Observation:
    """As the one pass observes rows that all fit, and on the way that a task's answer takes."""
    count = rows.num_rows
    none = pa.array([[]] * count, pa.list_(VERDICT))
    marked = rows.append_column("_fits", pa.array([True] * count, pa.bool_()))
    marked = marked.append_column("_refused", pa.array([False] * count, pa.bool_()))
    marked = marked.append_column("_errors", none).append_column("_warnings", none)
    return Observation.from_bytes(wanted.observe(marked, marked.slice(0, 0)).to_bytes())


def same(ours: Any, theirs: Any) -> bool:
    """Equal values, for doubles to within rounding; then equal success too. Sketches are exact for so few rows."""
    value = theirs.result["observed_value"]
    if isinstance(value, dict):  # quantiles
        value = value["values"]
    pairs = zip(ours.value, value, strict=True) if isinstance(value, list) else [(ours.value, value)]
    near = all(
        (one is None and (other is None or math.isnan(other)))
        or one == other
        or (isinstance(one, float) and isinstance(other, int | float) and close(one, float(other)))
        for one, other in pairs
    )
    return near and ours.success == theirs.success


def close(one: float, other: float) -> bool:
    return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
