"""What one task of the one Spark job does: write its rows as Parquet and hand back partial aggregates.

This code runs in Spark's Python workers, also on other machines. It knows no Spark: Arrow batches come in,
Arrow batches go out.
"""

from __future__ import annotations

import gc
import os
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.quality.observe import Wanted
from lakehouse.quality.reasons import Reasons, within_python
from lakehouse.rollups.partials import aggregate
from lakehouse.schemas import (
    RESCUED,
    SPARSE_COLUMNS,
    TIMESTAMP,
    VERDICT,
    bronze_schema,
    gold_schema,
    quarantine_schema,
    silver_schema,
)
from lakehouse.sinks.files import write_file
from lakehouse.sinks.headers import unpack
from lakehouse.transforms.contract import MISFIT, Contract
from lakehouse.transforms.more import may_hold_more
from lakehouse.transforms.rescue import rescued

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lakehouse.config.models import Pipeline, Rollup
    from lakehouse.quality.observe import Observation

RESULT_DDL = "table_name string, adds binary, partials binary"
"""A task's answer: a row per table. `adds` is a JSON list of Delta add actions; `partials` is an Arrow IPC
stream of the rollup's partial aggregates (the driver writes those of all tasks as one file)."""

OBSERVED = "_observed"
"""Instead of a table's name: the answer whose `partials` is what the task observed of its rows."""
_RESULT = pa.schema([("table_name", pa.string()), ("adds", pa.binary()), ("partials", pa.binary())])

CHUNK_BYTES = 64 * 2**20
"""A task writes its rows when they have come to this size, and goes on with an empty hand. The batches in which Spark
hands rows over are bounded by bytes as well: `session.STREAMING`."""
_ROWS_AS_OBJECTS = 256


