"""The alerts as the pages show them: what fires, what is over, what is silenced, and what cannot be read."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dashboard.alarms import Alarms
from lakehouse.alerts import history
from lakehouse.alerts.finding import moment
from lakehouse.config.models import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

RULES = {
    "slow": {"kind": "lag", "limit": 10, "severity": "warning"},
    "stale": {"kind": "lag", "limit": 99, "severity": "critical"},
    "calm": {"kind": "lag", "limit": 999},
}


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "clicks",
            "root": str(tmp_path),
            "source": {"servers": "localhost:9092", "topic": "clicks", "fields": {"at": "timestamp"}},
            "event_time": {"column": "at"},
            "quality": {"suite": "suite.json"},
            "alerts": {"rules": RULES, "runbooks": "https://wiki.example/runbooks/"},
        }
    )


class Journal:
    """Writes changes as an evaluator would."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.now = time.time()

    def change(self, name: str, state: str, *, ago_s: float = 0) -> None:
        at = moment(self.now - ago_s)
        row: dict[str, Any] = {
            "time": at, "alert": name, "kind": "lag", "severity": "warning", "state": state, "since": at,
            "value": 12.0, "limit": 10.0, "summary": f"{name} is 12", "runbook": "docs/runbooks/lag.md",
        }  # fmt: skip
        journal = history.journal(self.pipeline)
        journal.append(lambda: [row])
        journal.close()
        assert journal.left_out == 0


@pytest.fixture
def journal(pipeline: Pipeline) -> Journal:
    return Journal(pipeline)


def states(alarms: Alarms) -> list[tuple[str, str]]:
    return [(one.name, one.state) for one in alarms.all()]


def test_without_a_journal_all_is_quiet(pipeline: Pipeline) -> None:
    alarms = Alarms(pipeline)
    assert {state for _, state in states(alarms)} == {"quiet"}
    assert alarms.told() == {"rules": 3, "problem": "", "alerts": []}
    assert alarms.all()[0].runbook == "https://wiki.example/runbooks/lag.md"


def test_the_gravest_stands_first_and_what_is_over_stays_for_a_day(pipeline: Pipeline, journal: Journal) -> None:
    journal.change("slow", "firing", ago_s=50)
    journal.change("stale", "firing", ago_s=40)
    journal.change("calm", "firing", ago_s=30)
    journal.change("calm", "inactive", ago_s=20)
    alarms = Alarms(pipeline)
    assert states(alarms) == [("stale", "firing"), ("slow", "firing"), ("calm", "resolved")]
    told = alarms.told()["alerts"]
    assert told[0]["since_ms"] == pytest.approx((journal.now - 40) * 1000, abs=2)
    assert (told[0]["summary"], told[0]["runbook"]) == ("stale is 12", "docs/runbooks/lag.md")
    panel = alarms.panel(journal.now * 1000)
    assert [row[0] for row in panel["rows"]] == ["stale", "slow", "calm"]
    tomorrow = Alarms(pipeline, clock=lambda: journal.now + 90_000)
    assert states(tomorrow)[2] == ("calm", "quiet")


def test_changes_are_seen_as_they_come(pipeline: Pipeline, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.alarms.LOOK_S", 0.0)
    alarms = Alarms(pipeline)
    assert {state for _, state in states(alarms)} == {"quiet"}
    journal.change("slow", "pending", ago_s=3)
    assert states(alarms)[0] == ("slow", "pending")
    journal.change("slow", "inactive", ago_s=2)
    assert states(alarms)[0][1] == "quiet", "what never fired is not over"
    journal.change("slow", "firing", ago_s=1)
    journal.change("slow", "inactive")
    assert states(alarms)[0] == ("slow", "resolved")


def test_a_silence_is_told(pipeline: Pipeline, journal: Journal) -> None:
    journal.change("slow", "firing", ago_s=5)
    history.silence(pipeline, "slow", timedelta(hours=1), "known")
    alarms = Alarms(pipeline)
    assert alarms.told()["alerts"][0]["silenced"] is True
    assert Alarms(pipeline, clock=lambda: time.time() + 7200).told()["alerts"][0]["silenced"] is False


def test_a_journal_that_cannot_be_read_is_said(pipeline: Pipeline, tmp_path: Path) -> None:
    log = tmp_path / "_ops" / "clicks_alerts" / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").write_text("{broken")
    told = Alarms(pipeline).told()
    assert told["problem"].startswith("the alerts' journal cannot be read")
