"""Holds the topic, the producer's ledger and the witness's history against the tables. Knows nothing of faults.

`reconcile` compares by position; what is here goes further: every value, every batch, every version. The event's
fields are parsed once more, by another JSON library than Spark's. Each check gives a verdict and never stops the
others: tables that cannot be read at all are a verdict too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse import reconcile as position
from lakehouse import storage
from lakehouse.chain import describe
from lakehouse.errors import LakehouseError
from lakehouse.schemas import ARROW_TYPES
from lakehouse.torture.ledger import Ledger, Outcome, hash_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lakehouse.chain import Offsets
    from lakehouse.config.models import Pipeline
    from lakehouse.torture.witness import BatchSeen, Witness

_SHOWN = 5
_SLICE = 200_000
"""Records whose values are compared at once."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One committed record of the topic; `sequence` is its producer's number, -1 where it has none."""

    partition: int
    offset: int
    value: bytes | None
    sequence: int = -1


@dataclass(frozen=True)
class Check:
    """One verdict.

    Attributes:
        name: what was checked.
        ok: whether it held.
        compared: how many things were compared.
        detail: what differs, first cases first; empty where nothing does.
    """

    name: str
    ok: bool
    compared: int
    detail: str = ""


def check_all(pipeline: Pipeline, records: Iterable[Stored], ledger: Ledger, witness: Witness) -> list[Check]:
    """Every check.

    Args:
        pipeline: with bronze.
        records: of the whole topic at `read_committed`, partition by partition in offset order.
        ledger: what the producer knows.
        witness: of every table's log, finished.
    """
    evidence = Evidence(pipeline, list(records), ledger, witness)
    return [_guarded(name, check, evidence) for name, check in CHECKS.items()]


class Evidence:
    """What the checks look at, each part read once."""

    def __init__(self, pipeline: Pipeline, records: list[Stored], ledger: Ledger, witness: Witness) -> None:
        self.pipeline, self.records, self.ledger, self.witness = pipeline, records, ledger, witness
        self.root = storage.resolve_root(pipeline.root)
        self.topic = pipeline.source.topic
        self.keys = _keys(
            np.array([record.partition for record in records], np.int64),
            np.array([record.offset for record in records], np.int64),
        )
        self._tables: dict[str, pa.Table] = {}

    def layer(self, layer: str) -> pa.Table:
        """A table's rows in the order of (partition, offset), read from its newest version."""
        if layer not in self._tables:
            table = DeltaTable(f"{self.root}/{layer}/{self.pipeline.name}").to_pyarrow_dataset().to_table()
            self._tables[layer] = table.sort_by([("_partition", "ascending"), ("_offset", "ascending")])
        return self._tables[layer]

    def layer_keys(self, layer: str) -> np.ndarray:
        """Its rows' positions as single numbers, ascending."""
        rows = self.layer(layer)
        return _keys(rows["_partition"].to_numpy().astype(np.int64), rows["_offset"].to_numpy())

    def slices(self, layer: str) -> Iterator[tuple[pa.Table, list[Stored | None]]]:
        """Parts of a table, each beside the topic's records at the same positions (None: the topic has none)."""
        rows, keys = self.layer(layer), self.layer_keys(layer)
        at = np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))
        known = self.keys[at] == keys if len(self.keys) else np.zeros(len(keys), bool)
        for first in range(0, len(keys), _SLICE):
            last = min(first + _SLICE, len(keys))
            beside = [self.records[at[each]] if known[each] else None for each in range(first, last)]
            yield rows.slice(first, last - first), beside

    def batches(self, table: str) -> list[BatchSeen]:
        """The batches that a table's log has held, in order."""
        return [version.batch for version in self.witness.versions[table] if version.batch]


