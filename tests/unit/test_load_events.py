from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import yaml

from lakehouse.config.loader import load_pipeline
from lakehouse.errors import ConfigError
from lakehouse.load import events
from lakehouse.load.description import Lognormal, load_description
from lakehouse.load.events import BLOCK
from lakehouse.load.plan import Block, Load, blocks, due_times, pace
from tests.loads import CONF, FEATURE_EVENTS, generator

START_MS = 1_764_000_000_000
WEIGHTS: dict[str, float] = getattr(FEATURE_EVENTS.description.fields["feature"], "weights")  # noqa: B009
CLEAN = Load(FEATURE_EVENTS, rate=2_000, seed=7, bad_share=0, late_share=0, shape="flat")


def take(load: Load, count: int) -> list[Block]:
    return list(islice(blocks(load, START_MS), count))


def parse(some: list[Block]) -> list[dict[str, Any]]:
    return [orjson.loads(value or b"") for block in some for value in block.values]


def test_an_event_has_the_fields_of_the_config_in_their_order() -> None:
    config = yaml.safe_load(Path("conf/feature_events.yaml").read_text())
    assert list(parse(take(CLEAN, 1))[0]) == list(config["source"]["fields"])


def test_same_load_and_start_are_the_same_bytes_and_another_seed_is_not() -> None:
    load = replace(CLEAN, bad_share=0.1, late_share=0.1, shape="life")
    first, again, other = take(load, 3), take(load, 3), take(replace(load, seed=8), 3)
    assert [block.values for block in first] == [block.values for block in again]
    assert [block.keys for block in first] == [block.keys for block in again]
    assert [block.bad for block in first] == [block.bad for block in again]
    assert [block.values for block in first] != [block.values for block in other]


@pytest.mark.parametrize(
    ("changes", "sha256"),
    [
        (
            {"rate": 2_000, "seed": 7, "bad_share": 0.1, "late_share": 0.1, "shape": "life"},
            "e2bcae9416af5a62f96f41e8fc1a86032edf3ea1082cbdc50375c034a2ec6bf9",
        ),
        ({"rate": 50_000, "seed": 1}, "9118ea478aa5302da99829a36bac6c546eb9850fce91390016c7ef91008825c8"),
        (
            {"rate": 0.5, "seed": 3, "bad_share": 0.3, "shape": "life"},
            "2852c05bb90f5dd4cd8995e9ac1e3d1afa80deb51d8a4f14dc72c8d541f29107",
        ),
    ],
)
def test_feature_events_are_these_bytes_for_ever(changes: dict[str, Any], sha256: str) -> None:
    defaults = {"bad_share": 0.02, "late_share": 0.01}
    digest = hashlib.sha256()
    for block in take(replace(CLEAN, **{**defaults, **changes}), 30):
        for key, value in zip(block.keys, block.values, strict=True):
            digest.update(key + (b"\0" if value is None else value) + b"\n")
        digest.update(block.due.tobytes())
    assert digest.hexdigest() == sha256


def test_another_domain_is_another_file() -> None:
    payments = generator("card_payments")
    drawn = parse(take(replace(CLEAN, events=payments), 30))
    config = yaml.safe_load((CONF / "card_payments.yaml").read_text())
    assert list(drawn[0]) == list(config["source"]["fields"])
    assert {each["category"] for each in drawn} == set(payments.members("category"))
    assert {type(each["card"]) for each in drawn} == {str}
    assert {type(each["merchant_id"]) for each in drawn} == {int}
    groceries = [each["amount_eur"] for each in drawn if each["category"] == "groceries"]
    assert float(np.median(groceries)) == pytest.approx(28, rel=0.1)
    assert any(each["decision"] == "declined" for each in drawn)
    bad = take(replace(CLEAN, events=payments, bad_share=1), 1)[0]
    assert not {orjson.dumps(each) for each in drawn[:BLOCK]} & {value for value in bad.values if value}


