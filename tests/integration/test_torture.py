"""The kill harness on the whole stack: green over kills, red for a mutant."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lakehouse.torture.harness import Plan, torture
from tests.integration.stack import CONFIG

QUICK = ("opening", "between_commits", "half_put")
"""Between commits, before and while a start finishes that. In `tests/unit` kills come at every point."""
SEED = 158
"""Draws a half-committed batch, then a start killed before it finishes that, then one killed while it does; beside them
events sent twice and a transaction that is aborted."""
DRAWN = ["between_commits", "opening", "half_put"]


@pytest.mark.timeout(600)
def test_kills_of_the_whole_stack_cost_nothing(tmp_path: Path) -> None:
    plan = Plan(CONFIG, kills=len(QUICK), events=1, seed=SEED, rate=300, faults=QUICK)
    report = torture(plan, folder=tmp_path, stop=threading.Event())
    assert report.ok, str(report)
    assert [kill.fault for kill in report.kills] == DRAWN
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
