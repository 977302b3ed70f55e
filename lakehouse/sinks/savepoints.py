"""Savepoints: a named point across all tables of a pipeline, at the boundary of one batch, and what keeps it whole.

A savepoint is one file, `_savepoints/NAME/<name>.json`, put if absent. It holds the batch, and for each table the add
actions of that moment, verbatim: nothing of the tables' logs is needed to come back to it. The data files are the
tables' own; vacuum leaves them alone while a savepoint names them (`Savepoints.kept`).

A derived table covers its source up to some version, mostly a few seconds before the savepoint's. The files that it had
yet to take in are copied beside the savepoint, since maintenance may have merged them already.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import obstore
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from obstore.exceptions import AlreadyExistsError

from lakehouse.chain import Batch
from lakehouse.errors import ConfigError, TableDamaged, TableError
from lakehouse.sinks.delta_log import parse_actions, table_exists
from lakehouse.storage import commit_path, find_store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from obstore.store import ObjectStore

    from lakehouse.chain import Add

_FORMAT = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_CHECKPOINT = re.compile(r"_delta_log/(\d{20})\.checkpoint\.parquet")
_COLUMNS = ("path", "partitionValues", "size", "modificationTime", "dataChange", "stats")


@dataclass(frozen=True)
class SavedTable:
    """One table at a savepoint.

    Attributes:
        version: of the table.
        adds: the add actions of its live files, as the log holds them.
        retired_ms: the moment before which rows had left by a rule, ms since 1970 UTC; None where none had.
        pending: of a derived table, the add actions of its source's files that it had yet to take in. They are copied.
        whole_from: of a derived table, as in `Cover`.
    """

    version: int
    adds: list[Add]
    retired_ms: int | None = None
    pending: list[Add] | None = None
    whole_from: int | None = None

    @property
    def rows(self) -> int:
        """In its files."""
        return sum(orjson.loads(add["stats"])["numRecords"] for add in self.adds)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(add["size"] for add in self.adds)


@dataclass(frozen=True)
class Savepoint:
    """A named point of a pipeline.

    Attributes:
        name: as its user calls it; pipeline: whose.
        made_ms: when, ms since 1970 UTC.
        note: why, in the words of the one who made it.
        batch: the last one that every table holds, without its files.
        tables: name → what it held. Tables that maintenance derives come after their sources.
        replay: number of the last replay of quarantine that the tables hold; 0 for none.
    """

    name: str
    pipeline: str
    made_ms: int
    note: str
    batch: Batch
    tables: dict[str, SavedTable]
    replay: int = 0

    @property
    def made(self) -> str:
        """When, for people."""
        return datetime.fromtimestamp(self.made_ms / 1_000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    def to_json(self) -> bytes:
        """The form in which its file holds it."""
        return orjson.dumps(
            {"format": _FORMAT, **asdict(self), "batch": self.batch.to_json()}, option=orjson.OPT_NON_STR_KEYS
        )

    @classmethod
    def from_json(cls, body: bytes, *, where: str) -> Savepoint:
        """Read what `to_json` wrote.

        Raises:
            TableError: it is damaged, or of a later format.
        """
        try:
            raw: dict[str, Any] = orjson.loads(body)
            if raw.pop("format") != _FORMAT:
                raise TableError(
                    "the savepoint was written by a later version",
                    where=where,
                    remedy="run the version of this project that wrote it, or a later one",
                )
            raw["batch"] = Batch.from_json(raw["batch"], where=where)
            raw["tables"] = {name: SavedTable(**table) for name, table in raw["tables"].items()}
            return cls(**raw)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise TableError(
                f"the savepoint cannot be read: {error}", where=where, remedy="restore the file from a backup"
            ) from error


class Savepoints:
    """The savepoints of one pipeline under a resolved root."""

    def __init__(self, root: str, pipeline: str) -> None:
        self._root = root
        self._folder = f"_savepoints/{pipeline}"
        self._known: dict[str, Savepoint] = {}

    def path(self, name: str) -> str:
        """Of a savepoint's file, relative to the root.

        Raises:
            ConfigError: that is no name.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} names no savepoint", remedy="write small letters, digits, - and _, such as before-upgrade"
            )
        return f"{self._folder}/{name}.json"

    def pending_path(self, name: str, table: str, path: str) -> str:
        """Where the copy lies of a file that the table `table` had yet to take in, relative to the root."""
        return f"{self._folder}/{name}/{table}/{unquote(path)}"

    def saved(self) -> list[Savepoint]:
        """All of them, oldest first. A savepoint never changes, so that each is read once.

        Raises:
            TableError: one cannot be read.
        """
        if "://" not in self._root and not (Path(self._root) / self._folder).is_dir():
            return []
        store = open_store(self._root)
        entries = obstore.list_with_delimiter(store, f"{self._folder}/")["objects"]
        paths = [entry["path"] for entry in entries if entry["path"].endswith(".json")]
        self._known = {path: self._known.get(path) or self._read(store, path) for path in paths}
        return sorted(self._known.values(), key=lambda found: (found.made_ms, found.name))

    def find(self, name: str) -> Savepoint:
        """The savepoint of this name.

        Raises:
            ConfigError: there is none.
        """
        path = self.path(name)
        known = {found.name: found for found in self.saved()}
        if name not in known:
            raise ConfigError(
                f"there is no savepoint {name}",
                where=f"{self._root}/{path}",
                remedy=f"the savepoints are: {', '.join(known) or 'none'}",
            )
        return known[name]

    def put(self, savepoint: Savepoint) -> bool:
        """Keep it; False where its name is taken."""
        try:
            obstore.put(open_store(self._root), self.path(savepoint.name), savepoint.to_json(), mode="create")
        except AlreadyExistsError:
            return False
        return True

    def drop(self, name: str) -> None:
        """Forget it: vacuum may then delete what only it needed. Its copies go last: a kill leaves those alone."""
        store = open_store(self._root)
        obstore.delete(store, self.path(name))
        copies = [entry["path"] for listed in obstore.list(store, f"{self._folder}/{name}") for entry in listed]
        for path in copies:
            obstore.delete(store, path)

    def kept(self, table: str) -> set[str]:
        """Paths of a table's files that a savepoint needs, as the log spells them; asked anew each time."""
        saved = [found.tables[table] for found in self.saved() if table in found.tables]
        return {add["path"] for of in saved for add in of.adds}

    def _read(self, store: ObjectStore, path: str) -> Savepoint:
        body = bytes(obstore.get(store, path).bytes())
        return Savepoint.from_json(body, where=f"{self._root}/{path}")


