"""Watches every table's log during a run, version by version, and remembers what each one said.

Log clean-up may remove versions later: what the witness has seen, it has seen. It opens the next version by its
name, so a version that disappears before it was seen is noticed too.
"""

from __future__ import annotations

import hashlib
import threading
import time
from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from lakehouse.chain import COMMIT_KEY
from lakehouse.storage import commit_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lakehouse.chain import Offsets

_LOOK_EVERY_S = 0.005


@dataclass(frozen=True)
class BatchSeen:
    """What a commit's record says about its batch; `rows` per table as its files' statistics count them."""

    query_id: str
    batch_id: int
    start: Offsets
    end: Offsets
    rows: dict[str, int]
    newest_ms: float


@dataclass(frozen=True)
class Version:
    """One version of one table's log, as it was first seen.

    Attributes:
        number: the version.
        seen_s: when, seconds since 1970.
        sha256: of its JSON; empty where it is not JSON.
        batch: of the pipeline; None for maintenance and for the table's creation.
        added: path → (bytes, rows) of each file; `listed` is how many add actions there were.
        removed: paths.
    """

    number: int
    seen_s: float
    sha256: str
    batch: BatchSeen | None
    added: dict[str, tuple[int, int]]
    listed: int
    removed: tuple[str, ...]


class Witness(threading.Thread):
    """Follows the logs of tables under a root. As a thread it looks by itself; `look` may also be called."""

    def __init__(self, root: str, tables: Iterable[str]) -> None:
        super().__init__(name="witness", daemon=True)
        self.root = root
        self.versions: dict[str, list[Version]] = {name: [] for name in tables}
        self.changed: list[str] = []
        self._done = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Look until `finish` is called."""
        while not self._done.wait(_LOOK_EVERY_S):
            self.look()

    def look(self) -> None:
        """Take in the versions that are new."""
        with self._lock:
            for name, known in self.versions.items():
                while (body := self._read(name, len(known))) is not None:
                    known.append(parse(len(known), body))

    def look_back(self, last: int | None = None) -> None:
        """Compare versions (the `last` ones of each table, or all) that still exist with what they once said."""
        with self._lock:
            for name, known in self.versions.items():
                for version in known[-last if last else 0 :]:
                    body = self._read(name, version.number)
                    where = f"{name} version {version.number}"
                    if body is not None and _sha256(body) != version.sha256 and where not in self.changed:
                        self.changed.append(where)

    def finish(self) -> None:
        """Stop looking; everything that there is has been seen and compared."""
        self._done.set()
        if self.is_alive():
            self.join()
        self.look()
        self.look_back()

    def unseen(self) -> list[str]:
        """Versions that stand in a log, but behind one that was gone before it was seen."""
        return [
            f"{name} version {number}"
            for name, known in self.versions.items()
            for number in _numbers(Path(self.root) / name / "_delta_log")
            if number > len(known)
        ]

    def heads_gone(self) -> list[str]:
        """Last commits of the pipeline, which alone say where it stands, that are no longer in their logs."""
        last = {
            name: next((version.number for version in reversed(known) if version.batch), None)
            for name, known in self.versions.items()
        }
        return [
            f"{name} version {number}"
            for name, number in last.items()
            if number is not None and self._read(name, number) is None
        ]

    def fresh_after(self, table: str, moment_s: float) -> float | None:
        """When a version of `table` was first seen that holds a record sent after `moment_s`; None if never."""
        known = self.versions[table]
        first = bisect_right(known, moment_s, key=lambda version: version.seen_s)
        return next(
            (
                version.seen_s
                for version in islice(known, first, None)
                if version.batch and version.batch.newest_ms >= 1_000 * moment_s
            ),
            None,
        )

    def _read(self, name: str, version: int) -> bytes | None:
        try:
            return (Path(self.root) / name / commit_path(version)).read_bytes()
        except FileNotFoundError:
            return None


def parse(number: int, body: bytes) -> Version:
    """One version's JSON; one that is torn has no batch and no files, and its hash tells that it is none."""
    try:
        actions = [orjson.loads(line) for line in body.splitlines() if line]
    except orjson.JSONDecodeError:
        actions = []
    adds = [action["add"] for action in actions if "add" in action]
    info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    recorded = info.get(COMMIT_KEY)
    return Version(
        number=number,
        seen_s=time.time(),
        sha256=_sha256(body),
        # A maintenance commit may carry the last batch along; it says so in its operation.
        batch=_batch(recorded) if recorded and info.get("operation") == "STREAMING UPDATE" else None,
        added={add["path"]: (add["size"], orjson.loads(add["stats"])["numRecords"]) for add in adds},
        listed=len(adds),
        removed=tuple(action["remove"]["path"] for action in actions if "remove" in action),
    )


def _batch(raw: dict[str, Any]) -> BatchSeen:
    statistics = {name: [orjson.loads(add["stats"]) for add in adds] for name, adds in raw["adds"].items()}
    newest = [
        stats["maxValues"]["_timestamp"]
        for tables in statistics.values()
        for stats in tables
        if "_timestamp" in stats.get("maxValues", {})
    ]
    return BatchSeen(
        raw["query_id"],
        raw["batch_id"],
        _offsets(raw["start"]),
        _offsets(raw["end"]),
        {name: sum(stats["numRecords"] for stats in tables) for name, tables in statistics.items()},
        max((_millis(moment) for moment in newest), default=0.0),
    )


def _offsets(raw: dict[str, dict[str, int]]) -> Offsets:
    return {topic: {int(partition): offset for partition, offset in of.items()} for topic, of in raw.items()}


def _millis(moment: str) -> float:
    return 1_000 * datetime.fromisoformat(moment).timestamp()


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal())
