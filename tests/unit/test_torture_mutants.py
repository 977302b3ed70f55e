"""The harness notices: every error that someone could make turns a check red, and the same scenario without it none."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """A driver sleeps after it has planned a batch; another one is started, from the same checkpoint."""

    def other() -> None:
        world.run(Orders(mutants=mutants))

    _beside_a_sleeping_driver(world, mutants, other)


def two_drivers_on_two_machines(world: World, mutants: tuple[str, ...]) -> None:
    """The same without a lock between them: the other driver commits the batch that was planned."""
    two_drivers(world, (*mutants, "driver_lock_removed"))


def two_drivers_in_step(world: World, mutants: tuple[str, ...]) -> None:
    """The other driver, of another suite, has committed the batch to the first table only when the first one wakes."""
    mutants = (*mutants, "driver_lock_removed")

    def other() -> None:
        world.slowest_ms = 300.0
        assert not world.run(Orders(point="between_commits", subset=0, mutants=mutants))
        world.slowest_ms = 900.0

    _beside_a_sleeping_driver(world, mutants, other)


def _beside_a_sleeping_driver(world: World, mutants: tuple[str, ...], other: Callable[[], None]) -> None:
    world.send(30)
    world.run(Orders(mutants=mutants))
    world.send(10)

    def meanwhile() -> None:
        world.on_plan = lambda: None
        with kept_checkpoint(world):
            other()

    world.on_plan = meanwhile
    world.run(Orders(mutants=mutants))
    # The one that was refused is started again, as its owner would.
    start_again(world, mutants, refused="driver")


def old_checkpoint(world: World, mutants: tuple[str, ...]) -> None:
    """A checkpoint is restored from a backup, some batches old."""
    world.send(30)
    world.run(Orders(mutants=mutants))
    world.send(60)
    with kept_checkpoint(world):
        world.run(Orders(mutants=mutants))
    world.run(Orders(mutants=mutants))
    forget_checkpoint(world)
    start_again(world, mutants, refused="covers|one of them is an old copy")


def elsewhere_at_start(world: World, mutants: tuple[str, ...]) -> None:
    """At a start the servers' name leads to another cluster."""
    world.send(30)
    world.run(Orders(mutants=mutants))
    back = world.lead_elsewhere()
    world.run(Orders(mutants=mutants))
    back()
    world.send(60)
    start_again(world, mutants, refused="was deleted and made anew")


def elsewhere_between_batches(world: World, mutants: tuple[str, ...]) -> None:
    """While a query runs, the servers' name leads to another cluster from its second batch on."""
    world.send(30)
    back: list[Callable[[], None]] = []

    def change() -> None:
        if (world.checkpoint / "commits" / "0").exists() and not back:
            back.append(world.lead_elsewhere())

    world.between_batches = change
    world.run(Orders(mutants=mutants))
    back[0]()
    world.send(60)
    start_again(world, mutants, refused="was deleted and made anew")


@contextmanager
def kept_checkpoint(world: World) -> Iterator[None]:
    """The checkpoint is afterwards what it was before."""
    kept = world.root / "kept"
    shutil.copytree(world.checkpoint, kept)
    yield
    shutil.rmtree(world.checkpoint)
    kept.rename(world.checkpoint)


def start_again(world: World, mutants: tuple[str, ...], *, refused: str) -> None:
    """A run was refused once, for this reason; its owner starts it again."""
    endings, world.endings = world.endings, []
    if all(MUTANTS[name].red is None for name in mutants):
        assert len(endings) == 1
        assert re.search(refused, endings[0])
    world.run(Orders(mutants=mutants))


def killed_after_commit(world: World, mutants: tuple[str, ...]) -> None:
    """Killed when a batch is whole; then on."""
    world.send(60)
    world.run(Orders(point="committed", nth=2, mutants=mutants))
    world.run(Orders(mutants=mutants))


def half_batch_then_lost_checkpoint(world: World, mutants: tuple[str, ...]) -> None:
    """A batch reaches some tables, the checkpoint is lost; the next start has only the tables."""
    world.send(60)
    # Of the other tables (quarantine, bronze, gold) the last two.
    assert not world.run(Orders(point="between_commits", nth=2, subset=0b110, mutants=mutants))
    forget_checkpoint(world)
    world.run(Orders(mutants=mutants))


def half_batch_then_other_suite(world: World, mutants: tuple[str, ...]) -> None:
    """A batch reaches some tables; the suite that judges the next start is another one."""
    world.send(60)
    assert not world.run(Orders(point="between_commits", nth=2, subset=0b110, mutants=mutants))
    world.slowest_ms = 300.0
    world.run(Orders(mutants=mutants))


def killed_while_finishing(world: World, mutants: tuple[str, ...]) -> None:
    """A batch reaches the first table only; the starts that finish it are killed after each table."""
    world.send(60)
    assert not world.run(Orders(point="between_commits", nth=2, subset=0, mutants=mutants))
    for _ in range(3):
        assert not world.run(Orders(point="half_put", mutants=mutants))
    world.run(Orders(mutants=mutants))


def maintained_half_batch(world: World, mutants: tuple[str, ...]) -> None:
    """Enough files to merge, a half-committed batch, a pass of maintenance, and on."""
    for _ in range(2):
        world.send(120)
        world.run(Orders(mutants=mutants))
        world.maintain(Orders(mutants=mutants))
    world.send(60)
    killed = not world.run(Orders(point="between_commits", nth=3, subset=0, mutants=mutants))
    assert killed or mutants
    world.maintain(Orders(mutants=mutants))
    world.run(Orders(mutants=mutants))


SCENARIOS: dict[str, Scenario] = {
    "chain_check_removed": two_drivers_on_two_machines,
    "version_check_removed": two_drivers_on_two_machines,
    "driver_lock_removed": two_drivers,
    "first_table_decides_nothing": two_drivers_in_step,
    "checkpoint_check_removed": old_checkpoint,
    "topic_id_not_checked": elsewhere_at_start,
    "topic_not_watched": elsewhere_between_batches,
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
    sorted({steady, killed_while_finishing, *SCENARIOS.values()}, key=lambda each: each.__name__),
    ids=lambda scenario: scenario.__name__,
)
def test_a_scenario_without_a_mutant_is_green(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    scenario(world, ())
    assert red(world.check(monkeypatch)) == set(), world.endings
    assert world.endings == []


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.red])
def test_a_mutant_is_noticed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    SCENARIOS.get(name, steady)(world, (name,))
    checks = world.check(monkeypatch)
    assert MUTANTS[name].red in red(checks), (checks, world.endings)


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if not mutant.red])
def test_the_chain_makes_good_for_a_mutant(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "with the chain")
    SCENARIOS[name](world, (name,))
    assert red(world.check(monkeypatch)) == set(), world.endings
    assert world.endings == []
    world = World(tmp_path / "without")
    SCENARIOS[name](world, (name, "chain_check_removed"))
    assert "positions" in red(world.check(monkeypatch))


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
    noticed = {mutant.red for mutant in MUTANTS.values() if mutant.red}
    assert noticed | {"ledger", "order"} == set(CHECKS)
