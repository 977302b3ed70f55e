"""The harness notices: every error that someone could make turns a check red, and the same scenario without it none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lakehouse.torture.checks import CHECKS, Check
from lakehouse.torture.mutants import MUTANTS
from lakehouse.torture.points import POINTS, Orders
from tests.simulation import World, forget_checkpoint

Scenario = Callable[[World, tuple[str, ...]], None]


def steady(world: World, mutants: tuple[str, ...]) -> None:
    """Two runs, nothing happens."""
    for _ in range(2):
        world.send(60)
        world.run(Orders(mutants=mutants))


def two_drivers(world: World, mutants: tuple[str, ...]) -> None:
    """A driver sleeps after it has planned a batch; another one, from the same checkpoint, commits that batch."""
    world.send(30)
    world.run(Orders(mutants=mutants))
    world.send(10)

    def meanwhile() -> None:
        world.on_plan = lambda: None
        kept = world.root / "kept"
        shutil.copytree(world.checkpoint, kept)
        world.run(Orders(mutants=mutants))
        shutil.rmtree(world.checkpoint)
        kept.rename(world.checkpoint)

    world.on_plan = meanwhile
    world.run(Orders(mutants=mutants))
    # The one that was refused is started again, as its owner would.
    refused, world.endings = world.endings, []
    assert mutants or len(refused) == 1
    world.run(Orders(mutants=mutants))


def killed_after_commit(world: World, mutants: tuple[str, ...]) -> None:
    """Killed when a batch is whole; then on."""
    world.send(60)
    world.run(Orders(point="committed", nth=2, mutants=mutants))
    world.run(Orders(mutants=mutants))


def half_batch_then_lost_checkpoint(world: World, mutants: tuple[str, ...]) -> None:
    """A batch reaches some tables, the checkpoint is lost; the next start has only the tables."""
    world.send(60)
    assert not world.run(Orders(point="between_commits", nth=2, subset=0b1001, mutants=mutants))
    forget_checkpoint(world)
    world.run(Orders(mutants=mutants))


def half_batch_then_other_suite(world: World, mutants: tuple[str, ...]) -> None:
    """A batch reaches some tables; the suite that judges the next start is another one."""
    world.send(60)
    # By name: bronze, gold, quarantine, silver.
    assert not world.run(Orders(point="between_commits", nth=2, subset=0b1001, mutants=mutants))
    world.slowest_ms = 300.0
    world.run(Orders(mutants=mutants))


def maintained_half_batch(world: World, mutants: tuple[str, ...]) -> None:
    """Enough files to merge, a half-committed batch, a pass of maintenance, and on."""
    for _ in range(2):
        world.send(120)
        world.run(Orders(mutants=mutants))
        world.maintain(Orders(mutants=mutants))
    world.send(60)
    killed = not world.run(Orders(point="between_commits", nth=3, subset=0b1000, mutants=mutants))
    assert killed or mutants
    world.maintain(Orders(mutants=mutants))
    world.run(Orders(mutants=mutants))


SCENARIOS: dict[str, Scenario] = {
    "chain_check_removed": two_drivers,
    "version_check_removed": two_drivers,
    "spark_commits_first": killed_after_commit,
    "half_batch_not_finished": half_batch_then_lost_checkpoint,
    "verdict_made_twice": half_batch_then_other_suite,
    **{name: maintained_half_batch for name, mutant in MUTANTS.items() if mutant.side == "maintenance"},
}
"""The others are noticed in a steady run."""


def red(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if not check.ok}


@pytest.mark.parametrize(
    "scenario",
    sorted({steady, *SCENARIOS.values()}, key=lambda each: each.__name__),
    ids=lambda scenario: scenario.__name__,
)
def test_a_scenario_without_a_mutant_is_green(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    scenario(world, ())
    assert red(world.check(monkeypatch)) == set(), world.endings
    assert world.endings == []


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_noticed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    SCENARIOS.get(name, steady)(world, (name,))
    checks = world.check(monkeypatch)
    assert MUTANTS[name].red in red(checks), (checks, world.endings)


@pytest.mark.parametrize("name", POINTS)
def test_every_point_is_reached_and_a_kill_there_costs_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    # Something to clean up, and something to vacuum.
    world.send(300)
    world.run()
    world.maintain(hours_later=0.1)
    for nth in range(1, 1 + min(POINTS[name].most, 3)):
        orders = Orders(point=name, nth=nth, subset=0b0101)
        world.send(120)
        reached = not world.run(orders)
        if POINTS[name].side == "maintenance":
            reached = not world.maintain(orders)
        assert reached, f"{name} was not reached"
    world.run()
    world.maintain()
    assert red(world.check(monkeypatch)) == set()
    assert world.endings == []


def test_every_check_can_turn_red() -> None:
    # `ledger` and `order` are about the topic and the producer: test_torture.py turns them red.
    noticed = {mutant.red for mutant in MUTANTS.values()}
    assert noticed | {"ledger", "order"} == set(CHECKS)