def describe(tmp_path: Path, text: str) -> Path:
    (tmp_path / "loads").mkdir()
    (tmp_path / "loads" / "shop.yaml").write_text(text)
    return tmp_path / "shop.yaml"


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("kind: feature\n", "kind: latency_ms\n", "kind: latency_ms is not drawn by `choice`"),
        ("key: user_id\n", "key: action\n", "key: action is not drawn by `member`"),
        ("of: user_id", "of: region", "session_id.of: region is not drawn by `member`"),
        ("export: [csv, pdf]", "exports: [csv, pdf]", "there is no kind exports"),
        ("  event_id: {draw: id}\n", "", "declared differently: event_id"),
        ("{draw: id}", "{draw: uuid}", "uuid"),
        ("first: 10000000", "from: 10000000", "from"),
        ("latency_ms: [-5.0, 1.0e7]", "latency: [-5.0]", "there is no field latency"),
        ("latency_ms: [-5.0, 1.0e7]", "latency_ms: -5.0", "faults.out_of_range.latency_ms"),
    ],
)
def test_a_wrong_description_is_told_with_its_place(tmp_path: Path, was: str, becomes: str, says: str) -> None:
    text = (CONF / "loads" / "feature_events.yaml").read_text()
    assert was in text
    path = describe(tmp_path, text.replace(was, becomes, 1))
    fields = load_pipeline(CONF / "feature_events.yaml", {}).source.fields
    with pytest.raises(ConfigError) as found:
        load_description(path, fields)
    assert says in str(found.value)
    assert "shop.yaml" in str(found.value)


def test_a_pipeline_without_a_description_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing says what the events of .*mine.yaml look like"):
        load_description(tmp_path / "mine.yaml", {})


def test_another_start_changes_only_the_times() -> None:
    here = parse(take(CLEAN, 3))
    there = parse(list(islice(blocks(CLEAN, START_MS + 86_400_000), 3)))
    assert [each | {"event_time": None} for each in here] == [each | {"event_time": None} for each in there]
    assert here[0]["event_time"] != there[0]["event_time"]


def test_event_ids_are_unique_within_and_across_seeds() -> None:
    numbers = np.arange(50_000, dtype=np.int64)
    ids = [*events.event_ids(1, numbers), *events.event_ids(2, numbers), *events.event_ids(2**40, numbers)]
    assert len(set(ids)) == 150_000
    assert {len(each) for each in ids} == {24}


def test_event_time_is_the_scheduled_time_with_milliseconds_and_z() -> None:
    (block,) = take(CLEAN, 1)
    times = [each["event_time"] for each in parse([block])]
    assert times[:2] == ["2025-11-24T16:00:00.000Z", "2025-11-24T16:00:00.000Z"]
    assert times[2] == "2025-11-24T16:00:00.001Z"
    assert int(block.due[2]) == START_MS + 1


def test_values_keep_their_ranges_and_enums() -> None:
    drawn = parse(take(CLEAN, 40))
    for field in ("feature", "region", "status"):
        assert {each[field] for each in drawn} == set(FEATURE_EVENTS.members(field))
    latency = FEATURE_EVENTS.description.fields["latency_ms"]
    assert isinstance(latency, Lognormal)
    possible = [float(each) for each in FEATURE_EVENTS._lognormal(latency)[1:]]
    assert 0 < min(possible) < max(possible) == latency.max
    assert all(0 < each["latency_ms"] <= latency.max for each in drawn)
    assert all(each["amount"] is None or 0 < each["amount"] <= 10_000 for each in drawn)
    actions: dict[str, list[str]] = getattr(FEATURE_EVENTS.description.fields["action"], "values")  # noqa: B009
    assert all(each["action"] in actions[each["feature"]] for each in drawn)
    assert all(10_000_000 <= each["user_id"] < 10_100_000 for each in drawn)


def test_shares_follow_the_table_of_features() -> None:
    drawn = parse(take(CLEAN, 60))
    seen = Counter(each["feature"] for each in drawn)
    for feature, weight in WEIGHTS.items():
        assert seen[feature] / len(drawn) == pytest.approx(weight / sum(WEIGHTS.values()), rel=0.25)
    paid = [each for each in drawn if each["feature"] == "checkout"]
    assert sum(each["amount"] is not None for each in paid) / len(paid) == pytest.approx(0.6, abs=0.05)
    users = Counter(each["user_id"] for each in drawn)
    assert users.most_common(1)[0][1] / len(drawn) == pytest.approx(0.045, rel=0.25)
    assert len(users) > 10_000


def test_latency_has_the_feature_s_median() -> None:
    drawn = [each["latency_ms"] for each in parse(take(CLEAN, 40)) if each["feature"] == "search"]
    assert float(np.median(drawn)) == pytest.approx(85, rel=0.1)


def test_incidents_hit_one_feature_for_seconds() -> None:
    nominal = np.arange(0, 6 * 3_600, 0.5)
    troubled = FEATURE_EVENTS.incidents(3, nominal)
    assert 0.005 < float((troubled >= 0).mean()) < 0.15
    runs = np.diff(np.flatnonzero(np.diff(troubled) != 0)) / 2
    assert runs.min() >= 4.5
    assert np.array_equal(troubled, FEATURE_EVENTS.incidents(3, nominal))
    assert not np.array_equal(troubled, FEATURE_EVENTS.incidents(4, nominal))


