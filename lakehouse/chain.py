"""The chain of offsets: what each commit remembers, and which batch may follow it.

Every commit of a pipeline's tables carries the batch it belongs to: who planned it, the range of Kafka
offsets it covers, the suite that judged it, and the files that *each* table received. From the last commit
alone one can therefore tell which batch may come next, and finish a batch that reached only some tables,
with the very files and verdicts of the first attempt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from lakehouse.errors import ChainError, TableError

Offsets = dict[str, dict[int, int]]
"""topic → partition → offset of the next record (so: inclusive at a range's start, exclusive at its end)."""

Add = dict[str, Any]
"""One Delta `add` action, as it stands in the log."""

COMMIT_KEY = "lakehouse"
"""Key of the batch in a commit's `commitInfo`."""
_FORMAT = 1


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
    """

    pipeline: str
    query_id: str
    batch_id: int
    start: Offsets
    end: Offsets
    origin: Offsets
    suite_sha256: str
    adds: dict[str, list[Add]]

    def rows(self) -> dict[str, int]:
        """Table → rows that the batch adds to it."""
        return {name: sum(json.loads(add["stats"])["numRecords"] for add in adds) for name, adds in self.adds.items()}

    def covers_same(self, other: Batch) -> bool:
        """True where both cover the same records."""
        return self.start == other.start and self.end == other.end

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
            )
        except (KeyError, TypeError, ValueError) as error:
            raise TableError(
                f"the commit's record of its batch cannot be read: {error!r}",
                where=where,
                remedy="restore the table's log from a backup; nothing was written",
            ) from error


def _offsets(raw: dict[str, dict[str, int]]) -> Offsets:
    return {topic: {int(partition): int(offset) for partition, offset in of.items()} for topic, of in raw.items()}


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
    if head is None or _follows(head.end, batch.start):
        return "commit"
    if head.covers_same(batch):
        return "skip"
    raise ChainError(
        f"batch {batch.batch_id} of query {batch.query_id} covers {describe(batch.start)} up to"
        f" {describe(batch.end)}, but the table's last commit (batch {head.batch_id} of query {head.query_id})"
        f" covers {describe(head.start)} up to {describe(head.end)}",
        where=f"table {table}",
        remedy=(
            "stop any second driver of this pipeline; if the checkpoint was restored from a backup or belongs to"
            " another pipeline, move it away: the next start goes on where the tables end"
        ),
    )


def _follows(end: Offsets, start: Offsets) -> bool:
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