def _ledger(evidence: Evidence) -> Check:
    """Every acknowledged record is in the topic, where and as it was acknowledged; no aborted one is."""
    acked = evidence.ledger.of(Outcome.ACKED)
    hashes = np.array([hash_of(record.value) for record in evidence.records], "V32")
    keys = _keys(acked["partition"].astype(np.int64), acked["offset"])
    at = np.minimum(np.searchsorted(evidence.keys, keys), max(len(evidence.keys) - 1, 0))
    found = evidence.keys[at] == keys if len(evidence.keys) else np.zeros(len(keys), bool)
    lost = _named(keys[~found])
    altered = _named(keys[found][hashes[at[found]] != acked["sha256"][found]])
    seen = {record.sequence for record in evidence.records}
    aborted = [int(each) for each in evidence.ledger.of(Outcome.ABORTED)["sequence"] if int(each) in seen]
    known = set(evidence.ledger.entries["sequence"].tolist())
    strange = [record.sequence for record in evidence.records if record.sequence not in known]
    return _check(
        "ledger",
        len(acked),
        {"acknowledged but gone": lost, "altered": altered, "aborted but visible": aborted, "not in it": strange},
    )


def _order(evidence: Evidence) -> Check:
    """In each partition the producer's numbers rise with the offsets, apart from its transactions'."""
    falling: list[str] = []
    last: dict[tuple[int, bool], int] = {}
    for record in evidence.records:
        source = (record.partition, record.sequence >= 1 << 40)
        if source[1]:
            continue
        if record.sequence <= last.get(source, -1):
            falling.append(f"{record.partition}:{record.offset}")
        last[source] = record.sequence
    return _check("order", len(evidence.records), {"out of order": falling})


def _positions(evidence: Evidence) -> Check:
    """`lakehouse reconcile`: nothing missing, doubled, unknown, altered; each rollup equal to silver."""
    found = position.reconcile(evidence.pipeline)
    differing = {kind: getattr(found, kind).first for kind in ("missing", "doubled", "unknown", "altered")}
    rollups = {f"rollup {name}": rollup.first for name, rollup in found.rollups.items() if not rollup.ok}
    return _check("positions", found.records, differing | rollups)


def _files(evidence: Evidence) -> Check:
    """Each file joined a table once, and every live one stands on the disk with the size and rows on record."""
    problems: dict[str, list[str]] = {
        "added twice": [],
        "removed but never there": [],
        "gone": [],
        "not as recorded": [],
    }
    compared = 0
    for name, versions in evidence.witness.versions.items():
        live: dict[str, tuple[int, int]] = {}
        ever: set[str] = set()
        for version in versions:
            twice = [path for path in version.added if path in ever]
            if version.listed != len(version.added):
                twice.append(f"version {version.number}")
            problems["added twice"] += [f"{name}/{path}" for path in twice]
            problems["removed but never there"] += [f"{name}/{path}" for path in version.removed if path not in live]
            for path in version.removed:
                live.pop(path, None)
            live |= version.added
            ever |= version.added.keys()
        for path, recorded in live.items():
            file = Path(evidence.root) / name / path
            compared += 1
            if not file.is_file():
                problems["gone"].append(f"{name}/{path}")
            elif (file.stat().st_size, pq.read_metadata(file).num_rows) != recorded:
                problems["not as recorded"].append(f"{name}/{path}")
    return _check("files", compared, problems)


def _bronze(evidence: Evidence) -> Check:
    """Bronze is the topic: every record once, with the same bytes and the same producer's number."""
    keys = evidence.layer_keys("bronze")
    problems: dict[str, list[Any]] = {
        "missing": _named(np.setdiff1d(evidence.keys, keys)),
        "unknown": _named(np.setdiff1d(keys, evidence.keys)),
        "doubled": _named(keys[1:][keys[1:] == keys[:-1]]),
        "altered": [],
    }
    for rows, beside in evidence.slices("bronze"):
        values, headers = rows["_value"].to_pylist(), rows["_headers"].to_pylist()
        for value, header, record in zip(values, headers, beside, strict=True):
            numbers = [int.from_bytes(each["value"], "big") for each in header or () if each["key"] == "sequence"]
            if record and (value != record.value or numbers != [record.sequence]):
                problems["altered"].append(f"{record.partition}:{record.offset}")
    return _check("bronze", len(keys), problems)


