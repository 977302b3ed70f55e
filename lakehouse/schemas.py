"""Columns of every table, as Arrow schemas. One place, read by the sink, the serving layer and the tests.

Times are UTC with microseconds. `_timestamp` is the Kafka record's own time; `_ingested_at` is when the
task that wrote the row began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import datasketches
import pyarrow as pa

if TYPE_CHECKING:
    from lakehouse.config.models import AnyMetric, EventField, Rollup

TIMESTAMP = pa.timestamp("us", tz="UTC")
FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Microseconds since 1970 of the first moment of year 1 and the last one of year 9999: the years that Python knows, and
that have four digits."""

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": TIMESTAMP,
    "date": pa.date32(),
}

VERDICT = pa.struct(
    [
        ("rule_id", pa.string()),
        ("type", pa.string()),
        ("columns", pa.list_(pa.string())),
        ("severity", pa.string()),
        ("message", pa.string()),
        ("value", pa.string()),
        ("suite_sha256", pa.string()),
    ]
)
"""One reason against a row: which rule, on which columns, how grave, and the offending value (cut)."""

VERDICT_DDL = (
    "struct<rule_id:string,type:string,columns:array<string>,severity:string,"
    "message:string,value:string,suite_sha256:string>"
)
"""`VERDICT` in Spark's DDL."""

_JUDGED_BY = [
    ("replay_id", pa.string()),
    ("suite_sha256", pa.string()),
    ("repair", pa.string()),
    ("repair_sha256", pa.string()),
]

