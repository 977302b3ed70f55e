"""What changes the sum: each input halved and doubled, what would save most, where another system costs the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakehouse.cost.model import batch_seconds, druid_lines, lake_lines, stream_lines, total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lakehouse.cost.inputs import Inputs
    from lakehouse.cost.model import Shape

_VARIED = (
    "event_bytes",
    "replication",
    "consumer_groups",
    "local_days",
    "retained_months",
    "gold_months",
    "compression",
    "rollup_ratio",
    "viewers",
    "pollers",
    "poll_s",
)
_GRID = [10 ** (step / 50) for step in range(401)]
"""1 to 100 million, 4.7 % from one point to the next."""
_LEAST_SAVING = 1.0


@dataclass(frozen=True)
class Sensitivity:
    """What half and twice an input do to the monthly sum, in dollars."""

    name: str
    value: float
    halved: float
    doubled: float


@dataclass(frozen=True)
class Advice:
    """A change: dollars a month that it saves, and what it costs otherwise."""

    what: str
    saves: float
    but: str


@dataclass(frozen=True)
class BreakEven:
    """Where Flink and Druid behind the same Kafka cost as much.

    Attributes:
        by: `rate` (events/s) or `viewers`, all else equal.
        value: the smallest above the given one, to 5 %, at which the other is cheaper; None up to 100 million.
        cheaper_now: `lakehouse` or `druid and flink`, at the given rate and viewers.
    """

    by: str
    value: float | None
    cheaper_now: str


def monthly(shape: Shape, rate: float, inputs: Inputs) -> float:
    """Dollars a month of everything."""
    return total(stream_lines(rate, inputs)) + total(lake_lines(shape, rate, inputs))


def sensitivity(shape: Shape, rate: float, inputs: Inputs) -> list[Sensitivity]:
    """Every input that a user can change, by how much it moves the sum."""
    now = monthly(shape, rate, inputs)

    def varied(name: str, value: float, at: Callable[[float], float]) -> Sensitivity:
        return Sensitivity(name, value, at(value / 2) - now, at(value * 2) - now)

    seconds = batch_seconds(shape, inputs)
    found = [
        varied("rate", rate, lambda value: monthly(shape, value, inputs)),
        varied("trigger", seconds, lambda value: monthly(*_triggered(shape, inputs, value, rate))),
    ]

    def by_input(name: str) -> Callable[[float], float]:
        return lambda value: monthly(shape, rate, inputs.having("varied", **{name: value}))

    found += [varied(name, inputs[name], by_input(name)) for name in _VARIED if inputs[name]]
    return sorted(found, key=lambda one: -max(abs(one.halved), abs(one.doubled)))


def _triggered(shape: Shape, inputs: Inputs, seconds: float, rate: float) -> tuple[Shape, float, Inputs]:
    return shape.having(interval_s=seconds), rate, inputs.having("varied", batch_s=min(seconds, inputs["batch_s"]))


def advise(shape: Shape, rate: float, inputs: Inputs) -> list[Advice]:
    """Changes that save a dollar a month or more, the largest first."""
    now = monthly(shape, rate, inputs)
    found = [
        Advice(what, now - monthly(other, rate, given), but) for what, other, given, but in _options(shape, inputs)
    ]
    return sorted((one for one in found if one.saves >= _LEAST_SAVING), key=lambda one: -one.saves)


def _options(shape: Shape, inputs: Inputs) -> Iterator[tuple[str, Shape, Inputs, str]]:
    seconds = batch_seconds(shape, inputs)
    for slower in (1.0, 10.0):
        if slower > seconds:
            yield (
                f"trigger.interval {slower:g}s",
                shape.having(interval_s=slower),
                inputs,
                f"an event is visible up to {slower - seconds:g} s later",
            )
    days, tiered = inputs["local_days"], inputs["tiered_days"]
    if days > 1:
        given = inputs.having("advice", local_days=1, tiered_days=max(days, tiered))
        yield (
            "1 day on Kafka's disks, the rest tiered (KIP-405)",
            shape,
            given,
            "old records are read from the object store",
        )
    if inputs["follower_fetch"] < 1:
        given = inputs.having("advice", follower_fetch=1)
        yield (
            "read from a replica in the own zone (client.rack, KIP-392)",
            shape,
            given,
            "a follower's records come a little later",
        )
    if inputs["pollers"] > 1:
        given = inputs.having("advice", pollers=1)
        yield "one follower for all viewers", shape, given, "one process serves them all"
    months = inputs["retained_months"]
    if months:
        given = inputs.having("advice", retained_months=months / 2)
        yield f"keep events {months / 2:g} months", shape, given, "older events are gone; rollups stay"
    if months > 1 and not inputs["cold_after_months"]:
        given = inputs.having("advice", cold_after_months=1)
        yield "a cold tier after 1 month", shape, given, "reading from there costs by the GB; no line has that"
    fast = {"put_1000": "express_put_1000", "get_1000": "express_get_1000", "store_gb_month": "express_gb_month",
            "upload_gb": "express_upload_gb"}  # fmt: skip
    given = inputs.having("advice", **{name: inputs[other] for name, other in fast.items()})
    yield "tables in S3 Express One Zone", shape, given, "one zone keeps them, and loses them"


def break_even(shape: Shape, rate: float, inputs: Inputs) -> list[BreakEven]:
    """By rate and by viewers."""

    def gap(at_rate: float, viewers: float) -> float:
        given = inputs.having("varied", viewers=viewers)
        return total(lake_lines(shape, at_rate, given)) - total(druid_lines(shape, at_rate, given))

    now = gap(rate, inputs["viewers"])
    cheaper = "lakehouse" if now <= 0 else "druid and flink"

    def first(by: Callable[[float], float], start: float) -> float | None:
        return next((value for value in _GRID if value > start and (by(value) > 0) != (now > 0)), None)

    return [
        BreakEven("rate", first(lambda value: gap(value, inputs["viewers"]), rate), cheaper),
        BreakEven("viewers", first(lambda value: gap(rate, value), inputs["viewers"]), cheaper),
    ]
