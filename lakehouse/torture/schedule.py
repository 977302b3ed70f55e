"""What happens to the victims, step by step: a pure function of the seed."""

from __future__ import annotations

import hashlib
import random
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import orjson

from lakehouse.errors import ConfigError
from lakehouse.torture.points import POINTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Trouble(StrEnum):
    """Faults that are not a place in the code. Each ends with a SIGKILL of the victim, like the points."""

    VICTIM_KILL = "victim_kill"
    VICTIM_PAUSE = "victim_pause"
    BROKER_KILL = "broker_kill"
    BROKER_PAUSE = "broker_pause"
    DISK_FULL = "disk_full"


class Aside(StrEnum):
    """What the producer does beside a step: none of it may show in the tables otherwise than it should."""

    DUPLICATES = "duplicates"
    TRANSACTION_COMMIT = "transaction_commit"
    TRANSACTION_ABORT = "transaction_abort"
    TRANSACTION_HANG = "transaction_hang"
    CLOCK_BACK = "clock_back"
    CLOCK_AHEAD = "clock_ahead"
    CLOCK_TOO_FAR_AHEAD = "clock_too_far_ahead"


_WEIGHTS: dict[str, int] = {
    **dict.fromkeys(POINTS, 4),
    Trouble.VICTIM_KILL: 12,
    Trouble.BROKER_KILL: 3,
    Trouble.DISK_FULL: 3,
    Trouble.VICTIM_PAUSE: 1,
    Trouble.BROKER_PAUSE: 1,
}
"""How often each fault is in one deck. Pauses outlast the clients' timeouts and cost a step 15 s each."""
_ASIDES: dict[Aside, int] = {aside: 1 if aside is Aside.TRANSACTION_HANG else 4 for aside in Aside}
_ASIDE_CHANCE = 0.5
_LONGEST_KILL_S = 14.0
"""A start takes less, so that a random moment also falls into Python's imports and the JVM's start."""
_DISK_LEFT = (0, 700, 4_096, 32_768)
"""Bytes up to which a file may grow on a full disk: none, a part of a commit, of a data file, nearly all."""

FAULTS = tuple(_WEIGHTS)
"""Every fault by name, as `--faults` takes them."""


@dataclass(frozen=True)
class Step:
    """One fault, and what the producer does meanwhile.

    Attributes:
        number: from 0.
        fault: a key of `POINTS`, or a `Trouble`.
        nth: occurrence of the point at which the victim dies.
        subset: from it follows which tables get the batch, however many there are.
        delay_s: from the victim's start to a random kill.
        bytes_left: size of the largest file on a full disk.
        aside: what the producer does.
        size: of how many events.
    """

    number: int
    fault: str
    nth: int
    subset: int
    delay_s: float
    bytes_left: int
    aside: Aside | None
    size: int


def schedule(seed: int, kills: int, faults: Sequence[str] = FAULTS) -> list[Step]:
    """The steps of a run. Each fault comes in its share of every deck, so a short run meets most of them.

    Raises:
        ConfigError: a fault has no such name.
    """
    for name in faults:
        if name not in _WEIGHTS:
            raise ConfigError(
                f"there is no fault named {name!r}", where="--faults", remedy=f"choose among: {', '.join(FAULTS)}"
            )
    dice = random.Random(seed)  # noqa: S311 - a schedule, not a secret
    decks = _decks(dice, faults)
    return [_step(dice, number, next(decks)) for number in range(kills)]


def _decks(dice: random.Random, faults: Sequence[str]) -> Iterator[str]:
    while True:
        # One of each first, in random order; then the rest of the weights.
        deck = [name for name in faults for _ in range(_WEIGHTS[name] - 1)]
        first = list(faults)
        dice.shuffle(first)
        dice.shuffle(deck)
        yield from first
        yield from deck


def _step(dice: random.Random, number: int, fault: str) -> Step:
    # Every figure is drawn for every step, so that one step's kind does not shift the next one's figures.
    most = POINTS[fault].most if fault in POINTS else 1
    nth = 1 + int(dice.random() ** 2 * most)
    subset = dice.getrandbits(16)
    delay_s = round(dice.uniform(0.05, _LONGEST_KILL_S), 2)
    bytes_left = dice.choice(_DISK_LEFT)
    beside = dice.choices(list(_ASIDES), list(_ASIDES.values()))[0]
    aside = beside if dice.random() < _ASIDE_CHANCE else None
    return Step(number, fault, nth, subset, delay_s, bytes_left, aside, size=dice.randint(20, 300))


def digest(steps: list[Step]) -> str:
    """The same for the same schedule: what two runs of one seed have to agree in."""
    return hashlib.sha256(orjson.dumps([asdict(step) for step in steps])).hexdigest()[:16]