def _silver(evidence: Evidence) -> Check:
    """Each typed field of silver is what another parser finds in the bytes."""
    fields = evidence.pipeline.source.fields
    limit_us = int(evidence.pipeline.event_time.max_future.total_seconds() * 1e6)
    problems: dict[str, list[str]] = {"no object": [], "untimely": []}
    compared = 0
    for rows, beside in evidence.slices("silver"):
        parsed = [_object(record.value) if record else None for record in beside]
        strange = [record for record, found in zip(beside, parsed, strict=True) if record and found is None]
        problems["no object"] += [f"{record.partition}:{record.offset}" for record in strange]
        for name, field in fields.items():
            expected = _column([found.get(name) if found else None for found in parsed], ARROW_TYPES[field.type])
            differs = _differing(rows[name].combine_chunks(), expected)
            problems.setdefault(name, []).extend(_at(beside, differs))
        ahead = pc.subtract(
            rows[evidence.pipeline.event_time.column].cast(pa.int64()), rows["_timestamp"].cast(pa.int64())
        ).to_numpy(zero_copy_only=False)
        problems["untimely"] += _at(beside, ahead > limit_us)
        compared += len(beside)
    return _check("silver", compared, problems)


def _quarantine(evidence: Evidence) -> Check:
    """Quarantine keeps the bytes, and says why; silver has no row of the same position."""
    problems: dict[str, list[Any]] = {
        "altered": [],
        "without a reason": [],
        "in silver too": _named(np.intersect1d(evidence.layer_keys("quarantine"), evidence.layer_keys("silver"))),
    }
    compared = 0
    for rows, beside in evidence.slices("quarantine"):
        values, errors = rows["_value"].to_pylist(), rows["_errors"].to_pylist()
        for value, reasons, record in zip(values, errors, beside, strict=True):
            compared += 1
            if record and value != record.value:
                problems["altered"].append(f"{record.partition}:{record.offset}")
            if record and not reasons:
                problems["without a reason"].append(f"{record.partition}:{record.offset}")
    return _check("quarantine", compared, problems)


def _conservation(evidence: Evidence) -> Check:
    """For each batch: silver + quarantine = bronze = the topic's records in its range; by rows and by record."""
    name = evidence.pipeline.name
    layers = ("silver", "quarantine", "bronze")
    keys = {layer: evidence.layer_keys(layer) for layer in layers}
    problems: dict[str, list[str]] = {"rows": [], "recorded rows": []}
    batches = evidence.batches(f"silver/{name}")
    for batch in batches:
        due = _within(evidence.keys, batch, evidence.topic)
        rows = {layer: _within(keys[layer], batch, evidence.topic) for layer in layers}
        noted = {layer: batch.rows.get(f"{layer}/{name}", 0) for layer in layers}
        for what, counted in (("rows", rows), ("recorded rows", noted)):
            if not counted["silver"] + counted["quarantine"] == counted["bronze"] == due:
                problems[what].append(f"batch {batch.batch_id} ({describe(batch.start)} up to {describe(batch.end)})")
    return _check("conservation", len(batches), problems)


def _chain(evidence: Evidence) -> Check:
    """In every table each batch begins where the one before ended; all tables have the same; none ends early."""
    problems: dict[str, list[str]] = {"broken": [], "unlike the first table": [], "behind the topic": []}
    tables = list(evidence.witness.versions)
    first = [(batch.start, batch.end) for batch in evidence.batches(tables[0])]
    for name in tables:
        batches = evidence.batches(name)
        for before, after in pairwise(batches):
            known = before.end.get(evidence.topic, {})
            starts = after.start.get(evidence.topic, {})
            if any(starts.get(partition) != offset for partition, offset in known.items()):
                problems["broken"].append(
                    f"{name} batch {after.batch_id}: {describe(before.end)} → {describe(after.start)}"
                )
        if [(batch.start, batch.end) for batch in batches] != first:
            problems["unlike the first table"].append(name)
        end = batches[-1].end.get(evidence.topic, {}) if batches else {}
        last = {record.partition: record.offset for record in evidence.records}
        problems["behind the topic"] += [
            f"{name} partition {partition}: {end.get(partition, 0)} of {offset + 1}"
            for partition, offset in last.items()
            if end.get(partition, 0) <= offset
        ]
    return _check("chain", sum(len(evidence.batches(name)) for name in tables), problems)


