"""Schedules of the harness in the simulation: hundreds of kills without a JVM, and the page that explains them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lakehouse.torture.checks import CHECKS
from lakehouse.torture.mutants import MUTANTS
from lakehouse.torture.points import POINTS, Orders
from lakehouse.torture.schedule import FAULTS, Aside, schedule
from tests.simulation import World, forget_checkpoint


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_seeded_schedule_of_kills_loses_and_doubles_nothing(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, dice, reached = World(tmp_path), random.Random(seed), set()
    for step in schedule(seed, 2 * len(POINTS), tuple(POINTS)):
        orders = Orders(point=step.fault, nth=min(step.nth, 3), subset=step.subset)
        world.send(dice.randint(20, 60))
        if not world.run(orders) or not world.maintain(orders, hours_later=dice.choice((0.1, 3))):
            reached.add(step.fault)
        if dice.random() < 0.15:
            forget_checkpoint(world)
        if dice.random() < 0.15:
            world.slowest_ms = dice.choice((300.0, 600.0, 900.0))
    world.run()
    assert [check for check in world.check(monkeypatch) if not check.ok] == []
    assert world.endings == []
    assert len(reached) > len(POINTS) / 2


def test_the_page_names_every_point_fault_check_and_mutant() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "torture.md").read_text()
    assert [name for name in (*FAULTS, *Aside, *CHECKS, *MUTANTS) if f"`{name}`" not in page] == []
    assert [text.what for text in (*POINTS.values(), *MUTANTS.values()) if text.what not in page] == []
