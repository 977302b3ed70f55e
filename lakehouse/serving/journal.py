"""What the newest commits of a table's log say: batches, maintenance, replays. Reads logs by name, no data, no JVM.

A journal is opened once and then reads only the versions that came since. It holds at most `MOST_ENTRIES`, so its
memory and the time of its first look do not depend on the age of the table.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from lakehouse.chain import COMMIT_KEY, Batch
from lakehouse.errors import TableError, first_line
from lakehouse.serving.log import LogTail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lakehouse.chain import Add, Offsets
    from lakehouse.serving.log import Commit

MOST_ENTRIES = 1_200
"""Five minutes at four commits a second; a first look reads so many small files, at about 0.3 ms each."""
REOPEN_S = 30.0
"""After so long without a commit, delta-rs is asked whether the log went on without us or is another table's."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one micro-batch brought, as its commit records it for every table.

    Attributes:
        batch_id: of the batch; query_id: of the query that planned it.
        rows: table → rows that it adds.
        files: over all tables; bytes: of them.
        end: offsets where it ends, exclusive.
        oldest_ms, newest_ms: Kafka's time of its first and last record, ms since 1970 UTC; None where it has none.
        suite_sha256: of the suite that judged it.
    """

    batch_id: int
    query_id: str
    rows: dict[str, int]
    files: int
    bytes: int
    end: Offsets
    oldest_ms: float | None
    newest_ms: float | None
    suite_sha256: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of a table. `at_ms` is the commit's time by its writer's clock; `work` None where it is no batch."""

    version: int
    at_ms: int
    operation: str
    added: int
    removed: int
    work: Work | None


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a version holds: live files, their bytes and rows (rows None where a file does not say).

    `since_checkpoint` is how many commits a reader has to replay after the last checkpoint.
    """

    version: int
    files: int
    bytes: int
    rows: int | None
    since_checkpoint: int


class Journal:
    """The newest commits of one table. Safe for threads; a look that finds nothing new costs one failed read."""

    def __init__(self, url: str, *, most: int = MOST_ENTRIES, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._tail: LogTail | None = None
        self._table: DeltaTable | None = None
        self._entries: deque[Entry] = deque(maxlen=most)
        self._progress = -math.inf

    def look(self) -> tuple[Entry, ...]:
        """The newest commits, oldest first; empty while there is no table.

        Raises:
            TableError: the log cannot be read.
        """
        with self._lock:
            if self._tail is None or self._clock() - self._progress > REOPEN_S:
                self._reopen()
            if self._tail is None:
                return ()
            while commits := self._tail.poll():
                self._progress = self._clock()
                self._entries.extend(map(_entry, commits))
            return tuple(self._entries)

    def sizes(self) -> Sizes | None:
        """What the newest version holds; None while there is no table.

        Raises:
            TableError: the log cannot be read.
        """
        with self._lock:
            if self._tail is None:
                self._reopen()
            if self._tail is None or self._table is None:
                return None
            try:
                self._table.update_incremental()
                files = self._table.get_add_actions(flatten=True)
                rows = files.column("num_records").to_pylist()
                sizes = files.column("size_bytes").to_pylist()
                version = self._table.version()
            except (DeltaError, OSError, KeyError) as error:
                self._tail = None
                raise _unreadable(self.url, error) from error
            known = None if None in rows else sum(rows)
            return Sizes(version, len(sizes), sum(sizes), known, version - self._checkpoint())

    def _reopen(self) -> None:
        """Find the newest version by delta-rs, and go on from there where it is not the one that follows ours."""
        self._progress = self._clock()
        try:
            table = DeltaTable(self.url)
        except TableNotFoundError:
            self._tail, self._table = None, None
            self._entries.clear()
            return
        except (DeltaError, OSError, ValueError) as error:
            raise _unreadable(self.url, error) from error
        same = self._table is not None and self._table.metadata().id == table.metadata().id
        self._table = table
        if same and self._tail is not None:
            ahead = table.version() - self._tail.version
            if ahead == 0 or (ahead > 0 and self._tail.read(self._tail.version + 1) is not None):
                return
        self._entries.clear()
        self._tail = LogTail(self.url, version=table.version())
        newest = range(max(0, table.version() - self._most + 1), table.version() + 1)
        found = (self._tail.read(version) for version in newest)  # clean-up may have taken the older ones
        self._entries.extend(_entry(commit) for commit in found if commit is not None)

    def _checkpoint(self) -> int:
        """Version of the last checkpoint, by its hint; 0 where there is none."""
        assert self._tail is not None  # noqa: S101 - sizes() has opened it
        try:
            return int(orjson.loads(bytes(self._tail.store.get("_delta_log/_last_checkpoint").bytes()))["version"])
        except (FileNotFoundError, ValueError, KeyError):
            return 0


@dataclass(frozen=True, slots=True)
class Pace:
    """The stream over a stretch of time; rates are per second.

    Attributes:
        kept, refused: rows that came to silver and to quarantine.
        batches: commits of batches.
        behind_ms: median age of a batch's oldest record at its commit; None without batches.
        spread_ms: median time from a batch's first table to its last; None where it is not known.
        worst_ms: the greatest age of a batch's oldest record.
    """

    kept: float
    refused: float
    batches: float
    behind_ms: float | None
    spread_ms: float | None
    worst_ms: float | None


def batches(entries: Iterable[Entry]) -> list[Entry]:
    """The commits of micro-batches among them."""
    return [entry for entry in entries if entry.work is not None]


def pace(entries: Iterable[Entry], last_ms: dict[int, int], start_ms: float, end_ms: float, name: str) -> Pace:
    """The pace of [start, end), ms since 1970 UTC, by silver's commits.

    Args:
        entries: silver's.
        last_ms: batch → when the last table had it, as `last_commits` says.
        start_ms: inclusive.
        end_ms: exclusive.
        name: of the pipeline.
    """
    seconds = max((end_ms - start_ms) / 1_000, 0.001)
    within = [entry for entry in batches(entries) if start_ms <= entry.at_ms < end_ms]
    works = [(entry, entry.work) for entry in within if entry.work is not None]
    behind = [entry.at_ms - work.oldest_ms for entry, work in works if work.oldest_ms is not None]
    spread = [last_ms[work.batch_id] - entry.at_ms for entry, work in works if work.batch_id in last_ms]
    return Pace(
        kept=sum(work.rows.get(f"silver/{name}", 0) for _, work in works) / seconds,
        refused=sum(work.rows.get(f"quarantine/{name}", 0) for _, work in works) / seconds,
        batches=len(within) / seconds,
        behind_ms=statistics.median(behind) if behind else None,
        spread_ms=statistics.median(spread) if spread else None,
        worst_ms=max(behind, default=None),
    )


def last_commits(journals: Iterable[Iterable[Entry]]) -> dict[int, int]:
    """Batch → the latest commit of it in any table, ms since 1970 UTC."""
    found: dict[int, int] = {}
    for entries in journals:
        for entry in batches(entries):
            if entry.work is not None:
                found[entry.work.batch_id] = max(entry.at_ms, found.get(entry.work.batch_id, 0))
    return found


def partition_rates(entries: Iterable[Entry], start_ms: float, end_ms: float) -> dict[tuple[str, int], float]:
    """(topic, partition) → offsets a second over [start, end): how fast it is read, gaps of the topic included."""
    within = [entry for entry in batches(entries) if start_ms <= entry.at_ms < end_ms and entry.work]
    if len(within) < 2:  # noqa: PLR2004 - a rate needs two moments
        return {}
    first, last = within[0], within[-1]
    seconds = max((last.at_ms - first.at_ms) / 1_000, 0.001)
    assert first.work is not None and last.work is not None  # noqa: S101, PT018 - batches() keeps no others
    begin = first.work.end
    return {
        (topic, partition): (offset - begin.get(topic, {}).get(partition, offset)) / seconds
        for topic, of in last.work.end.items()
        for partition, offset in of.items()
    }


def _entry(commit: Commit) -> Entry:
    info = commit.commit_info
    return Entry(
        version=commit.version,
        at_ms=commit.timestamp_ms,
        operation=str(info.get("operation", "")),
        added=len(commit.adds),
        removed=len(commit.removes),
        work=_work(info.get(COMMIT_KEY)),
    )


def _work(recorded: Any) -> Work | None:  # noqa: ANN401 - whatever a log holds
    if not isinstance(recorded, dict):
        return None
    batch = Batch.from_json(recorded, where="log")
    adds = [add for of in batch.adds.values() for add in of]
    times = [extremes for add in adds if (extremes := _extremes(add)) is not None]
    return Work(
        batch_id=batch.batch_id,
        query_id=batch.query_id,
        rows=batch.rows(),
        files=len(adds),
        bytes=sum(add["size"] for add in adds),
        end=batch.end,
        oldest_ms=min((first for first, _ in times), default=None),
        newest_ms=max((last for _, last in times), default=None),
        suite_sha256=batch.suite_sha256,
    )


def _extremes(add: Add) -> tuple[float, float] | None:
    """Kafka's time of a file's first and last record, ms since 1970 UTC; None where its statistics have none."""
    stats = orjson.loads(add["stats"])
    try:
        first, last = stats["minValues"]["_timestamp"], stats["maxValues"]["_timestamp"]
        return datetime.fromisoformat(first).timestamp() * 1_000, datetime.fromisoformat(last).timestamp() * 1_000
    except (KeyError, TypeError, ValueError):
        return None


def _unreadable(url: str, error: Exception) -> TableError:
    return TableError(
        f"the table's log cannot be read: {first_line(error)}",
        where=url,
        remedy="lakehouse doctor explains the damage; the page tries again by itself",
    )
