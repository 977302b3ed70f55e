"""Proves, on live data, that the tables hold what the topic held: nothing lost, nothing twice, rollups right.

Reads the topic and one consistent version of every table, and compares them by (partition, offset). No figure
is derived by subtracting offsets: transaction markers and compaction leave gaps that are no loss.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import kafka_admin, storage, topic
from lakehouse.errors import ReconcileError
from lakehouse.kafka_options import librdkafka_options
from lakehouse.rollups.compare import RollupDifference, compare_rollup
from lakehouse.schemas import TIMESTAMP
from lakehouse.sinks.aligned import aligned

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow.dataset as ds
    from deltalake import DeltaTable

    from lakehouse.chain import Former, Gap
    from lakehouse.config.models import Pipeline

_SHOWN = 10
"""How many records of each kind of difference a report names."""

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
        rollups: each rollup table against silver, for one that joined later from there on.
        gaps: offsets that were lost, as a person acknowledged.
        former: content that the topic has no longer, as a person acknowledged.
        former_rows: rows taken from it; they are not compared with the topic.
        expired_rows: rows whose records retention has removed since; they are not compared with the topic.
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
    gaps: tuple[Gap, ...]
    former: tuple[Former, ...]
    former_rows: int
    expired_rows: int
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
        if self.expired_rows:
            lines.append(f"{self.expired_rows:,} rows not compared: retention has removed their records since")
        if self.former_rows:
            lines.append(f"{self.former_rows:,} rows not compared: they are of content that the topic has no longer")
        lines += [_gap_line(gap) for gap in self.gaps] + [_former_line(former) for former in self.former]
        excepted = ", apart from what was acknowledged" if self.gaps or self.former else ""
        verdict = f"everything agrees{excepted}" if self.ok else "THE TABLES DIFFER FROM THE TOPIC"
        lines.append(f"{verdict} ({self.seconds:.1f} s)")
        return "\n".join(lines)


def reconcile(pipeline: Pipeline) -> Reconciliation:
    """Compare the topic with the tables.

    Raises:
        SourceUnavailable: the topic cannot be read.
        ReconcileError: the tables hold nothing yet, or not all of them have the same last batch, or comparing took
            longer than maintenance keeps the files of an old version.
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
    tables, head = aligned(root, [silver_name, quarantine_name, *gold])
    name = pipeline.source.topic
    end = head.end.get(name, {})
    start = _readable(pipeline, head.origin.get(name, {}))

    *former, current = _eras(head.past.former)
    in_silver = _positions(tables[silver_name], current)
    in_quarantine = _positions(tables[quarantine_name], current)
    in_topic, altered = _read_topic(pipeline, start, end, tables[quarantine_name], current)
    in_tables = _together(in_silver, in_quarantine, in_topic.keys())
    comparable = {partition: of[of >= start.get(partition, 0)] for partition, of in in_tables.items()}
    before = [
        _together(*(_positions(tables[table], era) for table in (silver_name, quarantine_name))) for era in former
    ]
    doubled = [
        _differences({partition: _repeated(of) for partition, of in era.items()}) for era in (in_tables, *before)
    ]
    return Reconciliation(
        pipeline=pipeline.name,
        topic=name,
        start=start,
        end=end,
        records=_size(in_topic),
        silver=_size(in_silver),
        quarantine=_size(in_quarantine),
        missing=_differences({p: np.setdiff1d(in_topic.get(p, _NONE), of) for p, of in in_tables.items()}),
        doubled=Differences(sum(era.count for era in doubled), [at for era in doubled for at in era.first][:_SHOWN]),
        unknown=_differences({p: np.setdiff1d(of, in_topic.get(p, _NONE)) for p, of in comparable.items()}),
        altered=_differences(altered),
        rollups={
            table: compare_rollup(
                _joined(tables[silver_name], head.past.joined.get(table)),
                tables[table].to_pyarrow_dataset(),
                rollup,
                grain,
                event_time=pipeline.event_time.column,
            )
            for table, (grain, rollup) in gold.items()
        },
        gaps=head.past.gaps,
        former=head.past.former,
        former_rows=sum(_size(era) for era in before),
        expired_rows=_size(in_tables) - _size(comparable),
        seconds=time.perf_counter() - began,
    )