def kept_by_any(root: str, table: str) -> set[str]:
    """Paths of a table's files that any savepoint under a root needs, whichever pipeline's it is; without escapes."""
    store = find_store(f"{root}/_savepoints")
    entries = [entry["path"] for listed in (obstore.list(store) if store else ()) for entry in listed]
    owners = {path.split("/")[0] for path in entries if path.count("/") == 1 and path.endswith(".json")}
    return {unquote(path) for owner in owners for path in Savepoints(root, owner).kept(table)}


def live_adds(store: ObjectStore, name: str, version: int) -> list[Add]:
    """The add actions of the files that are live at a version, verbatim, in the order in which they came.

    Raises:
        TableError: the log cannot be read, or what was read of it is not what delta-rs says.
    """
    begin, live = _checkpoint(store, version)
    for number in range(begin + 1, version + 1):
        where = f"table {name}, version {number}"
        try:
            actions = parse_actions(bytes(obstore.get(store, commit_path(number)).bytes()), where=where)
        except FileNotFoundError as error:
            raise TableDamaged(
                "a commit of the log is missing", where=where, remedy="see `lakehouse doctor`"
            ) from error
        for action in actions:
            if "remove" in action:
                live.pop(unquote(action["remove"]["path"]), None)
            if "add" in action:
                live[unquote(action["add"]["path"])] = action["add"]
    return list(live.values())


def _checkpoint(store: ObjectStore, version: int) -> tuple[int, dict[str, Add]]:
    """(version of the newest checkpoint at or before `version`, its live files); (-1, none) without one."""
    found = [
        int(match[1])
        for listed in obstore.list(store, "_delta_log")
        for entry in listed
        if (match := _CHECKPOINT.fullmatch(entry["path"])) and int(match[1]) <= version
    ]
    if not found:
        return -1, {}
    newest = max(found)
    body = obstore.get(store, f"_delta_log/{newest:020d}.checkpoint.parquet").bytes()
    rows = pq.read_table(pa.BufferReader(pa.py_buffer(body)), columns=["add"])["add"].to_pylist()
    adds = [{key: _plain(row[key]) for key in _COLUMNS if key in row} for row in rows if row and row.get("path")]
    return newest, {unquote(add["path"]): add | {"dataChange": True} for add in adds}


def _plain(value: Any) -> Any:  # noqa: ANN401 - what a checkpoint holds
    """A map of the checkpoint as JSON has it."""
    return dict(value) if isinstance(value, list) else value


def bytes_held(savepoints: Iterable[Savepoint], live: dict[str, set[str]]) -> dict[str, int]:
    """Savepoint → bytes of its files that the newest version of their table no longer has, `live` by table."""
    return {
        found.name: sum(
            add["size"]
            for table, saved in found.tables.items()
            for add in saved.adds
            if unquote(add["path"]) not in live.get(table, set())
        )
        for found in savepoints
    }


def live_paths(root: str, table: str) -> set[str]:
    """Paths of the files in a table's newest version, without escapes; none where there is no table."""
    if not table_exists(f"{root}/{table}"):
        return set()
    found = pa.table(DeltaTable(f"{root}/{table}").get_add_actions())["path"].to_pylist()
    return {unquote(path) for path in found}
