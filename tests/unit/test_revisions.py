"""Windows that late events changed: counted where they belong, shown as revised for a while, by how late they came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lakehouse.serving import revisions
from lakehouse.serving.query import Measure, Query, Rollups
from tests.maintained import START_S, FakeTime, Stream

US = 1_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


@pytest.fixture
def stream(tmp_path: Path, clock: FakeTime) -> Stream:
    """20 events of now, 6 of two hours ago and 4 of two days ago, all committed now."""
    made = Stream(tmp_path, grains=("1s", "1m"))
    clock.now_s = START_S + 1
    made.send(20, at_s=START_S)
    made.send(6, at_s=START_S - 7_200)
    made.send(4, at_s=START_S - 172_800)
    return made


def ask(rollups: Rollups, *measures: str, **changes: Any) -> list[dict[str, Any]]:
    start = int(START_S)
    found = tuple(map(Measure.parse, measures))
    query = Query("by_page", found, (start - 200_000) * US, (start + 60) * US, **changes)
    rows: list[dict[str, Any]] = rollups.ask(query).rows.to_pylist()
    return rows


def test_late_events_are_counted_in_their_window_and_shown_as_revised(stream: Stream) -> None:
    rollups = Rollups(stream.pipeline)
    assert ask(rollups, "events", "revised") == [
        {"window_start": ask(rollups, "events")[0]["window_start"], "events": 30, "revised": 10}
    ]
    by_minute = ask(rollups, "events", "revised", step_us=60 * US)
    assert sorted((row["events"], row["revised"]) for row in by_minute) == [(4, 4), (6, 6), (20, 0)]
    by_page = ask(rollups, "revised", dimensions=("page",))
    assert sum(row["revised"] for row in by_page) == 10
    only = ask(rollups, "revised", "events", filters=(("page", frozenset({"a"})),))
    silver = [row for row in stream.silver().to_pylist() if row["page"] == "a"]
    assert only[0]["events"] == len(silver)
    assert only[0]["revised"] == sum(row["at"].timestamp() < START_S - 60 for row in silver)


def test_they_are_counted_by_lateness(stream: Stream) -> None:
    assert Rollups(stream.pipeline).revised("by_page").by_lateness() == {
        "up to 1h": 0, "up to 1d": 6, "more than 1d": 4,
    }  # fmt: skip


def test_a_rewrite_revises_nothing_and_each_commit_is_read_once(
    stream: Stream, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollups = Rollups(stream.pipeline)
    before = ask(rollups, "events", "revised")
    reads: list[int] = []
    original = revisions.Revisions._late
    monkeypatch.setattr(
        revisions.Revisions,
        "_late",
        lambda self, held, commit: (reads.append(commit.version), original(self, held, commit))[1],
    )
    clock.settle(stream.root)
    clock.now_s += 60
    stream.maintain(clock.now_s)
    assert ask(rollups, "events", "revised") == before
    assert set(reads).isdisjoint({1, 2, 3})
    stream.send(2, at_s=START_S - 3_600)
    assert ask(rollups, "revised")[0]["revised"] == before[0]["revised"] + 2


def test_after_a_while_a_window_is_no_longer_revised(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    rollups = Rollups(stream.pipeline)
    assert ask(rollups, "revised")[0]["revised"] == 10
    monkeypatch.setattr(revisions, "REVISED_FOR_MS", -1)
    other = Rollups(stream.pipeline)
    assert ask(other, "revised", "events") == [ask(rollups, "revised", "events")[0] | {"revised": 0}]


def test_a_declared_metric_of_that_name_counts_for_itself(tmp_path: Path) -> None:
    metric = {"name": "revised", "type": "count", "where": {"status": "error"}}
    stream = Stream(tmp_path, metrics=[metric])
    stream.send(20, at_s=START_S)
    assert ask(Rollups(stream.pipeline), "revised")[0]["revised"] == 4
