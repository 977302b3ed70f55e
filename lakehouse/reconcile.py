"""Proves, on live data, that the tables hold what the topic held: nothing lost, nothing twice, rollups right.

Reads the topic and one consistent version of every table, and compares them by (partition, offset). No figure
is derived by subtracting offsets: transaction markers and compaction leave gaps that are no loss.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse import storage, topic
from lakehouse.errors import ReconcileError, TableError
from lakehouse.kafka_options import librdkafka_options
from lakehouse.rollups.compare import RollupDifference, compare_rollup
from lakehouse.sinks.delta_log import find_head
from lakehouse.sinks.replays import Replays, last_replay

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.chain import Batch
    from lakehouse.config.models import Pipeline

_SHOWN = 10
"""How many records of each kind of difference a report names."""
_ALIGN_S = 30.0
"""A running pipeline commits its tables within milliseconds of each other; a table that stays behind for this
long belongs to a batch that a crash cut in two, which the pipeline's next start finishes."""


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
        replayed: rows of silver that a replay brought there from quarantine.
        missing: in the topic, in neither table.
        doubled: in the tables more than once.
        unknown: in a table, but not in the topic.
        altered: in quarantine, or in the lineage of a replayed row, with other bytes than in the topic.
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
    replayed: int
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
            f"silver {self.silver:,} + quarantine {self.quarantine:,} = {self.silver + self.quarantine:,} rows"
            + (f"; {self.replayed:,} of silver were replayed" if self.replayed else ""),
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
        ReconcileError: the tables hold nothing yet, or not all of them have the same last batch and replay, or
            comparing took longer than maintenance keeps the files of an old version.
    """
    try:
        return _compare(pipeline)
    except FileNotFoundError as error:
        raise ReconcileError(
            f"a file of the version that is being compared is gone: {error}",
            where=pipeline.root,
            remedy="compare again; where that takes longer than maintenance.retention, raise it",
        ) from error


def _compare(pipeline: Pipeline) -> Reconciliation:
    began = time.perf_counter()
    root = storage.resolve_root(pipeline.root)
    gold = {f"gold/{name}": (grain, rollup) for name, grain, rollup in pipeline.rollup_tables()}
    silver_name, quarantine_name = f"silver/{pipeline.name}", f"quarantine/{pipeline.name}"
    tables, head = _aligned(root, [silver_name, quarantine_name, *gold], Replays(root, pipeline))
    name = pipeline.source.topic
    start, end = head.origin.get(name, {}), head.end.get(name, {})

    in_silver = _positions(tables[silver_name])
    in_quarantine = _positions(tables[quarantine_name])
    refused, replayed = _refused(tables[quarantine_name]), _replayed(tables[silver_name])
    # A record in both is doubled, and found as such below.
    in_topic, altered = _read_topic(pipeline, start, end, refused | replayed)
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
        replayed=len(replayed),
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


def _aligned(root: str, names: list[str], replays: Replays) -> tuple[dict[str, DeltaTable], Batch]:
    """Every table at a version whose last batch and last replay are the same in all of them."""
    deadline = time.monotonic() + _ALIGN_S
    while True:
        tables = {name: _open(root, name) for name in names}
        heads = {
            name: find_head(storage.open_store(f"{root}/{name}"), name, table.version())
            for name, table in tables.items()
        }
        ends = [head.end for head in heads.values() if head is not None]
        first = next(iter(heads.values()))
        replayed = {name: last_replay(table) for name, table in tables.items()}
        last = max(replayed.values())
        # A table that joined after a replay has nothing of it.
        replays_agree = all(replayed.get(name, last) == last for name in replays.touched(last))
        if first is not None and len(ends) == len(heads) and all(end == first.end for end in ends) and replays_agree:
            return tables, first
        if not ends:
            raise ReconcileError(
                "the tables hold no batch yet",
                where=root,
                remedy="run the pipeline first, or wait for its first batch",
            )
        if time.monotonic() > deadline and not replays_agree:
            raise ReconcileError(
                f"a replay has reached only some of the tables: {replayed}",
                where=root,
                remedy="start the pipeline or any `lakehouse quarantine replay` once: it finishes what was cut in two",
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


_Values = dict[tuple[int, int], bytes | None]
"""(partition, offset) → the record's value."""


def _refused(quarantine: DeltaTable) -> _Values:
    """The raw values that quarantine keeps."""
    return _values(quarantine.to_pyarrow_dataset().to_table(columns=["_partition", "_offset", "_value"]))


def _replayed(silver: DeltaTable) -> _Values:
    """The raw values that silver keeps as the lineage of replayed rows."""
    dataset = silver.to_pyarrow_dataset()
    if "_replayed_from" not in dataset.schema.names:
        return {}
    lineage = pc.field("_replayed_from")
    columns = {
        "_partition": pc.field("_partition"),
        "_offset": pc.field("_offset"),
        "_value": pc.struct_field(lineage, "value"),
    }
    return _values(dataset.to_table(columns=columns, filter=lineage.is_valid()))


def _values(rows: pa.Table) -> _Values:
    positions = zip(rows["_partition"].to_pylist(), rows["_offset"].to_pylist(), strict=True)
    return dict(zip(positions, rows["_value"].to_pylist(), strict=True))


def _read_topic(
    pipeline: Pipeline, start: dict[int, int], end: dict[int, int], values: _Values
) -> tuple[_Positions, _Positions]:
    """(offsets in the topic, offsets whose value there is not that of `values`)."""
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
