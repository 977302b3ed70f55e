"""What alerts need of `_ops/NAME`, as it is appended: what was last seen, and counts per stretch of time."""

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
LEAST_RECORDS = 100
"""A share of fewer records is not told."""
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
            file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(tail.store.get(path).bytes())))
            # A file of an earlier version of this project may lack a column.
            known = [name for name in self._columns if name in file.schema_arrow.names]
            rows += file.read(columns=known).to_pylist()
        return rows


@dataclass(slots=True)
class _Stretch:
    silver: int = 0
    refused: int = 0
    late: int = 0
    batches: int = 0
    commit_s: float = 0.0
    ahead_s: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)


class Figures:
    """What `_ops/NAME` has told of one pipeline: counts per stretch of time, and what was last seen."""

    COLUMNS = (
        "time", "batch_id", "suite_sha256", "rows", "failed", "late", "commit_seconds", "ahead_seconds", "lag",
        "kafka_reachable", "maintained",
    )  # fmt: skip

    def __init__(self, pipeline: str) -> None:
        self._silver, self._quarantine = f"silver/{pipeline}", f"quarantine/{pipeline}"
        self._lag: tuple[float, int] | None = None
        self._unreachable_since_s: float | None = None
        self._asked_s = self._heard_s = self._maintained_s = float("-inf")
        self.clear()

    def clear(self) -> None:
        """All that was taken in comes again."""
        self._stretches: dict[tuple[str, int], _Stretch] = {}
        self._suites: dict[str, float] = {}
        """Fingerprint → commit of its last batch, seconds since 1970 UTC."""

    def take(self, rows: Iterable[dict[str, Any]], now_s: float) -> None:
        """Take in rows of `_ops/NAME`."""
        for row in rows:
            at_s = row["time"].timestamp()
            self._look(row, at_s)
            if row["batch_id"] is not None and at_s >= now_s - LONGEST_S:
                self._count(row, at_s)
        oldest = (now_s - LONGEST_S) // STRETCH_S
        for key in [key for key in self._stretches if key[1] < oldest]:
            del self._stretches[key]

    def _look(self, row: dict[str, Any], at_s: float) -> None:
        """What was seen beside the batches: of several rows the last one counts."""
        self._heard_s = max(self._heard_s, at_s)
        maintained = row.get("maintained")
        if maintained is not None:
            self._maintained_s = max(self._maintained_s, maintained.timestamp())
        if row["kafka_reachable"] and row["lag"] and (self._lag is None or at_s >= self._lag[0]):
            self._lag = at_s, sum(records for _, records in row["lag"])
        if row["kafka_reachable"] is not None and at_s >= self._asked_s:
            self._asked_s = at_s
            if row["kafka_reachable"]:
                self._unreachable_since_s = None
            elif self._unreachable_since_s is None:
                self._unreachable_since_s = at_s

    def _count(self, row: dict[str, Any], at_s: float) -> None:
        suite = row.get("suite_sha256") or ""
        self._suites[suite] = max(self._suites.get(suite, 0.0), at_s)
        stretch = self._stretches.setdefault((suite, int(at_s // STRETCH_S)), _Stretch())
        added = dict(row["rows"] or ())
        stretch.silver += added.get(self._silver, 0)
        stretch.refused += added.get(self._quarantine, 0)
        stretch.failed.update(dict(row["failed"] or ()))
        stretch.late += row.get("late") or 0
        stretch.batches += 1
        stretch.commit_s += row.get("commit_seconds") or 0.0
        stretch.ahead_s = max(stretch.ahead_s, row.get("ahead_seconds") or 0.0)

    def lag(self, now_s: float) -> int | None:
        """Records that Kafka holds and the tables do not; None where nobody knows."""
        return self._lag[1] if self._lag and now_s - self._lag[0] <= KNOWN_S else None

    def refused(self, window_s: float, now_s: float, rule: str = "") -> tuple[int, int]:
        """(records in quarantine or, with `rule`, those that failed it; all records) of the window."""
        found = self._within(window_s, now_s)
        counted = sum(stretch.failed[rule] if rule else stretch.refused for stretch in found)
        return counted, _records(found)

    def unreachable(self, now_s: float) -> float | None:
        """Seconds for which Kafka has not answered; None where nobody has asked lately."""
        if now_s - self._asked_s > KNOWN_S:
            return None
        return 0.0 if self._unreachable_since_s is None else now_s - self._unreachable_since_s

    def silent(self, now_s: float) -> float | None:
        """Seconds since a driver wrote its last row; None before the first."""
        return None if self._heard_s == float("-inf") else max(0.0, now_s - self._heard_s)

    def unmaintained(self, now_s: float) -> float | None:
        """Seconds since every table had been maintained; None where no driver has told, or none does now."""
        known = self._maintained_s > float("-inf") and now_s - self._heard_s <= KNOWN_S
        return max(0.0, now_s - self._maintained_s) if known else None

    def commit_s(self, window_s: float, now_s: float) -> float | None:
        """Mean seconds of a batch's commits; None without a batch."""
        found = self._within(window_s, now_s)
        batches = sum(stretch.batches for stretch in found)
        return sum(stretch.commit_s for stretch in found) / batches if batches else None

    def ahead(self, window_s: float, now_s: float) -> float | None:
        """By how many seconds any event or Kafka's time lay ahead of the driver's clock; None without a batch."""
        found = self._within(window_s, now_s)
        return max(stretch.ahead_s for stretch in found) if found else None

    def late(self, window_s: float, now_s: float) -> float | None:
        """Share of the valid events that came late; None where there are too few to say."""
        found = self._within(window_s, now_s)
        valid = sum(stretch.silver for stretch in found)
        return sum(stretch.late for stretch in found) / valid if valid >= LEAST_RECORDS else None

    def suite_change(self, window_s: float, now_s: float) -> float | None:
        """Refused share under the present suite within the window, less that under the suite before it.

        None where no other suite has judged in the last hours, or either has judged too few records to say.
        """
        ordered = sorted(self._suites, key=self._suites.__getitem__)
        if len(ordered) < 2:  # noqa: PLR2004 - this suite and the one before it
            return None
        before, present = ordered[-2:]
        now = self._within(window_s, now_s, present)
        then = [stretch for (suite, _), stretch in self._stretches.items() if suite == before]
        if min(_records(now), _records(then)) < LEAST_RECORDS:
            return None
        return _refused_share(now) - _refused_share(then)

    def _within(self, window_s: float, now_s: float, suite: str | None = None) -> list[_Stretch]:
        first = (now_s - window_s) // STRETCH_S
        return [
            stretch
            for (judge, number), stretch in self._stretches.items()
            if number >= first and suite in (None, judge)
        ]


def _records(stretches: Iterable[_Stretch]) -> int:
    return sum(stretch.silver + stretch.refused for stretch in stretches)


def _refused_share(stretches: list[_Stretch]) -> float:
    return sum(stretch.refused for stretch in stretches) / _records(stretches)
