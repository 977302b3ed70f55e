"""How often pages refresh: as chosen while the machine keeps up, rarer when it cannot, and back again."""

from __future__ import annotations

from itertools import pairwise

import pytest

from dashboard.pace import CORE, GONE_S, LADDER, LOOK_S, SPREAD, Pace


class Machine:
    """A clock and a processor that say what they are told."""

    def __init__(self) -> None:
        self.now = self.cpu = 0.0
        self.pace = Pace(clock=lambda: self.now, cpu=lambda: self.cpu)

    def run(self, viewers: int, *, seconds: float, chosen_s: float = 0.5, cost_s: float = 0.001) -> None:
        """Each viewer refreshes at the interval in effect; each refresh takes and computes `cost_s`."""
        end = self.now + seconds
        while self.now < end:
            began = self.now
            for viewer in range(viewers):
                with self.pace.refresh(str(viewer), chosen_s):
                    self.now += cost_s
                    self.cpu += cost_s
            self.now = max(self.now, began + self.pace.interval(chosen_s))


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.mark.parametrize("chosen_s", [0.25, 0.5, 1.0, 5.0])
def test_with_room_everybody_gets_what_they_chose(machine: Machine, chosen_s: float) -> None:
    machine.run(5, seconds=40, chosen_s=chosen_s)
    assert machine.pace.interval(chosen_s) == chosen_s
    assert machine.pace.viewers == 5


def test_too_many_viewers_stretch_the_interval_to_what_fits(machine: Machine) -> None:
    machine.run(100, seconds=60, cost_s=0.010)
    interval = machine.pace.interval(0.5)
    assert interval in LADDER
    # 100 refreshes of 10 ms are a second of computing in each interval.
    assert 1.0 / interval <= CORE < 1.0 / 0.5
    assert interval <= 2.0, "no longer than it has to be"


def test_pages_that_refresh_at_one_moment_do_not_go_on_to(machine: Machine) -> None:
    timers = [machine.pace.timer(f"session-{viewer}", 0.5) for viewer in range(200)]
    assert max(abs(timer - 0.5) for timer in timers) <= 0.5 * SPREAD
    assert abs(sum(timers) / len(timers) - 0.5) < 0.5 * SPREAD / 10
    due = sorted(20 * timer % 0.5 for timer in timers)  # after 10 s
    assert max(after - before for before, after in pairwise(due)) < 0.05, "all over the interval"
    assert machine.pace.timer("session-1", 0.5) == timers[1], "the same after a full run"


def test_a_refresh_that_takes_long_stretches_it_too(machine: Machine) -> None:
    machine.run(1, seconds=20, cost_s=0.0)
    for _ in range(30):
        with machine.pace.refresh("0", 0.5):
            machine.now += 0.6  # waiting, not computing: the machine is busy with something else
    assert machine.pace.interval(0.5) > 1.0


def test_it_returns_when_viewers_leave(machine: Machine) -> None:
    machine.run(100, seconds=30, cost_s=0.010)
    assert machine.pace.interval(0.5) > 0.5
    machine.run(2, seconds=GONE_S + 20 * LOOK_S, cost_s=0.010)
    assert machine.pace.viewers == 2
    assert machine.pace.interval(0.5) == 0.5


def test_it_does_not_swing(machine: Machine) -> None:
    machine.run(100, seconds=30, cost_s=0.008)
    seen = set()
    for _ in range(30):
        machine.run(100, seconds=2, cost_s=0.008)
        seen.add(machine.pace.interval(0.5))
    assert len(seen) == 1


def test_a_refresh_that_fails_is_counted_and_fails(machine: Machine) -> None:
    with pytest.raises(ValueError, match="broken"), machine.pace.refresh("0", 0.5):
        raise ValueError("broken")
    assert machine.pace.viewers == 1
