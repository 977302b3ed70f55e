"""Proves, on live data, that the tables hold what the topic held: nothing lost, nothing twice, rollups right.

Reads the topic and one consistent version of every table, and compares them by (partition, offset). No figure
is derived by subtracting offsets: transaction markers and compaction leave gaps that are no loss.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse import storage, topic
from lakehouse.errors import ReconcileError, TableError
from lakehouse.kafka_options import librdkafka_options
from lakehouse.rollups.compare import RollupDifference, compare_rollup
from lakehouse.sinks.delta_log import find_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lakehouse.chain import Batch
    from lakehouse.config.models import Pipeline

_SHOWN = 10
"""How many records of each kind of difference a report names."""
_ALIGN_S = 30.0
"""A running pipeline commits its tables within milliseconds of each other; a table that stays behind for this
long belongs to a batch that a crash cut in two, which the pipeline's next start finishes."""

_ROWS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Differences:
    """How many records differ in one way, and the first few of them as [partition, offset]."""

    count: int = 0
    first: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Reconciliation:
    """The verdict, and every count behind it.

    Attributes:
        pipeline: its name.
        topic: the topic that was read.
        start: first offset per partition, inclusive; end: exclusive.
        records: committed records in that range of the topic.
        silver: rows in silver; quarantine: rows in quarantine.
        missing: in the topic, in neither table.
        doubled: in the tables more than once.
        unknown: in a table, but not in the topic.
        altered: in quarantine with another key, value or headers than in the topic.
        rollups: each rollup table against silver.
        seconds: how long the comparison took.
    """

    pipeline: str
    topic: str
    start: dict[int, int]
    end: dict[int, int]
    records: int
    silver: int
    quarantine: int
    missing: Differences
    doubled: Differences
    unknown: Differences
    altered: Differences
    rollups: dict[str, RollupDifference]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        records = (self.missing, self.doubled, self.unknown, self.altered)
        return not any(kind.count for kind in records) and all(rollup.ok for rollup in self.rollups.values())

    def __str__(self) -> str:
        spans = ", ".join(f"{partition}: {self.start.get(partition, 0)}–{end}" for partition, end in self.end.items())
        lines = [
            f"topic {self.topic} ({spans}): {self.records:,} committed records",
            f"silver {self.silver:,} + quarantine {self.quarantine:,} = {self.silver + self.quarantine:,} rows",
        ]
        for name in ("missing", "doubled", "unknown", "altered"):
            found: Differences = getattr(self, name)
            first = f"   first (partition, offset): {found.first}" if found.count else ""
            lines.append(f"{name:<8} {found.count:,}{first}")
        for table, rollup in self.rollups.items():
            verdict = "equal to silver" if rollup.ok else f"{rollup.differing:,} differ: " + "; ".join(rollup.first)
            lines.append(f"{table}: {rollup.cells:,} cells, {verdict}")
        lines.append(f"{'everything agrees' if self.ok else 'THE TABLES DIFFER FROM THE TOPIC'} ({self.seconds:.1f} s)")
        return "\n".join(lines)


def reconcile(pipeline: Pipeline) -> Reconciliation:
    """Compare the topic with the tables.

    Raises:
        SourceUnavailable: the topic cannot be read.
        ReconcileError: the tables hold nothing yet, or not all of them have the same last batch.
    """
    began = time.perf_counter()
    root = storage.resolve_root(pipeline.root)
    gold = {f"gold/{name}": (grain, rollup) for name, grain, rollup in pipeline.rollup_tables()}
    silver_name, quarantine_name = f"silver/{pipeline.name}", f"quarantine/{pipeline.name}"
    tables, head = _aligned(root, [silver_name, quarantine_name, *gold])
    name = pipeline.source.topic
    start, end = head.origin.get(name, {}), head.end.get(name, {})

    in_silver = _positions(tables[silver_name])
    in_quarantine = _positions(tables[quarantine_name])
    in_topic, altered = _read_topic(pipeline, start, end, tables[quarantine_name])
    in_tables = {
        partition: np.concatenate([in_silver.get(partition, _NONE), in_quarantine.get(partition, _NONE)])
        for partition in in_silver.keys() | in_quarantine.keys() | in_topic.keys()
    }
    return Reconciliation(
        pipeline=pipeline.name,
        topic=name,
        start=start,
        end=end,
        records=_size(in_topic),
        silver=_size(in_silver),
        quarantine=_size(in_quarantine),
        missing=_differences({p: np.setdiff1d(in_topic.get(p, _NONE), of) for p, of in in_tables.items()}),
        doubled=_differences({p: _repeated(of) for p, of in in_tables.items()}),
        unknown=_differences({p: np.setdiff1d(of, in_topic.get(p, _NONE)) for p, of in in_tables.items()}),
        altered=_differences(altered),
        rollups={
            table: compare_rollup(
                tables[silver_name].to_pyarrow_dataset(),
                tables[table].to_pyarrow_dataset(),
                rollup,
                grain,
                event_time=pipeline.event_time.column,
            )
            for table, (grain, rollup) in gold.items()
        },
        seconds=time.perf_counter() - began,
    )


