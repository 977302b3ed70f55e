"""Follows a hot table and keeps one immutable `Snapshot` of it, shared by every viewer of the process.

One daemon thread polls the log by name, reads only the files that a commit added, and merges them into
buckets. Merging happens here, once per partial; viewers only combine what is merged. A commit that rewrites
rows, a gap in the log, a table made anew or any failure ends in a rebuild from the table's state, during
which the last snapshot stays up. Compaction (`dataChange: false`) changes no row and is passed over.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.errors import LakehouseError, TableError
from lakehouse.serving.log import LogTail, open_state
from lakehouse.serving.scale import LEVELS
from lakehouse.serving.snapshot import Bucket, Problem, Snapshot
from lakehouse.serving.state import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from lakehouse.serving.log import Commit, LiveFile, TableState
    from lakehouse.serving.scale import Level
    from lakehouse.serving.snapshot import Shape

LOCAL_POLL_S = 0.025
"""A look for the next version costs 25 µs on a local disk: 40 looks a second are 0.1 % of a core."""
REMOTE_POLL_S = 0.1
"""Each look at an object store is a paid request; ten a second add 50 ms to the median delay."""
IDLE_CHECK_S = 3.0
"""After so long without a commit, ask delta-rs whether the log went on without us."""
SLEEP_S = 30.0
"""A poll this late means that the process slept, and that any version may be another table's by now."""
RETRY_MAX_S = 2.0
LATENESS_MS = 15 * 60 * 1000
"""Added to the horizon when old files are skipped by their age: windows may lie ahead of the writing."""
READERS = 4
LOAD_FILES = 64
"""Files merged at a time during a rebuild: many rows at once are cheaper than file after file."""


