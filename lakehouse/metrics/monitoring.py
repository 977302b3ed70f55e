"""The Grafana dashboard and the Prometheus alert rules, made from the catalogue so that they cannot fall behind it.

`python -m lakehouse.metrics.monitoring` writes grafana/lakehouse.json, grafana/alerts.yaml and its tests for
promtool; a test keeps them alike.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from lakehouse.metrics import catalogue as c
from lakehouse.metrics.rule_tests import rule_tests

DASHBOARD_FILE = Path("grafana/lakehouse.json")
RULES_FILE = Path("grafana/alerts.yaml")
TESTS_FILE = Path("grafana/alerts_test.yaml")
"""All relative to the project's folder."""
RUNBOOKS = "docs/runbooks"

_WIDTH, _HEIGHT = 12, 8
"""Of a panel, on Grafana's grid of 24 columns."""
_ONE = '{pipeline="$pipeline"}'
_RANGE = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: (query, legend) per set of lines. `unit` is Grafana's name of it."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    about: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert rule of Prometheus; `runbook` is the name of its page."""

    name: str
    expression: str
    lasting: str
    severity: Literal["critical", "warning"]
    summary: str
    runbook: str


def _rate(metric: c.Metric, *labels: str) -> str:
    by = f" by ({', '.join(labels)})" if labels else ""
    return f"sum{by} (rate({metric.name}{_ONE}{_RANGE}))"


def _quantile(rank: float, metric: c.Metric, *labels: str) -> str:
    by = ", ".join(("le", *labels))
    return f"histogram_quantile({rank}, sum by ({by}) (rate({metric.series[0]}{_ONE}{_RANGE})))"


PANELS: tuple[Panel, ...] = (
    Panel("Rows", "short", ((_rate(c.ROWS, "table"), "{{table}}"),), "Rows committed per second and table."),
    Panel(
        "Freshness",
        "s",
        tuple((_quantile(rank, c.FRESHNESS), f"p{rank * 100:g}") for rank in (0.5, 0.95, 0.99)),
        "Age of each batch's oldest record at its commit, since it reached Kafka.",
    ),
    Panel(
        "Since the last commit",
        "s",
        (
            (f"time() - {c.LAST_COMMIT.name}{_ONE}", "last commit"),
            (f"time() - {c.NEWEST_EVENT.name}{_ONE}", "newest event"),
        ),
        "Grows while no batch is committed: the topic is silent, or the pipeline stands still. Compare the lag.",
    ),
    Panel(
        "Lag",
        "short",
        ((f"sum by (partition) ({c.LAG.name}{_ONE})", "partition {{partition}}"),),
        "Records that Kafka holds and the tables do not.",
    ),
    Panel(
        "Time of a batch",
        "s",
        (
            (_quantile(0.5, c.BATCH_SECONDS, "phase"), "{{phase}} p50"),
            (_quantile(0.99, c.BATCH_SECONDS, "phase"), "{{phase}} p99"),
        ),
        "Spark's job, then the commits.",
    ),
    Panel("Batches", "short", ((_rate(c.BATCHES), "batches"),), "Micro-batches per second."),
    Panel("Failed rules", "short", ((_rate(c.FAILED, "rule"), "{{rule}}"),), "Rows per second that fail each rule."),
    Panel("Late events", "short", ((_rate(c.LATE), "late"),), "Events per second that came late to Kafka."),
    Panel(
        "Resident memory",
        "bytes",
        ((f"sum by (part) ({c.MEMORY.name}{_ONE})", "{{part}}"),),
        "A slope that goes on for hours is a leak.",
    ),
    Panel(
        "Kafka",
        "short",
        ((f"{c.REACHABLE.name}{_ONE}", "reachable"), (_rate(c.WAITS), "waits")),
        "Whether Kafka answers, and how often the query ended because it did not.",
    ),
    Panel(
        "Files", "short", ((f"{c.FILES.name}{_ONE}", "{{table}}"),), "Live files; a few dozen while maintenance works."
    ),
    Panel("Files in the log", "short", ((f"{c.LOG_FILES.name}{_ONE}", "{{table}}"),), "Commits and checkpoints kept."),
    Panel("Size of tables", "bytes", ((f"{c.SIZE.name}{_ONE}", "{{table}}"),), "Live files only."),
    Panel(
        "Maintenance",
        "s",
        (
            (f"time() - max by (table) ({c.MAINTAINED.name}{_ONE})", "{{table}}: since the last pass"),
            (_rate(c.MAINTENANCE_CPU), "CPU"),
        ),
        "How long ago each table was looked after, and the share of a core that it takes.",
    ),
    Panel(
        "Firing alerts",
        "short",
        ((f"sum by (alert, severity) ({c.FIRING.name}{_ONE})", "{{alert}} ({{severity}})"),),
        "Alerts of the pipeline's own file.",
    ),
    Panel(
        "Clocks",
        "s",
        ((f"{c.CLOCK_AHEAD.name}{_ONE}", "ahead of the driver's clock"),),
        "Events or Kafka's times that lie in the future: a clock is wrong somewhere.",
    ),
    Panel(
        "Disk",
        "bytes",
        ((f"{c.DISK_FREE.name}{_ONE}", "free"), (f"{c.DISK_SIZE.name}{_ONE}", "size")),
        "Of the tables' root. Maintenance writes merged files beside the old ones before it deletes those.",
    ),
    Panel(
        "Dashboards",
        "s",
        ((f"max by (table) ({c.DASHBOARD_BEHIND.name}{_ONE})", "{{table}}"),),
        "Since the dashboard's process that is furthest behind had the newest version of a table.",
    ),
    Panel(
        "Trouble",
        "short",
        (
            (_rate(c.MAINTENANCE_FAILED, "table"), "{{table}} unmaintained"),
            (_rate(c.LEFT_OUT), "figures left out"),
        ),
        "Should be zero.",
    ),
)

