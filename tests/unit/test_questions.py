"""Questions: figures equal a brute-force count, windows lie where they should, and answers are shared."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from lakehouse.config.models import CountMetric, Rollup
from lakehouse.serving.questions import (
    RANGES,
    STALL_MS,
    Answers,
    Question,
    answer,
    freshness_ms,
    freshness_state,
    frontier_ms,
    windows,
)
from lakehouse.serving.snapshot import LEVELS, Shape, Snapshot
from lakehouse.serving.state import State
from tests.hot_table import FIELDS, ROLLUP, Event, partials

SHAPE = Shape.of(ROLLUP, FIELDS)
NOW = 1_800_000_000
REGIONS = ("eu", "us")


def snapshot_of(events: list[Event], *, max_event_s: float, shape: Shape = SHAPE) -> Snapshot:
    state = State(shape)
    if events:
        state.add([partials(events)], max_event_s)
    return Snapshot(
        shape=shape,
        table_id="t",
        version=3,
        generation=1,
        commit_ms=NOW * 1000,
        published_ms=NOW * 1000.0,
        max_event_ms=max_event_s * 1000 if events else None,
        batch_id=0,
        levels=MappingProxyType({width: MappingProxyType(dict(held)) for width, held in state.buckets.items()}),
        values=(("login", "search", "share"), REGIONS),
    )


def steady(seconds: int, per_second: int = 4, *, until: float = NOW, seed: int = 3) -> list[Event]:
    """The same number of events in every second, the last of which is only half over at `until`+0.5."""
    rng = random.Random(seed)
    return [
        Event(
            until - back + (index + 0.5) / per_second,
            rng.choice(["search", "login", "share"]),
            rng.choice(REGIONS),
            rng.randrange(2000),
            rng.lognormvariate(3, 0.5),
            rng.random() < 0.2,
        )
        for back in range(1, seconds + 1)
        for index in range(per_second)
    ]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return [*steady(7300), *(Event(NOW + 0.05 + i * 0.1, "search", "eu", i) for i in range(2))]


@pytest.fixture(scope="module")
def snapshot(events: list[Event]) -> Snapshot:
    return snapshot_of(events, max_event_s=NOW + 0.5)


@pytest.mark.parametrize("minutes", list(RANGES))
@pytest.mark.parametrize(
    "filters",
    [
        (),
        (("region", frozenset({"eu"})),),
        (("feature", frozenset({"search", "share"})), ("region", frozenset({"us"}))),
    ],
)
def test_figures_equal_a_count_over_the_events(
    snapshot: Snapshot, events: list[Event], minutes: int, filters: tuple[Any, ...]
) -> None:
    wanted = dict(filters)
    now, before = windows(NOW * 1000 + 500, RANGES[minutes])
    found = answer(snapshot, Question(minutes, filters), NOW * 1000 + 900)
    for stretch, figures in ((now, found.now), (before, found.before)):
        true = [
            event
            for event in events
            if stretch.start <= event.at < stretch.end
            and event.feature in wanted.get("feature", {event.feature})
            and event.region in wanted.get("region", {event.region})
        ]
        assert figures.events == len(true)
        assert figures.rate == pytest.approx(len(true) / stretch.elapsed)
        assert figures.errors == pytest.approx(sum(event.error for event in true) / len(true))
        assert figures.users == pytest.approx(len({event.user for event in true}), rel=0.08)
        low, high = np.quantile([event.latency for event in true], [0.9, 0.985])
        assert figures.latency[1] is not None
        assert low <= figures.latency[1] <= high


@pytest.mark.parametrize("spec", RANGES.values())
def test_windows_touch_lie_on_the_grid_and_are_held(spec: Any) -> None:
    for offset in range(0, 120_000, 777):
        frontier = NOW * 1000 + offset
        now, before = windows(frontier, spec)
        assert now.end == frontier // 1000 + 1
        assert before.end == now.start
        assert before.end - before.start == spec.seconds
        assert now.start % spec.grid == 0
        assert spec.seconds - spec.grid < now.end - now.start <= spec.seconds
        assert 0 < now.elapsed <= spec.seconds
        oldest = frontier / 1000 - before.start
        assert any(level.width <= spec.grid and spec.grid % level.width == 0 for level in LEVELS)
        assert any(level.keep >= oldest and spec.grid % level.width == 0 for level in LEVELS)


def test_tiles_do_not_dip_when_a_second_begins() -> None:
    rates = []
    everything = steady(200, per_second=50, until=NOW + 3)
    for step in range(30):
        frontier = NOW + step / 10
        seen = [event for event in everything if event.at < frontier]
        rates.append(answer(snapshot_of(seen, max_event_s=frontier), Question(1), frontier * 1000).now.rate)
    assert rates == pytest.approx([50] * 30, abs=0.1)


def test_the_newest_event_counts_at_once(snapshot: Snapshot, events: list[Event]) -> None:
    more = snapshot_of([*events, Event(NOW + 0.5, "share", "eu")], max_event_s=NOW + 0.5)
    question = Question(1, (("feature", frozenset({"share"})), ("region", frozenset({"eu"}))))
    before, after = (answer(held, question, NOW * 1000 + 500).now.events for held in (snapshot, more))
    assert after == before + 1


def test_when_data_stops_the_window_goes_on(snapshot: Snapshot) -> None:
    rates = [answer(snapshot, Question(1), (NOW + wait) * 1000).now.rate for wait in (0.5, 3, 13, 33, 70)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0
    gone = answer(snapshot, Question(1), (NOW + 70) * 1000)
    assert (gone.now.events, gone.now.errors, gone.now.latency, gone.now.users) == (0, None, (None,) * 3, 0)
    assert gone.leaders == ()


def test_the_frontier_is_the_data_until_it_stalls(snapshot: Snapshot) -> None:
    newest = NOW * 1000 + 500
    assert frontier_ms(snapshot, newest + 10) == newest
    assert frontier_ms(snapshot, newest + STALL_MS - 1) == newest
    assert frontier_ms(snapshot, newest + 60_000) == NOW * 1000 + 57_000
    assert frontier_ms(snapshot, newest - 100) == newest - 100, "never ahead of the wall clock"
    assert frontier_ms(replace(snapshot, max_event_ms=None), newest) == NOW * 1000 - 3000


def test_freshness_ages_with_the_clock(snapshot: Snapshot) -> None:
    newest = NOW * 1000 + 500
    ages = [freshness_ms(snapshot, newest + later) for later in (-50, 0, 999, 1000, 2999, 3000, 90_000)]
    assert ages == [0, 0, 999, 1000, 2999, 3000, 90_000]
    states = [freshness_state(age) for age in ages]
    assert states == ["fresh", "fresh", "fresh", "late", "late", "stale", "stale"]
    assert freshness_ms(replace(snapshot, max_event_ms=None), newest) is None
    assert freshness_state(None) == "waiting"


@pytest.mark.parametrize("minutes", list(RANGES))
def test_series_are_short_end_complete_and_add_up(snapshot: Snapshot, minutes: int) -> None:
    series = answer(snapshot, Question(minutes, split="region"), NOW * 1000 + 900).series
    points = len(series.errors)
    assert RANGES[minutes].seconds // series.step - 1 <= points <= 300
    assert [name for name, _ in series.rates] == list(REGIONS)
    totals = [sum(values) for values in zip(*(values for _, values in series.rates), strict=True)]
    assert totals == pytest.approx([4.0] * points, abs=0.003), "the open second is left out"
    assert series.start + (points - 1) * series.step < NOW
    assert len(series.latency) == 3
    assert all(p50 <= p99 for p50, p99 in zip(series.latency[0], series.latency[2], strict=True))  # type: ignore[operator]
    whole = answer(snapshot, Question(minutes), NOW * 1000 + 900).series
    assert whole.rates == (("all", pytest.approx(tuple(totals), abs=0.003)),)


def test_a_second_without_events_has_no_quantile() -> None:
    quiet = snapshot_of([Event(NOW - 10, "search", "eu"), Event(NOW, "search", "eu")], max_event_s=NOW)
    series = answer(quiet, Question(1, split="feature"), NOW * 1000).series
    assert series.latency[0].count(None) == len(series.errors) - 1
    assert series.users.count(0.0) == len(series.errors) - 1


def test_leaders_are_ranked_and_compared(snapshot: Snapshot, events: list[Event]) -> None:
    found = answer(snapshot, Question(5), NOW * 1000 + 900)
    assert {leader.name for leader in found.leaders} == {"login", "search", "share"}
    counts = [leader.now.events for leader in found.leaders]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == found.now.events
    assert sum(leader.share for leader in found.leaders) == pytest.approx(1)
    _, before = windows(NOW * 1000 + 500, RANGES[5])
    for leader in found.leaders:
        inside = [e for e in events if e.feature == leader.name and before.start <= e.at < before.end]
        assert leader.before.events == len(inside)


def test_the_smallest_series_become_one() -> None:
    many = [Event(NOW - 5, f"f{index:02}", "eu") for index in range(12) for _ in range(index + 1)]
    series = answer(snapshot_of(many, max_event_s=NOW), Question(1, split="feature"), NOW * 1000).series
    assert [name for name, _ in series.rates] == ["f05", "f06", "f07", "f08", "f09", "f10", "f11", "other"]
    assert sum(sum(values) for _, values in series.rates) == len(many)


def test_unknown_filters_and_splits_are_harmless(snapshot: Snapshot) -> None:
    everything = answer(snapshot, Question(1), NOW * 1000 + 900).now
    odd = Question(1, (("colour", frozenset({"red"})), ("region", frozenset())), split="colour")
    now = answer(snapshot, odd, NOW * 1000 + 900).now
    # Not the quantiles: merging KLL sketches draws lots.
    assert (now.events, now.rate, now.errors, now.users) == (
        everything.events, everything.rate, everything.errors, everything.users,
    )  # fmt: skip
    nothing = answer(snapshot, Question(1, (("region", frozenset({"mars"})),)), NOW * 1000 + 900)
    assert nothing.now.events == 0
    with pytest.raises(KeyError):
        answer(snapshot, Question(2), NOW * 1000)


def test_a_rollup_without_sketches_still_answers() -> None:
    plain = Shape.of(Rollup(dimensions=["feature", "region"], metrics=[CountMetric(name="n", type="count")]), FIELDS)
    state = State(plain)
    table = partials([Event(NOW - 1, "search", "eu")])
    state.add([table.append_column("n", table["events"])], NOW)
    levels = MappingProxyType({width: MappingProxyType(dict(held)) for width, held in state.buckets.items()})
    held = replace(snapshot_of([Event(NOW, "search", "eu")], max_event_s=NOW), shape=plain, levels=levels)
    found = answer(held, Question(1, split="feature"), NOW * 1000)
    assert (found.now.events, found.now.errors, found.now.latency, found.now.users) == (1, None, (None,) * 3, None)


def test_null_dimensions_have_a_name() -> None:
    nameless = [Event(NOW - 1, None, "eu"), Event(NOW - 1, "search", "eu")]  # type: ignore[arg-type]
    found = answer(snapshot_of(nameless, max_event_s=NOW), Question(1, split="feature"), NOW * 1000)
    assert {leader.name for leader in found.leaders} == {"(none)", "search"}


def test_the_same_question_is_answered_once_per_version(snapshot: Snapshot) -> None:
    asked: list[Question] = []
    gate = threading.Barrier(4)

    def make(_: Snapshot, question: Question, __: float) -> str:
        asked.append(question)
        time.sleep(0.1)  # long enough for the others to ask meanwhile
        return "made"

    answers = Answers(make, limit=2)

    def ask() -> None:
        gate.wait(5)
        answers.get(snapshot, Question(1), NOW * 1000 + 600)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [Question(1)]
    answers.get(replace(snapshot, version=4), Question(1), NOW * 1000 + 600)
    answers.get(replace(snapshot, generation=2), Question(1), NOW * 1000 + 600)
    assert len(asked) == 3
    answers.get(snapshot, Question(1), NOW * 1000 + 600)
    assert len(asked) == 4, "only the newest are kept"
    assert answers._building == {}


def test_a_failed_answer_is_asked_again(snapshot: Snapshot) -> None:
    tries: list[int] = []

    def make(_: Snapshot, __: Question, ___: float) -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError
        return 7

    answers = Answers(make)
    with pytest.raises(ValueError):  # noqa: PT011 - raised above
        answers.get(snapshot, Question(1), NOW * 1000.0)
    assert answers.get(snapshot, Question(1), NOW * 1000.0) == 7
