"""Which windows changed long after they had ended, lately: late events, and refused ones that a replay let in.

A rollup needs no correction for them, they are partials like any other. But whoever looked at a window before may want
to know that it says something else now. Each commit is read once, as the table's log goes on; what it brought for
windows that had ended more than `late_after` before counts as revised for `REVISED_FOR`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.chain import COMMIT_KEY
from lakehouse.rollups.partials import GRAIN_US
from lakehouse.serving.history import Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from lakehouse.serving.history import Held
    from lakehouse.serving.log import Commit

REVISED_FOR_MS = 300_000
"""How long a window counts as revised. Files that a rewrite replaced can be read for at least as long."""
LATENESS = (("up to 1h", 3_600_000), ("up to 1d", 86_400_000), ("more than 1d", None))
"""Classes of how long after its window's end an event was committed: name → the most, ms."""


@dataclass(frozen=True)
class Lately:
    """Late partials of one version of a table.

    Attributes:
        rows: `window_start`, the dimensions, `events`, and `late_ms` from the window's end to the commit.
        since_ms: commits from then on were looked at, ms since 1970 UTC.
    """

    rows: pa.Table
    since_ms: int

    def by_lateness(self) -> dict[str, int]:
        """Class → events."""
        left, found = self.rows, {}
        for name, most in LATENESS:
            here = left if most is None else left.filter(pc.less_equal(left["late_ms"], most))
            left = left.slice(0, 0) if most is None else left.filter(pc.greater(left["late_ms"], most))
            found[name] = int(pc.sum(here["events"]).as_py() or 0)
        return found


class Revisions:
    """The late partials of one table, as its log goes on. Safe between threads.

    Args:
        schema: `window_start`, the dimensions and `events`.
        late_after_ms: what came no longer than this after its window's end is not late.
        read: `history.read_part`, or something that remembers.
    """

    def __init__(
        self, schema: pa.Schema, late_after_ms: int, read: Callable[[Held, Part, pa.Schema], pa.Table]
    ) -> None:
        self._schema, self._late_after_ms, self._read = schema, late_after_ms, read
        self._known: dict[int, tuple[int, pa.Table]] = {}
        self._lock = threading.Lock()

    def upto(self, held: Held) -> Lately:
        """What came late within `REVISED_FOR_MS` before the last batch of this version.

        Raises:
            TableError: a file cannot be read.
        """
        since_ms = (held.batch_ms or 0) - REVISED_FOR_MS
        found = []
        with self._lock:
            for version in range(held.version, -1, -1):
                entry = self._known.get(version)
                if entry is None:
                    commit = held.tail.read(version)
                    if commit is None:
                        break
                    entry = self._known[version] = commit.timestamp_ms, self._late(held, commit)
                if entry[0] < since_ms:
                    break
                found.append(entry[1])
            for version in [version for version, (at_ms, _) in self._known.items() if at_ms < since_ms]:
                del self._known[version]
        return Lately(pa.concat_tables([self._empty(), *found]), since_ms)

    def _late(self, held: Held, commit: Commit) -> pa.Table:
        if COMMIT_KEY not in commit.commit_info and not any(added.data_change for added in commit.adds):
            return self._empty()
        parts = [self._read(held, Part(added.path), self._schema) for added in commit.adds if added.data_change]
        rows = pa.concat_tables([self._schema.empty_table(), *parts])
        ended_ms = pc.divide(pc.add(rows["window_start"].cast(pa.int64()), GRAIN_US[held.grain]), 1_000)
        rows = rows.append_column("late_ms", pc.subtract(pa.scalar(commit.timestamp_ms, pa.int64()), ended_ms))
        return rows.filter(pc.greater(rows["late_ms"], self._late_after_ms))

    def _empty(self) -> pa.Table:
        return self._schema.append(pa.field("late_ms", pa.int64())).empty_table()
