"""One task's work: every row into exactly one file, with files' statistics that are true."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.schemas import TIMESTAMP
from lakehouse.sinks.files import write_file


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