_NONE = np.empty(0, dtype=np.int64)
_Positions = dict[int, np.ndarray]
"""partition → offsets."""


def _aligned(root: str, names: list[str]) -> tuple[dict[str, DeltaTable], Batch]:
    """Every table at the version whose last batch is the same in all of them."""
    deadline = time.monotonic() + _ALIGN_S
    while True:
        tables = {name: _open(root, name) for name in names}
        heads = {
            name: find_head(storage.open_store(f"{root}/{name}"), name, table.version())
            for name, table in tables.items()
        }
        ends = [head.end for head in heads.values() if head is not None]
        first = next(iter(heads.values()))
        if first is not None and len(ends) == len(heads) and all(end == first.end for end in ends):
            return tables, first
        if not ends:
            raise ReconcileError(
                "the tables hold no batch yet",
                where=root,
                remedy="run the pipeline first, or wait for its first batch",
            )
        if time.monotonic() > deadline:
            raise ReconcileError(
                f"the tables do not end at the same batch: {_state(heads)}",
                where=root,
                remedy="start the pipeline once: it finishes the batch that a crash had cut in two",
            )
        time.sleep(0.02)


def _open(root: str, name: str) -> DeltaTable:
    try:
        return DeltaTable(f"{root}/{name}")
    except DeltaError as error:
        raise TableError(
            f"the table cannot be opened: {error}", where=f"{root}/{name}", remedy="run the pipeline first"
        ) from error


def _state(heads: dict[str, Batch | None]) -> str:
    return ", ".join(f"{name} at batch {head.batch_id if head else 'none'}" for name, head in heads.items())


def _positions(table: DeltaTable) -> _Positions:
    rows = table.to_pyarrow_dataset().to_table(columns=["_partition", "_offset"])
    partitions, offsets = rows["_partition"].to_numpy(), rows["_offset"].to_numpy()
    return {int(partition): offsets[partitions == partition] for partition in np.unique(partitions)}


def _read_topic(
    pipeline: Pipeline, start: dict[int, int], end: dict[int, int], quarantine: DeltaTable
) -> tuple[_Positions, _Positions]:
    """(offsets in the topic, offsets whose bytes in quarantine differ from the topic's)."""
    kept = _fingerprints(quarantine)
    source = pipeline.source
    options = librdkafka_options({name: secret.get_secret_value() for name, secret in source.options.items()})
    offsets: dict[int, list[int]] = {partition: [] for partition in end}
    altered: dict[int, list[int]] = {}
    for record in topic.read_range(source.servers, source.topic, start, end, options):
        offsets[record.partition].append(record.offset)
        wanted = kept.get((record.partition, record.offset))
        if wanted is not None and wanted != _fingerprint(record.key, record.value, record.headers):
            altered.setdefault(record.partition, []).append(record.offset)
    return (
        {partition: np.array(of, dtype=np.int64) for partition, of in offsets.items()},
        {partition: np.array(of, dtype=np.int64) for partition, of in altered.items()},
    )


def _fingerprints(quarantine: DeltaTable) -> dict[tuple[int, int], bytes]:
    """(partition, offset) → fingerprint of the record that quarantine keeps. The records themselves may be large."""
    columns = ["_partition", "_offset", "_key", "_value", "_headers"]
    return {
        (row["_partition"], row["_offset"]): _fingerprint(
            row["_key"], row["_value"], [(header["key"], header["value"]) for header in row["_headers"] or ()]
        )
        for batch in quarantine.to_pyarrow_dataset().to_batches(columns=columns, batch_size=_ROWS_AT_ONCE)
        for row in batch.to_pylist()
    }


def _fingerprint(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    """Equal for two records exactly if key, value and headers are: each part stands behind its own length."""
    digest = hashlib.blake2b(digest_size=16)
    named = (part for name, content in headers for part in (name.encode("utf-8", "surrogatepass"), content))
    for part in (key, value, *named):
        digest.update(b"-" if part is None else b"%d:" % len(part))
        digest.update(part or b"")
    return digest.digest()


def _repeated(offsets: np.ndarray) -> np.ndarray:
    values, counts = np.unique(offsets, return_counts=True)
    return values[counts > 1]


def _differences(positions: _Positions) -> Differences:
    first = [(partition, int(offset)) for partition, of in sorted(positions.items()) for offset in of[:_SHOWN]]
    return Differences(_size(positions), first[:_SHOWN])


def _size(positions: _Positions) -> int:
    return sum(len(of) for of in positions.values())
