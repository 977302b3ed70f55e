"""What alerts need of `_ops/NAME`, as it is appended: the last lag, and rows refused per stretch of time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.serving.log import LogTail, open_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

STRETCH_S = 5.0
"""Counts are kept per so many seconds."""
LONGEST_S = 6 * 3_600.0
"""Counts are kept for so long."""
KNOWN_S = 60.0
"""A lag that was seen longer ago says nothing about now."""
_REOPEN_S = 60.0
"""Without a commit for so long, the journal is opened anew: its log may have been cleaned past the reader."""


class JournalTail:
    """A journal's rows, as they come.

    Args:
        url: of the table.
        columns: those that are read, the time among them.
        keep_s: rows older than this are not read at first.
        clock: seconds since 1970 UTC.
    """

    def __init__(self, url: str, columns: list[str], *, keep_s: float, clock: Callable[[], float]) -> None:
        self._url, self._columns, self._keep_s, self._clock = url, columns, keep_s, clock
        self._tail: LogTail | None = None
        self._heard_s = clock()

    def step(self) -> tuple[list[dict[str, Any]], bool]:
        """(rows that are new, whether these are all that there are: the journal was opened anew).

        Raises:
            LakehouseError: the table cannot be read; the next step opens it anew.
            OSError: the same.
        """
        if self._tail is None or self._clock() - self._heard_s > _REOPEN_S:
            return self._open(), True
        tail = self._tail
        self._tail = None  # what fails below is read again
        commits = tail.poll()
        paths = [added.path for commit in commits for added in commit.adds if added.data_change]
        rows = self._read(tail, paths)
        self._tail = tail
        if commits:
            self._heard_s = self._clock()
        return rows, False

    def _open(self) -> list[dict[str, Any]]:
        self._tail, self._heard_s = None, self._clock()
        state = open_state(self._url)
        if state is None:
            return []
        tail = LogTail(self._url, version=state.version)
        oldest_ms = (self._clock() - self._keep_s) * 1_000
        rows = self._read(tail, [file.path for file in state.files if file.modified_ms >= oldest_ms])
        self._tail = tail
        return rows

    def _read(self, tail: LogTail, paths: Iterable[str]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for path in paths:
            body = pa.BufferReader(pa.py_buffer(tail.store.get(path).bytes()))
            rows += pq.read_table(body, columns=self._columns).to_pylist()
        return rows


@dataclass(slots=True)
class _Stretch:
    silver: int = 0
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)


class Figures:
    """The counts and the last lag of one pipeline."""

    COLUMNS = ("time", "batch_id", "rows", "failed", "lag", "kafka_reachable")

    def __init__(self, pipeline: str) -> None:
        self._silver, self._quarantine = f"silver/{pipeline}", f"quarantine/{pipeline}"
        self._stretches: dict[int, _Stretch] = {}
        self._lag: tuple[float, int] | None = None

    def clear(self) -> None:
        """All that was taken in comes again."""
        self._stretches = {}

    def take(self, rows: Iterable[dict[str, Any]], now_s: float) -> None:
        """Take in rows of `_ops/NAME`."""
        for row in rows:
            at_s = row["time"].timestamp()
            if row["kafka_reachable"] and row["lag"] and (self._lag is None or at_s >= self._lag[0]):
                self._lag = at_s, sum(records for _, records in row["lag"])
            if row["batch_id"] is None or at_s < now_s - LONGEST_S:
                continue
            stretch = self._stretches.setdefault(int(at_s // STRETCH_S), _Stretch())
            added = dict(row["rows"] or ())
            stretch.silver += added.get(self._silver, 0)
            stretch.refused += added.get(self._quarantine, 0)
            stretch.failed.update(dict(row["failed"] or ()))
        oldest = (now_s - LONGEST_S) // STRETCH_S
        for number in [number for number in self._stretches if number < oldest]:
            del self._stretches[number]

    def lag(self, now_s: float) -> int | None:
        """Records that Kafka holds and the tables do not; None where nobody knows."""
        return self._lag[1] if self._lag and now_s - self._lag[0] <= KNOWN_S else None

    def refused(self, window_s: float, now_s: float, rule: str = "") -> tuple[int, int]:
        """(records in quarantine or, with `rule`, those that failed it; all records) of the window."""
        first = (now_s - window_s) // STRETCH_S
        found = [stretch for number, stretch in self._stretches.items() if number >= first]
        counted = sum(stretch.failed[rule] if rule else stretch.refused for stretch in found)
        return counted, sum(stretch.silver + stretch.refused for stretch in found)
