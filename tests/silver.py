"""A silver table of the shipped pipeline without Spark: the load's own events, written by delta-rs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import yaml
from deltalake import write_deltalake

from lakehouse.config.loader import load_pipeline
from lakehouse.config.models import Pipeline
from lakehouse.load.events import BLOCK
from lakehouse.schemas import TIMESTAMP, silver_schema
from tests.loads import FEATURE_EVENTS

SHIPPED = Path(__file__).parents[1] / "conf" / "feature_events.yaml"
BEGAN_MS = 1_767_225_600_000


def shipped_pipeline(folder: Path, **changes: Any) -> tuple[Path, Pipeline]:
    """The shipped pipeline's file with its root in `folder`; `changes` replace whole top-level keys."""
    raw = yaml.safe_load(SHIPPED.read_text())
    raw |= {"root": str(folder / "data"), "quality": {"suite": str(SHIPPED.parents[1] / raw["quality"]["suite"][3:])}}
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(raw | changes, sort_keys=False))
    return path, load_pipeline(path, {})


def events(blocks: Iterable[int] = (0,), *, seed: int = 1) -> list[dict[str, Any]]:
    """Events of the load, `BLOCK` a block, a millisecond apart."""
    found = []
    for block in blocks:
        times = np.arange(block * BLOCK, (block + 1) * BLOCK, dtype=np.int64) + BEGAN_MS
        found += [
            orjson.loads(value) for value in FEATURE_EVENTS.render(FEATURE_EVENTS.draw(seed, block, 2_000), times)
        ]
    return found


def write_silver(pipeline: Pipeline, rows: list[dict[str, Any]]) -> None:
    """Append rows to silver as one commit; times are ISO texts."""
    schema = silver_schema(pipeline.source.fields)
    texts = pa.schema([pa.field(of.name, pa.string() if of.type == TIMESTAMP else of.type) for of in schema])
    table = pa.Table.from_pylist(rows, schema=texts)
    columns = [table[of.name].cast(TIMESTAMP) if of.type == TIMESTAMP else table[of.name] for of in schema]
    write_deltalake(f"{pipeline.root}/silver/{pipeline.name}", pa.table(columns, schema=schema), mode="append")
