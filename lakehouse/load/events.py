"""Draws events that look like life, by a `Description`, as finished JSON values.

Everything is a function of the seed and the event's number, so a load can be repeated byte for byte. Events
are drawn in blocks with numpy and joined from fragments that were rendered once: a JSON library would take
several times as long, on the same cores as the broker and the pipeline.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import repeat
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lakehouse.formats.encode import encoder
from lakehouse.load.description import (
    Choice,
    FirstOf,
    Id,
    Lognormal,
    Member,
    Outcome,
    Release,
    Session,
    Time,
    load_description,
)
from lakehouse.load.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from lakehouse.config.models import EventField, Pipeline, Source
    from lakehouse.load.description import Description, PerKind
    from lakehouse.load.faults import Fault

Longs = NDArray[np.int64]
Fragments = NDArray[np.object_]
"""An array of `bytes`, from which numpy picks many by index faster than a list comprehension."""

BLOCK = 1024
"""Events per block. One takes about 1 ms, which is the longest that drawing can hold up sending."""

MIN_LATE_MS = 1_000
MEAN_LATE_MS = 60_000
MAX_LATE_MS = 30 * 60_000
"""How far a late event's own time lies behind its sending: exponential, from a second to half an hour."""

_INCIDENT_SLOT_S = 60
_INCIDENT_CHANCE = 0.15
"""In each minute one kind may have an incident, for 5 to 25 s."""
_MAX_FAILED_SHARE = 0.5
_STEPS = 2_048
"""Distinct values of a `lognormal` field per kind: quantiles of its distribution, equally likely."""


@dataclass(frozen=True)
class Content:
    """One block of events without their times: the Kafka key of each, and the pieces of its JSON value.

    A piece is the bytes that all events have there, a list with those of each, or None where the time stands.
    """

    keys: list[bytes]
    pieces: tuple[bytes | list[bytes] | None, ...]


@dataclass(frozen=True)
class _Block:
    """What the fields of one block are drawn from."""

    seed: int
    dice: np.random.Generator
    numbers: Longs
    nominal: NDArray[np.float64]
    kind: Longs
    troubled: Longs


