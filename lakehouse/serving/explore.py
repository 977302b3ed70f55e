"""Questions over a rollup as SQL: which measures, split by which dimensions, of which rows, since when, the top ones.

Names come from the pipeline's file, values become quoted literals, and the statement goes through `sql.query`, which
only reads. The same text can be run by `lakehouse query`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from datetime import datetime

    from lakehouse.config.models import AnyMetric, Pipeline, Rollup

NULL = "(none)"
"""How a missing value of a dimension is written, as on the Live page."""
SKETCHES_MINUTES = 60
"""Quantiles and distinct counts merge a sketch per second and combination, up to 4 KiB each: over longer ranges they
would take seconds and gigabytes."""
ROWS = 100
"""Silver rows that a drill shows."""
_RANKS = (0.5, 0.95, 0.99)
_DISTINCT = {"hll": "hll_merge_estimate(list({}))", "theta": "merged_theta({})", "bitmap": "merged_bitmap({})"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure that a rollup can answer: its column's name, its SQL, and whether it merges sketches."""

    name: str
    sql: str
    sketch: bool = False


@dataclass(frozen=True, slots=True)
class Slice:
    """What is asked of a rollup.

    Attributes:
        table: the gold table's name.
        measures: at least one; the first ranks the rows.
        dimensions: to split by; none for one row.
        filters: (dimension, values let in, as text); no values let in everything.
        start: first window, inclusive; end: exclusive.
        top: rows at most.
    """

    table: str
    measures: tuple[Measure, ...]
    dimensions: tuple[str, ...]
    filters: tuple[tuple[str, tuple[str, ...]], ...]
    start: datetime
    end: datetime
    top: int


def measures(rollup: Rollup) -> tuple[Measure, ...]:
    """Everything that a rollup can answer, `events` first."""
    found = [Measure("events", "sum(events)::BIGINT")]
    for metric in rollup.metrics:
        found += _measures(metric)
    return tuple(found)


def _measures(metric: AnyMetric) -> list[Measure]:
    column = identifier(metric.name)
    match metric.type:
        case "count":
            share = Measure(f"{metric.name}_share", f"round(sum({column}) / sum(events), 6)")
            return [Measure(metric.name, f"sum({column})::BIGINT"), share]
        case "sum" | "min" | "max":
            return [Measure(metric.name, f"{metric.type}({column})")]
        case "quantiles":
            base = metric.name.removesuffix("_kll")
            return [
                Measure(
                    f"{base}_p{rank * 100:.0f}", f"round(kll_merge_quantile(list({column}), {rank}), 3)", sketch=True
                )
                for rank in _RANKS
            ]
        case "mean" | "variance":
            return [Measure(metric.name, f"merged_{metric.type}({column})", sketch=True)]
        case "distinct":
            base, merged = metric.name.removesuffix("_hll"), _DISTINCT[metric.sketch].format(column)
            return [Measure(f"{base}_distinct", f"round({merged})::BIGINT", sketch=True)]
        case "top":
            return []  # a list of values, and no figure


def statement(wanted: Slice) -> str:
    """The SQL of a slice, ready to run."""
    columns = [identifier(name) for name in wanted.dimensions]
    columns += [f"{measure.sql} AS {identifier(measure.name)}" for measure in wanted.measures]
    where = [_since("window_start", wanted.start, wanted.end), *_conditions(wanted.filters)]
    lines = [
        "SELECT " + ",\n       ".join(columns),
        f"FROM gold.{identifier(wanted.table)}",
        "WHERE " + "\n  AND ".join(where),
    ]
    if wanted.dimensions:
        names = ", ".join(identifier(name) for name in wanted.dimensions)
        lines += [f"GROUP BY {names}", f"ORDER BY {identifier(wanted.measures[0].name)} DESC NULLS LAST, {names}"]
    return "\n".join([*lines, f"LIMIT {wanted.top}"])


def rows_statement(pipeline: Pipeline, wanted: Slice, values: tuple[str, ...]) -> str:
    """The SQL of the silver rows behind one row of a slice, the newest first; without fields that identify a person.

    Args:
        pipeline: whose silver.
        wanted: the slice.
        values: of its dimensions, as text.
    """
    time = identifier(pipeline.event_time.column)
    shown = [identifier(name) for name, field in pipeline.source.fields.items() if not field.pii]
    here = [(name, (value,)) for name, value in zip(wanted.dimensions, values, strict=True)]
    where = [_since(time, wanted.start, wanted.end), *_conditions((*wanted.filters, *here))]
    return "\n".join(
        [
            "SELECT " + ", ".join([*shown, "_partition", "_offset"]),
            f"FROM silver.{identifier(pipeline.name)}",
            "WHERE " + "\n  AND ".join(where),
            f"ORDER BY {time} DESC",
            f"LIMIT {ROWS}",
        ]
    )


def to_csv(table: pa.Table) -> bytes:
    """The rows as CSV. A text that a spreadsheet would run as a formula gets an apostrophe before it."""
    columns = [_harmless(column) if pa.types.is_string(column.type) else column for column in table.columns]
    sink = io.BytesIO()
    pa_csv.write_csv(pa.table(columns, names=table.column_names), sink)
    return sink.getvalue()


def to_parquet(table: pa.Table) -> bytes:
    """The rows as Parquet, as they are."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def identifier(name: str) -> str:
    """A name as SQL spells it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL spells it."""
    return "'" + text.replace("'", "''") + "'"


def _since(column: str, start: datetime, end: datetime) -> str:
    moments = [f"TIMESTAMPTZ {literal(moment.isoformat(timespec='seconds'))}" for moment in (start, end)]
    return f"{column} >= {moments[0]} AND {column} < {moments[1]}"


def _conditions(filters: tuple[tuple[str, tuple[str, ...]], ...]) -> list[str]:
    return [_condition(name, values) for name, values in filters if values]


def _condition(name: str, values: tuple[str, ...]) -> str:
    """One dimension's filter. Values are compared as text, so that those of a URL need no type."""
    texts = [literal(value) for value in values if value != NULL]
    parts = [f"CAST({identifier(name)} AS VARCHAR) IN ({', '.join(texts)})"] if texts else []
    parts += [f"{identifier(name)} IS NULL"] if NULL in values else []
    return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"


def _harmless(column: pa.ChunkedArray) -> pa.Array:
    values = (value if value is None or not value.startswith(_FORMULA) else f"'{value}" for value in column.to_pylist())
    return pa.array(values, pa.string())
