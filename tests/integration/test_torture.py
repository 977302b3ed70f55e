"""The kill harness on the whole stack: green over every point that can be reached, red for a mutant."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lakehouse.torture.harness import Plan, torture
from lakehouse.torture.schedule import Trouble
from tests.integration.stack import CONFIG

QUICK = (
    *("opening", "planned", "between_files", "between_commits", "half_put", "committed", "rewritten"),
    Trouble.VICTIM_KILL,
)
"""Pauses, and what first has to grow old enough to be cleaned up, take a longer run."""
SEED = 43_363
"""Draws a half-committed batch, then a start killed before it finishes that, then one killed while it does."""


@pytest.mark.timeout(600)
def test_kills_at_every_quick_point_cost_nothing(tmp_path: Path) -> None:
    plan = Plan(CONFIG, kills=len(QUICK), events=1, seed=SEED, rate=300, faults=QUICK)
    report = torture(plan, folder=tmp_path, stop=threading.Event())
    assert report.ok, str(report)
    faults = [kill.fault for kill in report.kills]
    assert set(faults) == set(QUICK)
    half = faults.index("between_commits")
    assert faults[half : half + 3] == ["between_commits", "opening", "half_put"]
    assert {kill.outcome for kill in report.kills} == {"hit"}, str(report)
    assert report.figures["records in the topic"] > 0
    assert report.recovery()[0] > 0


@pytest.mark.timeout(300)
def test_a_mutant_in_the_task_turns_the_whole_stack_red(tmp_path: Path) -> None:
    plan = Plan(CONFIG, kills=1, events=1, seed=1, rate=300, faults=["committed"], mutants=["quarantine_skipped"])
    report = torture(plan, folder=tmp_path, stop=threading.Event())
    red = {check.name for check in report.checks if not check.ok}
    assert {"positions", "conservation"} <= red, str(report)
    assert report.endings == []