KAFKA_POSITION = [
    ("_topic", pa.string()),
    ("_partition", pa.int32()),
    ("_offset", pa.int64()),
    ("_timestamp", TIMESTAMP),
]
RAW = [
    ("_key", pa.binary()),
    ("_value", pa.binary()),
    ("_headers", pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
]

ATTEMPT = pa.struct([*_JUDGED_BY, ("at", TIMESTAMP), ("errors", pa.list_(VERDICT))])
"""One replay that refused a quarantined row again: by which suite and repair, when, and why."""

LINEAGE = pa.struct(
    [
        *_JUDGED_BY,
        *((name.removeprefix("_"), kind) for name, kind in RAW),
        ("errors", pa.list_(VERDICT)),
        ("quarantined_at", TIMESTAMP),
        ("attempts", pa.list_(ATTEMPT)),
    ]
)
"""Where a replayed row of silver comes from: what let it in, and all that quarantine knew of it, bytes included."""

REPLAY_COLUMNS = ("_replayed_from", "_attempts")
"""Columns that only a replay fills."""
RESCUED = "_rescued_data"
"""Column of silver: what an event holds beyond the contract's fields, as a JSON object; null where that is nothing."""
SPARSE_COLUMNS = (*REPLAY_COLUMNS, RESCUED)
"""Columns that few rows fill. Files without them are whole, and a table that lacks one is given it."""

MOMENTS = pa.struct([("values", pa.int64()), ("mean", pa.float64()), ("m2", pa.float64())])
"""What a mean and a variance are made of: `m2` is the sum of the squared deviations from the mean. With no value all
three are 0."""
MERGE_KEY = "lakehouse.merge"
"""Key of a gold column's metadata: how its partials become one, for readers that do not know the pipeline's file."""

_DEVIATIONS = 2
"""Standard deviations of the stated error of a distinct count: 95 %."""


def bronze_schema() -> pa.Schema:
    """Every record as Kafka held it."""
    return pa.schema([*KAFKA_POSITION, *RAW, ("_ingested_at", TIMESTAMP)])


def silver_schema(fields: dict[str, EventField]) -> pa.Schema:
    """The event's own fields, where it stood in Kafka, the warnings it carries, its way through quarantine, the rest.

    A field's metadata says what the contract says of it: Delta's schema and the files show it to any reader.
    """
    event = [
        pa.field(name, ARROW_TYPES[field.type], nullable=not field.required, metadata=_contract(field))
        for name, field in fields.items()
    ]
    judged = [("_ingested_at", TIMESTAMP), ("_warnings", pa.list_(VERDICT)), ("_replayed_from", LINEAGE)]
    return pa.schema([*event, *KAFKA_POSITION, *judged, (RESCUED, pa.string())])


def _contract(field: EventField) -> dict[str, str]:
    """Metadata of an event's field; `comment` is what SQL engines show."""
    return ({"comment": field.description} if field.description else {}) | (
        {"lakehouse.pii": "true"} if field.pii else {}
    )


def quarantine_schema() -> pa.Schema:
    """The raw bytes of a refused record, every reason against it, and the replays that refused it again."""
    judged = [("_errors", pa.list_(VERDICT)), ("_ingested_at", TIMESTAMP), ("_attempts", pa.list_(ATTEMPT))]
    return pa.schema([*KAFKA_POSITION, *RAW, *judged])


def gold_schema(rollup: Rollup, fields: dict[str, EventField]) -> pa.Schema:
    """Partial aggregates: several rows may share a window and dimensions, and readers merge them.

    A metric's field says in its metadata what it is, and how exact: Delta's schema and the files show it to any reader.
    """
    dimensions = [(name, ARROW_TYPES[fields[name].type]) for name in rollup.dimensions]
    metrics = [pa.field(metric.name, metric_type(metric), metadata=_described(metric)) for metric in rollup.metrics]
    return pa.schema(
        [
            ("window_start", TIMESTAMP),
            *dimensions,
            ("events", pa.int64()),
            *metrics,
            ("min_event_time", TIMESTAMP),
            ("max_event_time", TIMESTAMP),
            ("_batch_id", pa.int64()),
        ]
    )


def wide(schema: pa.Schema) -> pa.Schema:
    """With the widest whole numbers: those of a table may have become wider than a reader of before knows."""
    return pa.schema([field.with_type(pa.int64()) if field.type == pa.int32() else field for field in schema])


def _described(metric: AnyMetric) -> dict[str, str]:
    """Metadata of a metric's field: what it is (`comment`, as SQL engines show it), how exact, and how it merges."""
    match metric.type:
        case "distinct" if metric.sketch == "bitmap":
            return {"comment": "bitmap of values from 0 to 32767, exact", MERGE_KEY: "bitmap"}
        case "distinct" if metric.sketch == "theta":
            error, merge = _DEVIATIONS / (2**metric.lg_k - 1) ** 0.5, "theta"
            sketch = f"Theta sketch, lg_k {metric.lg_k}: merged counts are within {error:.2%} with 95 % confidence"
        case "top":
            error, merge = datasketches.frequent_strings_sketch.get_epsilon_for_lg_size(metric.lg_k), "top"
            sketch = (
                f"frequent-items sketch, lg_k {metric.lg_k}: a count is within {error:.2%} of all events, for certain"
            )
        case "mean" | "variance":
            return {
                "comment": "number, mean and squared deviations of the values, in double precision",
                MERGE_KEY: "moments",
            }
        case "distinct":
            bounds = (
                abs(datasketches.hll_sketch.get_rel_err(upper, True, metric.lg_k, _DEVIATIONS))
                for upper in (True, False)
            )
            error, merge = max(bounds), "hll"
            sketch = f"HLL sketch, lg_k {metric.lg_k}: merged counts are within {error:.2%} with 95 % confidence"
        case "quantiles":
            # Of one rank, not of the mass between two.
            error, merge = datasketches.kll_doubles_sketch.get_normalized_rank_error(metric.k, False), "kll"
            sketch = f"KLL sketch, k {metric.k}: the rank of a quantile is within {error:.2%} with 99 % confidence"
        case "sum":
            return {"comment": "sum, in double precision", MERGE_KEY: "sum"}
        case "count" | "min" | "max":
            return {"comment": f"{metric.type}, exact", MERGE_KEY: "sum" if metric.type == "count" else metric.type}
    return {"comment": f"DataSketches {sketch}", "lakehouse.error": f"{error:.6f}", MERGE_KEY: merge}


def metric_type(metric: AnyMetric) -> pa.DataType:
    """Arrow type of a metric's column: counts are long, numbers double, sketches binary."""
    match metric.type:
        case "count":
            return pa.int64()
        case "sum" | "min" | "max":
            return pa.float64()
        case "mean" | "variance":
            return MOMENTS
        case "quantiles" | "distinct" | "top":
            return pa.binary()


_COUNTS = pa.map_(pa.string(), pa.int64())

OBSERVED_SCHEMA = pa.schema(
    [
        ("window_start", TIMESTAMP),
        ("window_end", TIMESTAMP),
        ("batches", pa.int64()),
        ("suite_sha256", pa.string()),
        ("rule_id", pa.string()),
        ("evaluated", pa.int64()),
        ("failed", pa.int64()),
        ("value", pa.string()),
        ("success", pa.bool_()),
    ]
)
"""A rule over a minute. Times are of the first and the last batch's commit; `value` is JSON; the rest as in
`quality.watch.Outcome`."""

OPS_SCHEMA = pa.schema(
    [
        ("time", TIMESTAMP),
        ("query_id", pa.string()),
        ("batch_id", pa.int64()),
        ("suite_sha256", pa.string()),
        ("rows", _COUNTS),
        ("failed", _COUNTS),
        ("late", pa.int64()),
        ("job_seconds", pa.float64()),
        ("commit_seconds", pa.float64()),
        ("freshness_seconds", pa.float64()),
        ("newest_event", TIMESTAMP),
        ("lag", pa.map_(pa.int32(), pa.int64())),
        ("kafka_reachable", pa.bool_()),
        ("memory_bytes", _COUNTS),
        ("files", _COUNTS),
        ("log_files", _COUNTS),
        ("ahead_seconds", pa.float64()),
        ("maintained", TIMESTAMP),
    ]
)
"""A micro-batch, or a look at a pipeline that has none: then `query_id` to `newest_event` are null. See
`metrics.record.Record`."""

ALERTS_SCHEMA = pa.schema(
    [
        ("time", TIMESTAMP),
        ("alert", pa.string()),
        ("kind", pa.string()),
        ("severity", pa.string()),
        ("state", pa.string()),
        ("since", TIMESTAMP),
        ("value", pa.float64()),
        ("limit", pa.float64()),
        ("summary", pa.string()),
        ("runbook", pa.string()),
        ("silenced_until", TIMESTAMP),
    ]
)
"""A change of an alert's state, or a silence (state `silence`). See `alerts.history`."""


def journals(pipeline: str) -> dict[str, tuple[pa.Schema, str]]:
    """The journals of a pipeline: name → (columns, the one that says when)."""
    return {
        f"_quality/{pipeline}_observed": (OBSERVED_SCHEMA, "window_start"),
        f"_ops/{pipeline}": (OPS_SCHEMA, "time"),
        f"_ops/{pipeline}_alerts": (ALERTS_SCHEMA, "time"),
    }
