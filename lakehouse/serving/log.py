"""Reads a Delta table's log commit by commit, opening each version's JSON by its name.

Listing `_delta_log` costs time in proportion to its age; a get of one name does not. The first state comes
from delta-rs, which knows checkpoints; from there on every version is one get. The same tail serves the
follower and observers that measure when a commit became visible.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from obstore.store import LocalStore

from lakehouse.errors import TableError
from lakehouse.storage import commit_path, is_remote, open_reader, reader_options, resolve_root

if TYPE_CHECKING:
    from obstore.store import ObjectStore

MAX_COMMITS_PER_POLL = 256
"""Bounds one poll's work after a long sleep, so that the caller publishes progress in between."""


@dataclass(frozen=True, slots=True)
class Added:
    """One data file that a commit added; `path` is relative to the table and already decoded."""

    path: str
    num_records: int | None
    data_change: bool


@dataclass(frozen=True, slots=True)
class Removed:
    """One data file that a commit removed from the table's state."""

    path: str
    data_change: bool


@dataclass(frozen=True, slots=True)
class Commit:
    """What one version of the log says, as far as readers of this project need it."""

    version: int
    timestamp_ms: int
    """commitInfo's timestamp, ms since 1970 UTC; 0 where the writer gave none."""
    commit_info: dict[str, Any] = field(default_factory=dict)
    adds: tuple[Added, ...] = ()
    removes: tuple[Removed, ...] = ()
    table_id: str | None = None
    """Set where the commit carries the table's metadata: it created or altered the table."""


@dataclass(frozen=True, slots=True)
class LiveFile:
    """One file of a version's state.

    `modified_ms` is when it was written, `last_ms` its last window, where the log says so; ms since 1970 UTC.
    """

    path: str
    modified_ms: int
    last_ms: int | None = None


@dataclass(frozen=True, slots=True)
class TableState:
    """One version of a table as a whole: where a tail begins."""

    table_id: str
    version: int
    timestamp_ms: int
    files: tuple[LiveFile, ...]


def open_state(url: str) -> TableState | None:
    """The table's newest version through delta-rs; None where there is no table yet.

    Raises:
        TableError: the log is there but cannot be read.
    """
    location = resolve_root(url)
    if not is_remote(location) and not (Path(location) / "_delta_log").is_dir():
        return None
    try:
        table = DeltaTable(location, storage_options=reader_options(location))
        actions = table.get_add_actions(flatten=True)
        paths = actions.column("path").to_pylist()
        modified = actions.column("modification_time").to_pylist()
        known = "max.window_start" in actions.column_names
        windows = actions.column("max.window_start").to_pylist() if known else [None] * len(paths)
        table_id = str(table.metadata().id)
    except TableNotFoundError:
        return None
    except Exception as error:
        raise TableError(
            f"the table's log cannot be read: {error}",
            where=location,
            remedy="see whether `_delta_log` is complete; the reader tries again by itself",
        ) from error
    files = tuple(
        LiveFile(unquote(path), _millis(when), None if last is None else _millis(last))
        for path, when, last in zip(paths, modified, windows, strict=True)
    )
    newest = max((file.modified_ms for file in files), default=0)
    return TableState(table_id=table_id, version=table.version(), timestamp_ms=newest, files=files)


def _millis(when: datetime | int) -> int:
    if isinstance(when, int):
        return when
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


class LogTail:
    """The commits after a known version, in order, each exactly once.

    Args:
        url: the table's folder or s3:// URL.
        version: the last version already known; -1 begins with the first commit.
    """

    def __init__(self, url: str, *, version: int = -1) -> None:
        self.url = resolve_root(url)
        self.version = version
        self._store: ObjectStore | None = None

    @property
    def store(self) -> ObjectStore:
        """The table's folder. Raises FileNotFoundError while it does not exist: a reader makes no folders."""
        if self._store is None:
            self._store = open_reader(self.url) if is_remote(self.url) else _existing_folder(self.url)
        return self._store

    def poll(self, limit: int = MAX_COMMITS_PER_POLL) -> list[Commit]:
        """The commits that have appeared since the last poll, at most `limit`; empty where there are none.

        Raises:
            TableError: a commit's JSON cannot be parsed.
        """
        commits: list[Commit] = []
        while len(commits) < limit:
            commit = self.read(self.version + 1)
            if commit is None:
                break
            commits.append(commit)
            self.version = commit.version
        return commits

    def read(self, version: int) -> Commit | None:
        """One version's commit, or None where its JSON does not exist (not yet, or cleaned up)."""
        try:
            data = bytes(self.store.get(commit_path(version)).bytes())
        except FileNotFoundError:
            return None
        return parse_commit(version, data, where=self.url)


def parse_commit(version: int, data: bytes, *, where: str = "") -> Commit:
    """A commit from the bytes of its JSON (one action per line); actions that readers skip are skipped.

    Raises:
        TableError: a line is not JSON, or an action lacks its path.
    """
    adds: list[Added] = []
    removes: list[Removed] = []
    info: dict[str, Any] = {}
    table_id: str | None = None
    try:
        for line in data.splitlines():
            if not line:
                continue
            for kind, action in orjson.loads(line).items():
                if kind == "add":
                    adds.append(_added(action))
                elif kind == "remove":
                    removes.append(Removed(unquote(action["path"]), bool(action.get("dataChange", True))))
                elif kind == "commitInfo":
                    info = action
                elif kind == "metaData":
                    table_id = str(action["id"])
    except (orjson.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise TableError(
            f"version {version} of the log is not a Delta commit: {error}",
            where=f"{where}/{commit_path(version)}",
            remedy="the file is damaged; restore it, or rebuild the table",
        ) from error
    timestamp = int(info.get("timestamp") or 0)
    return Commit(version, timestamp, info, tuple(adds), tuple(removes), table_id)


def _added(action: dict[str, Any]) -> Added:
    stats = action.get("stats")
    records = orjson.loads(stats).get("numRecords") if stats else None
    return Added(unquote(action["path"]), records, bool(action.get("dataChange", True)))


def _existing_folder(path: str) -> ObjectStore:
    if not Path(path).is_dir():
        raise FileNotFoundError(path)
    return LocalStore(path)
