"""Plans a load: which record is due when. Fixed by the load and its start, whatever Kafka does meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lakehouse.errors import ConfigError
from lakehouse.load.events import BLOCK, Longs, dice_for, lateness, mix
from lakehouse.load.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lakehouse.load.events import Generator

_DAY_S = 86_400
_QUIETEST_HOUR = 3
_DAILY_SWING = 0.35
"""The life shape runs from 0.65 of the mean rate at 03:00 UTC to 1.35 at 15:00."""
_SURGE_SLOT_S = 10
_SURGE_S = 3
_SURGE_CHANCE = 0.08
_SURGE_SIZE = (1.5, 3.0)
"""In one of twelve slots of 10 s the first 3 s bring 1.5 to 3 times the events."""
_PACE_S = 64
"""Seconds of the life shape that are laid out at a time."""


@dataclass(frozen=True)
class Load:
    """What to send. Two loads that are equal, and start at the same moment, are the same bytes.

    Attributes:
        events: draws them.
        rate: mean events per second.
        seconds: how long, or None for ever. Scheduled time: a stall does not prolong it.
        count: how many events, or None for as many as the seconds bring.
        seed: of everything random. A second load with the same seed repeats its event ids.
        bad_share: of the events, spoiled on purpose.
        late_share: of the events, with a time that lies seconds to minutes in the past.
        shape: `flat` spaces events evenly; `life` follows the hour of the day and has surges.
        faults: the kinds among which bad events are shared evenly.
        partitions: of the topic, where it must be made.
        linger_ms: how long the client waits to fill a request.
        compression: `none`, `lz4`, `zstd`, `snappy` or `gzip`.
        keep_ledger: remember where each bad record was stored.

    Raises:
        ConfigError: a value is outside its range.
    """

    events: Generator
    rate: float = 1_000.0
    seconds: float | None = None
    count: int | None = None
    seed: int = 0
    bad_share: float = 0.02
    late_share: float = 0.01
    shape: Literal["life", "flat"] = "life"
    faults: tuple[Fault, ...] = tuple(Fault)
    partitions: int = 4
    linger_ms: float = 5.0
    compression: str = "lz4"
    keep_ledger: bool = False

    def __post_init__(self) -> None:
        for name, is_right, wanted in (
            ("rate", 0 < self.rate < float("inf"), "above 0 and finite"),
            ("seconds", self.seconds is None or self.seconds > 0, "above 0"),
            ("count", self.count is None or self.count > 0, "1 or more"),
            ("seed", self.seed >= 0, "0 or more"),
            ("bad_share", 0 <= self.bad_share <= 1, "between 0 and 1"),
            ("late_share", 0 <= self.late_share <= 1, "between 0 and 1"),
            ("shape", self.shape in ("life", "flat"), "life or flat"),
            ("faults", bool(self.faults) or self.bad_share == 0, "at least one kind, or bad_share 0"),
            ("partitions", self.partitions > 0, "1 or more"),
            ("linger_ms", self.linger_ms >= 0, "0 or more"),
        ):
            if not is_right:
                raise ConfigError(f"{name} of the load is {getattr(self, name)!r}; it must be {wanted}.", where=name)


@dataclass(frozen=True)
class Block:
    """Records that follow one another: when each is due (ms since 1970, ascending), and what it holds.

    Attributes:
        due: scheduled send time of each record, which also is its timestamp in Kafka.
        keys: of the records, in decimal digits.
        values: in the source's format, or what a fault has made of it; None is Kafka's null.
        bad: position in the block and fault of each spoiled record.
        late: positions of the good records whose event time lies in the past.
    """

    due: Longs
    keys: list[bytes]
    values: list[bytes | None]
    bad: dict[int, Fault]
    late: frozenset[int]

    def __len__(self) -> int:
        return len(self.keys)


def blocks(load: Load, start_ms: int) -> Iterator[Block]:
    """The records of the whole load in the order of sending; endless where the load is.

    Args:
        load: what to send.
        start_ms: when the first is due, milliseconds since 1970, UTC.
    """
    for number, due in enumerate(due_times(load, start_ms)):
        first = number * BLOCK
        size = BLOCK if load.count is None else min(BLOCK, load.count - first)
        if load.seconds is not None:
            size = min(size, int(np.searchsorted(due, start_ms + round(load.seconds * 1000))))
        if size > 0:
            yield _block(load, number, due, size)
        if size < BLOCK:
            return


def due_times(load: Load, start_ms: int) -> Iterator[Longs]:
    """Scheduled send times of `BLOCK` records after `BLOCK` records, ms since 1970; endless."""
    return _flat(load.rate, start_ms) if load.shape == "flat" else _life(load, start_ms)


def _block(load: Load, number: int, due: Longs, size: int) -> Block:
    faults = _faults(load, number)
    late_by = lateness(load.seed, number, load.late_share)
    # A bad record has one fault and nothing else: a late one in the future would be neither.
    late_by[list(faults)] = 0
    content = load.events.draw(load.seed, number, load.rate)
    values: list[bytes | None] = list(load.events.render(content, due - late_by))
    for position, (fault, pick) in faults.items():
        values[position] = load.events.spoil(fault, values[position] or b"", pick)
    return Block(
        due=due[:size],
        keys=content.keys[:size],
        values=load.events.encoded(values[:size]),
        bad={position: fault for position, (fault, _) in faults.items() if position < size},
        late=frozenset(np.flatnonzero(late_by[:size]).tolist()),
    )


def _faults(load: Load, number: int) -> dict[int, tuple[Fault, int]]:
    dice = dice_for(load.seed, 4, number)
    positions = np.flatnonzero(dice.random(BLOCK) < load.bad_share).tolist()
    if not positions:
        return {}
    kinds = dice.integers(len(load.faults), size=len(positions)).tolist()
    picks = dice.integers(2**32, size=len(positions)).tolist()
    return {position: (load.faults[kind], pick) for position, kind, pick in zip(positions, kinds, picks, strict=True)}


def _flat(rate: float, start_ms: int) -> Iterator[Longs]:
    numbers = np.arange(BLOCK, dtype=np.int64)
    while True:
        yield start_ms + np.floor(numbers * (1000.0 / rate)).astype(np.int64)
        numbers = numbers + BLOCK


def _life(load: Load, start_ms: int) -> Iterator[Longs]:
    """Within a second events are evenly spaced; each second holds as many as the pace wants."""
    first, second = 0, 0
    edges, due_by = np.array([0.0]), np.array([0.0])
    while True:
        while due_by[-1] < first + BLOCK:
            paces = load.rate * pace(load.seed, np.arange(second, second + _PACE_S), start_ms)
            second += _PACE_S
            edges = np.concatenate([edges, np.arange(second - _PACE_S + 1, second + 1)])
            due_by = np.concatenate([due_by, due_by[-1] + np.cumsum(paces)])
        seconds = np.interp(np.arange(first, first + BLOCK), due_by, edges)
        yield start_ms + np.floor(seconds * 1000).astype(np.int64)
        first += BLOCK
        past = max(int(np.searchsorted(due_by, first)) - 1, 0)
        edges, due_by = edges[past:], due_by[past:]


def pace(seed: int, seconds: Longs, start_ms: int) -> NDArray[np.float64]:
    """Rate of each second after the start, relative to the mean rate of a whole day."""
    of_day = (start_ms / 1000 + seconds) % _DAY_S / _DAY_S
    daily = 1 - _DAILY_SWING * np.cos(2 * np.pi * (of_day - _QUIETEST_HOUR / 24))
    slot = seconds // _SURGE_SLOT_S
    low, high = _SURGE_SIZE
    is_surge = (_chance(seed, 2 * slot) < _SURGE_CHANCE) & (seconds % _SURGE_SLOT_S < _SURGE_S)
    surge = np.where(is_surge, low + (high - low) * _chance(seed, 2 * slot + 1), 1.0)
    mean_surge = 1 + _SURGE_CHANCE * _SURGE_S / _SURGE_SLOT_S * ((low + high) / 2 - 1)
    return np.asarray(daily * surge / mean_surge)


def _chance(seed: int, numbers: Longs) -> NDArray[np.float64]:
    """A random number in [0, 1) for each number, the same at each call."""
    scattered = mix(numbers + mix(np.array([seed])).astype(np.int64))
    return (scattered >> np.uint64(11)).astype(np.float64) * 2.0**-53
