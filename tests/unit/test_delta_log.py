"""Commits by put-if-absent: each batch once, in one order, readable by others."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse.chain import Batch
from lakehouse.errors import ChainError, SecondDriver, TableDamaged, TableError
from lakehouse.sinks.delta_log import TableLog, find_head, require_columns
from lakehouse.sinks.files import write_file
from lakehouse.storage import open_store

SCHEMA = pa.schema([("_partition", pa.int32()), ("_offset", pa.int64()), ("when", pa.timestamp("us", tz="UTC"))])
NAME = "silver/clicks"


def rows(first: int, count: int) -> pa.Table:
    return pa.table(
        {
            "_partition": pa.array([0] * count, pa.int32()),
            "_offset": pa.array(range(first, first + count), pa.int64()),
            "when": pa.array([1_000_000 * first] * count, pa.int64()).cast(SCHEMA.field("when").type),
        },
        SCHEMA,
    )


def a_batch(root: Path, first: int, count: int, *, query: str = "q", number: int = 0) -> Batch:
    adds = [write_file(str(root), NAME, rows(first, count), "when")] if count else []
    span = ({"t": {0: first}}, {"t": {0: first + count}})
    return Batch("clicks", query, number, *span, {"t": {0: 0}}, "sha", {NAME: adds})


def opened(root: Path) -> TableLog:
    return TableLog.open(f"{root}/{NAME}", NAME, SCHEMA)


def offsets(root: Path) -> list[int]:
    return sorted(DeltaTable(f"{root}/{NAME}").to_pyarrow_table()["_offset"].to_pylist())


def test_a_commit_is_what_other_readers_of_delta_see(tmp_path: Path) -> None:
    log = opened(tmp_path)
    assert log.append(a_batch(tmp_path, 0, 3)) is True
    assert log.append(a_batch(tmp_path, 3, 2, number=1)) is True
    table = DeltaTable(f"{tmp_path}/{NAME}")
    assert table.version() == log.version == 2
    assert offsets(tmp_path) == [0, 1, 2, 3, 4]
    assert table.transaction_version("q") == 1
    assert json.loads(table.history(1)[0]["userMetadata"])["end"] == {"t": {"0": 5}}
    adds = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    assert sorted((add["num_records"], add["min._offset"], add["max._offset"]) for add in adds) == [
        (2, 3, 4),
        (3, 0, 2),
    ]


def test_the_same_batch_again_is_skipped(tmp_path: Path) -> None:
    log = opened(tmp_path)
    batch = a_batch(tmp_path, 0, 3)
    log.append(batch)
    assert log.append(batch) is False
    assert opened(tmp_path).append(batch) is False
    assert offsets(tmp_path) == [0, 1, 2]


def test_a_batch_without_rows_still_moves_the_chain_on(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append(a_batch(tmp_path, 0, 3))
    empty = Batch("clicks", "q", 1, {"t": {0: 3}}, {"t": {0: 9}}, {"t": {0: 0}}, "sha", {NAME: []})
    assert log.append(empty) is True
    assert opened(tmp_path).head == empty


def test_reopening_finds_the_last_batch_behind_maintenance_commits(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(3):
        log.append(a_batch(tmp_path, 2 * number, 2, number=number))
    DeltaTable(f"{tmp_path}/{NAME}").optimize.compact()
    again = opened(tmp_path)
    assert again.version == 4
    assert again.head is not None
    assert again.head.batch_id == 2
    assert again.append(a_batch(tmp_path, 6, 1, number=3)) is True
    assert offsets(tmp_path) == list(range(7))


def test_an_append_steps_over_maintenance_that_came_between(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append(a_batch(tmp_path, 0, 2))
    log.append(a_batch(tmp_path, 2, 2, number=1))
    DeltaTable(f"{tmp_path}/{NAME}").optimize.compact()
    assert log.append(a_batch(tmp_path, 4, 2, number=2)) is True
    assert log.version == 4
    assert offsets(tmp_path) == list(range(6))


def test_a_slower_driver_is_refused_and_leaves_no_row(tmp_path: Path) -> None:
    slow, quick = opened(tmp_path), opened(tmp_path)
    quick.append(a_batch(tmp_path, 0, 3, query="quick"))
    with pytest.raises(SecondDriver, match="quick"):
        slow.append(a_batch(tmp_path, 0, 5, query="slow"))
    assert offsets(tmp_path) == [0, 1, 2]


def test_a_second_driver_with_the_very_same_range_is_refused_too(tmp_path: Path) -> None:
    slow, quick = opened(tmp_path), opened(tmp_path)
    quick.append(a_batch(tmp_path, 0, 3))
    with pytest.raises(SecondDriver, match="another driver"):
        slow.append(a_batch(tmp_path, 0, 3))
    assert offsets(tmp_path) == [0, 1, 2]


def test_of_many_drivers_at_once_exactly_one_wins_each_batch(tmp_path: Path) -> None:
    drivers = [opened(tmp_path) for _ in range(8)]
    batches = [a_batch(tmp_path, 0, 4 + number, query=f"q{number}") for number in range(8)]
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def drive(log: TableLog, batch: Batch) -> None:
        barrier.wait()
        try:
            log.append(batch)
            outcomes.append("won")
        except ChainError:
            outcomes.append("refused")

    threads = [threading.Thread(target=drive, args=pair) for pair in zip(drivers, batches, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["won"]
    assert DeltaTable(f"{tmp_path}/{NAME}").version() == 1


def test_another_writer_that_changed_the_table_stops_the_sink(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append(a_batch(tmp_path, 0, 1))
    write_deltalake(
        f"{tmp_path}/{NAME}", rows(90, 1).append_column("new", pa.array([1])), mode="append", schema_mode="merge"
    )
    with pytest.raises(TableError, match="columns or protocol"):
        log.append(a_batch(tmp_path, 1, 1, number=1))


def test_a_put_whose_answer_was_lost_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    put = TableLog._put
    answers = iter([False])

    def lossy(self: TableLog, version: int, body: bytes) -> bool:
        landed = put(self, version, body)
        return next(answers, landed)

    monkeypatch.setattr(TableLog, "_put", lossy)
    assert log.append(a_batch(tmp_path, 0, 2)) is True
    assert log.version == 1
    assert offsets(tmp_path) == [0, 1]


def test_a_table_of_unknown_history_is_refused(tmp_path: Path) -> None:
    write_deltalake(f"{tmp_path}/{NAME}", rows(0, 2))
    with pytest.raises(TableError, match="which Kafka offsets"):
        opened(tmp_path)


def test_a_table_with_other_columns_is_refused_by_name(tmp_path: Path) -> None:
    log = opened(tmp_path)
    require_columns(log.columns, SCHEMA, log.name)
    with pytest.raises(TableError, match=r"missing \['colour'\]"):
        require_columns(log.columns, SCHEMA.append(pa.field("colour", pa.string())), log.name)
    with pytest.raises(TableError, match=r"unexpected \['when'\]"):
        require_columns(log.columns, SCHEMA.remove(2), log.name)
    with pytest.raises(TableError, match=r"another type \['_offset'\]"):
        require_columns(log.columns, SCHEMA.set(1, pa.field("_offset", pa.int32())), log.name)


@pytest.mark.parametrize(("lines", "message"), [(0, "empty"), (1, "is cut"), (2, "is cut"), (2.5, "is torn")])
def test_a_torn_commit_is_named(tmp_path: Path, lines: float, message: str) -> None:
    log = opened(tmp_path)
    log.append(a_batch(tmp_path, 0, 1))
    path = tmp_path / NAME / "_delta_log" / f"{1:020d}.json"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[: int(lines)]) + ('{"add":{"pa' if lines % 1 else ""))
    with pytest.raises(TableDamaged, match=message):
        find_head(open_store(f"{tmp_path}/{NAME}"), NAME, 1)
