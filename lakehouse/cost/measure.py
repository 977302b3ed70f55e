"""What the user's own tables show instead of assumptions: sizes, the time between batches, files of a batch.

Read from the logs: the live files' sizes and rows, and the batches that the last commits of silver record with the
files of every table. No data file is opened.
"""

from __future__ import annotations

import json
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse import storage
from lakehouse.chain import COMMIT_KEY, Batch
from lakehouse.errors import TableError, first_line

if TYPE_CHECKING:
    from lakehouse.config.models import Pipeline

_COMMITS = 400


def measure(pipeline: Pipeline, event_bytes: float) -> dict[str, float]:
    """Assumption → what was measured; one that the tables say nothing of is not in it.

    Args:
        pipeline: whose tables.
        event_bytes: of an event in Kafka, which the tables do not record.

    Raises:
        TableError: silver cannot be read, or has no rows.
    """
    silver = _open(pipeline, "silver", pipeline.name)
    size, rows = _sizes(silver)
    if not rows:
        raise TableError("silver has no rows to measure", where=silver.table_uri, remedy="run the pipeline first")
    found = {"compression": event_bytes / (size / rows)}
    gold = [_sizes(_open(pipeline, "gold", name))[0] for name, _, _ in pipeline.rollup_tables()]
    if gold and sum(gold):
        found["rollup_ratio"] = event_bytes * rows * len(gold) / sum(gold)
    batches = _batches(silver)
    if len(batches) > 1:
        found["batch_s"] = max(0.001, median((later - one) / 1_000 for (one, _), (later, _) in pairwise(batches)))
        found["puts_per_batch"] = sum(_puts(batch) for _, batch in batches) / len(batches)
    return found


def _open(pipeline: Pipeline, layer: str, name: str) -> DeltaTable:
    url = storage.layer_url(pipeline.root, layer, name)
    try:
        return DeltaTable(url)
    except (DeltaError, OSError) as error:
        raise TableError(
            f"the table cannot be read: {first_line(error)}", where=url, remedy="run the pipeline first"
        ) from error


def _sizes(table: DeltaTable) -> tuple[int, int]:
    """(bytes, rows) of the live files."""
    adds = pa.table(table.get_add_actions(flatten=True))
    return tuple(pc.sum(adds[name]).as_py() or 0 for name in ("size_bytes", "num_records"))  # type: ignore[return-value]


def _batches(silver: DeltaTable) -> list[tuple[int, Batch]]:
    """(commit's time in ms, batch) of the last commits that carry one, oldest first."""
    found = []
    for commit in silver.history(_COMMITS):
        record: Any = commit.get(COMMIT_KEY)
        if record and isinstance(commit.get("timestamp"), int):
            raw = json.loads(record) if isinstance(record, str) else record
            found.append((commit["timestamp"], Batch.from_json(raw, where=silver.table_uri)))
    return sorted(found, key=lambda one: one[0])


def _puts(batch: Batch) -> int:
    """Files, and one commit in each table."""
    return sum(len(adds) for adds in batch.adds.values()) + len(batch.adds)