def test_an_incident_brings_errors_and_slowness() -> None:
    medians: dict[str, float] = getattr(FEATURE_EVENTS.description.fields["latency_ms"], "median")  # noqa: B009
    slow: list[float] = []
    usual: list[float] = []
    for number in range(600):
        nominal = np.arange(number * BLOCK, (number + 1) * BLOCK) / 500.0
        troubled = FEATURE_EVENTS.incidents(11, nominal)
        at_hand = np.flatnonzero(troubled >= 0)[:200].tolist()
        if not at_hand:
            continue
        drawn = FEATURE_EVENTS.render(FEATURE_EVENTS.draw(11, number, 500.0), np.zeros(BLOCK, np.int64))
        for at in at_hand:
            event = orjson.loads(drawn[at])
            is_troubled = event["feature"] == FEATURE_EVENTS.description.kinds[troubled[at]]
            (slow if is_troubled else usual).append(event["latency_ms"] / medians[event["feature"]])
    assert float(np.median(slow)) == pytest.approx(4.0, rel=0.25)
    assert float(np.median(usual)) == pytest.approx(1.0, rel=0.25)


def test_clients_move_to_newer_versions() -> None:
    slow = replace(CLEAN, rate=1)
    versions = [{each["app_version"] for each in parse([block])} for block in take(slow, 4)]
    assert versions[0] >= {"5.0.0", "5.0.1"}
    assert not versions[0] & versions[3]


def test_late_events_lie_in_the_past_and_only_they() -> None:
    load = replace(CLEAN, late_share=0.1)
    for block in take(load, 10):
        for at, each in enumerate(parse([block])):
            moment = np.datetime64(each["event_time"].rstrip("Z"), "ms").astype(np.int64)
            behind = int(block.due[at]) - int(moment)
            assert (behind == 0) != (at in block.late)
            assert behind == 0 or events.MIN_LATE_MS <= behind <= events.MAX_LATE_MS
    late = sum(len(block.late) for block in take(load, 50))
    assert late / (50 * BLOCK) == pytest.approx(0.1, rel=0.1)


def test_the_flat_shape_is_even() -> None:
    due = np.concatenate(list(islice(due_times(replace(CLEAN, rate=30_000), START_MS), 60)))
    per_second = np.bincount((due - START_MS) // 1_000)
    assert per_second[:2].tolist() == [30_000, 30_000]


def test_the_life_shape_follows_its_pace_without_going_back() -> None:
    load = replace(CLEAN, rate=500, shape="life")
    due = np.concatenate(list(islice(due_times(load, START_MS), 200)))
    assert np.all(np.diff(due) >= 0)
    per_second = np.bincount((due - START_MS) // 1_000)[:-1]
    expected = 500 * pace(load.seed, np.arange(len(per_second)), START_MS)
    assert np.abs(per_second - expected).max() <= 2
    assert per_second.max() > 1.4 * np.median(per_second)


def test_a_day_of_life_has_the_mean_rate_and_a_quiet_night() -> None:
    paces = pace(5, np.arange(86_400), 0)
    assert float(paces.mean()) == pytest.approx(1.0, abs=0.03)
    assert float(np.median(paces[3 * 3_600 : 4 * 3_600])) < 0.7
    assert float(np.median(paces[15 * 3_600 : 16 * 3_600])) > 1.2


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_count_ends_the_load_exactly(count: int) -> None:
    assert sum(map(len, blocks(replace(CLEAN, count=count), START_MS))) == count


def test_seconds_end_the_load_by_its_schedule() -> None:
    assert sum(map(len, blocks(replace(CLEAN, seconds=2.5), START_MS))) == 5_000
    assert sum(map(len, blocks(replace(CLEAN, seconds=2.5, count=10), START_MS))) == 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0},
        {"rate": float("nan")},
        {"seconds": 0},
        {"count": 0},
        {"seed": -1},
        {"bad_share": 1.5},
        {"late_share": -0.1},
        {"shape": "square"},
        {"faults": ()},
        {"partitions": 0},
        {"linger_ms": -1},
    ],
)
def test_a_wrong_load_is_refused_with_its_key(wrong: dict[str, Any]) -> None:
    (key,) = wrong
    with pytest.raises(ConfigError, match=key):
        Load(FEATURE_EVENTS, **wrong)