def _gap_line(gap: Gap) -> str:
    return (
        f"ACKNOWLEDGED GAP: partition {gap.partition}, offsets {gap.start}–{gap.end}: {gap.reason}"
        f" (acknowledged {_moment(gap.acknowledged_ms)})"
    )


def _former_line(former: Former) -> str:
    cut = ", ".join(
        f"partition {number} from {offset} (tables had read up to {former.end[number]})"
        for number, offset in sorted(former.cut.items())
    )
    return f"ACKNOWLEDGED LOSS: {former.reason}: {cut} (acknowledged {_moment(former.acknowledged_ms)})"


def _moment(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1_000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _readable(pipeline: Pipeline, origin: dict[int, int]) -> dict[int, int]:
    """Where the comparison begins: where the pipeline began, or at the earliest records that are kept."""
    source = pipeline.source
    options = {name: secret.get_secret_value() for name, secret in source.options.items()}
    kept = kafka_admin.offsets(source.servers, source.topic, options)
    return {partition: max(offset, kept.get(partition, (0, 0))[0]) for partition, offset in origin.items()}


def _eras(formers: tuple[Former, ...]) -> list[pc.Expression]:
    """A filter for the rows of each former content of the topic, and last the one for what it holds now."""
    left = pc.scalar(True)
    eras: list[pc.Expression] = []
    for former in formers:
        behind = pc.scalar(False)
        for partition, offset in former.cut.items():
            behind |= (pc.field("_partition") == partition) & (pc.field("_offset") >= offset)
        inside = behind & (pc.field("_ingested_at") <= _instant(former.mark))
        eras.append(left & inside)
        left &= ~inside
    return [*eras, left]


def _instant(us: int) -> pa.Scalar:
    return pa.scalar(us, pa.int64()).cast(TIMESTAMP)


def _joined(silver: DeltaTable, mark: int | None) -> ds.Dataset:
    """Silver's rows that are in a table which joined at `mark`; all of them for one from the beginning."""
    rows = silver.to_pyarrow_dataset()
    return rows if mark is None else rows.filter(pc.field("_ingested_at") > _instant(mark))


def _together(left: _Positions, right: _Positions, partitions: Iterable[int] = ()) -> _Positions:
    return {
        partition: np.concatenate([left.get(partition, _NONE), right.get(partition, _NONE)])
        for partition in left.keys() | right.keys() | set(partitions)
    }


_NONE = np.empty(0, dtype=np.int64)
_Positions = dict[int, np.ndarray]
"""partition → offsets."""


def _positions(table: DeltaTable, era: pc.Expression) -> _Positions:
    rows = table.to_pyarrow_dataset().to_table(columns=["_partition", "_offset"], filter=era)
    partitions, offsets = rows["_partition"].to_numpy(), rows["_offset"].to_numpy()
    return {int(partition): offsets[partitions == partition] for partition in np.unique(partitions)}


def _read_topic(
    pipeline: Pipeline, start: dict[int, int], end: dict[int, int], quarantine: DeltaTable, era: pc.Expression
) -> tuple[_Positions, _Positions]:
    """(offsets in the topic, offsets whose bytes in quarantine differ from the topic's)."""
    kept = _fingerprints(quarantine, era)
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


def _fingerprints(quarantine: DeltaTable, era: pc.Expression) -> dict[tuple[int, int], bytes]:
    """(partition, offset) → fingerprint of the record that quarantine keeps. The records themselves may be large."""
    columns = ["_partition", "_offset", "_key", "_value", "_headers"]
    return {
        (row["_partition"], row["_offset"]): _fingerprint(
            row["_key"], row["_value"], [(header["key"], header["value"]) for header in row["_headers"] or ()]
        )
        for batch in quarantine.to_pyarrow_dataset().to_batches(columns=columns, filter=era, batch_size=_ROWS_AT_ONCE)
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
