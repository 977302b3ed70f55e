"""The order of rows in merged files, and the reading of the part of a file that a question needs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from lakehouse.rollups import layout
from lakehouse.rollups.layout import row_groups
from lakehouse.schemas import gold_schema
from lakehouse.serving import files
from lakehouse.serving.history import open_held
from lakehouse.serving.lru import Lru
from lakehouse.serving.query import Measure, Query, Rollups
from tests.maintained import START_S, Stream
from tests.pipelines import small_pipeline

US = 1_000_000
PIPELINE = small_pipeline(Path("/nowhere"))
ROLLUP = PIPELINE.rollups["by_page"]


def partials(pages: list[str | None], windows: int, first: int = 0) -> pa.Table:
    """A row for each window and page, in the order of time."""
    schema = gold_schema(ROLLUP, PIPELINE.source.fields)
    rows = [
        {
            "window_start": (first + window) * US,
            "page": page,
            "events": window + 1,
            "min_event_time": 0,
            "max_event_time": 0,
        }
        for window in range(windows)
        for page in pages
    ]
    return pa.Table.from_pylist(rows, schema)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_GROUP_ROWS", (10, 10))
    monkeypatch.setattr(files, "SMALL_ROWS", 5)


@pytest.mark.usefixtures("small_groups")
def test_a_block_is_ordered_by_dimensions_and_then_time_and_keeps_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = ["b", None, "a", "ä", ""]
    early, late = partials(pages, 20), partials(pages, 20, first=20)
    monkeypatch.setattr(layout, "BLOCK_BYTES", early.nbytes)
    groups = list(row_groups([early.slice(0, 50), early.slice(50), late], ROLLUP))
    assert {group.num_rows for group in groups} == {10}
    rows = [(row["window_start"], row["page"]) for row in pa.concat_tables(groups).to_pylist()]
    blocks = [rows[:100], rows[100:]]
    for block, table in zip(blocks, (early, late), strict=True):
        expected = [(row["window_start"], row["page"]) for row in table.to_pylist()]
        # As Arrow orders: by bytes, nulls last.
        assert block == sorted(expected, key=lambda row: (row[1] is None, (row[1] or "").encode(), row[0]))
    assert list(row_groups([], ROLLUP)) == []


@pytest.mark.usefixtures("small_groups")
def test_maintenance_writes_files_of_which_a_question_reads_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(tmp_path, grains=("1s", "1m"))
    for number in range(12):
        stream.send(120, at_s=START_S + 60 * number)
    stream.maintain(2_000_000_000.0)
    table = "gold/clicks_by_page_1m"
    (path,) = (Path(uri.removeprefix("file://")) for uri in DeltaTable(str(stream.path(table))).file_uris())
    metadata = pq.ParquetFile(path).metadata
    assert metadata.num_row_groups > 1
    held = open_held(str(tmp_path), "1m", table)
    assert held is not None
    read: list[tuple[int, ...]] = []
    original = files._read
    monkeypatch.setattr(
        files, "_read", lambda file, groups, wanted: (read.append(groups), original(file, groups, wanted))[1]
    )

    def ask(page: frozenset[Any] | None, minutes: int, first: int = 0) -> list[dict[str, Any]]:
        start = int(START_S) * US + first * 60 * US
        where = (("page", page),) if page else ()
        query = Query("by_page", (Measure("events"),), start, start + minutes * 60 * US, 60 * US, ("page",), where)
        rows: list[dict[str, Any]] = rollups.ask(query).rows.to_pylist()
        return rows

    rollups = Rollups(stream.pipeline)
    whole = ask(None, 12)
    assert len(read[0]) == metadata.num_row_groups
    for page in ({"a"}, {"b", None}, {None}, {"nowhere"}):
        assert ask(frozenset(page), 12) == [row for row in whole if row["page"] in page]
    assert len(read[1]) < metadata.num_row_groups
    assert read[-1] == ()
    # Another range within the same row groups is answered by what was read for the first one.
    before = len(read)
    assert ask(frozenset({"a"}), 11, first=1) == [row for row in whole if row["page"] == "a"][1:]
    assert len(read) == before


@pytest.mark.usefixtures("small_groups")
def test_a_large_file_that_is_gone_is_an_error_in_words(tmp_path: Path) -> None:
    from lakehouse.errors import TableError

    stream = Stream(tmp_path)
    stream.send(120, at_s=START_S)
    for path in stream.path("gold/clicks_by_page_1s").glob("part-*.parquet"):
        path.unlink()
    start = int(START_S) * US
    with pytest.raises(TableError, match="a file of the table cannot be read"):
        Rollups(stream.pipeline).ask(Query("by_page", (Measure("events"),), start, start + US))


def test_the_cache_holds_what_was_used_last_and_nothing_that_is_too_large() -> None:
    cache: Lru[str, str] = Lru(5, len)
    cache.put("a", "xx")
    cache.put("b", "yy")
    assert cache.get("a") == "xx"
    cache.put("c", "zz")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == ("xx", None, "zz")
    cache.put("d", "far too long")
    assert (cache.get("d"), cache.get("a")) == (None, "xx")


def test_threads_may_read_one_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SMALL_ROWS", 5)
    stream = Stream(tmp_path)
    stream.send(400, at_s=START_S)
    rollups = Rollups(stream.pipeline)
    start = int(START_S) * US
    found: list[int] = []

    def ask(page: str) -> None:
        where = (("page", frozenset({page})),)
        found.append(
            rollups.ask(Query("by_page", (Measure("events"),), start, start + US, filters=where)).rows.num_rows
        )

    threads = [threading.Thread(target=ask, args=("abc"[number % 3],)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [1] * 9
