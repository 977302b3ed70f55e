"""How often pages refresh when there are more viewers than the machine can serve: rarer for all, and told to each."""

from __future__ import annotations

import threading
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CORE = 0.7
"""Share of a core that refreshes may take: beyond it they wait for each other, and hold up the followers."""
PART = 0.5
"""Share of its interval that a refresh may take."""
LOOK_S = 2.0
LOOK_REFRESHES = 4
"""From one look at the costs to the next, at least: a single refresh that had to wait says nothing."""
SETTLE_S = 8.0
"""After a change nothing is measured for so long: pages take the new interval one by one, with their next refresh."""
GROWTH = 2.0
"""In one look intervals become at most so many times as long."""
GONE_S = 15.0
"""A page that has not refreshed for so long, and for three of its intervals, is closed."""
LADDER = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0)
"""The intervals there are: a page says its own to its viewer, who should not see it follow every wave."""
SPREAD = 0.1
"""Each page's timer is up to so much slower or faster than the interval. With equal ones, pages that once refreshed at
the same moment, as all do after a change, would go on to do so and wait for each other each time."""
SHRINK = 0.7
"""Intervals become shorter only where so much of the room is enough."""


@dataclass(slots=True)
class _Look:
    """What was measured since a moment."""

    at_s: float
    cpu_s: float
    walls_s: list[float] = field(default_factory=list)
    """How long each refresh took."""


@dataclass(frozen=True, slots=True)
class _Viewer:
    seen_s: float
    chosen_s: float


@dataclass(slots=True)
class Pace:
    """The cost of refreshes, measured, and the interval that follows from it.

    Attributes:
        clock: seconds, monotonic.
        cpu: seconds that the process has computed, without what it does whether anybody looks or not.
    """

    clock: Callable[[], float] = time.monotonic
    cpu: Callable[[], float] = time.process_time
    factor: float = 1.0
    """All intervals are this many times as long as they were chosen."""
    _viewers: dict[str, _Viewer] = field(default_factory=dict)
    _look: _Look | None = None
    _settled_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def refresh(self, viewer: str, chosen_s: float) -> Iterator[None]:
        """Around a refresh of the page of `viewer`, who has chosen an interval of `chosen_s`."""
        began = self.clock()
        try:
            yield
        finally:
            self._refreshed(viewer, chosen_s, began)

    def interval(self, chosen_s: float) -> float:
        """Seconds from one refresh to the next, for somebody who has chosen `chosen_s`."""
        wanted = chosen_s * self.factor
        return (
            chosen_s
            if self.factor <= 1
            else next((step for step in LADDER if step >= wanted), max(LADDER[-1], chosen_s))
        )

    def timer(self, viewer: str, interval_s: float) -> float:
        """Seconds from one refresh of this viewer's page to the next, where the interval is `interval_s`."""
        share = zlib.crc32(viewer.encode()) / 0xFFFF_FFFF
        return interval_s * (1 + SPREAD * (2 * share - 1))

    @property
    def viewers(self) -> int:
        """Pages that are open and refresh."""
        return len(self._viewers)

    def _refreshed(self, viewer: str, chosen_s: float, began: float) -> None:
        now = self.clock()
        with self._lock:
            self._viewers[viewer] = _Viewer(now, chosen_s)
            if began < self._settled_s:
                return
            look = self._look = self._look or _Look(began, self.cpu())
            look.walls_s.append(now - began)
            if now - look.at_s >= LOOK_S and len(look.walls_s) >= LOOK_REFRESHES:
                self._weigh(look, now)
                self._look = None

    def _weigh(self, look: _Look, now: float) -> None:
        self._viewers = {
            name: one
            for name, one in self._viewers.items()
            if now - one.seen_s <= max(GONE_S, 3 * self.interval(one.chosen_s))
        }
        core_s = (self.cpu() - look.cpu_s) / len(look.walls_s)
        wanted = sum(1 / one.chosen_s for one in self._viewers.values())
        shortest = min(one.chosen_s for one in self._viewers.values())
        needed = max(1.0, wanted * core_s / CORE, median(look.walls_s) / (PART * shortest))
        # Shorter only where it is well below: it must not swing between two intervals.
        if needed > self.factor or needed < self.factor * SHRINK:
            self.factor = min(needed, self.factor * GROWTH, LADDER[-1] / LADDER[0])
            self._settled_s = now + SETTLE_S
