"""All tables of a pipeline together: one batch into each, and a batch cut in two by a crash made whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable

from lakehouse.chain import Batch
from lakehouse.errors import SecondDriver, TableError, TableLost
from lakehouse.sinks.delta_log import TableLog
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.sink import Sink
from tests.pipelines import INGESTED, answers, small_pipeline

SILVER, QUARANTINE, GOLD = "silver/clicks", "quarantine/clicks", "gold/clicks_by_page_1s"


@pytest.fixture
def one_pass(tmp_path: Path) -> OnePass:
    return OnePass(str(tmp_path), small_pipeline(tmp_path), {})


def write(sink: Sink, one_pass: OnePass, first: int, count: int, number: int = 0) -> dict[str, int]:
    batch = sink.next_batch("q", number, {"t": {0: first}}, {"t": {0: first + count}}, "sha")
    return sink.write(batch, answers(one_pass, first, count)).rows()


def total(one_pass: OnePass, name: str, column: str) -> int:
    return sum(DeltaTable(f"{one_pass.root}/{name}").to_pyarrow_table()[column].to_pylist())


def test_a_batch_reaches_every_table_with_one_record_of_its_range(one_pass: OnePass) -> None:
    sink = Sink.open(one_pass)
    assert sink.head is None
    assert write(sink, one_pass, 0, 4) == {SILVER: 4, QUARANTINE: 0, GOLD: 1}
    assert write(sink, one_pass, 4, 2, number=1) == {SILVER: 2, QUARANTINE: 0, GOLD: 1}
    again = Sink.open(one_pass)
    assert again.head is not None
    assert again.head.end == {"t": {0: 6}}
    assert again.head.origin == {"t": {0: 0}}
    assert again.holds({"t": {0: 4}}, {"t": {0: 6}})
    assert not again.holds({"t": {0: 0}}, {"t": {0: 6}})
    assert total(one_pass, GOLD, "events") == 6


@pytest.mark.parametrize("missed", [[QUARANTINE], [GOLD], [QUARANTINE, GOLD]])
def test_a_batch_that_reached_only_some_tables_is_finished_with_its_first_files(
    one_pass: OnePass, missed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Sink.open(one_pass)
    write(sink, one_pass, 0, 3)
    append = TableLog.append

    def crash(self: TableLog, batch: object) -> bool:
        if self.name in missed:
            raise RuntimeError("killed")
        return append(self, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(TableLog, "append", crash)
        with pytest.raises(RuntimeError):
            write(sink, one_pass, 3, 5, number=1)
        sink.close()

    mended = Sink.open(one_pass)
    assert mended.holds({"t": {0: 3}}, {"t": {0: 8}})
    assert total(one_pass, GOLD, "events") == 8
    assert sorted(DeltaTable(f"{one_pass.root}/{SILVER}").to_pyarrow_table()["_offset"].to_pylist()) == list(range(8))
    write(mended, one_pass, 8, 1, number=2)
    assert total(one_pass, GOLD, "events") == 9


def test_tables_two_batches_apart_are_refused(one_pass: OnePass, tmp_path: Path) -> None:
    sink = Sink.open(one_pass)
    for number in range(3):
        write(sink, one_pass, 2 * number, 2, number=number)
    for version in (2, 3):
        (tmp_path / QUARANTINE / "_delta_log" / f"{version:020d}.json").unlink()
    with pytest.raises(TableLost, match="t 0:2") as refused:
        Sink.open(one_pass)
    assert QUARANTINE in str(refused.value)


def test_the_first_table_decides_alone(one_pass: OnePass, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Sink.open(one_pass)
    monkeypatch.setattr(sink._logs[SILVER], "append", failing)
    with pytest.raises(RuntimeError):
        write(sink, one_pass, 0, 3)
    assert all(DeltaTable(f"{one_pass.root}/{name}").version() == 0 for name in (SILVER, QUARANTINE, GOLD))


def failing(_: object) -> bool:
    raise RuntimeError("killed")


def test_of_two_drivers_in_step_one_wins_every_table(one_pass: OnePass, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower one comes in between the quicker one's first and second commit, with files of its own."""
    quick, slow = Sink.open(one_pass), Sink.open(one_pass)
    append = quick._logs[QUARANTINE].append

    def overtaken(batch: Batch) -> bool:
        with pytest.raises(SecondDriver, match="quicker"):
            write(slow, one_pass, 0, 3)
        return append(batch)

    monkeypatch.setattr(quick._logs[QUARANTINE], "append", overtaken)
    write(quick, one_pass, 0, 3)
    assert Sink.open(one_pass).holds({"t": {0: 0}}, {"t": {0: 3}})
    assert total(one_pass, GOLD, "events") == 3


