"""Questions: figures equal a brute-force count, windows lie where they should, and answers are shared."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakehouse.config.models import CountMetric, Rollup
from lakehouse.schemas import TIMESTAMP
from lakehouse.serving.figures import figure
from lakehouse.serving.questions import (
    STALL_MS,
    Answer,
    Answers,
    Board,
    Question,
    Wanted,
    answer,
    freshness_ms,
    freshness_state,
    frontier_ms,
    windows,
)
from lakehouse.serving.scale import LEVELS, SCALES, Scale
from lakehouse.serving.snapshot import Shape, Snapshot
from lakehouse.serving.state import State
from tests.hot_table import FIELDS, ROLLUP, Event, partials

SHAPE = Shape.of(ROLLUP, FIELDS)
RANGES = SCALES["1s"].ranges
RATE, SHARE, P95, USERS = TILES = (
    figure(SHAPE, "events"), figure(SHAPE, "errors"), figure(SHAPE, "latency_ms_kll"), figure(SHAPE, "users_hll"),
)  # fmt: skip
LINES = (*TILES, figure(SHAPE, "latency_ms_kll", rank=0.5))
WANTED = Wanted(TILES, LINES, stacks=(RATE,), heats=(0,), boards=(Board(0, (RATE, SHARE)),))
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


def ask(snapshot: Snapshot, question: Question, now_ms: float) -> Answer:
    return answer(snapshot, question, now_ms, WANTED)


def about(label: str, filters: tuple[tuple[str, frozenset[Any]], ...] = (), split: str | None = None) -> Question:
    return Question(RANGES[label], filters, split)


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


@pytest.mark.parametrize("span", list(RANGES))
@pytest.mark.parametrize(
    "filters",
    [
        (),
        (("region", frozenset({"eu"})),),
        (("feature", frozenset({"search", "share"})), ("region", frozenset({"us"}))),
    ],
)
def test_figures_equal_a_count_over_the_events(
    snapshot: Snapshot, events: list[Event], span: str, filters: tuple[Any, ...]
) -> None:
    wanted = dict(filters)
    now, before = windows(NOW * 1000 + 500, about(span))
    found = ask(snapshot, about(span, filters), NOW * 1000 + 900)
    for stretch, figures in ((now, found.now), (before, found.before)):
        true = [
            event
            for event in events
            if stretch.start <= event.at < stretch.end
            and event.feature in wanted.get("feature", {event.feature})
            and event.region in wanted.get("region", {event.region})
        ]
        rate, errors, p95, users = figures
        assert rate == pytest.approx(len(true) / stretch.elapsed)
        assert errors == pytest.approx(sum(event.error for event in true) / len(true))
        assert users == pytest.approx(len({event.user for event in true}), rel=0.08)
        low, high = np.quantile([event.latency for event in true], [0.9, 0.985])
        assert low <= (p95 or 0.0) <= high
    assert found.events == sum(
        now.start <= event.at < now.end
        and event.feature in wanted.get("feature", {event.feature})
        and event.region in wanted.get("region", {event.region})
        for event in events
    )


@pytest.mark.parametrize("spec", RANGES.values())
def test_windows_touch_lie_on_the_grid_and_are_held(spec: Any) -> None:
    for offset in range(0, 120_000, 777):
        frontier = NOW * 1000 + offset
        now, before = windows(frontier, Question(spec))
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
        rates.append(ask(snapshot_of(seen, max_event_s=frontier), about("1m"), frontier * 1000).now[0])
    assert rates == pytest.approx([50] * 30, abs=0.1)


def test_the_newest_event_counts_at_once(snapshot: Snapshot, events: list[Event]) -> None:
    more = snapshot_of([*events, Event(NOW + 0.5, "share", "eu")], max_event_s=NOW + 0.5)
    question = about("1m", (("feature", frozenset({"share"})), ("region", frozenset({"eu"}))))
    before, after = (ask(held, question, NOW * 1000 + 500).events for held in (snapshot, more))
    assert after == before + 1


def test_when_data_stops_the_window_goes_on(snapshot: Snapshot) -> None:
    rates = [ask(snapshot, about("1m"), (NOW + wait) * 1000).now[0] for wait in (0.5, 3, 13, 33, 70)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0
    gone = ask(snapshot, about("1m"), (NOW + 70) * 1000)
    assert (gone.events, gone.now) == (0, (0, None, None, 0))
    assert gone.boards == ((),)


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


@pytest.mark.parametrize("span", list(RANGES))
def test_series_are_short_end_complete_and_add_up(snapshot: Snapshot, span: str) -> None:
    series = ask(snapshot, about(span, split="region"), NOW * 1000 + 900).series
    points = series.points
    assert RANGES[span].seconds // series.step - 1 <= points <= 300
    (rates,) = series.stacks
    assert [name for name, _ in rates] == list(REGIONS)
    totals = [sum(values) for values in zip(*(values for _, values in rates), strict=True)]
    assert totals == pytest.approx([4.0] * points, abs=0.003), "the open second is left out"
    assert series.start + (points - 1) * series.step < NOW
    assert [len(line) for line in series.lines] == [points] * len(LINES)
    assert all(p50 <= p95 for p50, p95 in zip(series.lines[4], series.lines[2], strict=True))  # type: ignore[operator]
    whole = ask(snapshot, about(span), NOW * 1000 + 900).series
    assert whole.stacks == ((("all", pytest.approx(tuple(totals), abs=0.003)),),)


def test_a_second_without_events_has_no_quantile() -> None:
    quiet = snapshot_of([Event(NOW - 10, "search", "eu"), Event(NOW, "search", "eu")], max_event_s=NOW)
    series = ask(quiet, about("1m", split="feature"), NOW * 1000).series
    assert series.lines[2].count(None) == series.points - 1
    assert series.lines[3].count(0.0) == series.points - 1
    assert series.heats[0].columns.count("") == series.points - 1


def test_leaders_are_ranked_and_compared(snapshot: Snapshot, events: list[Event]) -> None:
    found = ask(snapshot, about("5m"), NOW * 1000 + 900)
    (leaders,) = found.boards
    assert {leader.name for leader in leaders} == {"login", "search", "share"}
    rates = [leader.now[0] or 0.0 for leader in leaders]
    assert rates == sorted(rates, reverse=True)
    assert sum(rates) == pytest.approx(found.now[0])
    _, before = windows(NOW * 1000 + 500, about("5m"))
    for leader in leaders:
        inside = [e for e in events if e.feature == leader.name and before.start <= e.at < before.end]
        assert leader.before == pytest.approx(len(inside) / 300)


def test_the_smallest_series_become_one() -> None:
    many = [Event(NOW - 5, f"f{index:02}", "eu") for index in range(12) for _ in range(index + 1)]
    series = ask(snapshot_of(many, max_event_s=NOW), about("1m", split="feature"), NOW * 1000).series
    (rates,) = series.stacks
    assert [name for name, _ in rates] == ["f05", "f06", "f07", "f08", "f09", "f10", "f11", "other"]
    assert sum(sum(values) for _, values in rates) == len(many)


def test_unknown_filters_and_splits_are_harmless(snapshot: Snapshot) -> None:
    everything = ask(snapshot, about("1m"), NOW * 1000 + 900)
    odd = about("1m", (("colour", frozenset({"red"})), ("region", frozenset())), split="colour")
    found = ask(snapshot, odd, NOW * 1000 + 900)
    # Not the quantiles: merging KLL sketches draws lots.
    assert (found.events, *found.now[:2], found.now[3]) == (everything.events, *everything.now[:2], everything.now[3])
    nothing = ask(snapshot, about("1m", (("region", frozenset({"mars"})),)), NOW * 1000 + 900)
    assert nothing.events == 0


def test_a_rollup_without_sketches_still_answers() -> None:
    plain = Shape.of(Rollup(dimensions=["feature", "region"], metrics=[CountMetric(name="n", type="count")]), FIELDS)
    state = State(plain)
    table = partials([Event(NOW - 2, "search", "eu")])
    state.add([table.append_column("n", table["events"])], NOW)
    levels = MappingProxyType({width: MappingProxyType(dict(held)) for width, held in state.buckets.items()})
    held = replace(snapshot_of([Event(NOW, "search", "eu")], max_event_s=NOW), shape=plain, levels=levels)
    wanted = Wanted((figure(plain, "events"), figure(plain, "n", "range")), stacks=(figure(plain, "n"),))
    found = answer(held, about("1m", split="feature"), NOW * 1000, wanted)
    assert (found.events, found.now[1]) == (1, 1)
    assert [sum(values) for _, values in found.series.stacks[0]] == [1]


def test_a_zoom_shows_the_same_numbers_as_the_events(snapshot: Snapshot, events: list[Event]) -> None:
    zoom = SCALES["1s"].zoomed(NOW - 121, NOW - 60, NOW)
    assert zoom is not None
    found = ask(
        snapshot, Question(zoom.range, split="region", until=zoom.end, compared=zoom.compared), NOW * 1000 + 900
    )
    inside = [event for event in events if NOW - 121 <= event.at < NOW - 60]
    assert (found.stretch.start, found.stretch.end, found.events) == (NOW - 121, NOW - 60, len(inside))
    assert found.now[0] == pytest.approx(len(inside) / 61)
    assert found.before[0] == pytest.approx(4)
    assert (found.series.start, found.series.points, found.series.step) == (NOW - 121, 61, 1)
    assert sum(sum(values) for _, values in found.series.stacks[0]) == pytest.approx(len(inside), abs=0.1)


def test_a_zoom_takes_the_finest_steps_that_are_held() -> None:
    scale = SCALES["1s"]

    def steps(back: int, length: int) -> tuple[int, int, bool] | None:
        zoom = scale.zoomed(NOW - back, NOW - back + length, NOW)
        return zoom and (zoom.range.step, zoom.range.column, zoom.compared)

    assert steps(100, 40) == (1, 1, True)
    assert steps(340, 100) == (1, 1, False)
    assert steps(500, 100) == (5, 5, True)
    assert steps(3_000, 2_000) == (15, 60, False)
    assert steps(7_000, 6_000) == (60, 60, False)
    assert steps(9_000, 100) is None, "held no longer"
    assert steps(10, 1) == (1, 1, True) or steps(10, 1) is None
    assert scale.zoomed(NOW, NOW, NOW) is None
    assert scale.zoomed(NOW, NOW - 100, NOW) is None


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_every_scale_holds_what_its_ranges_show(scale: Scale) -> None:
    widths = [level.width for level in scale.levels]
    assert all(wide % narrow == 0 for narrow, wide in pairwise(widths))
    assert scale.usual in scale.ranges
    for spec in scale.ranges.values():
        assert {spec.step, spec.grid, spec.column} <= set(widths)
        assert spec.seconds % spec.step == 0
        held = {level.width: level.keep for level in scale.levels}
        assert held[spec.step] >= spec.seconds, "its series"
        assert held[spec.grid] >= 2 * spec.seconds, "the range before it"


def test_a_coarser_grain_is_answered_in_its_own_windows() -> None:
    minutes = SCALES["1m"]
    state = State(SHAPE, minutes.levels)
    now = NOW // 60 * 60
    for back in range(180):
        state.add(
            [
                partials([Event(now - back * 60 + 7, "search", "eu", user) for user in range(5)]).set_column(
                    0, "window_start", pa.array([(now - back * 60) * 1_000_000]).cast(TIMESTAMP)
                )
            ],
            now,
        )
    levels = MappingProxyType({width: MappingProxyType(dict(held)) for width, held in state.buckets.items()})
    held = replace(snapshot_of([Event(now, "search", "eu")], max_event_s=now + 7), levels=levels)
    found = ask(held, Question(minutes.ranges["1h"], split="feature"), now * 1000 + 8_000)
    assert found.stretch.end == now + 60
    assert found.events == 60 * 5
    assert found.before[0] == pytest.approx(5 / 60)
    assert found.series.points == 60
    assert {*found.series.stacks[0][0][1]} == {round(5 / 60, 3)}


def test_heatmaps_shade_what_is_frequent_and_follow_the_values() -> None:
    flat = snapshot_of(steady(70, per_second=40), max_event_s=NOW)
    (found,) = ask(flat, about("1m"), NOW * 1000).series.heats
    assert found.log
    assert len(found.columns) in (59, 60)
    column = found.columns[30]
    assert len(column) == found.rows
    middle = 10 ** ((found.first + column.index(max(column)) + 0.5) / found.unit)
    assert 10 < middle < 45, "the log-normal's mode is exp(3 - 0.25) = 15.6, its median 20"
    assert all(low <= high for low, high in zip(found.quantiles[0], found.quantiles[2], strict=True))  # type: ignore[operator]
    even = [Event(NOW - 5 + i / 100, "search", "eu", i, 20 + i % 3) for i in range(300)]
    (linear,) = ask(snapshot_of(even, max_event_s=NOW), about("1m"), NOW * 1000).series.heats
    assert not linear.log
    assert linear.first * linear.unit <= 20
    assert (linear.first + linear.rows) * linear.unit >= 22


def test_null_dimensions_have_a_name() -> None:
    nameless = [Event(NOW - 1, None, "eu"), Event(NOW - 1, "search", "eu")]  # type: ignore[arg-type]
    found = ask(snapshot_of(nameless, max_event_s=NOW), about("1m", split="feature"), NOW * 1000)
    assert {leader.name for leader in found.boards[0]} == {"(none)", "search"}


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
        answers.get(snapshot, about("1m"), NOW * 1000 + 600)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [about("1m")]
    answers.get(replace(snapshot, version=4), about("1m"), NOW * 1000 + 600)
    answers.get(replace(snapshot, generation=2), about("1m"), NOW * 1000 + 600)
    assert len(asked) == 3
    answers.get(snapshot, about("1m"), NOW * 1000 + 600)
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
        answers.get(snapshot, about("1m"), NOW * 1000.0)
    assert answers.get(snapshot, about("1m"), NOW * 1000.0) == 7