class Generator:
    """Events of one description.

    Args:
        description: how each field is drawn.
        fields: the event's fields in the order of the record, with their types.
        max_future: how far ahead an event's time is believed; faults go beyond.
        source: where the events go, if the format is not JSON.
    """

    def __init__(
        self,
        description: Description,
        fields: Mapping[str, EventField],
        max_future: timedelta,
        source: Source | None = None,
    ) -> None:
        self.description = description
        self._source = source
        self._names = tuple(fields)
        self._types = {name: field.type for name, field in fields.items()}
        self._time = next(name for name, draw in description.fields.items() if isinstance(draw, Time))
        self._faults = Faults(description.faults, self._time, max_future)
        self._tables: dict[str, Fragments] = {}

    @classmethod
    def beside(cls, pipeline_file: Path, pipeline: Pipeline) -> Generator:
        """The generator of the events that a pipeline reads, by the description beside its file.

        Raises:
            ConfigError: there is no such description, or it does not fit.
        """
        fields = pipeline.source.fields
        source = None if pipeline.source.format == "json" else pipeline.source
        return cls(load_description(pipeline_file, fields), fields, pipeline.event_time.max_future, source)

    def draw(self, seed: int, block: int, rate: float) -> Content:
        """The content of the `BLOCK` events from number `block * BLOCK` on.

        Args:
            seed: of the whole load, 0 or more.
            block: its number, from 0.
            rate: mean events per second. An event's number divided by it is its nominal second, which decides
                about incidents, releases and sessions; so none of them depends on when the load is started.
        """
        dice = dice_for(seed, 0, block)
        numbers = np.arange(block * BLOCK, (block + 1) * BLOCK, dtype=np.int64)
        nominal = numbers / rate
        kind = np.searchsorted(self._popularity, dice.random(BLOCK), side="right")
        troubled = (self.incidents(seed, nominal) == kind).astype(np.int64)
        drawn = _Block(seed, dice, numbers, nominal, kind, troubled)
        members: dict[str, list[bytes]] = {}
        columns = {name: self._column(name, drawn, members) for name in self.description.fields}
        # A field's pieces follow one another in the record, whatever the order of drawing.
        pieces = [piece for name in self._names for piece in columns[name]]
        return Content(members[self.description.key], (*pieces, b"}"))

    def render(self, content: Content, event_times: Longs) -> list[bytes]:
        """The block's JSON objects, with `event_times` in milliseconds since 1970, UTC."""
        times = _times(event_times)
        columns = [
            times if piece is None else repeat(piece) if isinstance(piece, bytes) else piece for piece in content.pieces
        ]
        # The endless columns are the constant ones; the others are of one length.
        return list(map(b"".join, zip(*columns, strict=False)))

    def prepare(self, seed: int) -> None:
        """Render the tables of fragments, which takes about 0.1 s, before the first record is due.

        Raises:
            RegistryUnavailable: the format needs a schema registry, which does not answer.
            ConfigError: the registry refuses the event's schema.
        """
        self.draw(seed, 0, 1.0)
        self.encoded([None])

    def encoded(self, values: list[bytes | None]) -> list[bytes | None]:
        """The values as they are sent, in the format of the source. Raises as `prepare`."""
        return values if self._source is None else [self._encode(value) for value in values]

    @cached_property
    def _encode(self) -> Callable[[bytes | None], bytes | None]:
        assert self._source is not None, "JSON needs no encoder"  # noqa: S101 - asked by `encoded`
        return encoder(self._source)

    def spoil(self, fault: Fault, value: bytes, pick: int) -> bytes | None:
        """The event `value` with this fault in it; None is Kafka's null value."""
        return self._faults.spoil(fault, value, pick)

    def incidents(self, seed: int, nominal: NDArray[np.float64]) -> Longs:
        """For each nominal second the number of the kind that has an incident then, or -1."""
        slot = (nominal // _INCIDENT_SLOT_S).astype(np.int64)
        troubled = np.full(len(nominal), -1, dtype=np.int64)
        for number in np.unique(slot).tolist():
            kind, start_s, end_s = _incident(seed, number, tuple(self._popularity.tolist()))
            within = nominal - number * _INCIDENT_SLOT_S
            troubled[(slot == number) & (within >= start_s) & (within < end_s)] = kind
        return troubled

    def members(self, name: str) -> tuple[str, ...]:
        """The values that a field may have, where they are a few texts; else empty."""
        match self.description.fields[name]:
            case Choice() as draw:
                return tuple(draw.weights)
            case FirstOf() as draw:
                return tuple(value for kind in self.description.kinds for value in draw.values[kind])
            case Outcome() as draw:
                return (draw.usual, draw.failed)
            case _:
                return ()

    @property
    def _popularity(self) -> NDArray[np.float64]:
        leading = self.description.fields[self.description.kind]
        return _bounds(tuple(leading.weights.values())) if isinstance(leading, Choice) else _bounds((1.0,))

    def _column(
        self, name: str, block: _Block, members: dict[str, list[bytes]]
    ) -> tuple[bytes | list[bytes] | None, ...]:
        """The pieces of one field, its name included."""
        draw, dice, head = self.description.fields[name], block.dice, self._head(name)
        pieces: tuple[bytes | list[bytes] | None, ...]
        match draw:
            case Id():
                pieces = head + b'"', event_ids(block.seed, block.numbers), b'"'
            case Time():
                pieces = head + b'"', None, b'Z"'
            case Choice():
                position = block.kind if name == self.description.kind else _choose(draw, dice)
                pieces = (self._pick(name, position),)
            case FirstOf():
                pieces = (self._pick(name, self._first_of(draw, block)),)
            case Member():
                busy = np.searchsorted(_zipf(draw.count, draw.zipf), dice.random(BLOCK), side="right")
                members[name] = _pick(_numbers(draw.first, draw.count), _ranks(block.seed, draw.count)[busy])
                quote = b'"' if self._types[name] == "string" else b""
                pieces = head + quote, members[name], quote
            case Session():
                session = (block.nominal // draw.every_s).astype(np.int64)
                pieces = head + b'"', members[draw.of], _texts(session, lambda number: f'-{number}"')
            case Release():
                newer = dice.random(BLOCK) < (block.nominal % draw.every_s) / draw.every_s
                release = (block.nominal // draw.every_s).astype(np.int64) + newer
                major = draw.major
                pieces = head, _texts(release, lambda number: f'"{major}.{number // 10}.{number % 10}"')
            case Outcome():
                share = self._per_kind(draw.share)[block.kind]
                share = np.minimum(share * np.where(block.troubled, draw.incident, 1.0), _MAX_FAILED_SHARE)
                pieces = (self._pick(name, (dice.random(BLOCK) < share).astype(np.int64)),)
            case Lognormal():
                pieces = (self._pick(name, self._amount(draw, block)),)
        return pieces

    def _first_of(self, draw: FirstOf, block: _Block) -> Longs:
        counts = np.array([len(draw.values[kind]) for kind in self.description.kinds])
        # The square prefers the values that are named first.
        chosen = np.floor(counts[block.kind] * np.square(block.dice.random(BLOCK))).astype(np.int64)
        position: Longs = (np.cumsum(counts) - counts)[block.kind] + chosen
        return position

    def _amount(self, draw: Lognormal, block: _Block) -> Longs:
        """Position in the table of `_lognormal`: 0 is null."""
        held = True if draw.share is None else block.dice.random(BLOCK) < self._per_kind(draw.share)[block.kind]
        step = block.dice.integers(_STEPS, size=BLOCK)
        curve = block.kind * 2 + block.troubled
        return np.where(held, 1 + curve * _STEPS + step, 0)

    def _per_kind(self, value: PerKind) -> NDArray[np.float64]:
        kinds = self.description.kinds
        return np.array([value.get(kind, 0.0) if isinstance(value, dict) else value for kind in kinds])

    def _pick(self, name: str, position: Longs) -> list[bytes]:
        table = self._tables.get(name)
        if table is None:
            head = self._head(name).decode()
            table = self._tables[name] = _fragments(head + text for text in self._values(name))
        return _pick(table, position)

    def _values(self, name: str) -> Iterable[str]:
        """The JSON texts from which a field's positions pick."""
        draw = self.description.fields[name]
        if isinstance(draw, Lognormal):
            return self._lognormal(draw)
        return [self._json(name, value) for value in self.members(name)]

    def _lognormal(self, draw: Lognormal) -> list[str]:
        medians, spreads = self._per_kind(draw.median), self._per_kind(draw.spread)
        values = (
            value
            for median, spread in zip(medians, spreads, strict=True)
            for factor in (1.0, draw.incident)
            for value in np.clip(median * factor * np.exp(spread * _normal_quantiles()), draw.min, draw.max).tolist()
        )
        return ["null", *(f"{value:.{draw.decimals}f}" for value in values)]

    def _json(self, name: str, value: str) -> str:
        """A value of a mapping's key, which YAML has as text, in the field's type."""
        return json.dumps(value) if self._types[name] in ("string", "timestamp", "date") else value

    def _head(self, name: str) -> bytes:
        """What stands before a field's value."""
        return (b"{" if name == self._names[0] else b",") + json.dumps(name).encode() + b":"


def lateness(seed: int, block: int, share: float) -> Longs:
    """By how many milliseconds the time of each of the block's events lies in the past; 0 for most."""
    dice = dice_for(seed, 1, block)
    is_late = dice.random(BLOCK) < share
    late_by = np.clip(dice.exponential(MEAN_LATE_MS, BLOCK), MIN_LATE_MS, MAX_LATE_MS)
    return np.where(is_late, late_by, 0).astype(np.int64)


def event_ids(seed: int, numbers: Longs) -> list[bytes]:
    """Ids of 24 hexadecimal characters: 8 of the seed, 16 of the number, mixed so that all look unlike."""
    base = mix(np.array([seed]))
    text = mix(numbers + base.astype(np.int64)).astype(">u8").tobytes().hex().encode()
    head = b"%08x" % (int(base[0]) >> 32)
    return [head + text[at : at + 16] for at in range(0, len(text), 16)]


def dice_for(seed: int, stream: int, index: int) -> np.random.Generator:
    """Random numbers for one purpose (`stream`) and one block: drawing one never shifts another."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, index])))


def mix(numbers: Longs) -> NDArray[np.uint64]:
    """Scatter whole numbers over 64 bits, no two onto one: SplitMix64's finalizer (Steele et al., 2014)."""
    mixed = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@lru_cache(maxsize=64)
def _incident(seed: int, slot: int, popularity: tuple[float, ...]) -> tuple[int, float, float]:
    """The incident of one slot: kind, first and last second; an empty span where there is none."""
    dice = dice_for(seed, 2, slot)
    chance, start_s, length_s = dice.random(), dice.uniform(0, 35), dice.uniform(5, 25)
    kind = int(np.searchsorted(popularity, dice.random(), side="right"))
    return (kind, start_s, start_s + length_s) if chance < _INCIDENT_CHANCE else (kind, 0.0, 0.0)


def _choose(draw: Choice, dice: np.random.Generator) -> Longs:
    return np.searchsorted(_bounds(tuple(draw.weights.values())), dice.random(BLOCK), side="right")


def _texts(numbers: Longs, spell: Callable[[int], str]) -> list[bytes]:
    """Each number's text; a block holds few different ones."""
    distinct, position = np.unique(numbers, return_inverse=True)
    return _pick(_fragments(map(spell, distinct.tolist())), position)


def _times(event_times: Longs) -> list[bytes]:
    """Each time to the millisecond, without its zone. Events of one millisecond share the text."""
    distinct, position = np.unique(event_times, return_inverse=True)
    return _pick(_fragments(np.datetime_as_string(distinct.astype("datetime64[ms]")).tolist()), position)


@lru_cache(maxsize=8)
def _numbers(first: int, count: int) -> Fragments:
    return _fragments(map(str, range(first, first + count)))


@lru_cache(maxsize=8)
def _ranks(seed: int, count: int) -> Longs:
    """Which member has which rank; without it the first ones would be the busiest in every load."""
    return dice_for(seed, 3, 0).permutation(count)


@lru_cache(maxsize=8)
def _zipf(count: int, exponent: float) -> NDArray[np.float64]:
    return _cumulated(np.arange(1, count + 1, dtype=np.float64) ** -exponent)


@lru_cache(maxsize=64)
def _bounds(weights: tuple[float, ...]) -> NDArray[np.float64]:
    return _cumulated(weights)


def _cumulated(weights: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]:
    """Upper bounds of all choices but the last, for `searchsorted` with a random number in [0, 1)."""
    sums = np.cumsum(np.asarray(weights, dtype=np.float64))
    bounds: NDArray[np.float64] = (sums / sums[-1])[:-1]
    return bounds


@cache
def _normal_quantiles() -> NDArray[np.float64]:
    normal = NormalDist()
    return np.array([normal.inv_cdf((step + 0.5) / _STEPS) for step in range(_STEPS)])


def _fragments(texts: Iterable[str]) -> Fragments:
    return np.array([text.encode() for text in texts], dtype=np.object_)


def _pick(table: Fragments, positions: Longs) -> list[bytes]:
    picked: list[bytes] = table[positions].tolist()
    return picked
