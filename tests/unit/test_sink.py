"""All tables of a pipeline together: one batch into each, and a batch cut in two by a crash made whole."""

from __future__ import annotations

from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from lakehouse.errors import ChainError, TableError
from lakehouse.rollups.partials import aggregate
from lakehouse.schemas import silver_schema
from lakehouse.sinks.delta_log import TableLog
from lakehouse.sinks.files import write_file
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.sink import Answer, Sink
from tests.pipelines import small_pipeline

SILVER, QUARANTINE, GOLD = "silver/clicks", "quarantine/clicks", "gold/clicks_by_page_1s"


@pytest.fixture
def one_pass(tmp_path: Path) -> OnePass:
    return OnePass(str(tmp_path), small_pipeline(tmp_path), {})


def answers(one_pass: OnePass, first: int, count: int) -> list[Answer]:
    """What tasks would return for `count` valid rows."""
    schema = silver_schema(one_pass.pipeline.source.fields)
    columns = {
        "at": pa.array([1_700_000_000_000_000] * count, pa.int64()).cast(schema.field("at").type),
        "page": pa.array(["home"] * count),
        "user": pa.array(range(count), pa.int64()),
        "ms": pa.array([1.0] * count),
        "status": pa.array(["ok"] * count),
        "_offset": pa.array(range(first, first + count), pa.int64()),
    }
    rows = pa.table(
        {name: columns.get(name, pa.nulls(count, schema.field(name).type)) for name in schema.names}, schema
    )
    add = write_file(one_pass.root, SILVER, rows, "at")
    partials = aggregate(rows, one_pass.pipeline.rollups["by_page"], "1s", event_time="at")
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, partials.schema) as stream:
        stream.write_table(partials)
    return [(SILVER, orjson.dumps([add]), None), (GOLD, None, buffer.getvalue().to_pybytes())]


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


@pytest.mark.parametrize("missed", [[SILVER], [QUARANTINE], [GOLD], [SILVER, GOLD], [QUARANTINE, GOLD]])
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
    with pytest.raises(ChainError, match="t 0:2"):
        Sink.open(one_pass)


def test_a_table_that_joins_later_is_refused_by_name(one_pass: OnePass, tmp_path: Path) -> None:
    write(Sink.open(one_pass), one_pass, 0, 2)
    with_bronze = OnePass(one_pass.root, small_pipeline(tmp_path, tables={"bronze": True}), {})
    with pytest.raises(ChainError, match="new to this pipeline") as refused:
        Sink.open(with_bronze)
    assert "bronze/clicks" in str(refused.value)


def test_a_changed_rollup_is_refused_by_its_columns(one_pass: OnePass, tmp_path: Path) -> None:
    write(Sink.open(one_pass), one_pass, 0, 2)
    other = {"by_page": {"dimensions": ["page"], "metrics": [{"name": "slow", "type": "count"}]}}
    with pytest.raises(TableError, match="slow"):
        Sink.open(OnePass(one_pass.root, small_pipeline(tmp_path, rollups=other), {}))
