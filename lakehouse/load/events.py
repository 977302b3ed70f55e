"""Draws events that look like life for the topic of conf/feature_events.yaml, as finished JSON values.

Everything is a function of the seed and the event's number, so a load can be repeated byte for byte. Events
are drawn in blocks with numpy and joined from fragments that were rendered once: a JSON library would take
several times as long, on the same cores as the broker and the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product, repeat
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Longs = NDArray[np.int64]
Fragments = NDArray[np.object_]
"""An array of `bytes`, from which numpy picks many by index faster than a list comprehension."""

BLOCK = 1024
"""Events per block. One takes about 1 ms, which is the longest that drawing can hold up sending."""

REGIONS = ("eu-central", "eu-west", "us-east", "us-west", "ap-south")
STATUSES = ("ok", "error")
USERS = 100_000
FIRST_USER = 10_000_000
MAX_LATENCY_MS = 60_000.0
MAX_AMOUNT = 10_000.0
"""Good events keep 0 < latency_ms <= MAX_LATENCY_MS and 0 < amount <= MAX_AMOUNT (or null)."""

MIN_LATE_MS = 1_000
MEAN_LATE_MS = 60_000
MAX_LATE_MS = 30 * 60_000
"""How far a late event's own time lies behind its sending: exponential, from a second to half an hour."""

_REGION_SHARES = (0.30, 0.22, 0.26, 0.12, 0.10)
_ZIPF_EXPONENT = 0.9
"""With 100 000 users the busiest one makes 4.5 % of the events."""
_SESSION_S = 1_800
"""Nominal seconds after which users are in a new session."""
_RELEASE_S = 600
"""Nominal seconds from one release of the client to the next, whose share grows meanwhile."""
_INCIDENT_SLOT_S = 60
_INCIDENT_CHANCE = 0.15
_INCIDENT_ERRORS = 8.0
_INCIDENT_SLOWNESS = 4.0
"""In each minute one feature may have an incident: so many times the errors and latency, for 5 to 25 s."""
_MAX_ERROR_SHARE = 0.5
_STEPS = 2_048
"""Distinct latencies per feature, and distinct prices: quantiles of a distribution, equally likely."""


@dataclass(frozen=True)
class Feature:
    """One feature of the product: how popular, how fast and how reliable it is, and whether it sells.

    Attributes:
        name: value of the field `feature`.
        weight: popularity relative to the others.
        actions: values of the field `action`, the commonest first.
        latency_ms: median.
        spread: sigma of the logarithm of the latency.
        error_share: of its events outside incidents.
        paid_share: of its events that carry an amount.
    """

    name: str
    weight: float
    actions: tuple[str, ...]
    latency_ms: float
    spread: float
    error_share: float
    paid_share: float = 0.0


FEATURES = (
    Feature("search", 22, ("query", "filter", "open_result"), 85, 0.50, 0.004),
    Feature("feed", 18, ("view", "scroll", "refresh"), 60, 0.40, 0.002),
    Feature("product_page", 15, ("view", "zoom", "read_reviews"), 45, 0.35, 0.002),
    Feature("recommendations", 11, ("show", "click"), 120, 0.60, 0.010),
    Feature("cart", 8, ("add", "remove", "view"), 55, 0.45, 0.006),
    Feature("login", 7, ("sign_in", "sign_out", "reset_password"), 150, 0.55, 0.030),
    Feature("chat", 6, ("send", "read", "attach"), 35, 0.70, 0.008),
    Feature("checkout", 4, ("pay", "choose_shipping", "confirm"), 320, 0.65, 0.020, 0.60),
    Feature("profile", 4, ("view", "edit"), 70, 0.40, 0.003),
    Feature("upload", 2.5, ("start", "finish"), 900, 0.90, 0.040),
    Feature("subscription", 1.5, ("start", "renew", "cancel"), 240, 0.50, 0.012, 0.35),
    Feature("export", 1, ("csv", "pdf"), 2_500, 0.80, 0.050),
)
_ACTIONS = max(len(feature.actions) for feature in FEATURES)


@dataclass(frozen=True)
class Content:
    """One block of events without their times: the Kafka key of each, and the fragments of its JSON value."""

    keys: list[bytes]
    ids: list[bytes]
    what: list[bytes]
    state: list[bytes]
    latency: list[bytes]
    amount: list[bytes]


def draw(seed: int, block: int, rate: float) -> Content:
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
    feature = np.searchsorted(_popularity(), dice.random(BLOCK), side="right")
    troubled = (incidents(seed, nominal) == feature).astype(np.int64)
    return Content(
        keys=_pick(_keys(), _users(seed)[np.searchsorted(_zipf(), dice.random(BLOCK), side="right")]),
        ids=event_ids(seed, numbers),
        what=_pick(_what(), feature * _ACTIONS + _action(feature, dice)),
        state=_state(nominal, _failed(feature, troubled, dice), dice),
        latency=_pick(_latency(), (feature * 2 + troubled) * _STEPS + dice.integers(_STEPS, size=BLOCK)),
        amount=_pick(_amount(), _price(feature, dice)),
    )


def prepare(seed: int) -> None:
    """Render the tables of fragments, which takes about 0.1 s, before the first record is due."""
    draw(seed, 0, 1.0)


def render(content: Content, event_times: Longs) -> list[bytes]:
    """The block's JSON objects, with `event_times` in milliseconds since 1970, UTC."""
    columns = (
        *(repeat(b'{"event_id":"'), content.ids, _times(event_times)),
        *(content.what, content.keys, repeat(b',"session_id":"'), content.keys),
        *(content.state, content.latency, content.amount),
    )
    # The endless columns are the constant ones; the others are of one length.
    return list(map(b"".join, zip(*columns, strict=False)))


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


