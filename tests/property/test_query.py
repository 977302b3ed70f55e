"""Every answer over hot tail and history is the same aggregate over silver, whatever was derived, merged or retired."""

from __future__ import annotations

import shutil
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lakehouse.errors import ConfigError
from lakehouse.serving.planner import Kept, plan
from lakehouse.serving.query import Measure, Query, Rollups
from tests.maintained import START_S, Stream
from tests.property import examples

US = 1_000_000
MEASURES = tuple(
    Measure.parse(text)
    for text in ("events", "errors", "ms_sum", "ms_min", "ms_max", "ms_kll@0.5", "users_hll", "errors/events")
)
GRAINS = ("1s", "1m", "1h")
WIDTHS = {"1s": US, "1m": 60 * US, "1h": 3_600 * US, "1d": 86_400 * US}

EDGES = st.sampled_from([0, 59, 60, 3_540, 3_599, 3_600, 3_605, 3_661, 7_199, 7_200, 7_203])
"""Events gather where grains meet, and ranges begin and end there."""
SENDS = st.tuples(st.just("send"), EDGES, st.integers(0, 6))
MAINTAINS = st.tuples(st.sampled_from(["maintain", "derive 1m", "restart"]), st.just(0), st.just(0))
SECONDS = st.one_of(EDGES, EDGES.map(lambda at: at + 1), st.integers(-200, 7_500))
QUERIES = st.tuples(
    SECONDS,
    SECONDS,
    st.sampled_from([None, 1, 5, 60, 300, 3_600, 86_400]),
    st.booleans(),
    st.sampled_from([None, frozenset({"a"}), frozenset({"b", None})]),
)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(SENDS, SENDS, MAINTAINS), min_size=1, max_size=5), st.lists(QUERIES, min_size=2, max_size=4))
def test_an_answer_is_the_aggregate_over_silver(
    steps: list[tuple[str, int, int]], queries: list[tuple[int, int, int | None, bool, frozenset[Any] | None]]
) -> None:
    root = Path(tempfile.mkdtemp(prefix="lakehouse-query-"))
    stream = Stream(root, grains=GRAINS)
    rollups = Rollups(stream.pipeline)
    try:
        stream.send(12, at_s=START_S + 3_590)
        for step, at, late in steps:
            _perform(stream, step, at, late)
            # With the same open tables all along, as a server has them.
            _require_same(stream, rollups, queries[0])
        for query in queries:
            _require_same(stream, rollups, query)
    finally:
        stream.sink.close()
        shutil.rmtree(root)


def _perform(stream: Stream, step: str, at: int, late: int) -> None:
    match step:
        case "send":
            stream.send(12, at_s=START_S + at, late=late)
        case "maintain":
            stream.maintain(time.time() + 60)
        case "derive 1m":
            # Only the minutes, as in a pass of the background between two derivations of hours.
            list(stream.maintainer(time.time() + 60, thorough=False).maintain())
        case "restart":
            stream.sink.close()
            stream.open()


def _require_same(
    stream: Stream, rollups: Rollups, drawn: tuple[int, int, int | None, bool, frozenset[Any] | None]
) -> None:
    first, last, step, split, pages = drawn
    start, end = sorted((START_S + first, START_S + last))
    if start == end:
        return
    query = Query(
        "by_page",
        MEASURES,
        int(start * US),
        int(end * US),
        None if step is None else step * US,
        ("page",) if split else (),
        (("page", pages),) if pages else (),
    )
    answer = rollups.ask(query)
    for use in answer.uses:
        event(f"{use.segment.grain} from {'a tail' if use.tail else 'a table'}")
    assert _comparable(answer.rows.to_pylist(), split=split) == _comparable(_over_silver(stream, query), split=split)
    assert rollups.ask(query).cached


def _over_silver(stream: Stream, query: Query) -> list[dict[str, Any]]:
    silver = stream.silver()  # noqa: F841 - DuckDB finds it by its name
    window = f"epoch_us(silver.at) // {query.step_us} * {query.step_us}" if query.step_us else str(query.start_us)
    keys = ", page" if query.dimensions else ""
    where = ""
    for _, values in query.filters:
        named = ", ".join(f"'{value}'" for value in values if value is not None)
        where = f" AND (page IN ({named})" + (" OR page IS NULL)" if None in values else ")")
    bounds = f"epoch_us(silver.at) >= {query.start_us} AND epoch_us(silver.at) < {query.end_us}"
    found = duckdb.sql(
        f"SELECT make_timestamptz({window}) AS window_start{keys}, count(*) AS events,"  # noqa: S608 - own values
        " count(*) FILTER (WHERE status = 'error') AS errors, sum(ms) AS ms_sum, min(ms) AS ms_min, max(ms) AS ms_max,"
        ' list_sort(list(ms))[count(ms) // 2 + 1] AS "ms_kll@0.5", count(DISTINCT "user") AS users_hll,'
        " count(*) FILTER (WHERE status = 'error') / count(*) AS \"errors/events\""
        f" FROM silver WHERE {bounds}{where} GROUP BY ALL HAVING count(*) > 0"
    )
    return found.to_arrow_table().to_pylist()  # type: ignore[no-any-return]


def _comparable(rows: list[dict[str, Any]], *, split: bool) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    found = {}
    for row in rows:
        key = (row["window_start"], row["page"] if split else None)
        assert key not in found
        numbers = [row[measure.name] for measure in MEASURES if measure.name != "users_hll"]
        # So few members are counted exactly, but for rounding; so few values are all in the sketch.
        found[key] = (*numbers, round(row["users_hll"]))
    return found


@given(
    st.lists(st.sampled_from(["1s", "1m", "1h", "1d"]), min_size=1, unique=True),
    st.integers(0, 400_000),
    st.integers(1, 400_000),
    st.sampled_from([None, 1, 60, 90, 3_600, 86_400]),
    st.dictionaries(st.sampled_from(["1s", "1m", "1h", "1d"]), st.integers(0, 400_000)),
)
def test_segments_are_the_range_once_and_each_grain_fits(
    grains: list[str], start: int, length: int, step: int | None, kept_from: dict[str, int]
) -> None:
    ordered = sorted(grains, key=WIDTHS.__getitem__)
    kept = [Kept(name, WIDTHS[name], kept_from[name] * US if name in kept_from else None) for name in ordered]
    begin, end = start * US, (start + length) * US
    try:
        segments = plan(kept, begin, end, None if step is None else step * US)
    except ConfigError:
        return
    assert (segments[0].start_us, segments[-1].end_us) == (begin, end)
    assert all(one.end_us == other.start_us for one, other in pairwise(segments))
    for segment in segments:
        width, bound = WIDTHS[segment.grain], kept_from.get(segment.grain)
        assert segment.start_us % width == segment.end_us % width == 0
        assert segment.start_us < segment.end_us
        assert step is None or step * US % width == 0
        assert bound is None or segment.start_us >= bound * US
    assert len(segments) <= 2 * len(grains) + 1 + 2 * len(kept_from)
