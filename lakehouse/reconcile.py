"""Proves, on live data, that the tables hold what the topic held: nothing lost, nothing twice, rollups right.

Reads the topic and one consistent version of every table, and compares them by (partition, offset). No figure
is derived by subtracting offsets: transaction markers and compaction leave gaps that are no loss.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lakehouse import storage, topic
from lakehouse.kafka_options import librdkafka_options
from lakehouse.rollups.compare import RollupDifference, compare_rollup
from lakehouse.sinks.aligned import aligned

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from lakehouse.config.models import Pipeline

_SHOWN = 10
"""How many records of each kind of difference a report names."""


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
        altered: in quarantine with other bytes than in the topic.
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
    tables, head = aligned(root, [silver_name, quarantine_name, *gold])
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


def _positions(table: DeltaTable) -> _Positions:
    rows = table.to_pyarrow_dataset().to_table(columns=["_partition", "_offset"])
    partitions, offsets = rows["_partition"].to_numpy(), rows["_offset"].to_numpy()
    return {int(partition): offsets[partitions == partition] for partition in np.unique(partitions)}


def _read_topic(
    pipeline: Pipeline, start: dict[int, int], end: dict[int, int], quarantine: DeltaTable
) -> tuple[_Positions, _Positions]:
    """(offsets in the topic, offsets whose bytes in quarantine differ from the topic's)."""
    kept = quarantine.to_pyarrow_dataset().to_table(columns=["_partition", "_offset", "_value"])
    values: dict[tuple[int, int], bytes | None] = dict(
        zip(
            zip(kept["_partition"].to_pylist(), kept["_offset"].to_pylist(), strict=True),
            kept["_value"].to_pylist(),
            strict=True,
        )
    )
    source = pipeline.source
    options = librdkafka_options({name: secret.get_secret_value() for name, secret in source.options.items()})
    offsets: dict[int, list[int]] = {partition: [] for partition in end}
    altered: dict[int, list[int]] = {}
    for record in topic.read_range(source.servers, source.topic, start, end, options):
        offsets[record.partition].append(record.offset)
        position = (record.partition, record.offset)
        if position in values and values[position] != record.value:
            altered.setdefault(record.partition, []).append(record.offset)
    return (
        {partition: np.array(of, dtype=np.int64) for partition, of in offsets.items()},
        {partition: np.array(of, dtype=np.int64) for partition, of in altered.items()},
    )


def _repeated(offsets: np.ndarray) -> np.ndarray:
    values, counts = np.unique(offsets, return_counts=True)
    return values[counts > 1]


def _differences(positions: _Positions) -> Differences:
    first = [(partition, int(offset)) for partition, of in sorted(positions.items()) for offset in of[:_SHOWN]]
    return Differences(_size(positions), first[:_SHOWN])


def _size(positions: _Positions) -> int:
    return sum(len(of) for of in positions.values())
