"""A test of each Prometheus rule, in the form of `promtool test rules`: series that set it off, and series that do not.

`python -m lakehouse.metrics.monitoring` writes them beside the rules. A test holds that each rule has a case and that
the file is the generated one; another runs promtool, where that is installed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lakehouse.metrics import catalogue as c

_STEP = "15s"
_ONE = {"pipeline": "clicks"}


@dataclass(frozen=True, slots=True)
class Case:
    """What sets a rule off.

    Attributes:
        series: (metric, labels besides the pipeline, values in promtool's notation: `start+step x times`).
        at: when it fires; before: when it does not yet.
        summary: that the alert has then.
        labels: of the alert, besides those of its rule.
    """

    series: tuple[tuple[str, dict[str, str], str], ...]
    at: str
    before: str
    summary: str
    labels: dict[str, str] = field(default_factory=lambda: dict(_ONE))


_SILVER, _REFUSED = {"table": "silver/clicks"}, {"table": "quarantine/clicks"}
_OF_SILVER = _ONE | _SILVER


CASES: dict[str, Case] = {
    "LakehouseDown": Case(
        ((c.INFO.name, {"version": "1"}, "1x20 _x40"),), "15m", "5m", "No pipeline can be scraped.", {}
    ),
    "LakehouseStalled": Case(
        ((c.LAST_COMMIT.name, {}, "0x40"), (c.LAG.name, {"partition": "0"}, "5x40")),
        "2m",
        "1m",
        "Records wait in Kafka, and clicks has committed none for 2m 0s.",
    ),
    "LakehouseSlow": Case(
        (
            (c.FRESHNESS.series[0], {"le": "2.5"}, "0+1x60"),
            (c.FRESHNESS.series[0], {"le": "5.0"}, "0+100x60"),
            (c.FRESHNESS.series[0], {"le": "+Inf"}, "0+100x60"),
        ),
        "8m",
        "4m",
        "A twentieth of the batches of clicks hold records older than 4.874s.",
    ),
    "LakehouseLagging": Case(
        ((c.LAG.name, {"partition": "0"}, "60000x40"), (c.LAG.name, {"partition": "1"}, "50000x40")),
        "3m",
        "1m",
        "clicks is 110k records behind Kafka.",
    ),
    "LakehouseKafkaUnreachable": Case(
        ((c.REACHABLE.name, {}, "1x4 0x20"),), "3m", "1m", "Kafka does not answer clicks.", _ONE
    ),
    "LakehouseQuarantining": Case(
        ((c.ROWS.name, _SILVER, "0+900x60"), (c.ROWS.name, _REFUSED, "0+100x60")),
        "5m",
        "1m",
        "10% of the records of clicks go to quarantine.",
    ),
    "LakehouseUnmaintained": Case(
        ((c.MAINTAINED.name, _SILVER, "0x100"),),
        "12m",
        "10m",
        "silver/clicks has not been maintained for 12m 0s.",
        _OF_SILVER,
    ),
    "LakehouseMaintenanceFails": Case(
        ((c.MAINTENANCE_FAILED.name, _SILVER, "0x20 1+1x20"),),
        "8m",
        "4m",
        "Maintenance could not finish silver/clicks.",
        _OF_SILVER,
    ),
    "LakehouseManyFiles": Case(
        ((c.FILES.name, _SILVER, "501x80"),), "11m", "9m", "silver/clicks has 501 live files.", _OF_SILVER
    ),
    "LakehouseSlowCommits": Case(
        (
            (c.BATCH_SECONDS.series[0], {"phase": "commit", "le": "1.0"}, "0+1x60"),
            (c.BATCH_SECONDS.series[0], {"phase": "commit", "le": "1.5"}, "0+11x60"),
            (c.BATCH_SECONDS.series[0], {"phase": "commit", "le": "+Inf"}, "0+11x60"),
        ),
        "5m",
        "1m",
        "Half of the batches of clicks take more than 1.225s to commit.",
    ),
    "LakehouseClockAhead": Case(
        ((c.CLOCK_AHEAD.name, {}, "0x4 60x20"),),
        "3m",
        "1m",
        "Events of clicks lie 1m 0s ahead of the driver's clock.",
    ),
    "LakehouseDiskNearlyFull": Case(
        ((c.DISK_FREE.name, {}, "20x4 5x20"), (c.DISK_SIZE.name, {}, "100x24")),
        "3m",
        "1m",
        "5% of the disk of clicks are left.",
    ),
    "LakehouseDashboardBehind": Case(
        ((c.DASHBOARD_BEHIND.name, {"table": "gold/clicks"}, "0x4 60x20"),),
        "3m",
        "1m",
        "A dashboard of clicks shows gold/clicks as of 1m 0s ago.",
        _ONE | {"table": "gold/clicks"},
    ),
    "LakehouseFiguresLeftOut": Case(
        ((c.LEFT_OUT.name, {}, "0x20 3x40"),),
        "6m",
        "4m",
        "Figures of clicks could not be written, so alerts that read `_ops` see less.",
    ),
}
"""One for each rule."""


def rule_tests(rules: dict[str, Any], file: str) -> dict[str, Any]:
    """The tests of these rules, as promtool reads them; `file` is where the rules are, relative to the tests."""
    tests = []
    for rule in rules["groups"][0]["rules"]:
        name = rule["alert"]
        case = CASES[name]
        fired = {
            "exp_labels": rule["labels"] | case.labels,
            "exp_annotations": rule["annotations"] | {"summary": case.summary},
        }
        tests.append(
            {
                "name": name,
                "interval": _STEP,
                "input_series": [
                    {"series": _selector(metric, _ONE | labels), "values": values}
                    for metric, labels, values in case.series
                ],
                "alert_rule_test": [
                    {"eval_time": case.before, "alertname": name, "exp_alerts": []},
                    {"eval_time": case.at, "alertname": name, "exp_alerts": [fired]},
                ],
            }
        )
    return {"rule_files": [file], "evaluation_interval": _STEP, "tests": tests}


def _selector(metric: str, labels: dict[str, str]) -> str:
    matchers = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{metric}{{{matchers}}}"