def half_committed(one_pass: OnePass, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows in every table, five more in silver only."""
    sink = Sink.open(one_pass)
    write(sink, one_pass, 0, 3)
    with monkeypatch.context() as patched:
        for name in (QUARANTINE, GOLD):
            patched.setattr(sink._logs[name], "append", failing)
        with pytest.raises(RuntimeError):
            write(sink, one_pass, 3, 5, number=1)


def test_a_half_committed_batch_is_finished_in_a_table_that_the_file_no_longer_has(
    one_pass: OnePass, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_committed(one_pass, monkeypatch)
    sink = Sink.open(OnePass(one_pass.root, small_pipeline(tmp_path, rollups={}), {}))
    assert total(one_pass, GOLD, "events") == 8
    batch = sink.next_batch("q", 2, {"t": {0: 8}}, {"t": {0: 9}}, "another suite")
    sink.write(batch, answers(one_pass, 8, 1)[:1])
    assert total(one_pass, GOLD, "events") == 8
    # The rollup is put back: it has missed a batch, which is not passed over in silence.
    with pytest.raises(TableLost, match="t 0:8") as refused:
        Sink.open(one_pass)
    assert GOLD in str(refused.value)


def test_a_half_committed_batch_is_finished_before_an_edited_file_is_refused(
    one_pass: OnePass, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_committed(one_pass, monkeypatch)
    other = {"by_page": {"dimensions": ["page"], "metrics": [{"name": "slow", "type": "count"}]}}
    with pytest.raises(TableError, match="slow"):
        Sink.open(OnePass(one_pass.root, small_pipeline(tmp_path, rollups=other), {}))
    assert total(one_pass, GOLD, "events") == 8
    assert Sink.open(one_pass).holds({"t": {0: 3}}, {"t": {0: 8}})


def test_a_table_joins_later_and_says_from_where(
    one_pass: OnePass, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_committed(one_pass, monkeypatch)
    bronze = "bronze/clicks"
    with_bronze = OnePass(one_pass.root, small_pipeline(tmp_path, tables={"bronze": True}), {})
    joined = Sink.open(with_bronze).past.joined
    assert joined == {bronze: INGESTED + 3}
    # A crash right after it has joined changes nothing; the next batch tells every table of it.
    sink = Sink.open(with_bronze)
    assert sink.past.joined == joined
    write(sink, one_pass, 8, 1, number=2)
    again = Sink.open(with_bronze)
    assert {name: log.head.past.joined for name, log in again._logs.items() if log.head} == dict.fromkeys(
        [SILVER, QUARANTINE, bronze, GOLD], joined
    )


@pytest.mark.parametrize("name", [SILVER, QUARANTINE, GOLD])
def test_a_table_that_is_gone_is_not_made_anew_in_silence(one_pass: OnePass, tmp_path: Path, name: str) -> None:
    sink = Sink.open(one_pass)
    write(sink, one_pass, 0, 2)
    write(sink, one_pass, 2, 2, number=1)
    shutil.rmtree(tmp_path / name)
    with pytest.raises(TableLost, match="is gone") as refused:
        Sink.open(one_pass)
    assert name in str(refused.value)
    assert not (tmp_path / name).exists()


def test_a_changed_rollup_is_refused_by_its_columns(one_pass: OnePass, tmp_path: Path) -> None:
    write(Sink.open(one_pass), one_pass, 0, 2)
    other = {"by_page": {"dimensions": ["page"], "metrics": [{"name": "slow", "type": "count"}]}}
    with pytest.raises(TableError, match="slow"):
        Sink.open(OnePass(one_pass.root, small_pipeline(tmp_path, rollups=other), {}))


def test_a_commit_that_landed_although_the_store_failed_is_there_once(
    one_pass: OnePass, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Sink.open(one_pass)
    put = TableLog._put

    def landed_and_lost(self: TableLog, version: int, body: bytes) -> bool:
        put(self, version, body)
        raise OSError("the connection was reset")

    with monkeypatch.context() as patched:
        patched.setattr(TableLog, "_put", landed_and_lost)
        with pytest.raises(OSError, match="reset"):
            write(sink, one_pass, 0, 3)
    again = Sink.open(one_pass)
    assert again.holds({"t": {0: 0}}, {"t": {0: 3}})
    assert total(one_pass, GOLD, "events") == 3


def test_an_edited_suite_does_not_change_a_batch_that_was_begun(
    one_pass: OnePass, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_committed(one_pass, monkeypatch)
    sink = Sink.open(one_pass)
    # Spark plans the same range again; under the new suite every row of it would be refused.
    assert sink.holds({"t": {0: 3}}, {"t": {0: 8}})
    batch = sink.next_batch("q", 1, {"t": {0: 3}}, {"t": {0: 8}}, "another suite")
    refused = [(QUARANTINE, adds, None) for table, adds, _ in answers(one_pass, 3, 5) if table == SILVER]
    assert sink.write(batch, refused).suite_sha256 == "sha"
    assert total(one_pass, GOLD, "events") == 8
    assert DeltaTable(f"{one_pass.root}/{QUARANTINE}").file_uris() == []
