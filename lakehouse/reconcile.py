"""Proves, on live data, that the tables hold what the topic held: nothing lost, nothing twice, rollups right.

Reads the topic and one consistent version of every table, and compares them by (partition, offset). No figure
is derived by subtracting offsets: transaction markers and compaction leave gaps that are no loss.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from lakehouse import kafka_admin, storage, topic
from lakehouse.errors import ReconcileError
from lakehouse.kafka_options import librdkafka_options
from lakehouse.retirement import retired_before
from lakehouse.rollups.compare import RollupDifference, compare_rollup
from lakehouse.rollups.merge import coarsen
from lakehouse.schemas import TIMESTAMP, gold_schema
from lakehouse.serving.history import History, grains_of, hold, open_coarser, read_rows
from lakehouse.sinks.aligned import aligned
from lakehouse.sinks.replays import Replays

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deltalake import DeltaTable

    from lakehouse.chain import Batch, Former, Gap
    from lakehouse.config.models import Pipeline
    from lakehouse.serving.history import Held

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
        replayed: rows of silver that a replay brought there from quarantine.
        missing: in the topic, in neither table.
        doubled: in the tables more than once.
        unknown: in a table, but not in the topic.
        altered: in quarantine, or in the lineage of a replayed row, with another key, value or headers than in the
            topic.
        rollups: each rollup table against silver, for one that joined later from there on; a derived one together
            with what the finer grains have gained since it was derived.
        gaps: offsets that were lost, as a person acknowledged.
        former: content that the topic has no longer, as a person acknowledged.
        former_rows: rows taken from it; they are not compared with the topic.
        retired: table → the time before which its rows left by a rule of retention, ISO 8601: Kafka's timestamp, in
            rollups the window. What is older is not compared.
        retired_records: records of the topic that are older than what silver and quarantine keep.
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
    replayed: int
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
    retired: dict[str, str] = field(default_factory=dict)
    retired_records: int = 0

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
        for table, moment in self.retired.items():
            lines.append(f"{table}: rows from before {moment} were retired by a rule, and are not compared")
        if self.retired_records:
            lines.append(f"{self.retired_records:,} records not looked for: they are older than what the tables keep")
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
    # Before the tables of the stream, so that none covers more of its source than is compared.
    coarser = {name: open_coarser(root, grains_of(pipeline, name)[1:]) for name in pipeline.rollups}
    tables, head = aligned(root, [silver_name, quarantine_name, *gold], Replays(root, pipeline))
    name = pipeline.source.topic
    end = head.end.get(name, {})
    start = _readable(pipeline, head.origin.get(name, {}))

    silver, quarantine = tables[silver_name], tables[quarantine_name]
    *silver_before, silver_now = _eras(head.past.former, _arrival(silver))
    *quarantine_before, quarantine_now = _eras(head.past.former, _arrival(quarantine))
    in_silver, in_quarantine = _positions(silver, silver_now), _positions(quarantine, quarantine_now)
    replayed = _replayed(silver, silver_now)
    boundaries = {table: retired_before(tables[table]) for table in tables}
    boundaries |= {table.name: table.retired_us for held in coarser.values() for table in held}
    kept_from = _latest(boundaries[silver_name], boundaries[quarantine_name])
    # A record in both is doubled, and found as such below.
    kept = _refused(quarantine, quarantine_now) | replayed
    in_topic, altered, retired = _read_topic(pipeline, start, end, kept, kept_from)
    in_tables = _together(in_silver, in_quarantine, in_topic.keys())
    comparable = {partition: of[of >= start.get(partition, 0)] for partition, of in in_tables.items()}
    before = [
        _together(_positions(silver, in_its), _positions(quarantine, in_the_other))
        for in_its, in_the_other in zip(silver_before, quarantine_before, strict=True)
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
        replayed=len(replayed),
        missing=_differences(
            {
                p: np.setdiff1d(in_topic.get(p, _NONE), np.union1d(of, retired.get(p, _NONE)))
                for p, of in in_tables.items()
            }
        ),
        doubled=Differences(sum(era.count for era in doubled), [at for era in doubled for at in era.first][:_SHOWN]),
        unknown=_differences({p: np.setdiff1d(of, in_topic.get(p, _NONE)) for p, of in comparable.items()}),
        altered=_differences(altered),
        rollups={
            table: compare_rollup(
                _joined(silver, head.past.joined.get(table)),
                tables[table].to_pyarrow_dataset(),
                rollup,
                grain,
                event_time=pipeline.event_time.column,
                start_us=_latest(boundaries[table], _whole_from(pipeline, boundaries[silver_name])),
            )
            for table, (grain, rollup) in gold.items()
        }
        | dict(_derived(pipeline, coarser, tables, head)),
        retired={table: _iso(moment) for table, moment in boundaries.items() if moment is not None},
        retired_records=_size(retired),
        gaps=head.past.gaps,
        former=head.past.former,
        former_rows=sum(_size(era) for era in before),
        expired_rows=_size(in_tables) - _size(comparable),
        seconds=time.perf_counter() - began,
    )


def _derived(
    pipeline: Pipeline, coarser: dict[str, list[Held]], tables: dict[str, DeltaTable], head: Batch
) -> Iterator[tuple[str, RollupDifference]]:
    """Each derived table, with the tails of the finer ones, against silver."""
    silver = tables[f"silver/{pipeline.name}"]
    for name, held in coarser.items():
        rollup = pipeline.rollups[name]
        schema = gold_schema(rollup, pipeline.source.fields)
        finest = grains_of(pipeline, name)[0]
        history = History([*held, hold(tables[finest[1]], *finest)])
        whole_from = _whole_from(pipeline, retired_before(silver))
        for table in reversed(held):
            # A row that the finer table was never given cannot be in the coarser one either.
            whole_from = _latest(whole_from, table.cover.whole_from if table.cover else None)
            rows = coarsen(read_rows(history.sources(table.grain), schema), rollup, table.grain)
            yield (
                table.name,
                compare_rollup(
                    _joined(silver, head.past.joined.get(finest[1])),
                    ds.dataset(rows),
                    rollup,
                    table.grain,
                    event_time=pipeline.event_time.column,
                    start_us=_latest(whole_from, table.retired_us),
                ),
            )


def _latest(*moments: int | None) -> int | None:
    return max((moment for moment in moments if moment is not None), default=None)


def _whole_from(pipeline: Pipeline, retired_us: int | None) -> int | None:
    """From when on every event is in silver whose rows from before `retired_us` have left, by Kafka's timestamp.

    An event is at most so far ahead of that as the pipeline believes.
    """
    return None if retired_us is None else retired_us + pipeline.event_time.max_future // timedelta(microseconds=1)


def _iso(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


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


def _knows_replays(silver: DeltaTable) -> bool:
    return any(field.name == "_replayed_from" for field in silver.schema().fields)


def _arrival(table: DeltaTable) -> pc.Expression:
    """When the pipeline took a row from the topic: a replay brings it to silver later, maybe from a former content."""
    if not _knows_replays(table):
        return pc.field("_ingested_at")
    return pc.coalesce(pc.field("_replayed_from", "quarantined_at"), pc.field("_ingested_at"))


def _eras(formers: tuple[Former, ...], arrival: pc.Expression) -> list[pc.Expression]:
    """A filter for the rows of each former content of the topic, and last the one for what it holds now."""
    left = pc.scalar(True)
    eras: list[pc.Expression] = []
    for former in formers:
        behind = pc.scalar(False)
        for partition, offset in former.cut.items():
            behind |= (pc.field("_partition") == partition) & (pc.field("_offset") >= offset)
        inside = behind & (arrival <= _instant(former.mark))
        eras.append(left & inside)
        left &= ~inside
    return [*eras, left]


def _instant(us: int) -> pa.Scalar:
    return pa.scalar(us, pa.int64()).cast(TIMESTAMP)


def _joined(silver: DeltaTable, mark: int | None) -> ds.Dataset:
    """Silver's rows that are in a table which joined at `mark`; all of them for one from the beginning.

    A row that was replayed since counts by its replay, which brought it to both.
    """
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


_Fingerprints = dict[tuple[int, int], bytes]
"""(partition, offset) → fingerprint of the record that a table keeps. The records themselves may be large."""


def _refused(quarantine: DeltaTable, era: pc.Expression) -> _Fingerprints:
    """The records that quarantine keeps."""
    columns = {name: pc.field(name) for name in ("_partition", "_offset", "_key", "_value", "_headers")}
    return _fingerprints(quarantine, columns, era)


def _replayed(silver: DeltaTable, era: pc.Expression) -> _Fingerprints:
    """The records that silver keeps as the lineage of replayed rows."""
    if not _knows_replays(silver):
        return {}
    columns = {name: pc.field(name) for name in ("_partition", "_offset")}
    columns |= {name: pc.field("_replayed_from", name.removeprefix("_")) for name in ("_key", "_value", "_headers")}
    return _fingerprints(silver, columns, era & pc.field("_replayed_from").is_valid())


def _read_topic(
    pipeline: Pipeline, start: dict[int, int], end: dict[int, int], kept: _Fingerprints, kept_from: int | None
) -> tuple[_Positions, _Positions, _Positions]:
    """(offsets in the topic, those whose record there has another fingerprint than in `kept`, those too old).

    `kept_from`, µs since 1970 UTC: records from before it may have left the tables.
    """
    source = pipeline.source
    options = librdkafka_options({name: secret.get_secret_value() for name, secret in source.options.items()})
    offsets: dict[int, list[int]] = {partition: [] for partition in end}
    altered: dict[int, list[int]] = {}
    retired: dict[int, list[int]] = {}
    for record in topic.read_range(source.servers, source.topic, start, end, options):
        offsets[record.partition].append(record.offset)
        wanted = kept.get((record.partition, record.offset))
        if wanted is not None and wanted != _fingerprint(record.key, record.value, record.headers):
            altered.setdefault(record.partition, []).append(record.offset)
        if kept_from is not None and record.timestamp_ms is not None and record.timestamp_ms * 1_000 < kept_from:
            retired.setdefault(record.partition, []).append(record.offset)
    return _arrays(offsets), _arrays(altered), _arrays(retired)


def _arrays(offsets: dict[int, list[int]]) -> _Positions:
    return {partition: np.array(of, dtype=np.int64) for partition, of in offsets.items()}


def _fingerprints(table: DeltaTable, columns: dict[str, pc.Expression], rows: pc.Expression) -> _Fingerprints:
    batches = table.to_pyarrow_dataset().to_batches(columns=columns, filter=rows, batch_size=_ROWS_AT_ONCE)
    return {
        (row["_partition"], row["_offset"]): _fingerprint(
            row["_key"], row["_value"], [(header["key"], header["value"]) for header in row["_headers"] or ()]
        )
        for batch in batches
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