@dataclass(frozen=True)
class OnePass:
    """Everything a task needs; pickled once with the query's plan.

    Attributes:
        root: resolved root of the tables.
        pipeline: the pipeline's file.
        environment: AWS_* variables of the driver, for object stores.
        reasons: what the suite's rules say of the rows that they mark.
        wanted: what is observed of each batch.
        held: fields that are read as silver has them, against the pipeline's file → why, in words.
        not_before: every row is ingested later than this, whatever the clock says; µs since 1970 UTC.
    """

    root: str
    pipeline: Pipeline
    environment: dict[str, str]
    reasons: Reasons = field(default_factory=Reasons)
    wanted: Wanted = field(default_factory=Wanted)
    held: dict[str, str] = field(default_factory=dict)
    not_before: int = 0

    @property
    def silver(self) -> str:
        """Name of the silver table, such as `silver/feature_events`."""
        return f"silver/{self.pipeline.name}"

    @property
    def quarantine(self) -> str:
        """Name of the quarantine table."""
        return f"quarantine/{self.pipeline.name}"

    @property
    def bronze(self) -> str | None:
        """Name of the bronze table, where the pipeline keeps one."""
        return f"bronze/{self.pipeline.name}" if self.pipeline.tables.bronze else None

    @property
    def gold(self) -> dict[str, tuple[str, Rollup]]:
        """Each rollup table's name → (grain, rollup)."""
        return {f"gold/{name}": (grain, rollup) for name, grain, rollup in self.pipeline.rollup_tables()}

    @cached_property
    def schemas(self) -> dict[str, pa.Schema]:
        """Every table's name → its columns, in the order in which they are committed."""
        fields = self.pipeline.source.fields
        tables = {self.silver: silver_schema(fields), self.quarantine: quarantine_schema()}
        if self.bronze:
            tables[self.bronze] = bronze_schema()
        return tables | {name: gold_schema(rollup, fields) for name, (_, rollup) in self.gold.items()}

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """One task: rows of one Kafka partition in, one answer per table out.

        Args:
            batches: rows as `pipeline.judged_rows` makes them.

        Yields:
            One batch in the shape of `RESULT_DDL` for each chunk of rows; none where the task has no rows.
        """
        os.environ.update(self.environment)
        for rows in chunks(batches):
            yield self._answers(rows)
        _spare_the_collector()

    def _answers(self, rows: pa.Table) -> pa.RecordBatch:
        now = pa.scalar(max(time.time_ns() // 1_000, self.not_before + 1), pa.int64()).cast(TIMESTAMP)
        rows = self.reasons.explain(unpack(rows).append_column("_ingested_at", pa.repeat(now, rows.num_rows)))
        valid = self._with_rescued(rows.filter(pc.invert(rows["_refused"])))
        refused = self._with_contract_errors(rows.filter(rows["_refused"]))
        answers = [
            self._written(self.silver, valid),
            self._written(self.quarantine, refused),
            *([self._written(self.bronze, rows)] if self.bronze else []),
            *(self._aggregated(name, valid, rollup, grain) for name, (grain, rollup) in self.gold.items()),
            {"table_name": OBSERVED, "adds": None, "partials": self._observed(rows, valid, refused).to_bytes()},
        ]
        return pa.RecordBatch.from_pylist([answer for answer in answers if answer], schema=_RESULT)

    def _observed(self, rows: pa.Table, valid: pa.Table, refused: pa.Table) -> Observation:
        event_time = self.pipeline.event_time
        return replace(
            self.wanted.observe(rows, refused), late=count_late(valid, event_time.column, event_time.late_after)
        )

    def _with_contract_errors(self, refused: pa.Table) -> pa.Table:
        """The reasons of the contract before those of the suite, which judged only rows that fit."""
        needed = ["_value", "_fits", "_timely", "_timestamp", "_errors", *self._contract.fields]
        needed += [MISFIT] if MISFIT in refused.column_names else []
        rows = refused.select(needed).set_column(
            needed.index("_timestamp"), "_timestamp", within_python(refused["_timestamp"])
        )
        found = [
            self._contract.reasons(row) + row["_errors"]
            # A few at a time: as Python objects they take their memory twice.
            for few in rows.to_batches(max_chunksize=_ROWS_AS_OBJECTS)
            for row in few.to_pylist()
        ]
        return refused.set_column(refused.column_names.index("_errors"), "_errors", pa.array(found, pa.list_(VERDICT)))

    def _with_rescued(self, valid: pa.Table) -> pa.Table:
        """With what each value holds beyond its fields; without the column where no value does."""
        if RESCUED in valid.column_names:
            unused = not self.pipeline.tables.rescue or valid[RESCUED].null_count == valid.num_rows
            return valid.drop_columns([RESCUED]) if unused else valid
        if not self.pipeline.tables.rescue:
            return valid
        known, values = self.pipeline.source.fields, valid["_value"].combine_chunks()
        may = may_hold_more(values, valid, known)
        if not may.any():
            return valid
        asked = zip(may.tolist(), values, strict=True)
        found = pa.array([rescued(value.as_py(), known) if more else None for more, value in asked], pa.string())
        return valid.append_column(RESCUED, found) if found.null_count < len(found) else valid

    @cached_property
    def _contract(self) -> Contract:
        event_time, fields = self.pipeline.event_time, self.pipeline.source.fields
        types = {name: field.type for name, field in fields.items()}
        # An event without a time is told so by a reason of its own.
        required = tuple(name for name, field in fields.items() if field.required and name != event_time.column)
        return Contract(types, event_time.column, event_time.max_future, required, self.held)

    def _written(self, name: str, rows: pa.Table) -> dict[str, Any] | None:
        if not rows.num_rows:
            return None
        # Most of a stream's rows have no replay behind them and no more than their fields: their files stay small.
        unused = [column for column in SPARSE_COLUMNS if column not in rows.column_names]
        schema = pa.schema([field for field in self.schemas[name] if field.name not in unused])
        table = rows.select(schema.names).cast(schema)
        add = write_file(self.root, name, table, self.pipeline.event_time.column)
        return {"table_name": name, "adds": orjson.dumps([add]), "partials": None}

    def _aggregated(self, name: str, rows: pa.Table, rollup: Rollup, grain: str) -> dict[str, Any] | None:
        if not rows.num_rows:
            return None
        partials = aggregate(rows, rollup, grain, event_time=self.pipeline.event_time.column)
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_stream(buffer, partials.schema) as stream:
            stream.write_table(partials)
        return {"table_name": name, "adds": None, "partials": buffer.getvalue().to_pybytes()}


@cache
def _spare_the_collector() -> None:
    """Once in a process: what is loaded by now is there to stay, and no garbage collection has to look through it.

    Spark's Python worker collects after every task. Through the imported modules that takes some 45 ms, seven times as
    long as a small batch's task itself.
    """
    gc.freeze()


def count_late(rows: pa.Table, event_time: str, late_after: timedelta) -> int:
    """Rows that reached Kafka more than `late_after` after they happened."""
    delay = pc.subtract(rows["_timestamp"].cast(pa.int64()), rows[event_time].cast(pa.int64()))
    return int(pc.sum(pc.greater(delay, late_after // timedelta(microseconds=1))).as_py() or 0)


def chunks(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows in tables of about `CHUNK_BYTES`: what a task holds depends on no batch's number or size of rows."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        held.append(batch)
        size += batch.nbytes
        if size >= CHUNK_BYTES:
            yield pa.Table.from_batches(held)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held)
