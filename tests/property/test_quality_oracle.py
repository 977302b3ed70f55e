"""One suite, two meanings, one verdict: our Spark columns against Great Expectations on the same rows."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from pyspark.sql import functions as F

from lakehouse.quality.catalogue import CATALOGUE
from lakehouse.quality.rules import compile_rules, count_unexpected
from lakehouse.quality.suite import parse_suite
from lakehouse.quality.verdicts import judge
from tests.property.oracle import Oracle, quick
from tests.property.suites import KWARGS, SCHEMA, documents, rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Great Expectations takes seconds for a suite, so few frames meet many expectations each; a failure names the
# expectation itself, and shrinking would take minutes. ORACLE_EXAMPLES asks for a longer run.
COSTLY = settings(
    max_examples=int(os.environ.get("ORACLE_EXAMPLES", "5")),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
PER_TYPE = 2


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
        theirs = oracle.unexpected_counts(frame, document)
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
