"""The highest rate that one machine sustains: events stay fresh, and what is unread does not grow.

One stack is driven at one rate after another, each higher than the one before, until a rate fails. The stack stays warm
between them, and each rate begins when everything before it has been read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lakehouse.bench import stack
from lakehouse.bench.stack import running
from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from lakehouse.bench.stack import Events

SETTLE_S = 5.0
"""Cut from the beginning of each rate: the batches that were tuned to the rate before."""
MOST_DRIFT = 0.05
"""Seconds by which events may age per second at a sustained rate: above, the unread records grow for good."""


@dataclass(frozen=True)
class Rate:
    """What one rate came to.

    Attributes:
        rate: events per second, as scheduled.
        sent: events per second that the load really sent.
        p50_ms: age of the events when a version held them, of the table that is worst in p99.
        p99_ms: likewise.
        drift: seconds by which events aged per second while the rate lasted; 0 where it is sustained.
        reason: why it is not sustained; empty where it is.
    """

    rate: float
    sent: float
    p50_ms: float
    p99_ms: float
    drift: float
    reason: str = ""

    @property
    def sustained(self) -> bool:
        """Whether events stayed fresh and their age did not grow."""
        return not self.reason


@dataclass(frozen=True)
class SaturationReport:
    """Every rate that was tried, in order, and what it was measured on."""

    bound_ms: float
    seconds: float
    partitions: int
    rates: list[Rate]
    machine: dict[str, Any] = field(repr=False)
    versions: dict[str, str] = field(repr=False)

    @property
    def highest(self) -> float:
        """The highest rate that was sustained; 0 where none was."""
        return max((rate.rate for rate in self.rates if rate.sustained), default=0.0)

    def __str__(self) -> str:
        lines = [
            (
                f"p99 below {self.bound_ms:,.0f} ms, {self.seconds:.0f} s a rate, {self.partitions} partitions,"
                f" {self.machine['cores']} cores for everything"
            ),
            "",
            f"{'events/s':>10}{'sent/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'drift':>8}",
        ]
        for rate in self.rates:
            verdict = "" if rate.sustained else f"   {rate.reason}"
            lines.append(
                f"{rate.rate:>10,.0f}{rate.sent:>10,.0f}{rate.p50_ms:>9.0f}{rate.p99_ms:>9.0f}{rate.drift:>8.3f}{verdict}"
            )
        return "\n".join([*lines, "", f"highest sustained rate: {self.highest:,.0f} events/s"])


def saturate(
    path: Path,
    *,
    first: float,
    factor: float,
    most: float,
    seconds: float,
    bound_ms: float,
    warm_up: float,
    partitions: int,
    stop: threading.Event,
    say: Callable[[str], None] = lambda _: None,
) -> SaturationReport:
    """Drive one stack at rising rates until one fails.

    Args:
        path: the pipeline's file.
        first: the first rate, events per second.
        factor: of each rate to the one before.
        most: the last rate.
        seconds: that each rate lasts.
        bound_ms: that the p99 of every table has to stay below.
        warm_up: seconds at the first rate before anything is measured.
        partitions: of the topic.
        stop: ends it after the rate that is running.
        say: hears a line per rate.

    Raises:
        LakehouseError: a part of the stack failed.
    """
    rates: list[Rate] = []
    with running(path, partitions) as driven:
        driven.drive(first, warm_up, bad_share=0.02, stop=stop, seed=1)
        driven.await_all()
        rate = first
        while rate <= most and not stop.is_set():
            load = driven.drive(rate, seconds, bad_share=0.02, stop=stop, seed=len(rates) + 2)
            late = ""
            try:
                driven.await_all(timeout_s=2 * seconds)
            except LakehouseError:
                late = "its events were not all read in twice its time"
            tables = {
                name: events.between(load.first_ms + 1_000 * SETTLE_S, load.last_ms)
                for name, events in driven.events().items()
            }
            worst = max(tables.values(), key=lambda events: events.percentile(99))
            rates.append(_judge(rate, load.sent / seconds, worst, bound_ms, late))
            say(f"{rate:,.0f} events/s: p99 {rates[-1].p99_ms:,.0f} ms {rates[-1].reason}")
            if not rates[-1].sustained:
                break
            rate *= factor
    return SaturationReport(bound_ms, seconds, partitions, rates, stack.machine(), stack.versions())


def _judge(rate: float, sent: float, worst: Events, bound_ms: float, late: str) -> Rate:
    p50, p99, drift = worst.percentile(50), worst.percentile(99), drift_of(worst)
    reason = late
    if not reason and not p99 < bound_ms:
        reason = f"p99 is not below {bound_ms:,.0f} ms"
    if not reason and drift > MOST_DRIFT:
        reason = "events grow older and older"
    if not reason and sent < 0.98 * rate:
        reason = "the load could not send so many"
    return Rate(rate, round(sent, 1), round(p50, 1), round(p99, 1), round(drift, 4), reason)


def drift_of(events: Events) -> float:
    """Slope of the events' age over the time at which they were due, s per s; 0 where there are too few to tell."""
    if len(events.sent_ms) < 2 or np.ptp(events.sent_ms) == 0:  # noqa: PLR2004 - a line needs two points
        return 0.0
    return float(np.polyfit(events.sent_ms - events.sent_ms.min(), events.age_ms, 1)[0])
