"""The line to the tables' store is cut, slow or half open: what holds, and what a person sees (docs/tradeoffs.md)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from deltalake import DeltaTable

from lakehouse import storage
from lakehouse.errors import LakehouseError, StorageUnavailable
from lakehouse.serving.follower import Follower
from lakehouse.serving.snapshot import Shape
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.sink import Sink
from lakehouse.streaming.query import retry_while_unavailable
from tests import s3_server
from tests.pipelines import answers, small_pipeline
from tests.proxy import Line, line_to

ROOT = f"s3://{s3_server.BUCKET}/split"
SILVER, GOLD = f"{ROOT}/silver/clicks", f"{ROOT}/gold/clicks_by_page_1s"


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Line]:
    """The line to a store that holds nothing yet; requests are not tried again for as long as in production."""
    monkeypatch.setattr(storage, "_PATIENCE_S", 1.0)
    monkeypatch.setattr(storage, "_ATTEMPTS", 1)
    monkeypatch.setattr(storage, "_REQUEST_S", 2.0)
    monkeypatch.setattr(storage, "_READER_S", 1.0)
    monkeypatch.setenv("LAKEHOUSE_STATE", str(tmp_path))
    with s3_server.in_process() as (url, _), line_to(urlsplit(url).port or 0) as line:
        for name, value in s3_server.environment(f"http://127.0.0.1:{line.port}").items():
            monkeypatch.setenv(name, value)
        yield line


def one_pass() -> OnePass:
    return OnePass(ROOT, small_pipeline(ROOT), storage.storage_environment())


def write(sink: Sink, first: int, count: int = 10) -> None:
    start, end = {"clicks": {0: first}}, {"clicks": {0: first + count}}
    batch = sink.next_batch("q", first // 10, start, end, "suite")
    with storage.explaining(ROOT):
        sink.write(batch, answers(one_pass(), first, count))


def offsets() -> list[int]:
    return sorted(DeltaTable(SILVER).to_pyarrow_table(columns=["_offset"])["_offset"].to_pylist())


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["cut", "half_open"])
def test_a_driver_that_loses_its_store_waits_and_goes_on_with_every_record_once(line: Line, how: str) -> None:
    """Each attempt begins where the tables end, as `lakehouse run` begins anew after an error that can pass."""
    sink = Sink.open(one_pass())
    write(sink, 0)
    getattr(line, how)()
    with pytest.raises(StorageUnavailable, match="does not answer"):
        write(sink, 10)
    sink.close()
    waits: list[float] = []

    def waited(_: LakehouseError, wait_s: float) -> None:
        waits.append(wait_s)
        line.heal()

    def attempt() -> None:
        with storage.explaining(ROOT):
            again = Sink.open(one_pass())
        first = (again.end or {})["clicks"][0]
        write(again, first)
        again.close()
        if first < 20:
            attempt()

    retry_while_unavailable(attempt, threading.Event(), on_wait=waited)
    assert waits == [1.0]
    assert offsets() == list(range(30))
    assert sum(DeltaTable(GOLD).to_pyarrow_table()["events"].to_pylist()) == 30


def test_a_cut_between_two_tables_is_finished_by_the_next_start(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silver has the batch, the line goes, the others lack it: no reader of one table sees half of a batch in it."""
    sink = Sink.open(one_pass())
    write(sink, 0)
    first = next(iter(sink._logs.values()))
    append = first.append

    def append_then_cut(batch: object, also: object = ()) -> bool:
        landed = append(batch, also)  # type: ignore[arg-type]
        line.cut()
        return landed

    monkeypatch.setattr(first, "append", append_then_cut)
    with pytest.raises(StorageUnavailable):
        write(sink, 10)
    sink.close()
    line.heal()
    assert offsets() == list(range(20))
    assert sum(DeltaTable(GOLD).to_pyarrow_table()["events"].to_pylist()) == 10
    Sink.open(one_pass()).close()
    assert offsets() == list(range(20))
    assert sum(DeltaTable(GOLD).to_pyarrow_table()["events"].to_pylist()) == 20


def test_a_slow_line_makes_batches_slow_and_nothing_else(line: Line) -> None:
    sink = Sink.open(one_pass())
    line.slow(0.05)
    write(sink, 0)
    line.heal()
    write(sink, 10)
    sink.close()
    assert offsets() == list(range(20))


@pytest.mark.parametrize("how", ["cut", "half_open"])
def test_a_viewer_keeps_the_last_state_with_the_reason_and_catches_up(line: Line, how: str) -> None:
    sink = Sink.open(one_pass())
    write(sink, 0)
    pipeline = small_pipeline(ROOT)
    follower = Follower(GOLD, Shape.of(pipeline.rollups["by_page"], pipeline.source.fields)).start()
    try:
        until(lambda: follower.snapshot.version == 1, "the first state is not shown")
        getattr(line, how)()
        until(lambda: follower.snapshot.problem is not None, "nobody is told that the table cannot be read")
        assert follower.snapshot.version == 1
        line.heal()
        write(sink, 10)
        until(lambda: follower.snapshot.version == 2 and follower.snapshot.problem is None, "it does not catch up")
    finally:
        follower.stop()
        sink.close()