class Follower:
    """A hot table's newest snapshot, kept up to date by a daemon thread.

    Args:
        url: the table's folder or s3:// URL.
        shape: of the rollup that the table holds.
        poll_s: seconds between looks at the log; by default 25 ms on a disk, 100 ms on an object store.
        levels: bucket widths and how long each is kept: the bound of this object's memory.
        clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        url: str,
        shape: Shape,
        *,
        poll_s: float | None = None,
        levels: tuple[Level, ...] = LEVELS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = url
        self.shape = shape
        self.poll_s = poll_s or (REMOTE_POLL_S if url.startswith("s3://") else LOCAL_POLL_S)
        self._levels = levels
        self._clock = clock
        self._columns = [
            "window_start",
            *shape.dimensions,
            "events",
            "min_event_time",
            "max_event_time",
            "_batch_id",
        ]
        self._columns += [name for name, _ in shape.numbers] + [name for name, _, _ in shape.sketches]
        self._tail: LogTail | None = None
        self._state = State(shape, levels)
        self._files: dict[str, float] = {}
        """path → last window, seconds since 1970, of the live files whose rows are in the buckets."""
        self._generation = 0
        self._last_step = self._last_progress = self.current_s = clock()
        """`current_s`: when the thread last had the newest version, seconds since 1970 UTC."""
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._snapshot = self._waiting()
        self.cpu_s = 0.0
        """What the thread has computed so far."""

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot; version -1 while the table has no commit. Never blocks."""
        return self._snapshot

    def start(self) -> Follower:
        """Start the thread, once. It ends with the process or with `stop`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hot-table-follower", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait_for(self, version: int, timeout_s: float) -> Snapshot:
        """The first snapshot at or after `version`, or the newest one when the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self._snapshot.version >= version, timeout_s)
        return self._snapshot

    def step(self) -> bool:
        """One look at the log and whatever it leads to; whether anything new was published.

        Raises:
            LakehouseError: the table cannot be read; the next step rebuilds.
            OSError: the same, from the file system or the object store.
        """
        now = self._clock()
        if self._tail is None:
            return self._open()
        slept, idle = now - self._last_step > SLEEP_S, now - self._last_progress > IDLE_CHECK_S
        self._last_step = now
        if (slept or idle) and not self._still_ours(self._tail):
            return self._open()
        commits = self._tail.poll()
        if not commits:
            # Folding waits for a quiet moment; it changes no answer, so the version stays.
            if self._state.fold():
                self._publish(replace(self._snapshot, levels=self._frozen_levels()))
            return False
        self._last_progress = now
        if any(self._changes_answers(commit) for commit in commits):
            return self._open()
        self._apply(commits)
        return True

    def _changes_answers(self, commit: Commit) -> bool:
        """Whether the commit takes rows away that a bucket may still hold, or may have altered the schema."""
        if commit.table_id is not None:
            return True
        kept_from = self._clock() - max(level.keep + level.width for level in self._levels)
        # A file that is not in the index was too old to be read: retention may take it without a rebuild.
        return any(
            removed.data_change and self._files.get(removed.path, -math.inf) >= kept_from for removed in commit.removes
        )

    def _index(self, commit: Commit) -> None:
        """Keep `_files` in step; a compacted file reaches as far as the furthest of those it replaces."""
        reach = [self._files.pop(removed.path, -math.inf) for removed in commit.removes]
        for added in commit.adds:
            if not added.data_change:
                self._files[added.path] = max(reach, default=math.inf)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            delay = self.poll_s
            try:
                self.step()
                failures, self.current_s = 0, self._clock()
                if self._snapshot.problem is not None:
                    self._publish(replace(self._snapshot, problem=None))
            except Exception as error:  # noqa: BLE001 - the thread must outlive any failure and show it
                self._fail(error)
                delay = min(RETRY_MAX_S, self.poll_s * 2**failures)
                failures += 1
            self.cpu_s = time.thread_time()
            self._stop.wait(delay)

    def _fail(self, error: Exception) -> None:
        self._tail = None
        old = self._snapshot.problem
        message = error.what if isinstance(error, LakehouseError) else f"{type(error).__name__}: {error}"
        since = old.since_ms if old else int(self._clock() * 1000)
        self._publish(replace(self._snapshot, problem=Problem(message, since)))

    def _still_ours(self, tail: LogTail) -> bool:
        """Whether the next version, by name, will be the one after ours: same table, no gap before it."""
        self._last_progress = self._clock()
        state = open_state(self.url)
        if state is None or state.table_id != self._snapshot.table_id or state.version < tail.version:
            return False
        return state.version == tail.version or tail.read(tail.version + 1) is not None

    def _open(self) -> bool:
        """Rebuild from the table's newest version, or wait where there is none."""
        self._tail = None
        found = open_state(self.url)
        if found is None:
            if self._snapshot.version >= 0:
                self._publish(self._waiting())
            return False
        tail = LogTail(self.url, version=found.version)
        state = State(self.shape, self._levels)
        self._files = {}
        max_event_ms, batch_id = self._load(tail, state, found.files)
        commit = tail.read(found.version)
        self._state, self._generation = state, self._generation + 1
        self._last_progress = self._last_step = self._clock()
        self._publish(
            self._snapshot_of(
                table=found,
                commit_ms=commit.timestamp_ms if commit else found.timestamp_ms,
                max_event_ms=max_event_ms,
                batch_id=batch_id,
            )
        )
        self._tail = tail
        return True

    def _load(self, tail: LogTail, state: State, files: tuple[LiveFile, ...]) -> tuple[float | None, int | None]:
        """Merge the live files that can matter; the newest one always counts, for its event time."""
        oldest = self._clock() * 1000 - max(level.keep for level in self._levels) * 1000 - LATENESS_MS
        ordered = sorted(files, key=lambda file: file.modified_ms)
        # A rewritten file is young, whatever it holds; the log says how far its windows reach.
        recent = [
            file for file in ordered if min(file.modified_ms, file.last_ms or file.modified_ms) >= oldest
        ] or ordered[-1:]
        newest_ms: float | None = None
        batch_id: int | None = None
        with ThreadPoolExecutor(READERS, thread_name_prefix="hot-table-reader") as pool:
            for first in range(0, len(recent), LOAD_FILES):
                if self._snapshot.version < 0:
                    self._publish(replace(self._waiting(), loading=first / len(recent)))
                chunk = recent[first : first + LOAD_FILES]
                tables = list(pool.map(lambda file: self._read(tail, file.path), chunk))
                state.add(tables, self._clock())
                for file, table in zip(chunk, tables, strict=True):
                    newest_ms = _newest_event(table, float(file.modified_ms), newest_ms)
                    batch_id = _newest_batch(table, batch_id)
        while state.fold():
            pass
        return newest_ms, batch_id

    def _apply(self, commits: list[Commit]) -> None:
        tail = self._tail
        assert tail is not None  # noqa: S101 - step() has opened it
        old, now = self._snapshot, self._clock()
        max_event_ms, batch_id = old.max_event_ms, old.batch_id
        for commit in commits:
            self._index(commit)
            tables = [self._read(tail, added.path) for added in commit.adds if added.data_change]
            self._state.add(tables, now)
            for table in tables:
                max_event_ms = _newest_event(table, float(commit.timestamp_ms or now * 1000), max_event_ms)
                batch_id = _newest_batch(table, batch_id)
        last = commits[-1]
        self._publish(
            replace(
                old,
                version=last.version,
                commit_ms=last.timestamp_ms,
                published_ms=self._clock() * 1000,
                max_event_ms=max_event_ms,
                batch_id=batch_id,
                levels=self._frozen_levels(),
                values=_sorted_values(self._state.values),
                problem=None,
            )
        )

    def _read(self, tail: LogTail, path: str) -> pa.Table:
        data = tail.store.get(path).bytes()
        try:
            # Not pq.read_table: its dataset machinery takes longer than the reading of so small a file.
            table = pq.ParquetFile(pa.BufferReader(pa.py_buffer(data))).read(self._columns, use_threads=False)
        except pa.ArrowException as error:
            raise TableError(
                f"a file of the hot table cannot be read: {error}",
                where=f"{self.url}/{path}",
                remedy="the file is damaged; rebuild the rollup from silver",
            ) from error
        if missing := set(self._columns).difference(table.column_names):
            raise TableError(
                f"a file of the hot table lacks {', '.join(sorted(missing))}",
                where=f"{self.url}/{path}",
                remedy="see that the pipeline file names the dimensions and metrics of this table",
            )
        last = pc.max(table["window_start"]).as_py()
        self._files[path] = last.timestamp() if last else -math.inf
        return table

    def _waiting(self) -> Snapshot:
        return Snapshot(
            shape=self.shape,
            table_id="",
            version=-1,
            generation=self._generation,
            commit_ms=0,
            published_ms=self._clock() * 1000,
            max_event_ms=None,
            batch_id=None,
            levels=MappingProxyType({level.width: MappingProxyType({}) for level in self._levels}),
            values=tuple(() for _ in self.shape.dimensions),
        )

    def _snapshot_of(
        self, *, table: TableState, commit_ms: int, max_event_ms: float | None, batch_id: int | None
    ) -> Snapshot:
        return Snapshot(
            shape=self.shape,
            table_id=table.table_id,
            version=table.version,
            generation=self._generation,
            commit_ms=commit_ms,
            published_ms=self._clock() * 1000,
            max_event_ms=max_event_ms,
            batch_id=batch_id,
            levels=self._frozen_levels(),
            values=_sorted_values(self._state.values),
        )

    def _frozen_levels(self) -> MappingProxyType[int, MappingProxyType[int, Bucket]]:
        frozen = {width: MappingProxyType(dict(buckets)) for width, buckets in self._state.buckets.items()}
        return MappingProxyType(frozen)

    def _publish(self, snapshot: Snapshot) -> None:
        with self._changed:
            self._snapshot = snapshot
            self._changed.notify_all()


def _sorted_values(values: tuple[set[Any], ...]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(sorted(seen, key=lambda value: (value is None, str(value)))) for seen in values)


def _newest_event(table: pa.Table, committed_ms: float, before: float | None) -> float | None:
    """The newest event's time, ms; never after its commit, so that a fast client clock hides no stall."""
    newest = pc.max(table["max_event_time"]).as_py()
    if newest is None:
        return before
    believed: float = min(newest.timestamp() * 1000, committed_ms)
    return believed if before is None else max(before, believed)


def _newest_batch(table: pa.Table, before: int | None) -> int | None:
    newest = pc.max(table["_batch_id"]).as_py()
    return before if newest is None else int(newest)
