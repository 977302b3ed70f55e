"""One task's work: every row into exactly one file, with files' statistics that are true."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.quality.observe import Observation
from lakehouse.quality.reasons import word
from lakehouse.schemas import KAFKA_POSITION, TIMESTAMP, silver_schema
from lakehouse.sinks.files import write_file
from lakehouse.sinks.headers import FLAT_RAW
from lakehouse.sinks.onepass import CHUNK_BYTES, OBSERVED, OnePass, chunks
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
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "SNAPPY"
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
    types = {name: fields.field(name).type for name in one_pass.pipeline.source.fields}
    types |= dict([*KAFKA_POSITION, *FLAT_RAW])
    row = {name: pa.nulls(1, kind) for name, kind in types.items()} | {
        "_value": pa.array([b"{}"]),
        "_fits": pa.array([True]),
        "_timely": pa.array([True]),
        "_refused": pa.array([False]),
    }
    (answer,) = list(one_pass(iter([pa.RecordBatch.from_pydict(row)])))
    (add,) = json.loads(answer["adds"][0].as_py())
    written = pq.read_table(tmp_path / "silver" / "clicks" / add["path"])
    assert written["_ingested_at"].cast(pa.int64()).to_pylist() == [ahead + 1]


def test_events_that_reach_kafka_late_are_counted_where_they_are_valid(tmp_path: Path) -> None:
    one_pass = OnePass(str(tmp_path), small_pipeline(tmp_path, rollups={}), {})
    fields = silver_schema(one_pass.pipeline.source.fields)
    types = {name: fields.field(name).type for name in one_pass.pipeline.source.fields}
    types |= dict([*KAFKA_POSITION, *FLAT_RAW])
    minute, last = 60_000_000, 2**63 - 1
    # On time, at the limit, late, late but refused, early, without a time, beyond what a clock shows.
    arrived = [0, minute, minute + 1, minute + 1, -minute, minute + 1, last]
    happened = [0, 0, 0, 0, minute, None, -1]
    rows = {name: pa.nulls(7, kind) for name, kind in types.items()} | {
        "_value": pa.array([b"{}"] * 7),
        "_timestamp": pa.array(arrived, pa.int64()).cast(TIMESTAMP),
        "at": pa.array(happened, pa.int64()).cast(TIMESTAMP),
        "_fits": pa.array([True] * 7),
        "_timely": pa.array([True] * 7),
        "_refused": pa.array([False] * 3 + [True] + [False] * 3),
    }
    (answer,) = list(one_pass(iter([pa.RecordBatch.from_pydict(rows)])))
    observed = answer.to_pylist()[-1]
    assert observed["table_name"] == OBSERVED
    assert Observation.from_bytes(observed["partials"]).late == 1


@pytest.mark.parametrize(
    ("moment", "stated"),
    [
        ("0001-01-01T00:00:00.000001", "0001-01-01T00:00:00.000Z"),
        ("1969-12-31T23:59:59.999999", "1969-12-31T23:59:59.999Z"),
        # Rounding its maximum up would need a fifth digit; nothing is stated, so that nobody skips the file.
        ("9999-12-31T23:59:59.999999", None),
        ("10000-01-01T00:00:00", None),
        ("294247-01-10T04:00:54.775807", None),
    ],
)
def test_statistics_spell_any_year_with_four_digits_or_not_at_all(
    tmp_path: Path, moment: str, stated: str | None
) -> None:
    table = pa.table({"_timestamp": pa.array([np.datetime64(moment, "us")]).cast(TIMESTAMP)})
    stats = json.loads(write_file(str(tmp_path), "t", table, "at")["stats"])
    assert stats["numRecords"] == 1
    assert stats["minValues"].get("_timestamp") == stated
    assert ("_timestamp" in stats["maxValues"]) == (stated is not None)


def test_rows_are_written_before_they_are_many_megabytes() -> None:
    large = pa.RecordBatch.from_pylist([{"_value": b"x" * (CHUNK_BYTES // 3)}])
    small = pa.RecordBatch.from_pylist([{"_value": b"x"}] * 10)
    empty = small.slice(0, 0)
    found = [table.num_rows for table in chunks(iter([empty, large, small, large, large, small, empty, small]))]
    assert found == [13, 20]
    assert list(chunks(iter([empty]))) == []


def test_a_refused_record_may_have_any_kafka_time(tmp_path: Path) -> None:
    one_pass = OnePass(str(tmp_path), small_pipeline(tmp_path), {})
    moments = pa.array([-(2**62), -1, 2**62], pa.int64()).cast(TIMESTAMP)
    fields = {
        name: pa.nulls(3, type_)
        for name, type_ in (
            ("id", pa.string()),
            ("at", TIMESTAMP),
            ("page", pa.string()),
            ("user", pa.int64()),
            ("ms", pa.float64()),
            ("status", pa.string()),
        )
    }
    rows = pa.RecordBatch.from_pydict(
        {
            **fields,
            "_topic": ["t"] * 3,
            "_partition": pa.array([0] * 3, pa.int32()),
            "_offset": [0, 1, 2],
            "_timestamp": moments,
            "_key": pa.nulls(3, pa.binary()),
            "_value": [b"{}", b"x", None],
            "_headers": pa.nulls(3, pa.string()),
            "_fits": [True, False, False],
            "_timely": [False] * 3,
            "_refused": [True] * 3,
        }
    )
    answer, _ = pa.Table.from_batches(one_pass(iter([rows]))).to_pylist()
    (add,) = json.loads(answer["adds"])
    kept = pq.read_table(tmp_path / answer["table_name"] / add["path"])
    assert kept["_timestamp"].combine_chunks().equals(moments)
    assert [errors[0]["rule_id"] for errors in kept["_errors"].to_pylist()] == [
        "contract.event_time.missing",
        "contract.json",
        "contract.empty",
    ]


def test_marks_of_another_suite_are_never_passed_over(tmp_path: Path) -> None:
    one_pass = OnePass(str(tmp_path), small_pipeline(tmp_path), {})
    rows = pa.RecordBatch.from_pydict({word(0): [1], "_headers": pa.nulls(1, pa.string())})
    with pytest.raises(AssertionError, match="1 words of marks for 0 rules"):
        list(one_pass(iter([rows])))
