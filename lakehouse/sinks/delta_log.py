"""Commits to a Delta log: the next version's file is put if it is absent, and nothing is listed.

There are three kinds. An append adds a batch of the pipeline; a rewrite replaces files by others with the same rows;
an expiry removes files of a journal, whose rows have had their time. All go through one loop: put, and where the
version is taken look at what came between, accept it, try the next.

Why not the writer of delta-rs: its commit lists the log folder, so that its cost grows with the table's
age, and on conflict it rebases by itself, where this sink must first look at what came between
(docs/adr/0007-commit-by-put-if-absent.md). delta-rs still makes the tables and reads their state.

Format: https://github.com/delta-io/delta/blob/master/PROTOCOL.md, reader 1 and writer 2.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import obstore
import orjson
import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError
from obstore.exceptions import AlreadyExistsError

from lakehouse.chain import COMMIT_KEY, Batch, decide, describe, encode
from lakehouse.errors import ChainError, SecondDriver, TableDamaged, TableError, UnknownHistory, first_line
from lakehouse.rollups.cover import COVER_KEY, Cover
from lakehouse.schemas import SPARSE_COLUMNS
from lakehouse.storage import commit_path, is_remote, open_store, require_reachable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from obstore.store import ObjectStore

    from lakehouse.chain import Add

ENGINE = "lakehouse/0.1.0"
"""How commits name their writer."""
CHANGE_COLUMNS = "CHANGE COLUMNS"
"""Name of the operation by which a table comes to other columns (`alter`)."""
_NEWEST_VERSIONS = 1_000
"""How many commits are searched backwards for the last one of the pipeline; after its last batch come only
rewrites, which end by themselves once there are few files left to merge."""
_STALL_S = 30.0
"""A process that has not seen the log for so long asks, after a put, whether the log went on without it."""
_FENCE = 0.5
"""Share of the retention after which a rewrite that has not been committed is given up."""
_SEE_DOCTOR = "`lakehouse doctor` says what to do; nothing was written"

_ACTIONS_KEY = "lakehouseActions"
"""Key in a commit's `commitInfo` of how many actions the commit has, itself among them: a cut one is recognised."""

Actions = list[dict[str, Any]]
"""What one commit says: each action is a dict with its kind as the one key."""


def configuration(retention: timedelta) -> dict[str, str]:
    """Properties of a new table, whose old versions stay readable for `retention`."""
    seconds = f"interval {round(retention.total_seconds())} seconds"
    return {
        # Maintenance writes the checkpoints. Delta for Spark's default of 10 would have other writers checkpoint
        # at every few batches.
        "delta.checkpointInterval": "100",
        # Whoever else writes a checkpoint must not clean the log: that is only safe up to the pipeline's last batch,
        # which no other program knows (docs/adr/0010-maintenance.md).
        "delta.enableExpiredLogCleanup": "false",
        "delta.logRetentionDuration": seconds,
        # A checkpoint lists removed files for this long. The default of a week would be millions of them.
        "delta.deletedFileRetentionDuration": seconds,
        # The sink records statistics for these few columns; other writers need not do more.
        "delta.dataSkippingNumIndexedCols": "8",
    }


@dataclass(frozen=True)
class Recorded:
    """A batch as the log holds it: which commit, and when it was made (ms since 1970 UTC, by its writer's clock)."""

    batch: Batch
    version: int
    timestamp_ms: int


@dataclass(frozen=True)
class Covering:
    """What a derived table covers, as the log holds it; as `Recorded`."""

    cover: Cover
    version: int
    timestamp_ms: int


