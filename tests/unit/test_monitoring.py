"""The Grafana dashboard and the Prometheus rules ask only for metrics and labels that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lakehouse.metrics import monitoring
from lakehouse.metrics.catalogue import METRICS
from lakehouse.metrics.rule_tests import CASES

PROJECT = Path(__file__).parents[2]
SERIES = {series: metric for metric in METRICS for series in metric.series}
EXPRESSIONS = [query for panel in monitoring.PANELS for query, _ in panel.queries] + [
    rule.expression for rule in monitoring.RULES
]
PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "description", "datasource", "gridPos", "fieldConfig", "targets"],
    "properties": {
        "type": {"enum": ["timeseries"]},
        "gridPos": {
            "type": "object",
            "required": ["x", "y", "w", "h"],
            "additionalProperties": {"type": "integer", "minimum": 0},
        },
        "targets": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["refId", "expr", "legendFormat", "datasource"],
                "properties": {"refId": {"pattern": "^[A-Z]$"}, "expr": {"type": "string", "minLength": 1}},
            },
        },
    },
}
DASHBOARD = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time"],
    "properties": {"schemaVersion": {"type": "integer"}, "panels": {"type": "array", "minItems": 1, "items": PANEL}},
}
RULES = {
    "type": "object",
    "required": ["groups"],
    "additionalProperties": False,
    "properties": {
        "groups": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "rules"],
                "properties": {
                    "rules": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["alert", "expr", "for", "labels", "annotations"],
                            "additionalProperties": False,
                            "properties": {
                                "alert": {"pattern": "^[A-Za-z]+$"},
                                "expr": {"type": "string"},
                                "for": {"pattern": "^[0-9]+(s|m|h)$"},
                                "labels": {"type": "object", "required": ["severity"]},
                                "annotations": {"type": "object", "required": ["summary", "runbook_url"]},
                            },
                        },
                    }
                },
            },
        }
    },
}


def test_the_committed_files_are_the_generated_ones() -> None:
    hint = "run python -m lakehouse.metrics.monitoring"
    assert (PROJECT / monitoring.DASHBOARD_FILE).read_text() == monitoring.render_dashboard(), hint
    assert (PROJECT / monitoring.RULES_FILE).read_text() == monitoring.render_rules(), hint
    assert (PROJECT / monitoring.TESTS_FILE).read_text() == monitoring.render_tests(), hint


def test_every_rule_has_a_case_over_series_that_there_are() -> None:
    assert set(CASES) == {rule.name for rule in monitoring.RULES}
    for case in CASES.values():
        for metric, labels, _ in case.series:
            assert set(labels) <= {"le", *SERIES[metric].labels}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_agrees() -> None:
    for command in (["check", "rules", monitoring.RULES_FILE], ["test", "rules", monitoring.TESTS_FILE]):
        found = subprocess.run(["promtool", *command], cwd=PROJECT, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr


def test_the_dashboard_has_the_form_that_grafana_reads() -> None:
    found: dict[str, Any] = json.loads(monitoring.render_dashboard())
    jsonschema.validate(found, DASHBOARD)
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_the_rules_have_the_form_that_prometheus_reads() -> None:
    found = yaml.safe_load(monitoring.render_rules())
    jsonschema.validate(found, RULES)
    for rule in found["groups"][0]["rules"]:
        assert (PROJECT / rule["annotations"]["runbook_url"]).is_file(), rule["alert"]
        named = re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
        known = {label for series in asked(rule["expr"]) for label in ("pipeline", *SERIES[series].labels)}
        assert set(named) <= known


def asked(expression: str) -> list[str]:
    return re.findall(r"\blakehouse_\w+", expression)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_query_names_metrics_and_labels_that_there_are(expression: str) -> None:
    names = asked(expression)
    assert names
    assert set(names) <= set(SERIES), expression
    known = {"pipeline", "le", *(label for name in names for label in SERIES[name].labels)}
    grouped = {
        label.strip() for group in re.findall(r"(?:by|on) \(([^)]*)\)", expression) for label in group.split(",")
    }
    matched = set(re.findall(r"[{,](\w+)=", expression))
    assert grouped | matched <= known, expression
    counters = [name for name in names if SERIES[name].kind == "counter"]
    assert all(re.search(rf"(rate|increase)\({name}\b", expression) for name in counters), (
        "counters are asked for rates"
    )
    for left, right in ("()", "{}", "[]"):
        assert expression.count(left) == expression.count(right)


def test_every_metric_is_shown_or_watched() -> None:
    shown = {SERIES[name] for expression in EXPRESSIONS for name in asked(expression)}
    assert {metric.name for metric in METRICS if metric not in shown} == {"lakehouse_last_batch_id"}
