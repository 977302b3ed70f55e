"""Data files of a Delta table: written under names that never were before, with the statistics of their rows."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.schemas import FIRST_US, LAST_US
from lakehouse.storage import open_store

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from lakehouse.chain import Add

_STATISTICS = ("_partition", "_offset", "_timestamp", "window_start")
"""Columns with smallest and largest value in the log, for data skipping, beside the event's time."""
_QUICK = {"compression": "snappy", "use_dictionary": False}
_SMALL = {"compression": "zstd", "compression_level": 1}
"""How a file is written that the stream waits for, and one that stays (docs/adr/0039-quick-files-first.md)."""


def write_file(root: str, name: str, rows: pa.Table, event_time: str) -> Add:
    """Write `rows` as one new Parquet file of a table, not yet visible to any reader.

    Args:
        root: resolved root of the tables.
        name: table, such as `silver/feature_events`.
        rows: in the table's schema.
        event_time: the event's time, whose range goes into the statistics.

    Returns:
        The Delta add action that makes the file part of the table once it is committed.
    """
    file = DataFile(rows.schema, event_time, quick=True)
    file.write(rows)
    return file.put(open_store(f"{root}/{name}"), f"part-{uuid.uuid4()}.parquet", data_change=True)


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """A file's rows in the columns of its table; those that the file lacks are null."""
    columns = {
        field.name: rows[field.name] if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    }
    return pa.table(columns).cast(schema)


class DataFile:
    """One Parquet file while it is being written, in memory, row group by row group.

    Args:
        schema: of its rows.
        event_time: the event's time, whose range goes into the statistics.
        quick: whether to spare time rather than bytes, for a file that maintenance soon rewrites.
    """

    def __init__(self, schema: pa.Schema, event_time: str, *, quick: bool = False) -> None:
        self._buffer = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(self._buffer, schema, write_statistics=True, **(_QUICK if quick else _SMALL))
        self._statistics = Statistics((*_STATISTICS, event_time))

    def write(self, rows: pa.Table) -> int:
        """Append `rows` as row groups of their own; the file's size so far, bytes."""
        self._writer.write_table(rows)
        self._statistics.add(rows)
        return int(self._buffer.tell())

    def put(self, store: ObjectStore, path: str, *, data_change: bool) -> Add:
        """Finish the file and put it at `path`, which must be new: a failed attempt's file is never overwritten.

        Returns:
            The file's add action.
        """
        self._writer.close()
        body = self._buffer.getvalue().to_pybytes()
        obstore.put(store, path, body)
        return {
            "path": path,
            "partitionValues": {},
            "size": len(body),
            "modificationTime": time.time_ns() // 1_000_000,
            "dataChange": data_change,
            "stats": self._statistics.render(),
        }


class Statistics:
    """Rows, nulls and extremes of a file's columns, gathered chunk by chunk, as Delta's log holds them."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self._rows = 0
        self._nulls: dict[str, int] = {}
        self._extremes: dict[str, tuple[int, int]] = {}
        self._types: dict[str, pa.DataType] = {}

    def add(self, rows: pa.Table) -> None:
        """Take in one more chunk of the file."""
        self._rows += rows.num_rows
        for column in self._columns:
            if column not in rows.column_names:
                continue
            values = rows[column]
            self._types[column] = values.type
            self._nulls[column] = self._nulls.get(column, 0) + values.null_count
            if values.null_count < len(values):
                found = pc.min_max(values.cast(pa.int64()))
                low, high = found["min"].as_py(), found["max"].as_py()
                known = self._extremes.get(column, (low, high))
                self._extremes[column] = (min(low, known[0]), max(high, known[1]))

    def render(self) -> str:
        """The JSON of an add action's `stats`."""
        stated = {name: extremes for name, extremes in self._extremes.items() if self._can_be_stated(name)}
        smallest = {name: _rendered(low, self._types[name], round_up=False) for name, (low, _) in stated.items()}
        largest = {name: _rendered(high, self._types[name], round_up=True) for name, (_, high) in stated.items()}
        return orjson.dumps(
            {"numRecords": self._rows, "minValues": smallest, "maxValues": largest, "nullCount": self._nulls}
        ).decode()

    def _can_be_stated(self, name: str) -> bool:
        """Whether the text of a statistic can spell both extremes; without one no reader skips the file."""
        low, high = self._extremes[name]
        return not pa.types.is_timestamp(self._types[name]) or (low >= FIRST_US and high <= LAST_US - 999)


def _rendered(value: int, kind: pa.DataType, *, round_up: bool) -> Any:  # noqa: ANN401 - number or text, as JSON holds it
    """The value as Delta's statistics write it; timestamps with milliseconds, rounded outwards."""
    if not pa.types.is_timestamp(kind):
        return value
    millis = -(-value // 1_000) if round_up else value // 1_000
    return f"{np.datetime_as_string(np.datetime64(millis, 'ms'))}Z"
