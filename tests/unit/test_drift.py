"""Drift: what is certain about two shares or two distributions, and a pipeline's tables against their trailing day."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

from lakehouse.cli import app
from lakehouse.config.models import Pipeline
from lakehouse.drift import DriftReport, Stretch, append, find_drift
from lakehouse.errors import TableError
from lakehouse.quality.drift import distribution_drift, share_drift, sketch_of
from lakehouse.rollups.partials import aggregate
from lakehouse.schemas import OBSERVED_SCHEMA, TIMESTAMP, gold_schema, quarantine_schema
from lakehouse.sinks.observed import table_url
from tests.pipelines import small_pipeline
from tests.silver import shipped_pipeline

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
STRETCH = Stretch.until(NOW, last=timedelta(minutes=15), against=timedelta(days=1))


def test_a_share_drifts_where_even_the_least_difference_is_too_much() -> None:
    moved = share_drift((500, 10_000), (800, 100_000))
    assert moved.drifted is True
    assert 0.03 < moved.at_least < moved.difference == pytest.approx(0.042)
    assert "5.00% of 10,000, 0.80% of 100,000 before; at least" in str(moved)
    assert share_drift((5, 100), (800, 100_000)).drifted is False  # may be chance
    assert share_drift((900, 100_000), (800, 100_000)).drifted is False  # real, and let pass
    assert share_drift((0, 10_000), (500, 10_000)).drifted is True  # downwards
    assert share_drift((29, 29), (0, 10_000)).drifted is None
    assert share_drift((0, 0), (0, 0)).drifted is None


def test_the_interval_is_newcombes() -> None:
    # Newcombe 1998, table II: 56/70 against 48/80 at 95 %, by method 10: 0.0524 to 0.3339.
    assert share_drift((56, 70), (48, 80), confidence=0.95).at_least == pytest.approx(0.0524, abs=1e-4)
    assert share_drift((48, 80), (56, 70), confidence=0.95).at_least == pytest.approx(0.0524, abs=1e-4)


def test_a_distribution_drifts_where_enough_values_moved() -> None:
    dice = random.Random(1)
    before = sketch_of([dice.lognormvariate(3, 0.5) for _ in range(20_000)])
    same = distribution_drift(sketch_of([dice.lognormvariate(3, 0.5) for _ in range(5_000)]), before)
    slower = distribution_drift(sketch_of([dice.lognormvariate(3.4, 0.5) for _ in range(5_000)]), before)
    assert (same.drifted, slower.drifted) == (False, True)
    assert 0.2 < slower.at_least < abs(slower.difference) < 0.4
    assert slower.at is not None
    assert 15 < slower.at < 40
    assert distribution_drift(sketch_of([1.0] * 10 + [float("nan")] * 50), before).drifted is None


def test_without_drift_hardly_any_comparison_shows_some() -> None:
    dice = random.Random(2)
    found = 0
    for _ in range(200):
        now, before = ([dice.gauss(0, 1) for _ in range(size)] for size in (100, 400))
        found += bool(distribution_drift(sketch_of(now), sketch_of(before), tolerance=0).drifted)
        failed, earlier = (sum(dice.random() < 0.2 for _ in range(size)) for size in (100, 400))
        found += bool(share_drift((failed, 100), (earlier, 400), tolerance=0).drifted)
    assert found <= 3


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """A day at 10 ms and 1 % errors, then minutes in which `slow` fails more, latency doubles and errors stay."""
    pipeline = small_pipeline(tmp_path)
    observed, events, refused = [], [], []
    for minute in range(1, 24 * 60 + 15, 5):
        at, late = NOW - timedelta(minutes=minute), minute < 15
        figures = {"slow": (40 if late else 5, 1_000), "present": (0, 1_000), "contract.json": (3, 1_003)}
        rows = [{"rule_id": name, "failed": failed, "evaluated": rows} for name, (failed, rows) in figures.items()]
        rows.append({"rule_id": "mean", "evaluated": 1_000, "value": "10.5", "success": True})
        observed += [{"window_start": at, "window_end": at, "batches": 1, "suite_sha256": "s", **row} for row in rows]
        for number in range(40):
            status = "error" if number == 0 else "ok"
            events.append(
                {"at": at, "page": "p", "user": number, "ms": (20.0 if late else 10.0) + number % 7, "status": status}
            )
        refused.append({"_timestamp": at})
    write_deltalake(table_url(str(tmp_path), "clicks"), pa.Table.from_pylist(observed, schema=OBSERVED_SCHEMA))
    schema = pa.schema([("at", TIMESTAMP), ("page", pa.string()), ("user", pa.int64()), ("ms", pa.float64()),
                        ("status", pa.string())])  # fmt: skip
    rollup = pipeline.rollups["by_page"]
    gold = aggregate(pa.Table.from_pylist(events, schema=schema), rollup, "1s", event_time="at")
    gold = gold.append_column("_batch_id", pa.nulls(gold.num_rows, pa.int64()))
    write_deltalake(f"{tmp_path}/gold/clicks_by_page_1s", gold.cast(gold_schema(rollup, pipeline.source.fields)))
    write_deltalake(f"{tmp_path}/quarantine/clicks", pa.Table.from_pylist(refused, schema=quarantine_schema()))
    return pipeline


def drifted(report: DriftReport) -> set[str]:
    return {one.name for one in report.comparisons if one.drift.drifted}


def test_a_pipeline_is_held_against_its_trailing_day(pipeline: Pipeline) -> None:
    report = find_drift(pipeline, STRETCH, share_tolerance=0.01, distance_tolerance=0.1)
    assert drifted(report) == {"slow", "ms_kll"}
    assert not report.ok
    by_name = {one.name: one for one in report.comparisons}
    slow = by_name["slow"].drift
    assert (slow.current, slow.baseline, slow.now) == (3_000, 288_000, 0.04)
    assert by_name["errors"].drift.now == by_name["errors"].drift.before == 1 / 40
    assert by_name["quarantine"].drift.now == pytest.approx(1 / 41)
    assert by_name["mean"].drift.drifted is None
    told = str(report)
    assert "slow, share of rows that fail: drifted: 4.00% of 3,000" in told
    assert "ms_kll, distribution: drifted: 0.00% of 120 are at most" in told


def test_results_are_appended(pipeline: Pipeline) -> None:
    report = find_drift(pipeline, STRETCH, share_tolerance=0.01, distance_tolerance=0.1)
    url = append(report, pipeline.root)
    append(report, pipeline.root)
    rows = DeltaTable(url).to_pyarrow_table().to_pylist()
    assert len(rows) == 2 * len(report.comparisons)
    assert {row["name"] for row in rows if row["drifted"]} == {"slow", "ms_kll"}
    assert rows[0]["current_end"] == NOW


def test_of_rules_that_are_not_named_any_more_only_those_of_the_contract_are_compared(pipeline: Pipeline) -> None:
    at = NOW + timedelta(minutes=5)
    row = {"window_start": at, "window_end": at, "batches": 1, "suite_sha256": "s", "rule_id": "slow"}
    rows = pa.Table.from_pylist([{**row, "failed": 0, "evaluated": 5_000}], schema=OBSERVED_SCHEMA)
    write_deltalake(table_url(pipeline.root, "clicks"), rows, mode="append")
    later = Stretch.until(NOW + timedelta(minutes=10), last=timedelta(minutes=10), against=timedelta(days=1))
    found = find_drift(pipeline, later, share_tolerance=0.001, distance_tolerance=0.1)
    by_name = {one.name: one.drift for one in found.comparisons}
    assert (by_name["contract.json"].current, by_name["contract.json"].now) == (5_000, 0.0)
    assert by_name["present"].drifted is None  # no rule of the suite any more


def test_the_command_tells_and_exits(tmp_path: Path) -> None:
    path, pipeline = shipped_pipeline(tmp_path)
    nothing = CliRunner().invoke(app, ["quality", "drift", str(path)])
    assert isinstance(nothing.exception, TableError)
    now = datetime.now(UTC)
    rows: list[dict[str, Any]] = [
        {"window_end": now - timedelta(minutes=minutes), "rule_id": "known", "failed": failed, "evaluated": 1_000}
        for minutes, failed in ((5, 300), (60, 3))
    ]
    write_deltalake(table_url(pipeline.root, pipeline.name), pa.Table.from_pylist(rows, schema=OBSERVED_SCHEMA))
    found = CliRunner().invoke(app, ["quality", "drift", str(path), "--json"])
    assert found.exit_code == 1
    assert json.loads(found.output)["comparisons"][0]["drift"]["drifted"] is True
    calm = CliRunner().invoke(app, ["quality", "drift", str(path), "--share", "0.5", "--no-write"])
    assert (calm.exit_code, "nothing drifted" in calm.output) == (0, True)
    assert DeltaTable(f"{pipeline.root}/_quality/{pipeline.name}_drift").version() == 0