@dataclass
class TableLog:
    """The end of one table's log, as a process that commits to it knows it.

    Attributes:
        name: how messages call the table, such as `silver/feature_events`.
        store: the table's folder.
        version: last version known.
        head: last batch of the pipeline in the log; None for a table without one.
        columns: the table's columns, as the log says.
    """

    name: str
    store: ObjectStore
    version: int
    head: Batch | None
    columns: Schema
    _seen_s: float = field(default_factory=time.time, repr=False)
    """When `version` was last known to be the newest."""

    @classmethod
    def open(cls, url: str, name: str, schema: pa.Schema, *, retention: timedelta = timedelta(hours=1)) -> TableLog:
        """Open the table at `url`, made with `schema` where it is missing; see `find` for what is raised."""
        log = cls.find(url, name)
        if log is not None:
            return log
        open_store(url)  # makes the folder, which a local table needs
        try:
            DeltaTable.create(url, schema, name=name.replace("/", "_"), configuration=configuration(retention))
        except (DeltaError, OSError) as error:
            # Another driver may have been quicker; then there is a table now.
            if not table_exists(url):
                raise TableError(f"the table cannot be made: {error}", where=url) from error
        made = cls.find(url, name)
        assert made is not None, "a table that was made is there"  # noqa: S101 - just made
        return made

    @classmethod
    def find(cls, url: str, name: str) -> TableLog | None:
        """The table at `url`, with every file that its log names; None where there is none. Makes nothing.

        Raises:
            TableDamaged: where the log or a data file is incomplete.
            UnknownHistory: where the table holds data, but no commit of this pipeline.
        """
        if not table_exists(url):
            return None
        try:
            table = DeltaTable(url)
        except (DeltaError, OSError) as error:
            require_reachable(url)
            raise TableDamaged(
                f"the table's log cannot be read: {first_line(error)}",
                where=f"table {name} at {url}",
                remedy="`lakehouse doctor` says which file is damaged and what to do; nothing was written",
            ) from error
        store = open_store(url)
        head = find_head(store, name, table.version())
        if head is None and not _is_unused(store, name, table):
            raise UnknownHistory(
                "the table holds data, but none of its commits says which Kafka offsets it covers",
                where=f"table {name} at {url}",
                remedy="it was not written by this pipeline: move it away, or give the pipeline another name or root",
            )
        damaged = damaged_files(store, table)
        if damaged:
            path, what = damaged[0]
            raise TableDamaged(
                f"{len(damaged)} data files of the table are not as its log says; the first, {path}, {what}",
                where=f"table {name} at {url}",
                remedy="restore the files from a backup; `lakehouse doctor` names each. Nothing was written",
            )
        return cls(name, store, table.version(), head, table.schema())

    def append(self, batch: Batch, also: Sequence[dict[str, Any]] = ()) -> bool:
        """Commit the batch's files for this table, exactly once.

        Args:
            batch: which.
            also: actions that the same commit holds beside it.

        Returns:
            False where the table has this batch already.

        Raises:
            ChainError: where the batch does not follow the table's last one.
            SecondDriver: where another driver was quicker.
            TableError: where another writer changed the table's columns or protocol meanwhile.
        """
        if decide(self.head, batch, table=self.name) == "skip":
            return False

        def admit(interposed: Actions) -> bool:
            self._admit(interposed, batch)
            return True

        self.commit([*_append_actions(batch, batch.adds[self.name]), *also], admit)
        self.head = batch
        return True

    def rewrite(self, removed: Sequence[tuple[str, int]], adds: Sequence[Add], *, fence: timedelta) -> bool:
        """Replace live files by others that hold the same rows; the commit changes no row and records no batch.

        Args:
            removed: (path, bytes) of files that are live at `version`.
            adds: the files that take their place, already written.
            fence: how long after its writing a file that no commit names may be vacuumed. Where the log shows that
                half of it has passed, the new files may be gone soon, and the rewrite is given up.

        Returns:
            False where a commit that came between removed one of the files or altered the table, or the fence has
            passed: nothing was committed then, and the new files are left for vacuum.

        Raises:
            ChainError: where this process stood still while the table went on; nothing was committed.
        """
        paths = {path for path, _ in removed}
        latest_ms = min(add["modificationTime"] for add in adds) + round(fence.total_seconds() * 1_000 * _FENCE)

        def admit(interposed: Actions) -> bool:
            return not _touches(interposed, paths) and commit_info(interposed).get("timestamp", 0) <= latest_ms

        return self.commit(_rewrite_actions("OPTIMIZE", removed, adds), admit)

    def expire(self, removed: Sequence[tuple[str, int]]) -> bool:
        """Remove live files with their rows, which have had their time.

        Args:
            removed: (path, bytes) of files that are live at `version`.

        Returns:
            False where a commit that came between removed one of the files or altered the table: nothing was
            committed then.
        """
        paths = {path for path, _ in removed}
        return self.commit(_rewrite_actions("DELETE", removed, []), lambda between: not _touches(between, paths))

    def derive(self, cover: Cover, adds: Sequence[Add]) -> bool:
        """Add partial aggregates that were derived from another table, and say what the table covers with them.

        Args:
            cover: what the table covers then; `version` must be where the cover was read that this one follows.
            adds: files, already written.

        Returns:
            False where another derivation came between, or the table was altered: nothing was committed.

        Raises:
            ChainError: where this process stood still while the table went on; nothing was committed.
        """

        def admit(interposed: Actions) -> bool:
            altered = any("metaData" in action or "protocol" in action for action in interposed)
            return not altered and COVER_KEY not in commit_info(interposed)

        return self.commit(_derive_actions(cover, adds), admit)

    def commit(self, actions: Actions, admit: Callable[[Actions], bool]) -> bool:
        """Put `actions` at the next free version.

        Args:
            actions: the first is the `commitInfo`.
            admit: called with each commit that came between; False gives up, and so does raising.

        Returns:
            Whether the actions are in the log.
        """
        txn_id = str(uuid.uuid4())
        actions[0]["commitInfo"] |= {"txnId": txn_id, _ACTIONS_KEY: len(actions)}
        body = b"\n".join(orjson.dumps(action, option=orjson.OPT_NON_STR_KEYS) for action in actions)
        while not self._put(self.version + 1, body):
            interposed = _read(self.store, self.name, self.version + 1)
            self.version += 1
            self._seen_s = time.time()
            if commit_info(interposed).get("txnId") == txn_id:
                # The store answered our own put with "exists": the first answer was lost on its way.
                return True
            if not admit(interposed):
                return False
        self.version += 1
        self._require_newest()
        return True

    def _require_newest(self) -> None:
        """Refuse a put that succeeded only because that version had been cleaned up.

        A process that stood still for hours may know a version whose successors are long gone from the log. Log
        clean-up leaves a checkpoint behind that is ahead of everything it deleted, so that one look tells.
        """
        stalled_s = time.time() - self._seen_s
        self._seen_s = time.time()
        if stalled_s > _STALL_S and last_checkpoint(self.store) > self.version:
            raise ChainError(
                f"the table went on while this process stood still for {stalled_s:.0f} s",
                where=f"table {self.name}, version {self.version}",
                remedy="nothing was committed: start it again; run one driver per pipeline",
            )

    def _admit(self, interposed: Actions, batch: Batch) -> None:
        """Accept a commit that came between, if rebasing a blind append over it is safe."""
        if any("metaData" in action or "protocol" in action for action in interposed):
            raise TableError(
                "another writer changed the table's columns or protocol",
                where=f"table {self.name}, version {self.version}",
                remedy="stop the other writer and start the pipeline again",
            )
        recorded = commit_info(interposed).get(COMMIT_KEY)
        if recorded is not None:
            self.head = Batch.from_json(recorded, where=f"table {self.name}, version {self.version}")
            raise SecondDriver(
                f"another driver of this pipeline was quicker: it committed batch {self.head.batch_id} of query"
                f" {self.head.query_id} ({describe(self.head.start)} up to {describe(self.head.end)}) before batch"
                f" {batch.batch_id} of query {batch.query_id} ({describe(batch.start)} up to {describe(batch.end)})",
                where=f"table {self.name}, version {self.version}",
                remedy="run one driver per pipeline; this one has stopped, and no table shows anything of its batch",
            )

    def _put(self, version: int, body: bytes) -> bool:
        try:
            obstore.put(self.store, commit_path(version), body, mode="create")
        except AlreadyExistsError:
            return False
        return True