_REFUSED = f'sum by (pipeline) (rate({c.ROWS.name}{{table=~"quarantine/.*"}}[5m]))'
_JUDGED = f'sum by (pipeline) (rate({c.ROWS.name}{{table=~"(silver|quarantine)/.*"}}[5m]))'

RULES: tuple[Rule, ...] = (
    Rule(
        "LakehouseDown",
        f"absent({c.INFO.name})",
        "1m",
        "critical",
        "No pipeline can be scraped.",
        "down",
    ),
    Rule(
        "LakehouseStalled",
        f"time() - {c.LAST_COMMIT.name} > 60 and on (pipeline) sum by (pipeline) ({c.LAG.name}) > 0",
        "30s",
        "critical",
        "Records wait in Kafka, and {{ $labels.pipeline }} has committed none for {{ $value | humanizeDuration }}.",
        "freshness",
    ),
    Rule(
        "LakehouseSlow",
        f"histogram_quantile(0.95, sum by (le, pipeline) (rate({c.FRESHNESS.series[0]}[5m]))) > 2",
        "5m",
        "warning",
        "A twentieth of the batches of {{ $labels.pipeline }} hold records older than {{ $value | humanizeDuration }}.",
        "freshness",
    ),
    Rule(
        "LakehouseLagging",
        f"sum by (pipeline) ({c.LAG.name}) > 100000",
        "2m",
        "warning",
        "{{ $labels.pipeline }} is {{ $value | humanize }} records behind Kafka.",
        "lag",
    ),
    Rule(
        "LakehouseKafkaUnreachable",
        f"{c.REACHABLE.name} == 0",
        "1m",
        "critical",
        "Kafka does not answer {{ $labels.pipeline }}.",
        "kafka",
    ),
    Rule(
        "LakehouseQuarantining",
        f"{_REFUSED} / ({_JUDGED} > 1) > 0.05",
        "2m",
        "warning",
        "{{ $value | humanizePercentage }} of the records of {{ $labels.pipeline }} go to quarantine.",
        "quarantine",
    ),
    Rule(
        "LakehouseUnmaintained",
        f"time() - max by (pipeline, table) ({c.MAINTAINED.name}) > 600",
        "1m",
        "warning",
        "{{ $labels.table }} has not been maintained for {{ $value | humanizeDuration }}.",
        "maintenance",
    ),
    Rule(
        "LakehouseMaintenanceFails",
        f"increase({c.MAINTENANCE_FAILED.name}[15m]) > 2",
        "0m",
        "warning",
        "Maintenance could not finish {{ $labels.table }}.",
        "maintenance",
    ),
    Rule(
        "LakehouseManyFiles",
        f"{c.FILES.name} > 500",
        "10m",
        "warning",
        "{{ $labels.table }} has {{ $value }} live files.",
        "maintenance",
    ),
    Rule(
        "LakehouseSlowCommits",
        f'histogram_quantile(0.5, sum by (le, pipeline) (rate({c.BATCH_SECONDS.series[0]}{{phase="commit"}}[5m]))) > 1',
        "2m",
        "warning",
        "Half of the batches of {{ $labels.pipeline }} take more than {{ $value | humanizeDuration }} to commit.",
        "slow_storage",
    ),
    Rule(
        "LakehouseClockAhead",
        f"{c.CLOCK_AHEAD.name} > 5",
        "1m",
        "warning",
        "Events of {{ $labels.pipeline }} lie {{ $value | humanizeDuration }} ahead of the driver's clock.",
        "clock",
    ),
    Rule(
        "LakehouseDiskNearlyFull",
        f"{c.DISK_FREE.name} / {c.DISK_SIZE.name} < 0.1",
        "1m",
        "critical",
        "{{ $value | humanizePercentage }} of the disk of {{ $labels.pipeline }} are left.",
        "disk",
    ),
    Rule(
        "LakehouseDashboardBehind",
        f"max by (pipeline, table) ({c.DASHBOARD_BEHIND.name}) > 10",
        "1m",
        "warning",
        "A dashboard of {{ $labels.pipeline }} shows {{ $labels.table }} as of {{ $value | humanizeDuration }} ago.",
        "dashboard",
    ),
    Rule(
        "LakehouseFiguresLeftOut",
        f"increase({c.LEFT_OUT.name}[15m]) > 0",
        "0m",
        "warning",
        "Figures of {{ $labels.pipeline }} could not be written, so alerts that read `_ops` see less.",
        "telemetry",
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's JSON model, for any Prometheus data source."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
        {
            "name": "pipeline",
            "type": "query",
            "datasource": source,
            "query": {"query": f"label_values({c.INFO.name}, pipeline)", "refId": "pipeline"},
            "refresh": 2,
            "label": "Pipeline",
        },
    ]
    return {
        "uid": "lakehouse",
        "title": "Lakehouse pipeline",
        "tags": ["lakehouse"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "utc",
        "templating": {"list": variables},
        "annotations": {"list": []},
        "panels": [_panel(number, panel, source) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, panel: Panel, source: dict[str, str]) -> dict[str, Any]:
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": source,
        "gridPos": {"x": number % 2 * _WIDTH, "y": number // 2 * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": source, "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }


def rules() -> dict[str, Any]:
    """The rules in Prometheus' form."""
    return {
        "groups": [
            {
                "name": "lakehouse",
                "rules": [
                    {
                        "alert": rule.name,
                        "expr": rule.expression,
                        "for": rule.lasting,
                        "labels": {"severity": rule.severity},
                        "annotations": {"summary": rule.summary, "runbook_url": f"{RUNBOOKS}/{rule.runbook}.md"},
                    }
                    for rule in RULES
                ],
            }
        ]
    }


def render_dashboard() -> str:
    """The dashboard's file."""
    return json.dumps(dashboard(), indent=2) + "\n"


def render_rules() -> str:
    """The rules' file."""
    head = "# Made by `python -m lakehouse.metrics.monitoring`. Name it under `rule_files` of prometheus.yml.\n"
    return head + yaml.safe_dump(rules(), sort_keys=False, width=120)


def render_tests() -> str:
    """The file of the rules' tests."""
    head = f"# Made by `python -m lakehouse.metrics.monitoring`. Run it by `promtool test rules {TESTS_FILE}`.\n"
    return head + yaml.safe_dump(rule_tests(rules(), RULES_FILE.name), sort_keys=False, width=120)


if __name__ == "__main__":
    DASHBOARD_FILE.parent.mkdir(exist_ok=True)
    DASHBOARD_FILE.write_text(render_dashboard(), encoding="utf-8")
    RULES_FILE.write_text(render_rules(), encoding="utf-8")
    TESTS_FILE.write_text(render_tests(), encoding="utf-8")
