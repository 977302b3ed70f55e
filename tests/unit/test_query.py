"""Questions to a rollup's history: what they may name, what answers them, how fresh, and how often it is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from lakehouse import cli
from lakehouse.errors import ConfigError, LakehouseError, TableError, TooStale
from lakehouse.serving import files as module
from lakehouse.serving.planner import Kept, Segment, plan
from lakehouse.serving.query import Measure, Query, Rollups, parse_filters, parse_range, render_uses
from tests.maintained import START_S, Stream

US = 1_000_000
START = int(START_S) * US


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    made = Stream(tmp_path, grains=("1s", "1m", "1h"))
    for number in range(3):
        made.send(20, at_s=START_S + 1_800 * number, late=2)
    made.maintain(time.time())
    made.send(20, at_s=START_S + 5_400, late=2)
    return made


def query(*measures: str, **changes: object) -> Query:
    found = tuple(map(Measure.parse, measures or ("events",)))
    return Query(
        **{"rollup": "by_page", "measures": found, "start_us": START - 600 * US, "end_us": START + 7_200 * US} | changes
    )  # type: ignore[arg-type]


def test_the_coarsest_grains_answer_and_the_tail_is_joined(stream: Stream) -> None:
    answer = Rollups(stream.pipeline).ask(query("events", "users_hll"))
    assert answer.rows["events"].to_pylist() == [80]
    used = [(use.segment.grain, use.table.rsplit("_", 1)[1], use.tail) for use in answer.uses]
    assert used == [("1m", "1m", False), ("1m", "1s", True), ("1h", "1h", False), ("1h", "1s", True)]
    assert [(use.segment.start_us, use.segment.end_us) for use in answer.uses][::2] == [
        (START - 600 * US, START),
        (START, START + 7_200 * US),
    ]
    text = answer.explain()
    assert "gold/clicks_by_page_1h@" in text
    assert " tail" in text
    assert "1 rows in" in text
    assert render_uses(answer.uses) in text


def test_the_same_question_at_the_same_versions_is_answered_once(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollups = Rollups(stream.pipeline)
    first = rollups.ask(query())
    reads: list[str] = []
    original = module.read_part
    monkeypatch.setattr(module, "read_part", lambda *a: (reads.append(a[1].path), original(*a))[1])
    again = rollups.ask(query())
    assert (again.cached, reads, again.rows) == (True, [], first.rows)
    stream.send(20, at_s=START_S)
    other = rollups.ask(query())
    assert (other.cached, len(reads), other.rows["events"].to_pylist()) == (False, 1, [100])


def test_an_answer_is_no_older_than_asked_or_an_error(stream: Stream) -> None:
    committed = time.time()
    rollups = Rollups(stream.pipeline, clock=lambda: committed + 10)
    assert rollups.ask(query(max_staleness=timedelta(seconds=60))).rows.num_rows == 1
    with pytest.raises(TooStale, match=r"the last batch was committed \d+\.\d s ago; the question allows 5s") as error:
        rollups.ask(query(max_staleness=timedelta(seconds=5)))
    assert (error.value.exit_code, error.value.retriable) == (75, True)
    stream.maintain(time.time() + 60)  # a rewrite makes nothing fresher
    with pytest.raises(TooStale):
        rollups.ask(query(max_staleness=timedelta(seconds=5)))


def test_a_file_that_was_vacuumed_meanwhile_is_read_from_the_newer_version(stream: Stream) -> None:
    rollups = Rollups(stream.pipeline)
    rollups.look(query())
    for _ in range(12):
        stream.send(2, at_s=START_S)
    stream.maintain(time.time() + 3_600)
    stream.maintain(time.time() + 3_600)
    assert rollups.ask(query()).rows["events"].to_pylist() == [stream.sent]


REFUSED: list[tuple[Callable[[], Query], str]] = [
    (lambda: query(rollup="by_pag"), "there is no rollup by_pag"),
    (lambda: query("event"), "there is no metric event"),
    (lambda: query("events; DROP TABLE x"), "there is no metric events; DROP TABLE x"),
    (lambda: query("events/nothing"), "there is no metric nothing"),
    (lambda: query("ms_kll"), "ms_kll is a metric of type quantiles"),
    (lambda: query("events@0.5"), "events is a metric of type count"),
    (lambda: query("ms_kll@1.5"), "the rank 1.5 is not between 0 and 1"),
    (lambda: query("events/ms_kll"), "a metric of type count is not divided by one of type quantiles"),
    (lambda: query("ms_kll@half"), "'half' is no rank"),
    (lambda: query(dimensions=("user",)), "user is no dimension of by_page"),
    (lambda: query(filters=(("user", frozenset({1})),)), "user is no dimension of by_page"),
    (lambda: query(filters=(("page", frozenset({1})),)), "a value for page does not fit its type, string"),
    (lambda: query(measures=()), "no measure is asked for"),
    (lambda: query(end_us=0), "the range or its windows are empty"),
    (lambda: query(step_us=US // 2), "the windows of the answer are no multiple of 1s, the finest grain there is"),
    (lambda: query(start_us=START + 1), "no grain has rows as narrow as the part of the range from"),
]


@pytest.mark.parametrize(("asked", "what"), REFUSED, ids=[what for _, what in REFUSED])
def test_what_does_not_exist_is_refused_by_name(asked: Callable[[], Query], what: str, tmp_path: Path) -> None:
    stream = Stream(tmp_path, grains=("1s",))
    stream.send(2, at_s=START_S)
    with pytest.raises(ConfigError) as error:
        Rollups(stream.pipeline).ask(asked())
    assert what in error.value.what
    assert error.value.remedy


def test_a_rollup_without_a_table_says_so(tmp_path: Path) -> None:
    from tests.pipelines import small_pipeline

    with pytest.raises(TableError, match="the rollup has no table yet"):
        Rollups(small_pipeline(tmp_path)).ask(query())


def test_rows_that_a_rule_retired_are_answered_by_the_coarser_grain_or_refused() -> None:
    kept = [Kept("1s", US, 7_000 * US), Kept("1m", 60 * US, 3_600 * US), Kept("1h", 3_600 * US)]
    assert plan(kept, 0, 7_201 * US, None) == (Segment("1h", 0, 7_200 * US), Segment("1s", 7_200 * US, 7_201 * US))
    assert plan(kept, 3_600 * US, 3_660 * US, 60 * US) == (Segment("1m", 3_600 * US, 3_660 * US),)
    with pytest.raises(ConfigError, match="from 1970-01-01T00:01:00Z to 1970-01-01T01:00:00Z"):
        plan(kept, 60 * US, 7_200 * US, None)
    with pytest.raises(ConfigError, match="from 1970-01-01T01:00:00Z to 1970-01-01T01:56:40Z"):
        plan(kept, 3_600 * US, 7_100 * US, US)


def test_filters_and_ranges_are_read_from_text(stream: Stream) -> None:
    assert parse_filters(stream.pipeline, "by_page", ["page=a", "page=b"]) == (("page", frozenset({"a", "b"})),)
    with pytest.raises(ConfigError, match="'page' is no filter"):
        parse_filters(stream.pipeline, "by_page", ["page"])
    assert parse_range("2026-01-31T12:00:00Z", "2026-01-31T13:00", None) == (1_769_860_800 * US, 1_769_864_400 * US)
    first, last = parse_range(None, None, "1h")
    assert (last - first, last % US) == (3_600 * US, 0)
    bad: list[tuple[str | None, str | None, str | None]] = [
        (None, None, None), ("x", None, None), (None, None, "x"), ("2026-01-31", None, "1h"),
    ]  # fmt: skip
    for arguments in bad:
        with pytest.raises(LakehouseError):
            parse_range(*arguments)


def test_the_command_answers_as_table_and_as_json(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "load", lambda _: stream.pipeline)
    arguments = ["ask", "any.yaml", "--rollup", "by_page", "--measure", "events", "--measure", "errors/events"]
    arguments += ["--from", "2027-01-15T07:00:00Z", "--to", "2027-01-15T11:00:00Z", "--by", "page", "--where", "page=a"]
    shown = CliRunner().invoke(cli.app, [*arguments, "--step", "1h", "--explain"])
    assert shown.exit_code == 0, shown.output
    assert "errors/events" in shown.output
    assert "gold/clicks_by_page_1h@" in shown.output
    told = orjson.loads(CliRunner().invoke(cli.app, [*arguments, "--json"]).output)
    (row,) = told["rows"]
    expected = stream.silver().filter(pa.compute.equal(stream.silver()["page"], "a"))
    assert (row["page"], row["events"]) == ("a", expected.num_rows)
    assert set(told["versions"]) == {f"gold/clicks_by_page_{grain}" for grain in ("1s", "1m", "1h")}