def _append_actions(batch: Batch, adds: list[Add]) -> Actions:
    now_ms = time.time_ns() // 1_000_000
    info = {
        "timestamp": now_ms,
        "operation": "STREAMING UPDATE",
        "operationParameters": {
            "outputMode": "Append",
            "queryId": batch.query_id,
            "epochId": str(batch.batch_id),
        },
        "isBlindAppend": True,
        "engineInfo": ENGINE,
        "userMetadata": encode(batch),
        COMMIT_KEY: batch.to_json(),
    }
    transaction = {"appId": batch.query_id, "version": batch.batch_id, "lastUpdated": now_ms}
    return [{"commitInfo": info}, {"txn": transaction}, *({"add": add} for add in adds)]


def _derive_actions(cover: Cover, adds: Sequence[Add]) -> Actions:
    info = {
        "timestamp": time.time_ns() // 1_000_000,
        "operation": "DERIVE",
        "operationParameters": {"source": cover.source, "sourceVersion": str(cover.version)},
        "isBlindAppend": True,
        "engineInfo": ENGINE,
        COVER_KEY: cover.to_json(),
    }
    return [{"commitInfo": info}, *({"add": add} for add in adds)]


def _touches(actions: Actions, paths: Collection[str]) -> bool:
    """Whether a commit removes one of the files, or alters the table."""
    return any(
        "metaData" in action or "protocol" in action or action.get("remove", {}).get("path") in paths
        for action in actions
    )


