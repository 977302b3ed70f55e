"""One task's work: every row into exactly one file, with files' statistics that are true."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.schemas import KAFKA_POSITION, RAW, TIMESTAMP, VERDICT, silver_schema
from lakehouse.sinks.files import write_file
from lakehouse.sinks.onepass import OnePass
from tests.pipelines import small_pipeline


def test_a_file_is_written_whole_and_described_truly(tmp_path: Path) -> None:
    early = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)
    table = pa.table(
        {
            "_offset": pa.array([7, 9, None], pa.int64()),
            "at": pa.array([early, early + timedelta(microseconds=1_500), None], TIMESTAMP),
            "other": pa.array(["x", "y", "z"]),
        }
    )
    add = write_file(str(tmp_path), "silver/clicks", table, "at")
    path = tmp_path / "silver" / "clicks" / add["path"]
    assert pq.read_table(path).equals(table)
    assert add["size"] == path.stat().st_size
    stats = json.loads(add["stats"])
    assert stats["numRecords"] == 3
    assert stats["nullCount"] == {"_offset": 1, "at": 1}
    # Milliseconds, rounded outwards: a reader that skips by them never skips a row.
    assert stats["minValues"] == {"_offset": 7, "at": "2026-03-01T12:00:00.000Z"}
    assert stats["maxValues"] == {"_offset": 9, "at": "2026-03-01T12:00:00.002Z"}


def test_two_files_never_share_a_name(tmp_path: Path) -> None:
    table = pa.table({"_offset": np.arange(2)})
    names = {write_file(str(tmp_path), "t", table, "at")["path"] for _ in range(20)}
    assert len(names) == len(list((tmp_path / "t").iterdir())) == 20


def test_rows_are_ingested_after_the_last_mark_whatever_the_clock_says(tmp_path: Path) -> None:
    ahead = 4_000_000_000_000_000  # in the year 2096
    one_pass = OnePass(str(tmp_path), small_pipeline(tmp_path, rollups={}), {}, not_before=ahead)
    fields = silver_schema(one_pass.pipeline.source.fields)
    verdicts = pa.list_(VERDICT)
    types = {name: fields.field(name).type for name in one_pass.pipeline.source.fields}
    types |= dict([*KAFKA_POSITION, *RAW]) | {"_errors": verdicts, "_warnings": verdicts}
    row = {name: pa.nulls(1, kind) for name, kind in types.items()} | {"_refused": pa.array([False])}
    (answer,) = list(one_pass(iter([pa.RecordBatch.from_pydict(row)])))
    (add,) = json.loads(answer["adds"][0].as_py())
    written = pq.read_table(tmp_path / "silver" / "clicks" / add["path"])
    assert written["_ingested_at"].cast(pa.int64()).to_pylist() == [ahead + 1]
