"""What follows from an alert's readings over time: inactive, pending, firing. Pure, with the clock as an argument."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from datetime import timedelta

    from lakehouse.alerts.conditions import Reading

State: TypeAlias = Literal["inactive", "pending", "firing"]
Told: TypeAlias = Literal["firing", "resolved"]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an alert stands.

    Attributes:
        state: pending while its condition has not held for long enough.
        since_s: when its condition began to hold, seconds since 1970 UTC; of an inactive one, when it ended.
        told_s: when it was last told to people that it fires; None where they know nothing.
    """

    state: State = "inactive"
    since_s: float = 0.0
    told_s: float | None = None


def advance(standing: Standing, reading: Reading, hold_for: timedelta, now_s: float) -> Standing:
    """The standing after a reading; one that says nothing changes nothing."""
    if reading.active is None:
        return standing
    if not reading.active:
        return standing if standing.state == "inactive" else replace(standing, state="inactive", since_s=now_s)
    since_s = now_s if standing.state == "inactive" else standing.since_s
    holds = standing.state == "firing" or now_s - since_s >= hold_for.total_seconds()
    return replace(standing, state="firing" if holds else "pending", since_s=since_s)


def tell(standing: Standing, now_s: float, *, silenced: bool, repeat_every: timedelta) -> tuple[Standing, Told | None]:
    """What people have to be told, and the standing once they are.

    An alert is told once when it fires, again after `repeat_every`, and once when it is over; not while it is
    silenced. One that fires beyond its silence is told then. Of one that they never heard of, they do not hear the end.
    """
    if standing.state == "firing":
        again_s = repeat_every.total_seconds()
        due = standing.told_s is None or (again_s > 0 and now_s - standing.told_s >= again_s)
        return (replace(standing, told_s=now_s), "firing") if due and not silenced else (standing, None)
    if standing.state == "inactive" and standing.told_s is not None:
        return replace(standing, told_s=None), None if silenced else "resolved"
    return standing, None