def _rewrite_actions(
    operation: Literal["OPTIMIZE", "DELETE"], removed: Sequence[tuple[str, int]], adds: Sequence[Add]
) -> Actions:
    now_ms = time.time_ns() // 1_000_000
    info = {
        "timestamp": now_ms,
        "operation": operation,
        "operationParameters": {},
        "operationMetrics": {
            "numRemovedFiles": str(len(removed)),
            "numRemovedBytes": str(sum(size for _, size in removed)),
            "numAddedFiles": str(len(adds)),
            "numAddedBytes": str(sum(add["size"] for add in adds)),
        },
        "isBlindAppend": False,
        "engineInfo": ENGINE,
    }
    gone = {
        "deletionTimestamp": now_ms,
        "dataChange": operation == "DELETE",
        "extendedFileMetadata": True,
        "partitionValues": {},
    }
    return [
        {"commitInfo": info},
        *({"remove": {"path": path, "size": size, **gone}} for path, size in removed),
        *({"add": add} for add in adds),
    ]


def require_columns(columns: Schema, schema: pa.Schema, name: str) -> None:
    """Refuse a table whose columns, or their types, are not those of the pipeline's file.

    Args:
        columns: as the table's log says.
        schema: as the pipeline's file says.
        name: the table's, for the message.

    Raises:
        TableError: naming every column that differs.
    """
    wanted = Schema.from_arrow(schema)
    if _types(columns) == _types(wanted):
        return
    found = {field.name: field for field in columns.fields}
    asked = {field.name: field for field in wanted.fields}
    earlier = asked.keys() - found.keys() and not asked.keys() - found.keys() - set(SPARSE_COLUMNS)
    raise TableError(
        "the table's columns are not those of the pipeline:"
        f" missing {[name for name in asked if name not in found]},"
        f" unexpected {[name for name in found if name not in asked]},"
        f" of another type {[name for name in asked if name in found and asked[name].type != found[name].type]}",
        where=f"table {name}",
        remedy=(
            "the table is of an earlier version: start the pipeline once, which adds them"
            if earlier
            else "undo the edit of the pipeline's file, or give the pipeline another name or root"
        ),
    )


def _types(columns: Schema) -> dict[str, Any]:
    """Name → type; neither their order nor what a field's metadata says of it makes another table."""
    return {field.name: field.type for field in columns.fields}


def _is_unused(store: ObjectStore, name: str, table: DeltaTable) -> bool:
    """Whether it was made and holds nothing; its columns may have changed since, before a first batch came."""
    commits = (commit_info(_read(store, name, version)) for version in range(1, table.version() + 1))
    return not table.file_uris() and all(info.get("operation") == CHANGE_COLUMNS for info in commits)


def table_exists(url: str) -> bool:
    """Whether there is a Delta log at `url`; makes nothing."""
    # Not asked of delta-rs, to which a log without its first version is no table at all.
    if is_remote(url):
        return any(obstore.list(open_store(url), prefix="_delta_log"))
    log = Path(url) / "_delta_log"
    return log.is_dir() and any(log.iterdir())


def damaged_files(store: ObjectStore, table: DeltaTable) -> list[tuple[str, str]]:
    """(path, what is wrong) of each data file that is missing or has another size than the log says.

    One listing of the table's folder. It comes after the table was opened, so that files added meanwhile, by
    maintenance, are never missed in it.
    """
    actions = pa.table(table.get_add_actions())
    named = zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True)
    present = {entry["path"]: entry["size"] for listed in obstore.list(store) for entry in listed}
    return [
        (path, "is missing" if size is None else f"has {size:,} bytes instead of {expected:,}")
        for path, expected in named
        if (size := present.get(unquote(path))) != expected
    ]


def find_head(store: ObjectStore, name: str, version: int) -> Batch | None:
    """The last batch that the pipeline committed at or before `version`; None where there is none.

    Raises:
        TableDamaged: where a commit cannot be read, or lacks files that it says it adds.
        TableError: as `find_recorded`.
    """
    recorded = find_recorded(store, name, version)
    return recorded.batch if recorded else None


