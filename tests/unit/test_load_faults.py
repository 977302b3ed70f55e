from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice

import orjson
import pytest

from lakehouse.load.events import BLOCK
from lakehouse.load.faults import Fault
from lakehouse.load.plan import Load, blocks
from tests.loads import FEATURE_EVENTS

START_MS = 1_764_000_000_000
GOOD = next(blocks(Load(FEATURE_EVENTS, rate=100, bad_share=0, late_share=0), START_MS)).values[0] or b""
PICKS = range(0, 3_000, 7)
REQUIRED = FEATURE_EVENTS.description.faults.required
MAX_LATENCY_MS, MAX_AMOUNT = 60_000.0, 10_000.0
MAX_FUTURE = timedelta(minutes=5)
spoil = FEATURE_EVENTS.spoil


def is_json(value: bytes) -> bool:
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True


def test_every_fault_has_its_function_and_changes_the_event() -> None:
    for fault in Fault:
        for pick in PICKS:
            assert spoil(fault, GOOD, pick) != GOOD
            assert spoil(fault, GOOD, pick) == spoil(fault, GOOD, pick)


def test_a_missing_field_is_a_required_one() -> None:
    gone = {
        next(iter(set(orjson.loads(GOOD)) - set(orjson.loads(spoil(Fault.MISSING_FIELD, GOOD, pick) or b""))))
        for pick in PICKS
    }
    assert gone == set(REQUIRED)


def test_a_null_field_is_a_required_one() -> None:
    for pick in PICKS:
        event = orjson.loads(spoil(Fault.NULL_FIELD, GOOD, pick) or b"")
        assert list(event) == list(orjson.loads(GOOD))
        assert sum(event[name] is None for name in REQUIRED) == 1


def test_mistyped_fields_are_never_text_fields() -> None:
    seen = set()
    for pick in PICKS:
        event = orjson.loads(spoil(Fault.MISTYPED_FIELD, GOOD, pick) or b"")
        (changed,) = [name for name, value in orjson.loads(GOOD).items() if event[name] != value]
        seen.add(changed)
    assert seen == set(FEATURE_EVENTS.description.faults.mistyped) == {"user_id", "latency_ms", "amount", "event_time"}


def test_out_of_range_leaves_the_ranges_of_good_events() -> None:
    for pick in PICKS:
        event = orjson.loads(spoil(Fault.OUT_OF_RANGE, GOOD, pick) or b"")
        bad_latency = not 0 <= event["latency_ms"] <= MAX_LATENCY_MS
        bad_amount = event["amount"] is not None and not 0 <= event["amount"] <= MAX_AMOUNT
        assert bad_latency != bad_amount


def test_unknown_members_are_unknown() -> None:
    for pick in PICKS:
        event = orjson.loads(spoil(Fault.UNKNOWN_MEMBER, GOOD, pick) or b"")
        assert (event["status"] not in FEATURE_EVENTS.members("status")) != (
            event["region"] not in FEATURE_EVENTS.members("region")
        )


@pytest.mark.parametrize("fault", [Fault.TRUNCATED_JSON, Fault.NOT_JSON, Fault.INVALID_UTF8, Fault.EMPTY])
def test_what_is_not_json_cannot_be_parsed(fault: Fault) -> None:
    assert not any(is_json(spoil(fault, GOOD, pick) or b"") for pick in PICKS)


def test_truncated_json_is_a_prefix_and_never_empty() -> None:
    lengths = {len(spoil(Fault.TRUNCATED_JSON, GOOD, pick) or b"") for pick in PICKS}
    assert min(lengths) >= 1
    assert max(lengths) < len(GOOD)
    assert len(lengths) > 100


def test_invalid_utf8_is_json_but_for_its_bytes() -> None:
    for pick in PICKS:
        value = spoil(Fault.INVALID_UTF8, GOOD, pick) or b""
        with pytest.raises(UnicodeDecodeError):
            value.decode()
        assert is_json(value.decode(errors="ignore").encode())


def test_empty_and_tombstone_are_two_things() -> None:
    assert spoil(Fault.EMPTY, GOOD, 0) == b""
    assert spoil(Fault.TOMBSTONE, GOOD, 0) is None


def test_future_is_beyond_what_is_believed() -> None:
    now = datetime.fromtimestamp(START_MS / 1000, UTC)
    for pick in PICKS:
        event = orjson.loads(spoil(Fault.FUTURE, GOOD, pick) or b"")
        assert event["event_time"].endswith("Z")
        ahead = datetime.fromisoformat(event["event_time"]) - now
        assert MAX_FUTURE < ahead < timedelta(days=1, minutes=6)


def test_an_array_is_no_event() -> None:
    assert all(isinstance(orjson.loads(spoil(Fault.ARRAY_ROOT, GOOD, pick) or b""), list) for pick in PICKS)


def test_bad_events_have_their_share_and_all_kinds() -> None:
    load = Load(FEATURE_EVENTS, rate=1_000, seed=3, bad_share=0.05, late_share=0.5)
    some = list(islice(blocks(load, START_MS), 60))
    kinds = Counter(fault for block in some for fault in block.bad.values())
    assert sum(kinds.values()) / (60 * BLOCK) == pytest.approx(0.05, rel=0.1)
    assert set(kinds) == set(Fault)
    assert min(kinds.values()) > 0.7 * max(kinds.values())
    assert not any(block.late & block.bad.keys() for block in some)


def test_faults_of_a_seed_do_not_shift_the_good_events() -> None:
    clean = next(blocks(Load(FEATURE_EVENTS, rate=1_000, seed=3, bad_share=0, late_share=0), START_MS))
    spoiled = next(blocks(Load(FEATURE_EVENTS, rate=1_000, seed=3, bad_share=0.2, late_share=0), START_MS))
    assert spoiled.bad
    for at, value in enumerate(spoiled.values):
        assert (value == clean.values[at]) == (at not in spoiled.bad)


def test_a_bad_event_is_the_good_one_of_its_place() -> None:
    load = Load(FEATURE_EVENTS, rate=1_000, seed=3, bad_share=0.2, late_share=0, faults=(Fault.OUT_OF_RANGE,))
    clean = next(blocks(replace(load, bad_share=0), START_MS))
    spoiled = next(blocks(load, START_MS))
    for at in spoiled.bad:
        ids = [orjson.loads(block.values[at] or b"")["event_id"] for block in (clean, spoiled)]
        assert ids[0] == ids[1]


def test_only_the_chosen_faults_occur() -> None:
    load = Load(FEATURE_EVENTS, rate=1_000, bad_share=1, faults=(Fault.EMPTY, Fault.TOMBSTONE))
    block = next(blocks(load, START_MS))
    assert len(block.bad) == BLOCK
    assert set(block.values) == {b"", None}
