"""The report over frames in memory: Great Expectations, its agreement with the stream, the page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from lakehouse.quality.archive import Use
from lakehouse.quality.rules import compile_rules
from lakehouse.quality.suite import Suite, parse_suite
from lakehouse.quality.verdicts import judge
from lakehouse.reports.assess import Assessment, assess
from lakehouse.reports.page import render
from lakehouse.reports.population import LAYER, Population, Span, judged_by
from lakehouse.reports.recheck import judge_again
from lakehouse.reports.results import append_once, table_url
from lakehouse.reports.run import QualityReport, agreement_line
from lakehouse.reports.samples import SAMPLES

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"
ROWS = 60


def expectation(kind: str, rule_id: str, severity: str = "critical", **kwargs: object) -> dict[str, object]:
    return {"type": f"expect_{kind}", "kwargs": kwargs, "severity": severity, "meta": {"rule_id": rule_id}}


def suite(*more: dict[str, object]) -> Suite:
    expectations = [
        expectation("column_values_to_not_be_null", "present", column="name"),
        expectation("column_values_to_be_in_set", "known", column="name", value_set=["ok", "<b>"]),
        expectation("column_values_to_be_between", "small", "warning", column="amount", max_value=50, mostly=0.5),
        expectation("column_values_to_be_between", "even_smaller", "info", column="amount", max_value=10),
        expectation("column_values_to_be_unique", "once", "warning", column="amount"),
        expectation("column_mean_to_be_between", "mean", column="amount", max_value=1_000),
        *more,
    ]
    return parse_suite(json.dumps({"name": "reported", "expectations": expectations}), source="reported.json")


@pytest.fixture(scope="module")
def population(spark: SparkSession) -> Population:
    """Rows 0 … 59 of partition 0, judged by `suite()` as the stream would, and one record that does not parse."""
    names = [None, HOSTILE, "ok", "ok", "<b>"]
    rows = [
        ("t", 0, number, BEGAN + timedelta(seconds=number), names[number % 5], float(number % 59))
        for number in range(ROWS)
    ]
    frame = spark.createDataFrame(
        rows, "_topic string, _partition int, _offset long, _timestamp timestamp, name string, amount double"
    )
    refused = F.size("_errors") > 0
    judged = judge(frame, compile_rules(suite())).withColumn(LAYER, F.when(refused, "quarantine").otherwise("silver"))
    judged = judged.withColumn("_replayed_from", F.lit(None).cast("struct<replay_id:string, suite_sha256:string>"))
    judged = judged.withColumn("_warnings", F.when(~refused, F.col("_warnings")).otherwise(F.filter("_warnings", _no)))
    raw = judged.where(refused).select(
        "_topic",
        "_partition",
        "_offset",
        "_timestamp",
        F.to_json(F.struct("name")).cast("binary").alias("_value"),
        "_errors",
    )
    unparsed = raw.limit(1).withColumns(
        {
            "_offset": F.lit(1_000).cast("long"),
            "_value": F.lit("\x00 no json").cast("binary"),
            "_errors": F.transform("_errors", lambda reason: reason.withField("rule_id", F.lit("contract.json"))),
        }
    )
    columns = ("name", "amount", "_topic", "_partition", "_offset", "_timestamp", "_warnings")
    return Population(judged.drop("_counted").cache(), raw.unionByName(unparsed), unparsed, columns)


def _no(_: Column) -> Column:
    return F.lit(False)


def uses(start: int = 0, end: int | None = None) -> tuple[Use, ...]:
    """The suite of these tests in use from `start` to `end`."""
    stop = None if end is None else {"t": {0: end}}
    return (Use(suite().sha256, {"t": {0: start}}, stop, BEGAN, "query", 0),)


@pytest.fixture(scope="module")
def found(population: Population) -> Assessment:
    return assess(population, suite(), uses())


def report_of(found: Assessment) -> QualityReport:
    versions = {"silver": 3, "quarantine": 4}
    return QualityReport("run-1", BEGAN, "reported", suite(), Span(), versions, None, found, "index.html", 1.0)


def test_counts_are_those_of_the_rows(found: Assessment) -> None:
    counts = {finding.expectation.rule_id: (finding.unexpected, finding.success) for finding in found.findings}
    assert counts == {
        "present": (12, False),
        "known": (12, False),
        "small": (8, True),  # mostly
        "even_smaller": (48, False),
        "once": (2, False),
        "mean": (None, True),
    }
    assert [finding.expectation.rule_id for finding in found.failed] == ["present", "known"]
    assert (found.rows.silver, found.rows.parsed, found.rows.same_suite) == (36, 24, 60)
    assert found.rows.unparsed == {"contract.json": 1}
    assert found.rows.total == 61


def test_stream_and_report_agree(found: Assessment) -> None:
    agreed = {one.rule_id: (one.unexpected, one.recounted, one.due, one.recorded) for one in found.agreements}
    assert agreed["known"] == (12, 12, 12, 12)
    assert agreed["even_smaller"] == (48, 48, None, None)
    tagged_in_silver = sum(number % 59 > 50 and number % 5 > 1 for number in range(ROWS))
    assert agreed["small"] == (8, 8, tagged_in_silver, tagged_in_silver)
    assert report_of(found).agrees
    assert agreement_line(report_of(found)).startswith("stream and report agree")


def test_rows_of_another_suite_are_not_held_against_this_one(population: Population) -> None:
    without_late_verdicts = population.parsed.withColumn(
        "_errors", F.when(F.col("_offset") < 30, F.col("_errors")).otherwise(F.filter("_errors", _no))
    )
    changed = replace(population, parsed=without_late_verdicts)
    whole, half = assess(changed, suite(), uses()), assess(changed, suite(), uses(end=30))
    assert {one.rule_id for one in whole.disagreements} == {"present", "known"}
    assert agreement_line(report_of(whole)).startswith("STREAM AND REPORT DIFFER in 2 rules: present")
    assert half.disagreements == ()
    assert half.rows.same_suite == 30
    assert not report_of(whole).ok


def test_samples_are_the_newest_and_bounded(found: Assessment) -> None:
    assert [sample.position[2] for sample in found.samples["even_smaller"]] == list(range(58, 58 - SAMPLES, -1))
    assert found.samples["known"][0].values == {"name": HOSTILE}
    assert {sample.values["amount"] for sample in found.samples["once"]} == {"0.0"}
    refused = {record.position: record for record in found.refused}
    assert refused["t", 0, 56].reasons[0].startswith(f"name is '{HOSTILE}', not one of")
    assert refused["t", 0, 1_000].value == b"\x00 no json"


def test_the_page_links_samples_to_records_and_runs_nothing(found: Assessment) -> None:
    page = render(report_of(found), "stream and report agree")
    assert "<script" not in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert "&lt;script&gt;alert(1)" in page
    linked = set(re.findall(r'<a href="#(record-[^"]+)"', page))
    assert linked
    assert linked <= set(re.findall(r'<article id="([^"]+)"', page))
    assert "\x00" not in page


def test_results_are_written_once_per_run(found: Assessment, tmp_path: Path) -> None:
    from deltalake import DeltaTable

    assert append_once(report_of(found), str(tmp_path))
    assert not append_once(report_of(found), str(tmp_path))
    assert append_once(replace(report_of(found), run_id="run-2"), str(tmp_path))
    rows = DeltaTable(table_url(str(tmp_path), "reported")).to_pyarrow_table().to_pylist()
    assert len(rows) == 12
    known = next(row for row in rows if row["rule_id"] == "known" and row["run_id"] == "run-1")
    assert (known["unexpected"], known["recorded"], known["agrees"], known["silver_version"]) == (12, 12, True, 3)
    assert known["columns"] == ["name"]


def test_an_expectation_that_crashes_counts_as_critical(population: Population) -> None:
    crashing = expectation("column_values_to_match_strftime_format", "crash", "info", column="amount")
    crashing["kwargs"]["strftime_format"] = "%Y"  # type: ignore[index]
    found = assess(population, suite(crashing), uses())
    crashed = found.findings[-1]
    assert crashed.critical
    assert crashed.error
    assert "could not be judged" in str(report_of(found))
    assert not any(finding.error for finding in found.findings[:-1])


def test_verdicts_come_out_the_same_when_judged_again(population: Population) -> None:
    again = judge_again(population.parsed, suite())
    assert (again.rows, again.differing) == (ROWS, 0)
    assert again.verdicts > 24
    one_lost = population.parsed.withColumn(
        "_errors", F.when(F.col("_offset") == 5, F.filter("_errors", _no)).otherwise(F.col("_errors"))
    )
    changed = judge_again(one_lost, suite())
    assert (changed.differing, changed.first) == (1, (("t", 0, 5),))


def test_a_replayed_row_is_judged_by_the_suite_of_its_replay(population: Population) -> None:
    lax = parse_suite(
        json.dumps(
            {"name": "lax", "expectations": [expectation("column_values_to_not_be_null", "dated", column="name")]}
        ),
        source="lax.json",
    )
    fresh = population.parsed.where("_offset = 2").drop("_errors", "_warnings", LAYER)
    # A value of which the suite in force at the offset tags the row, and the suite of the replay does not.
    again = judge(fresh.withColumn("amount", F.lit(55.0)), compile_rules(lax)).drop("_counted")
    brought_back = again.withColumns(
        {
            LAYER: F.lit("silver"),
            "_replayed_from": F.struct(F.lit("r").alias("replay_id"), F.lit(lax.sha256).alias("suite_sha256")),
        }
    )
    rows = population.parsed.where("_offset <> 2").unionByName(brought_back, allowMissingColumns=True)
    by_suite = {one.sha256: judge_again(rows.where(judged_by(uses(), one.sha256)), one) for one in (suite(), lax)}
    assert {sha256: (of.rows, of.differing) for sha256, of in by_suite.items()} == {
        suite().sha256: (ROWS - 1, 0),
        lax.sha256: (1, 0),
    }
    found = assess(replace(population, parsed=rows), suite(), uses())
    assert (found.rows.same_suite, found.disagreements) == (ROWS - 1, ())