def find_recorded(store: ObjectStore, name: str, version: int) -> Recorded | None:
    """The last batch of the pipeline at or before `version`, and its commit; None where there is none.

    Log clean-up never deletes that commit nor any after it, so the search ends whatever the table's age.

    Raises:
        TableDamaged: where a commit cannot be read, or lacks files that it says it adds.
        TableError: where the table is old and no recent commit is the pipeline's.
    """
    for candidate in range(version, max(-1, version - _NEWEST_VERSIONS), -1):
        actions = _read(store, name, candidate)
        info = commit_info(actions)
        recorded = info.get(COMMIT_KEY)
        if recorded is not None:
            where = f"table {name}, version {candidate}"
            batch = Batch.from_json(recorded, where=where)
            require_whole(batch, actions, name, where=where)
            return Recorded(batch, candidate, info["timestamp"])
    if version >= _NEWEST_VERSIONS:
        raise TableError(
            f"none of the last {_NEWEST_VERSIONS} commits is this pipeline's, so its offsets are unknown",
            where=f"table {name}",
            remedy="move the table away if it belongs to something else",
        )
    return None


def find_cover(store: ObjectStore, name: str, version: int) -> Covering | None:
    """What a derived table covers at `version`; None where nothing was derived yet.

    Log clean-up keeps that commit, as it keeps the last batch.

    Raises:
        TableDamaged: where a commit cannot be read.
        TableError: where no recent commit is a derivation.
    """
    for candidate in range(version, max(-1, version - _NEWEST_VERSIONS), -1):
        info = commit_info(_read(store, name, candidate))
        recorded = info.get(COVER_KEY)
        if recorded is not None:
            cover = Cover.from_json(recorded, where=f"table {name}, version {candidate}")
            return Covering(cover, candidate, info["timestamp"])
    if version > 0:
        raise TableError(
            "no recent commit says what the table covers of the one it is derived from",
            where=f"table {name}",
            remedy="move the table away: maintenance derives it anew",
        )
    return None


def gained(store: ObjectStore, name: str, after: int, upto: int) -> Iterator[Add]:
    """The files with rows that a table gained by the versions in (after, upto], oldest first.

    Raises:
        TableDamaged: where a commit cannot be read.
    """
    for version in range(after + 1, upto + 1):
        for action in _read(store, name, version):
            if action.get("add", {}).get("dataChange"):
                yield action["add"]


def last_checkpoint(store: ObjectStore) -> int:
    """Version of the newest checkpoint that `_last_checkpoint` names; -1 where it names none."""
    try:
        hint = orjson.loads(bytes(obstore.get(store, "_delta_log/_last_checkpoint").bytes()))
        return int(hint["version"])
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return -1


def require_whole(batch: Batch, actions: Actions, name: str, *, where: str) -> None:
    """Refuse a commit that was cut at the end of a line: other readers of Delta take it as it stands.

    Raises:
        TableDamaged: where files that the batch adds to the table are not among its actions.
    """
    added = {action["add"]["path"] for action in actions if "add" in action}
    lacking = [add["path"] for add in batch.adds.get(name, []) if add["path"] not in added]
    if lacking:
        raise TableDamaged(
            f"the commit is cut: it lacks {len(lacking)} of the files that its batch {batch.batch_id} adds",
            where=where,
            remedy="`lakehouse doctor` says what to do; nothing was written",
        )


def parse_actions(body: bytes, *, where: str) -> Actions:
    """The actions of one commit.

    Raises:
        TableDamaged: where a line is not JSON, or there is none: delta-rs reads an empty file as an empty commit.
            Or where it was cut at the end of a line, which delta-rs reads as a smaller one.
    """
    try:
        actions = [orjson.loads(line) for line in body.splitlines() if line.strip()]
    except orjson.JSONDecodeError as error:
        raise TableDamaged(f"a commit of the log is torn: {error}", where=where, remedy=_SEE_DOCTOR) from error
    if not actions:
        raise TableDamaged("a commit of the log is empty", where=where, remedy=_SEE_DOCTOR)
    stated = commit_info(actions).get(_ACTIONS_KEY, len(actions))
    if len(actions) != stated:
        what = f"a commit of the log is cut: it has {len(actions)} of its {stated} actions"
        raise TableDamaged(what, where=where, remedy=_SEE_DOCTOR)
    return actions


def _read(store: ObjectStore, name: str, version: int) -> Actions:
    where = f"table {name}, version {version}"
    try:
        body = bytes(obstore.get(store, commit_path(version)).bytes())
    except FileNotFoundError as error:
        raise TableDamaged("a commit of the log is missing", where=where, remedy=_SEE_DOCTOR) from error
    return parse_actions(body, where=where)


def commit_info(actions: Actions) -> dict[str, Any]:
    """What the commit tells of itself; empty where it tells nothing."""
    for action in actions:
        if "commitInfo" in action:
            info: dict[str, Any] = action["commitInfo"]
            return info
    return {}
