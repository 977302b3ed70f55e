from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lakehouse.cli import app
from lakehouse.errors import SuiteError
from lakehouse.quality.explain import explain
from lakehouse.quality.suite import load_suite

SHIPPED = Path(__file__).parents[2] / "expectations" / "feature_events.json"


def test_each_expectation_is_explained() -> None:
    suite = load_suite(SHIPPED)
    explained = explain(suite)
    assert [meaning.rule_id for meaning in explained.meanings] == [one.rule_id for one in suite.expectations]
    by_id = {meaning.rule_id: meaning for meaning in explained.meanings}
    assert by_id["latency_ms_plausible"].stream == "a failing row goes to quarantine"
    assert "min_value 0, max_value 60000" in by_id["latency_ms_plausible"].demands
    assert by_id["action_known"].stream == "a failing row is kept, with the reason in _warnings"
    assert by_id["action_known"].report.endswith("met where 0.99 of them pass")
    assert "Only where `feature` NOT IN" in by_id["amount_only_where_sold"].demands
    assert all(meaning.why for meaning in explained.meanings)


def test_a_suite_and_a_pipeline_say_the_same() -> None:
    by_suite = CliRunner().invoke(app, ["quality", "explain", str(SHIPPED), "--json"])
    pipeline = SHIPPED.parents[1] / "conf" / "feature_events.yaml"
    by_pipeline = CliRunner().invoke(app, ["quality", "explain", str(pipeline), "--json"])
    assert by_suite.exit_code == by_pipeline.exit_code == 0
    assert json.loads(by_suite.output) == json.loads(by_pipeline.output)


def test_a_misspelt_type_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "suite.json"
    item = {"type": "expect_column_values_to_not_be_nul", "kwargs": {"column": "a"}}
    path.write_text(json.dumps({"name": "misspelt", "expectations": [item]}))
    result = CliRunner().invoke(app, ["quality", "explain", str(path)])
    assert isinstance(result.exception, SuiteError)
    with pytest.raises(SuiteError, match="did you mean expect_column_values_to_not_be_null"):
        raise result.exception
