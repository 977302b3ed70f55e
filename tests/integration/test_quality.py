"""A suite's second meaning over real tables: the report, the suites that the root remembers, every verdict again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable

from lakehouse.errors import QualityError
from lakehouse.quality.suite import load_suite
from lakehouse.reports.results import table_url
from lakehouse.sinks.observed import table_url as observed_url
from tests.integration.stack import CONFIG, Stack

SHIPPED = CONFIG.parents[1] / "expectations" / "feature_events.json"


def edited(path: Path, *, stream: str | None = None) -> Path:
    """The shipped suite with another limit, and two rules that no verdict records."""
    document = json.loads(SHIPPED.read_text())
    for item in document["expectations"]:
        if item["meta"]["rule_id"] == "latency_ms_plausible":
            item["kwargs"]["max_value"] = 500
            item["severity"] = "warning"
        if item["meta"]["rule_id"] == ("latency_ms_present" if stream else "session_id_present"):
            item["meta"]["stream"] = stream or "metric"
    column = {"column": "region", "like_pattern": "eu-%"}
    like = {"type": "expect_column_values_to_match_like_pattern", "kwargs": column, "severity": "info"}
    document["expectations"].append({**like, "meta": {"rule_id": "european"}})
    path.write_text(json.dumps(document))
    return path


def command(pipeline: Path, stack: Stack, *arguments: str) -> tuple[int, Any]:
    """A `lakehouse quality` command as users run it; its exit code and its JSON."""
    environment = {**os.environ, "LAKEHOUSE_ROOT": str(stack.root), "KAFKA_BOOTSTRAP": stack.bootstrap}
    verb, *rest = arguments
    done = subprocess.run(
        [sys.executable, "-m", "lakehouse", "quality", verb, str(pipeline), *rest, "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


@pytest.mark.timeout(500)
def test_a_report_agrees_with_a_stream_whose_suite_was_edited(stack: Stack, tmp_path: Path) -> None:
    suite = edited(tmp_path / "edited.json")
    stack.send(1_500, seed=1, bad_share=0.2)
    stack.catch_up()
    stack.changes["quality"] = {"suite": str(suite)}
    stack.send(1_500, seed=2, bad_share=0.2)
    batches = stack.catch_up()
    raw = yaml.safe_load(CONFIG.read_text())
    raw["source"]["topic"], raw["quality"] = stack.topic, {"suite": str(suite)}
    pipeline = tmp_path / "edited.yaml"
    pipeline.write_text(yaml.safe_dump(raw))

    code, uses = command(pipeline, stack, "suites")
    assert code == 0
    assert [use["suite_sha256"] for use in uses] == [load_suite(SHIPPED).sha256, load_suite(suite).sha256]
    assert uses[0]["end"] == uses[1]["start"]

    code, report = command(pipeline, stack, "run", "--run-id", "once")
    assert isinstance(report, dict), report
    assert code == 1, report  # critical expectations without `mostly` fail by any refused row
    assert report["stream_agrees"], report["agreement"]
    rows = report["rows"]
    assert rows["silver"] + rows["quarantine_parsed"] + sum(rows["quarantine_unparsed"].values()) == 3_000
    assert rows["recorded"] == 3_000
    assert 0 < rows["same_suite"] < rows["silver"] + rows["quarantine_parsed"]
    agreement = {one["rule_id"]: one for one in report["agreement"]}
    assert 0 < agreement["latency_ms_plausible"]["recorded"] < agreement["latency_ms_plausible"]["unexpected"]
    assert agreement["european"]["unexpected"] == agreement["european"]["recounted"] > 0
    page = Path(report["page"]).read_text()
    assert "record-" in page
    results = DeltaTable(table_url(str(stack.root), "feature_events")).to_pyarrow_table()
    assert results.num_rows == len(load_suite(suite).expectations)
    # What the stream observed of its batches is what the report counts in their rows.
    observed = DeltaTable(observed_url(str(stack.root), "feature_events")).to_pyarrow_table().to_pylist()
    of_suite = [row for row in observed if row["suite_sha256"] == load_suite(suite).sha256]
    european = sum(row["failed"] for row in of_suite if row["rule_id"] == "european")
    assert european == sum(one.failed or 0 for batch in batches for one in batch.outcomes if one.rule_id == "european")
    assert european > 0

    code, again = command(pipeline, stack, "recheck")
    assert (code, again["ok"], again["unknown"]) == (0, True, 0)
    assert [one["differing"] for one in again["judged"]] == [0, 0]
    assert all(one["verdicts"] for one in again["judged"])


def test_a_rule_that_fails_stops_before_the_commit(stack: Stack, tmp_path: Path) -> None:
    stack.changes["quality"] = {"suite": str(edited(tmp_path / "stopping.json", stream="fail"))}
    stack.send(800, bad_share=0.5)
    with pytest.raises(QualityError, match="fail latency_ms_present"):
        stack.catch_up()
    assert stack.rows("silver") == []
    stack.changes.clear()
    stack.catch_up()
    assert stack.reconcile().ok