def incidents(seed: int, nominal: NDArray[np.float64]) -> Longs:
    """For each nominal second the index in `FEATURES` of the one that has an incident then, or -1."""
    slot = (nominal // _INCIDENT_SLOT_S).astype(np.int64)
    troubled = np.full(len(nominal), -1, dtype=np.int64)
    for number in np.unique(slot).tolist():
        feature, start_s, end_s = _incident(seed, number)
        within = nominal - number * _INCIDENT_SLOT_S
        troubled[(slot == number) & (within >= start_s) & (within < end_s)] = feature
    return troubled


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
def _incident(seed: int, slot: int) -> tuple[int, float, float]:
    """The incident of one slot: feature, first and last second; an empty span where there is none."""
    dice = dice_for(seed, 2, slot)
    chance, start_s, length_s = dice.random(), dice.uniform(0, 35), dice.uniform(5, 25)
    feature = int(np.searchsorted(_popularity(), dice.random(), side="right"))
    return (feature, start_s, start_s + length_s) if chance < _INCIDENT_CHANCE else (feature, 0.0, 0.0)


def _action(feature: Longs, dice: np.random.Generator) -> Longs:
    # The square prefers the actions that are named first.
    count = np.array([len(each.actions) for each in FEATURES])[feature]
    chosen: Longs = np.floor(count * np.square(dice.random(BLOCK))).astype(np.int64)
    return chosen


def _failed(feature: Longs, troubled: Longs, dice: np.random.Generator) -> Longs:
    share = np.array([each.error_share for each in FEATURES])[feature]
    share = np.minimum(share * np.where(troubled, _INCIDENT_ERRORS, 1.0), _MAX_ERROR_SHARE)
    failed: Longs = (dice.random(BLOCK) < share).astype(np.int64)
    return failed


def _price(feature: Longs, dice: np.random.Generator) -> Longs:
    is_paid = dice.random(BLOCK) < np.array([each.paid_share for each in FEATURES])[feature]
    return np.where(is_paid, 1 + dice.integers(_STEPS, size=BLOCK), 0)


def _state(nominal: NDArray[np.float64], failed: Longs, dice: np.random.Generator) -> list[bytes]:
    """Session number, region, client version and status of each event."""
    region = np.searchsorted(_bounds(_REGION_SHARES), dice.random(BLOCK), side="right")
    has_newer = dice.random(BLOCK) < (nominal % _RELEASE_S) / _RELEASE_S
    release = (nominal // _RELEASE_S).astype(np.int64) + has_newer
    session = (nominal // _SESSION_S).astype(np.int64)
    sessions = range(int(session[0]), int(session[-1]) + 1)
    releases = range(int(release.min()), int(release.max()) + 1)
    table = np.concatenate([_state_fragments(*age) for age in product(sessions, releases)])
    age = (session - sessions[0]) * len(releases) + release - releases[0]
    return _pick(table, (age * len(REGIONS) + region) * len(STATUSES) + failed)


@lru_cache(maxsize=64)
def _state_fragments(session: int, release: int) -> Fragments:
    version = f"5.{release // 10}.{release % 10}"
    return _fragments(
        f'-{session}","region":"{region}","app_version":"{version}","status":"{status}"'
        for region in REGIONS
        for status in STATUSES
    )


def _times(event_times: Longs) -> list[bytes]:
    """Each time as the JSON that follows the id. Events of one millisecond share the text."""
    distinct, position = np.unique(event_times, return_inverse=True)
    texts = np.datetime_as_string(distinct.astype("datetime64[ms]"))
    return _pick(_fragments(f'","event_time":"{text}Z"' for text in texts.tolist()), position)


@cache
def _what() -> Fragments:
    padded = ((each, (*each.actions, *each.actions)[:_ACTIONS]) for each in FEATURES)
    return _fragments(
        f',"feature":"{each.name}","action":"{action}","user_id":' for each, actions in padded for action in actions
    )


@cache
def _latency() -> Fragments:
    curve = _normal_quantiles()
    return _fragments(
        f',"latency_ms":{latency:.1f}'
        for each in FEATURES
        for slowness in (1.0, _INCIDENT_SLOWNESS)
        for latency in np.clip(each.latency_ms * slowness * np.exp(each.spread * curve), 0.1, MAX_LATENCY_MS).tolist()
    )


@cache
def _amount() -> Fragments:
    prices = np.clip(40 * np.exp(0.9 * _normal_quantiles()), 0.5, MAX_AMOUNT)
    return _fragments([',"amount":null}', *(f',"amount":{price:.2f}}}' for price in prices.tolist())])


@cache
def _keys() -> Fragments:
    return _fragments(map(str, range(FIRST_USER, FIRST_USER + USERS)))


@lru_cache(maxsize=4)
def _users(seed: int) -> Longs:
    """Which user has which rank; without it the first ids would be the busiest in every load."""
    return dice_for(seed, 3, 0).permutation(USERS)


@cache
def _popularity() -> NDArray[np.float64]:
    return _bounds([each.weight for each in FEATURES])


@cache
def _zipf() -> NDArray[np.float64]:
    return _bounds(np.arange(1, USERS + 1, dtype=np.float64) ** -_ZIPF_EXPONENT)


def _bounds(weights: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]:
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
