"""The record of one micro-batch: what the driver knows once it is committed, and what was last seen beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lakehouse.chain import Batch
    from lakehouse.quality.watch import Outcome


@dataclass(frozen=True, slots=True)
class Committed:
    """A micro-batch that is in every table, as it is handed over by the hot path.

    Attributes:
        batch: as the commits hold it.
        job_s: seconds of the Spark job.
        commit_s: seconds of writing the partial aggregates and every commit.
        outcomes: how many rows failed each rule.
        late: valid events that reached Kafka long after they happened.
        at_s: when it was committed, seconds since 1970 UTC.
    """

    batch: Batch
    job_s: float
    commit_s: float
    outcomes: tuple[Outcome, ...]
    late: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen beside the stream.

    Attributes:
        at_s: when, seconds since 1970 UTC.
        ends: partition → offset that the next committed record gets; None where Kafka did not answer.
        memory: part of the process tree → resident bytes.
        disk: (bytes left, bytes in all) of the root's disk; None over an object store.
    """

    at_s: float
    ends: Mapping[int, int] | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    disk: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class TableFigures:
    """A table as maintenance last reported it; `log_files` is None until it has listed the log."""

    files: int
    bytes: int
    log_files: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One row of `_ops/NAME`: a micro-batch, or a look at a pipeline that has none.

    Attributes:
        at_s: commit of the micro-batch or time of the look, seconds since 1970 UTC.
        query_id, batch_id, suite_sha256: of the micro-batch; None for a look.
        rows: table → rows added.
        failed: rule → rows that failed it, without the rules that none failed.
        late: events that reached Kafka late.
        job_s, commit_s: seconds.
        freshness_s: age of the oldest valid record at the commit, since it reached Kafka; None where there is none.
        newest_event_s: when the newest valid event happened, never after the commit; None where there is none.
        lag: partition → offsets behind its end; empty while Kafka does not answer.
        reachable: whether Kafka answered when last asked; None before the first time.
        memory: part → resident bytes.
        tables: table → its figures.
        ahead_s: how far the newest event, or Kafka's time of it, lies ahead of the commit; 0 where neither does.
        maintained_s: when the table that has waited longest was last maintained, seconds since 1970 UTC.
        disk: as in `Sample`.
    """

    at_s: float
    query_id: str | None = None
    batch_id: int | None = None
    suite_sha256: str | None = None
    rows: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    late: int | None = None
    job_s: float | None = None
    commit_s: float | None = None
    freshness_s: float | None = None
    newest_event_s: float | None = None
    lag: Mapping[int, int] = field(default_factory=dict)
    reachable: bool | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, TableFigures] = field(default_factory=dict)
    ahead_s: float | None = None
    maintained_s: float | None = None
    disk: tuple[int, int] | None = None

    def to_row(self) -> dict[str, Any]:
        """In the columns of `schemas.OPS_SCHEMA`."""
        return {
            "time": _moment(self.at_s),
            "query_id": self.query_id,
            "batch_id": self.batch_id,
            "suite_sha256": self.suite_sha256,
            "rows": list(self.rows.items()),
            "failed": list(self.failed.items()),
            "late": self.late,
            "job_seconds": self.job_s,
            "commit_seconds": self.commit_s,
            "freshness_seconds": self.freshness_s,
            "newest_event": None if self.newest_event_s is None else _moment(self.newest_event_s),
            "lag": list(self.lag.items()),
            "kafka_reachable": self.reachable,
            "memory_bytes": list(self.memory.items()),
            "files": [(name, of.files) for name, of in self.tables.items()],
            "log_files": [(name, of.log_files) for name, of in self.tables.items() if of.log_files is not None],
            "ahead_seconds": self.ahead_s,
            "maintained": None if self.maintained_s is None else _moment(self.maintained_s),
        }


def record_of(
    committed: Committed,
    sample: Sample | None,
    tables: Mapping[str, TableFigures],
    event_time: str,
    maintained_s: float | None = None,
) -> Record:
    """The record of a micro-batch; `event_time` is the column whose range its files state."""
    batch = committed.batch
    spans = [orjson.loads(add["stats"]) for add in batch.adds[f"silver/{batch.pipeline}"]]
    arrived = _moments(spans, "minValues", "_timestamp")
    happened = _moments(spans, "maxValues", event_time)
    latest = [*happened, *_moments(spans, "maxValues", "_timestamp")]
    return Record(
        at_s=committed.at_s,
        query_id=batch.query_id,
        batch_id=batch.batch_id,
        suite_sha256=batch.suite_sha256,
        rows=batch.rows(),
        failed={one.rule_id: one.failed for one in committed.outcomes if one.failed},
        late=committed.late,
        job_s=committed.job_s,
        commit_s=committed.commit_s,
        freshness_s=max(0.0, committed.at_s - min(arrived)) if arrived else None,
        newest_event_s=min(max(happened), committed.at_s) if happened else None,
        lag=lag(batch, sample),
        reachable=reachable(sample),
        memory=sample.memory if sample else {},
        tables=tables,
        ahead_s=max(0.0, max(latest) - committed.at_s) if latest else None,
        maintained_s=maintained_s,
        disk=sample.disk if sample else None,
    )


def look(
    batch: Batch | None, sample: Sample, tables: Mapping[str, TableFigures], maintained_s: float | None = None
) -> Record:
    """The record of a look at a pipeline whose last micro-batch, where there is one, has been told already."""
    return Record(
        at_s=sample.at_s,
        lag=lag(batch, sample) if batch else {},
        reachable=reachable(sample),
        memory=sample.memory,
        tables=tables,
        maintained_s=maintained_s,
        disk=sample.disk,
    )


def lag(batch: Batch, sample: Sample | None) -> dict[int, int]:
    """Partition → offsets between what the tables hold and the partition's end; what is new counts whole."""
    if sample is None or sample.ends is None:
        return {}
    reached = {partition: offset for of in batch.end.values() for partition, offset in of.items()}
    return {partition: max(0, end - reached.get(partition, 0)) for partition, end in sorted(sample.ends.items())}


def reachable(sample: Sample | None) -> bool | None:
    """Whether Kafka answered; None before it was asked."""
    return None if sample is None else sample.ends is not None


def _moments(statistics: Iterable[dict[str, Any]], side: str, column: str) -> list[float]:
    texts = [text for of in statistics if (text := of[side].get(column))]
    return [datetime.fromisoformat(text).timestamp() for text in texts]


def _moment(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)