def _versions(evidence: Evidence) -> Check:
    """No version ever said something else than at first, none was torn, none vanished unseen, nor the last batch's."""
    seen = evidence.witness.versions
    torn = [f"{name} version {each.number}" for name, known in seen.items() for each in known if _is_empty(each)]
    return _check(
        "versions",
        sum(map(len, seen.values())),
        {
            "changed": evidence.witness.changed,
            "torn": torn,
            "vanished unseen": evidence.witness.unseen(),
            "last batch gone": evidence.witness.heads_gone(),
        },
    )


CHECKS: dict[str, Callable[[Evidence], Check]] = {
    "ledger": _ledger,
    "order": _order,
    "versions": _versions,
    "chain": _chain,
    "files": _files,
    "positions": _positions,
    "bronze": _bronze,
    "silver": _silver,
    "quarantine": _quarantine,
    "conservation": _conservation,
}
"""Every check by name, in the order of a report."""


def describe_check(name: str) -> str:
    """What a check holds, in one sentence."""
    return (CHECKS[name].__doc__ or "").strip()


def _guarded(name: str, check: Callable[[Evidence], Check], evidence: Evidence) -> Check:
    """Tables that cannot be read fail the check that wanted to read them."""
    try:
        return check(evidence)
    except (LakehouseError, DeltaError, OSError, pa.ArrowException) as error:
        return Check(name, ok=False, compared=0, detail=f"cannot be compared: {error}")


def _check(name: str, compared: int, problems: dict[str, list[Any]]) -> Check:
    shown = [
        f"{len(cases):,} {what}: {', '.join(map(str, cases[:_SHOWN]))}{' …' if len(cases) > _SHOWN else ''}"
        for what, cases in problems.items()
        if cases
    ]
    return Check(name, ok=not shown, compared=compared, detail="; ".join(shown))


def _keys(partitions: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Position as one number; ascending in (partition, offset)."""
    keys: np.ndarray = (partitions << 48) + offsets
    return keys


def _named(keys: np.ndarray) -> list[str]:
    return [f"{key >> 48}:{key & (1 << 48) - 1}" for key in keys.tolist()]


def _at(beside: list[Stored | None], differs: np.ndarray) -> list[str]:
    found = (beside[each] for each in np.flatnonzero(differs))
    return [f"{record.partition}:{record.offset}" for record in found if record]


def _within(keys: np.ndarray, batch: BatchSeen, topic: str) -> int:
    """How many positions lie in the batch's range."""
    ends: Offsets = batch.end
    total = 0
    for partition, end in ends.get(topic, {}).items():
        start = batch.start.get(topic, {}).get(partition, 0)
        first, last = np.searchsorted(keys, [(partition << 48) + start, (partition << 48) + end])
        total += int(last - first)
    return total


def _object(value: bytes | None) -> dict[str, Any] | None:
    try:
        found = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    """The values as a column; one that does not fit is null, which a row of silver should not need."""
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return pa.array([value if isinstance(value, str) else None for value in values], pa.string()).cast(kind)
    if pa.types.is_string(kind):
        return pa.array([value if isinstance(value, str) else None for value in values], kind)
    if pa.types.is_floating(kind):
        return pa.array([float(value) if isinstance(value, int | float) else None for value in values], kind)
    return pa.array([value if isinstance(value, int) else None for value in values], kind)


def _differing(found: pa.Array, expected: pa.Array) -> np.ndarray:
    """Where the two differ; null equals null."""
    both = pc.fill_null(pc.equal(found, expected), False)
    same = pc.or_(both, pc.and_(pc.is_null(found), pc.is_null(expected)))
    differs: np.ndarray = pc.invert(same).to_numpy(zero_copy_only=False)
    return differs


def _is_empty(version: Any) -> bool:  # noqa: ANN401 - Version
    return version.number > 0 and version.batch is None and not version.listed and not version.removed
