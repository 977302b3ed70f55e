"""Deletes data files that nobody can need: those that a rewrite replaced, and those that no commit ever named.

A replaced file goes once it was removed longer ago than the retention: readers of an old version have had their time.

A file that no commit names may belong to a batch that is about to be committed, however old it is: its driver may
have stood still for a day. So its age is not held against the clock alone, but against the *last batch's commit*. A
file that is older than that commit and not named in it can never be committed: the chain refuses its batch, and a
rewrite gives up where it sees that so much time has passed (`TableLog.rewrite`). In a derived table the last
derivation stands for the last batch: one that began before it is refused.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import obstore
import orjson

from lakehouse.storage import commit_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from lakehouse.maintenance.view import TableView

_STAGED = re.compile(r".*#[0-9]+")
"""Where the object store's local form writes before it renames; a kill in between leaves such a file."""


class Tombstones:
    """Which files were removed from a table, and when: path → ms since 1970 UTC, read from its commits.

    Each commit is read once. Later ones come with each pass; those from before the first pass are read backwards,
    some at a time, until the log begins.
    """

    def __init__(self) -> None:
        self.removed: dict[str, int] = {}
        self._first: int | None = None
        self._last = -1

    def advance(self, view: TableView, *, backwards: int) -> None:
        """Read the commits up to the view's version, and at most `backwards` older ones."""
        if self._first is None:
            self._first, self._last = view.version + 1, view.version
        for version in range(self._last + 1, view.version + 1):
            self._read(view, version)
        self._last = max(self._last, view.version)
        for version in range(self._first - 1, max(-1, self._first - 1 - backwards), -1):
            if not self._read(view, version):
                self._first = 0
                return
            self._first = version

    def _read(self, view: TableView, version: int) -> bool:
        try:
            body = bytes(obstore.get(view.store, commit_path(version)).bytes())
        except FileNotFoundError:
            return False  # cleaned up: what it removed is found by listing
        # Parsing is the expensive half, and most commits are appends.
        for line in body.splitlines() if b'"remove"' in body else ():
            with suppress(orjson.JSONDecodeError):
                removed = orjson.loads(line).get("remove")
                if removed:
                    self.removed[unquote(removed["path"])] = int(removed.get("deletionTimestamp") or 0)
        return True

    def expired(self, view: TableView, *, before_ms: int, named: Collection[str]) -> list[str]:
        """Files removed before `before_ms` that are not live and that no batch in the making names."""
        kept = _kept(view, named)
        return [path for path, moment in self.removed.items() if moment < before_ms and path not in kept]

    def forget(self, paths: Iterable[str]) -> None:
        """These files are gone."""
        for path in paths:
            self.removed.pop(path, None)


def orphans(
    view: TableView, *, now_ms: int, retention_ms: int, named: Collection[str], removed: Collection[str]
) -> list[tuple[str, int]]:
    """(path, bytes) of files that no commit names and none ever can.

    Args:
        view: of the newest version.
        now_ms: ms since 1970 UTC.
        retention_ms: how much older than the last batch's commit, and than now, they have to be.
        named: files of this table that the last batch of any table names, which may not be in all tables yet, and
            those that the next derivation reads.
        removed: files that `Tombstones` knows, which have their own time.
    """
    if view.anchor is None:
        return []
    latest_ms = min(view.anchor.timestamp_ms, now_ms) - retention_ms
    kept = _kept(view, named) | set(removed)
    found = []
    for chunk in obstore.list(view.store):
        for entry in chunk:
            path = entry["path"]
            # Delta's own rule: names that begin with _ or . are not data.
            hidden = any(part.startswith(("_", ".")) for part in path.split("/"))
            if not hidden and path not in kept and entry["last_modified"].timestamp() * 1_000 < latest_ms:
                found.append((path, int(entry["size"])))
    return found


def staged(view: TableView, *, before_ms: int) -> list[Path]:
    """Files on a local disk that a killed process had begun to put; a store lists none of them."""
    if view.url.startswith("s3://"):
        return []
    found = []
    for path in Path(view.url).rglob("*#*"):
        with suppress(FileNotFoundError):
            if _STAGED.fullmatch(path.name) and path.stat().st_mtime * 1_000 < before_ms:
                found.append(path)
    return found


def delete(view: TableView, paths: Iterable[str], keep_on: Callable[[], bool] = lambda: True) -> list[str]:
    """Delete data files while `keep_on` says so, in any order: none of them is needed; what was deleted."""
    deleted = []
    for path in paths:
        if not keep_on():
            break
        with suppress(FileNotFoundError):
            obstore.delete(view.store, path)
        deleted.append(path)
    return deleted


def _kept(view: TableView, named: Collection[str]) -> set[str]:
    return {unquote(file.path) for file in view.files} | {unquote(path) for path in named}
