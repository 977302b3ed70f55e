"""The chain of offsets: what each commit remembers, and which batch may follow it.

Every commit of a pipeline's tables carries the batch it belongs to: who planned it, the range of Kafka
offsets it covers, the suite that judged it, and the files that *each* table received. From the last commit
alone one can therefore tell which batch may come next, and finish a batch that reached only some tables,
with the very files and verdicts of the first attempt.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from lakehouse.errors import ChainError, TableError

if TYPE_CHECKING:
    from collections.abc import Iterable

Offsets = dict[str, dict[int, int]]
"""topic → partition → offset of the next record (so: inclusive at a range's start, exclusive at its end)."""

Add = dict[str, Any]
"""One Delta `add` action, as it stands in the log."""

COMMIT_KEY = "lakehouse"
"""Key of the batch in a commit's `commitInfo`."""
_FORMAT = 1


@dataclass(frozen=True)
class Gap:
    """Offsets that no table will ever hold, and that a person acknowledged through `lakehouse recover`.

    Attributes:
        topic: whose offsets.
        partition: of the topic.
        start: first offset, inclusive; end: exclusive.
        reason: in words.
        acknowledged_ms: when, ms since 1970 UTC.
    """

    topic: str
    partition: int
    start: int
    end: int
    reason: str
    acknowledged_ms: int


@dataclass(frozen=True)
class Former:
    """Content that the topic has no longer, while the tables keep the records they took from it.

    Its offsets come a second time, with other records. A row of the tables belongs to the former content where
    it was ingested up to `mark` and stands at or behind `cut`.

    Attributes:
        topic: its name.
        topic_id: Kafka's id of the topic that held it; None where no commit recorded it.
        cut: per partition the first offset that has other content now.
        end: per partition the offset up to which the tables hold it, exclusive.
        mark: the latest `_ingested_at` of any row then, µs since 1970 UTC.
        reason: in words.
        acknowledged_ms: when, ms since 1970 UTC.
    """

    topic: str
    topic_id: str | None
    cut: dict[int, int]
    end: dict[int, int]
    mark: int
    reason: str
    acknowledged_ms: int


@dataclass(frozen=True)
class Past:
    """What every batch carries on from the one before it, so that it outlives log clean-up.

    Attributes:
        joined: table → the latest `_ingested_at` of any row when the table joined the pipeline, µs since 1970
            UTC; only rows ingested later are in it. Tables that were there from the beginning are not named.
        gaps: acknowledged gaps.
        former: acknowledged former content of the topic.
    """

    joined: dict[str, int] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    former: tuple[Former, ...] = ()

    @property
    def mark(self) -> int:
        """Every row to come has to be ingested after this, µs since 1970 UTC."""
        return max([*self.joined.values(), *(former.mark for former in self.former)], default=0)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Past:
        """Read what `asdict` made."""
        return cls(
            joined=raw["joined"],
            gaps=tuple(Gap(**gap) for gap in raw["gaps"]),
            former=tuple(
                Former(**former | {"cut": _numbers(former["cut"]), "end": _numbers(former["end"])})
                for former in raw["former"]
            ),
        )


@dataclass(frozen=True)
class Batch:
    """One micro-batch, as every table's commit records it.

    Attributes:
        pipeline: name of the pipeline.
        query_id: id of the streaming query (of Spark's checkpoint) that planned it.
        batch_id: number of the micro-batch within that query.
        start: offsets where it begins, inclusive.
        end: offsets where it ends, exclusive.
        origin: where the pipeline's very first batch began; carried along so that it outlives log clean-up.
        suite_sha256: fingerprint of the suite that judged it.
        adds: table → files that the batch adds to it; every table of the pipeline is a key.
        sequence: its place in the chain, from 0; tells which of two tables is ahead.
        topic_ids: topic → the id that Kafka gave it when it was made, where it is known.
        past: what earlier batches and recoveries left to remember.
    """

    pipeline: str
    query_id: str
    batch_id: int
    start: Offsets
    end: Offsets
    origin: Offsets
    suite_sha256: str
    adds: dict[str, list[Add]]
    sequence: int = 0
    topic_ids: dict[str, str] = field(default_factory=dict)
    past: Past = field(default_factory=Past)

    def rows(self) -> dict[str, int]:
        """Table → rows that the batch adds to it."""
        return {name: sum(json.loads(add["stats"])["numRecords"] for add in adds) for name, adds in self.adds.items()}

    def covers_same(self, other: Batch) -> bool:
        """True where both cover the same records."""
        return self.start == other.start and self.end == other.end

    def same_attempt(self, other: Batch) -> bool:
        """True where both name the same files for every table that both name: they come from one run of the job.

        A table that joined after the batch, and so has no file of it, is left out.
        """
        joined = {name for name, _ in self.past.joined.items() ^ other.past.joined.items()}
        shared = (self.adds.keys() & other.adds.keys()) - joined
        return self.covers_same(other) and all(self.adds[name] == other.adds[name] for name in shared)

    def with_joined(self, table: str, mark: int) -> Batch:
        """The same batch as the first commit of a table that joins after it: no file of it is the table's."""
        past = replace(self.past, joined=self.past.joined | {table: mark})
        return replace(self, adds=self.adds | {table: []}, past=past)

    def to_json(self) -> dict[str, Any]:
        """The form in which a commit holds it."""
        return {
            "format": _FORMAT,
            "pipeline": self.pipeline,
            "query_id": self.query_id,
            "batch_id": self.batch_id,
            "start": self.start,
            "end": self.end,
            "origin": self.origin,
            "suite_sha256": self.suite_sha256,
            "adds": self.adds,
            "sequence": self.sequence,
            "topic_ids": self.topic_ids,
            "past": asdict(self.past),
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any], *, where: str) -> Batch:
        """Read what `to_json` wrote.

        Raises:
            TableError: where the commit was written by a later format or is damaged.
        """
        try:
            if raw["format"] != _FORMAT:
                raise TableError(
                    f"the last commit has format {raw['format']}; this version reads {_FORMAT}",
                    where=where,
                    remedy="run the version of this project that wrote the table, or a later one",
                )
            return cls(
                pipeline=raw["pipeline"],
                query_id=raw["query_id"],
                batch_id=raw["batch_id"],
                start=_offsets(raw["start"]),
                end=_offsets(raw["end"]),
                origin=_offsets(raw["origin"]),
                suite_sha256=raw["suite_sha256"],
                adds=raw["adds"],
                # Absent from the first commits of this format.
                sequence=raw.get("sequence", 0),
                topic_ids=raw.get("topic_ids", {}),
                past=Past.from_json(raw["past"]) if "past" in raw else Past(),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise TableError(
                f"the commit's record of its batch cannot be read: {error!r}",
                where=where,
                remedy="restore the table's log from a backup; nothing was written",
            ) from error


def _offsets(raw: dict[str, dict[str, int]]) -> Offsets:
    return {topic: _numbers(of) for topic, of in raw.items()}


def _numbers(raw: dict[str, int]) -> dict[int, int]:
    return {int(partition): int(offset) for partition, offset in raw.items()}


def leading(heads: Iterable[Batch | None]) -> Batch | None:
    """The newest of the tables' last batches; the others are the same or, after a crash, one behind it."""
    known = [head for head in heads if head is not None]
    return max(known, key=lambda head: (head.sequence, _total(head.end)), default=None)


def _total(offsets: Offsets) -> int:
    return sum(offset for of in offsets.values() for offset in of.values())


def extend_origin(head: Batch | None, start: Offsets) -> Offsets:
    """Where the pipeline began, once a batch that begins at `start` follows `head`: new partitions join."""
    known = head.origin if head else {}
    return {topic: {**of, **known.get(topic, {})} for topic, of in start.items()}


def describe(offsets: Offsets) -> str:
    """Offsets for people: `orders 0:17 1:23`."""
    parts = [
        f"{topic} " + " ".join(f"{partition}:{offset}" for partition, offset in sorted(of.items()))
        for topic, of in sorted(offsets.items())
    ]
    return ", ".join(parts) or "nothing"


def decide(head: Batch | None, batch: Batch, *, table: str) -> Literal["commit", "skip"]:
    """Whether `batch` extends a table whose last batch is `head`, or is already in it.

    A partition that the head does not know is new, and may begin anywhere; one that it knows has to go on
    exactly where the head ends.

    Raises:
        ChainError: for any other batch. Committing it would lose records or bring them in twice.
    """
    if head is None or follows(head.end, batch.start):
        return "commit"
    if head.covers_same(batch):
        return "skip"
    raise ChainError(
        f"batch {batch.batch_id} of query {batch.query_id} covers {describe(batch.start)} up to"
        f" {describe(batch.end)}, but the table's last commit (batch {head.batch_id} of query {head.query_id})"
        f" covers {describe(head.start)} up to {describe(head.end)}",
        where=f"table {table}",
        remedy="stop any second driver of this pipeline, then see what `lakehouse recover` finds",
    )


def follows(end: Offsets, start: Offsets) -> bool:
    """True where a batch that begins at `start` goes on exactly where `end` stands; new partitions may join."""
    known_go_on = all(
        start.get(topic, {}).get(partition) == offset for topic, of in end.items() for partition, offset in of.items()
    )
    return known_go_on and bool(start)


def encode(batch: Batch) -> str:
    """The short record that `DESCRIBE HISTORY` shows as `userMetadata`."""
    return json.dumps(
        {
            "query_id": batch.query_id,
            "batch_id": batch.batch_id,
            "start": batch.start,
            "end": batch.end,
            "suite_sha256": batch.suite_sha256,
        },
        separators=(",", ":"),
    )
