"""A small pipeline for tests: two fields of each kind that matter, one rollup with every metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from lakehouse.config.models import Pipeline
from lakehouse.rollups.partials import aggregate
from lakehouse.schemas import silver_schema
from lakehouse.sinks.files import write_file
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.sink import Answer

SUITE = Path(__file__).parent.parent / "expectations" / "feature_events.json"


MORE_METRICS: list[dict[str, Any]] = [
    {"name": "ms_mean", "type": "mean", "column": "ms"},
    {"name": "ms_variance", "type": "variance", "column": "ms", "where": {"status": "ok"}},
    {"name": "users_theta", "type": "distinct", "column": "user", "sketch": "theta"},
    {"name": "users_bits", "type": "distinct", "column": "user", "sketch": "bitmap"},
    {"name": "ids_top", "type": "top", "column": "id"},
]
"""Metrics of the other types, for `small_pipeline`."""


def small_pipeline(
    root: Path | str, *, grains: Sequence[str] = ("1s",), more: Sequence[dict[str, Any]] = (), **changes: Any
) -> Pipeline:
    """A pipeline `clicks` under `root`; its rollup has these grains, and `more` metrics beside the common ones.

    `changes` replace whole top-level keys.
    """
    raw: dict[str, Any] = {
        "name": "clicks",
        "root": str(root),
        "source": {
            "servers": "localhost:1",
            "topic": "clicks",
            "fields": {
                "id": "string",
                "at": "timestamp",
                "page": "string",
                "user": "long",
                "ms": "double",
                "status": "string",
            },
        },
        "event_time": {"column": "at", "max_future": "5m"},
        "quality": {"suite": str(SUITE)},
        "rollups": {
            "by_page": {
                "dimensions": ["page"],
                "grains": list(grains),
                "metrics": [
                    {"name": "errors", "type": "count", "where": {"status": "error"}},
                    {"name": "ms_sum", "type": "sum", "column": "ms"},
                    {"name": "ms_min", "type": "min", "column": "ms"},
                    {"name": "ms_max", "type": "max", "column": "ms"},
                    {"name": "ms_kll", "type": "quantiles", "column": "ms"},
                    {"name": "users_hll", "type": "distinct", "column": "user"},
                    *more,
                ],
            }
        },
    }
    return Pipeline.model_validate(raw | changes)


INGESTED = 1_700_000_000_000_000
"""`_ingested_at` of a batch that begins at offset 0; one that begins later is as many µs later."""


def answers(one_pass: OnePass, first: int, count: int) -> list[Answer]:
    """What tasks would return for `count` valid rows."""
    name = one_pass.pipeline.name
    schema = silver_schema(one_pass.pipeline.source.fields)
    columns = {
        "at": pa.array([1_700_000_000_000_000] * count, pa.int64()).cast(schema.field("at").type),
        "_ingested_at": pa.array([INGESTED + first] * count, pa.int64()).cast(schema.field("at").type),
        "page": pa.array(["home"] * count),
        "user": pa.array(range(count), pa.int64()),
        "ms": pa.array([1.0] * count),
        "status": pa.array(["ok"] * count),
        "_partition": pa.array([0] * count, pa.int32()),
        "_offset": pa.array(range(first, first + count), pa.int64()),
    }
    rows = pa.table(
        {column: columns.get(column, pa.nulls(count, schema.field(column).type)) for column in schema.names}, schema
    )
    add = write_file(one_pass.root, f"silver/{name}", rows, "at")
    partials = aggregate(rows, one_pass.pipeline.rollups["by_page"], "1s", event_time="at")
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, partials.schema) as stream:
        stream.write_table(partials)
    return [
        (f"silver/{name}", orjson.dumps([add]), None),
        (f"gold/{name}_by_page_1s", None, buffer.getvalue().to_pybytes()),
    ]
