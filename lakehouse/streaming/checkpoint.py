"""What Spark's checkpoint says: which query it belongs to, and which offsets each micro-batch covers.

Only read here, never written: Spark owns it. Layout (Spark 4.2, offset log version 1):

    metadata         {"id": query id}
    sources/0/0      first offsets of the Kafka source
    offsets/N        end offsets of micro-batch N, written before it runs
    commits/N        written after micro-batch N was handed to the sink
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import obstore

from lakehouse.errors import CheckpointDamaged
from lakehouse.storage import find_store

if TYPE_CHECKING:
    from collections.abc import Collection

    from lakehouse.chain import Offsets


_INITIAL = "sources/0/0"


@dataclass(frozen=True)
class Planned:
    """The last micro-batch that Spark planned.

    Attributes:
        batch_id: its number.
        start: offsets where it begins, inclusive.
        end: offsets where it ends, exclusive.
        committed: whether Spark noted that the sink took it.
    """

    batch_id: int
    start: Offsets
    end: Offsets
    committed: bool


class Checkpoint:
    """Reader of one pipeline's checkpoint."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query_id(self) -> str | None:
        """Id of the query that the checkpoint belongs to; None where there is no checkpoint yet.

        Raises:
            CheckpointDamaged: where the checkpoint has offsets but no readable metadata.
        """
        body = self._read("metadata")
        if body is None:
            if self._numbers("offsets"):
                raise self._damaged("metadata", "is missing, so the query it belongs to is unknown")
            return None
        try:
            return str(json.loads(body)["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged("metadata", f"cannot be read ({error!r})") from error

    def exists(self) -> bool:
        """Whether there is anything of a checkpoint."""
        store = find_store(self.url)
        return store is not None and any(obstore.list(store))

    def initial(self) -> Offsets | None:
        """The first offsets of the source, where Spark has settled them: it begins there, whatever it is told.

        Raises:
            CheckpointDamaged: where the file cannot be read.
        """
        return None if self._read(_INITIAL) is None else self._offsets(_INITIAL)

    @cached_property
    def running_query_id(self) -> str:
        """Id of the query that runs on this checkpoint, read once: Spark writes it before the first batch."""
        query_id = self.query_id()
        assert query_id is not None, "a running query has written its id"  # noqa: S101 - see above
        return query_id

    def last_planned(self) -> Planned | None:
        """The newest micro-batch in the offset log; None before the first.

        Raises:
            CheckpointDamaged: where a file that Spark reads at its start is damaged or missing.
        """
        numbers, committed = self._numbers("offsets"), self._numbers("commits")
        if committed and max(committed) > max(numbers, default=-1):
            raise self._damaged(f"offsets/{max(committed)}", "is missing, although the batch was committed")
        if committed and not (self._read(f"commits/{max(committed)}") or b"").startswith(b"v"):
            raise self._damaged(f"commits/{max(committed)}", "is empty or cut")
        if not numbers:
            return None
        batch_id = max(numbers)
        start, end = self.range_of(batch_id)
        return Planned(batch_id, start, end, committed=batch_id in committed)

    def range_of(self, batch_id: int) -> tuple[Offsets, Offsets]:
        """(start inclusive, end exclusive) of a planned micro-batch.

        Raises:
            CheckpointDamaged: where a file of the log is damaged or missing.
        """
        end = self._offsets(f"offsets/{batch_id}")
        before = self._offsets(f"offsets/{batch_id - 1}" if batch_id else _INITIAL)
        # Spark reads a partition that was added to the topic from its beginning.
        start = {
            topic: {partition: before.get(topic, {}).get(partition, 0) for partition in of} for topic, of in end.items()
        }
        return start, end

    def unreadable(self, *, besides: Collection[int] = ()) -> list[str]:
        """Files of the offset log that hold no offsets, apart from those of the batches `besides`."""
        damaged: list[str] = []
        for batch_id in sorted(self._numbers("offsets") - set(besides)):
            try:
                self._offsets(f"offsets/{batch_id}")
            except CheckpointDamaged:
                damaged.append(f"offsets/{batch_id}")
        return damaged

    def _offsets(self, path: str) -> Offsets:
        body = self._read(path)
        if body is None:
            raise self._damaged(path, "is missing")
        # The first lines are a version and the batch's settings; a source's offsets are the last line.
        # sources/0/0 may begin with a zero byte (SPARK-19517).
        last = body.decode(errors="replace").lstrip("\0").strip().rpartition("\n")[2]
        try:
            raw: dict[str, dict[str, Any]] = json.loads(last)
            return {
                topic: {int(partition): int(offset) for partition, offset in of.items()} for topic, of in raw.items()
            }
        except (ValueError, AttributeError) as error:
            raise self._damaged(path, f"holds no offsets ({error})") from error

    def _numbers(self, folder: str) -> set[int]:
        store = find_store(self.url)
        return {
            int(name)
            for listed in (obstore.list(store, prefix=folder) if store else ())
            for entry in listed
            if (name := entry["path"].rpartition("/")[2]).isdecimal()
        }

    def _read(self, path: str) -> bytes | None:
        store = find_store(self.url)
        try:
            return bytes(obstore.get(store, path).bytes()) if store else None
        except FileNotFoundError:
            return None

    def _damaged(self, path: str, what: str) -> CheckpointDamaged:
        return CheckpointDamaged(
            f"the checkpoint's file {path} {what}",
            where=self.url,
            remedy=(
                "`lakehouse recover` moves the checkpoint aside: the next start goes on where the tables end,"
                " without loss"
            ),
        )
