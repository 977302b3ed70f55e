"""Commits to a Delta log: the next version's file is put if it is absent, and nothing is listed.

There are two kinds. An append adds a batch of the pipeline; a rewrite replaces files by others with the same rows.
Both go through one loop: put, and where the version is taken look at what came between, accept it, try the next.

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
from typing import TYPE_CHECKING, Any

import obstore
import orjson
import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError
from obstore.exceptions import AlreadyExistsError

from lakehouse.chain import COMMIT_KEY, Batch, decide, encode
from lakehouse.errors import ChainError, TableError
from lakehouse.schemas import REPLAY_COLUMNS
from lakehouse.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from obstore.store import ObjectStore

    from lakehouse.chain import Add

ENGINE = "lakehouse/0.1.0"
"""How commits name their writer."""
_NEWEST_VERSIONS = 1_000
"""How many commits are searched backwards for the last one of the pipeline; after its last batch come only
rewrites, which end by themselves once there are few files left to merge."""
_STALL_S = 30.0
"""A process that has not seen the log for so long asks, after a put, whether the log went on without it."""
_FENCE = 0.5
"""Share of the retention after which a rewrite that has not been committed is given up."""

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


@dataclass
class TableLog:
    """The end of one table's log, as a process that commits to it knows it.

    Attributes:
        name: how messages call the table, such as `silver/feature_events`.
        store: the table's folder.
        version: last version known.
        head: last batch of the pipeline in the log; None for a table without one.
    """

    name: str
    store: ObjectStore
    version: int
    head: Batch | None = field(default=None)
    _seen_s: float = field(default_factory=time.time, repr=False)
    """When `version` was last known to be the newest."""

    @classmethod
    def open(cls, url: str, name: str, schema: pa.Schema, *, retention: timedelta = timedelta(hours=1)) -> TableLog:
        """Open the table at `url`, made where it is missing.

        Raises:
            TableError: where the table cannot be read or has other columns than `schema`.
        """
        try:
            try:
                table = DeltaTable(url)
            except TableNotFoundError:
                store = open_store(url)
                del store  # made the folder, which a local table needs
                title = name.replace("/", "_")
                table = DeltaTable.create(url, schema, name=title, configuration=configuration(retention))
        except (DeltaError, OSError) as error:
            raise TableError(
                f"the table cannot be opened: {error}",
                where=url,
                remedy="restore its _delta_log from a backup",
            ) from error
        _add_replay_columns(table, schema)
        require_columns(table, schema, name)
        log = cls(name, open_store(url), table.version())
        log.head = find_head(log.store, name, log.version)
        if log.head is None and (log.version > 0 or table.file_uris()):
            raise TableError(
                "the table holds data, but none of its commits says which Kafka offsets it covers",
                where=f"table {name} at {url}",
                remedy="it was not written by this pipeline: give the pipeline another name or root",
            )
        return log

    def append(self, batch: Batch) -> bool:
        """Commit the batch's files for this table, exactly once.

        Returns:
            False where the table has this batch already.

        Raises:
            ChainError: where the batch does not follow the table's last one, also when another driver was quicker.
            TableError: where another writer changed the table's columns or protocol meanwhile.
        """
        if decide(self.head, batch, table=self.name) == "skip":
            return False

        def admit(interposed: Actions) -> bool:
            self._admit(interposed, batch)
            return True

        self.commit(_append_actions(batch, batch.adds[self.name]), admit)
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
            touched = any(
                "metaData" in action or "protocol" in action or action.get("remove", {}).get("path") in paths
                for action in interposed
            )
            return not touched and commit_info(interposed).get("timestamp", 0) <= latest_ms

        return self.commit(_rewrite_actions(removed, adds), admit)

    def commit(self, actions: Actions, admit: Callable[[Actions], bool]) -> bool:
        """Put `actions` at the next free version.

        Args:
            actions: the first is the `commitInfo`.
            admit: called with each commit that came between; False gives up, and so does raising.

        Returns:
            Whether the actions are in the log.
        """
        txn_id = str(uuid.uuid4())
        actions[0]["commitInfo"]["txnId"] = txn_id
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
            if decide(self.head, batch, table=self.name) == "skip":
                raise ChainError(
                    f"another driver committed batch {self.head.batch_id} of this pipeline first",
                    where=f"table {self.name}, version {self.version}",
                    remedy="run one driver per pipeline; stop this one or the other",
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


def _rewrite_actions(removed: Sequence[tuple[str, int]], adds: Sequence[Add]) -> Actions:
    now_ms = time.time_ns() // 1_000_000
    info = {
        "timestamp": now_ms,
        "operation": "OPTIMIZE",
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
    gone = {"deletionTimestamp": now_ms, "dataChange": False, "extendedFileMetadata": True, "partitionValues": {}}
    return [
        {"commitInfo": info},
        *({"remove": {"path": path, "size": size, **gone}} for path, size in removed),
        *({"add": add} for add in adds),
    ]


def find_head(store: ObjectStore, name: str, version: int) -> Batch | None:
    """The last batch that the pipeline committed at or before `version`; None where there is none.

    Raises:
        TableError: as `find_recorded`.
    """
    recorded = find_recorded(store, name, version)
    return recorded.batch if recorded else None


def find_recorded(store: ObjectStore, name: str, version: int) -> Recorded | None:
    """The last batch of the pipeline at or before `version`, and its commit; None where there is none.

    Log clean-up never deletes that commit nor any after it, so the search ends whatever the table's age.

    Raises:
        TableError: where a commit cannot be read, or the table is old and no recent commit is the pipeline's.
    """
    for candidate in range(version, max(-1, version - _NEWEST_VERSIONS), -1):
        info = commit_info(_read(store, name, candidate))
        recorded = info.get(COMMIT_KEY)
        if recorded is not None:
            batch = Batch.from_json(recorded, where=f"table {name}, version {candidate}")
            return Recorded(batch, candidate, info["timestamp"])
    if version >= _NEWEST_VERSIONS:
        raise TableError(
            f"none of the last {_NEWEST_VERSIONS} commits is this pipeline's, so its offsets are unknown",
            where=f"table {name}",
            remedy="move the table away if it belongs to something else",
        )
    return None


def last_checkpoint(store: ObjectStore) -> int:
    """Version of the newest checkpoint that `_last_checkpoint` names; -1 where it names none."""
    try:
        hint = orjson.loads(bytes(obstore.get(store, "_delta_log/_last_checkpoint").bytes()))
        return int(hint["version"])
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return -1


def _read(store: ObjectStore, name: str, version: int) -> Actions:
    try:
        body = bytes(obstore.get(store, commit_path(version)).bytes())
        return [orjson.loads(line) for line in body.splitlines() if line]
    except (FileNotFoundError, orjson.JSONDecodeError) as error:
        raise TableError(
            f"a commit of the log cannot be read: {error}",
            where=f"table {name}, version {version}",
            remedy="restore the file from a backup; nothing was written",
        ) from error


def commit_path(version: int) -> str:
    """Where a version's commit stands, relative to the table."""
    return f"_delta_log/{version:020d}.json"


def commit_info(actions: Actions) -> dict[str, Any]:
    """What the commit tells of itself; empty where it tells nothing."""
    for action in actions:
        if "commitInfo" in action:
            info: dict[str, Any] = action["commitInfo"]
            return info
    return {}


def _add_replay_columns(table: DeltaTable, schema: pa.Schema) -> None:
    """Give a table of an earlier version the columns that replays fill; every row of it has null there."""
    known = pa.schema(table.schema().to_arrow()).names
    missing = [field for field in schema if field.name in REPLAY_COLUMNS and field.name not in known]
    if missing:
        table.alter.add_columns(Schema.from_arrow(pa.schema(missing)).fields)


def require_columns(table: DeltaTable, schema: pa.Schema, name: str) -> None:
    """Refuse a table whose columns are not the pipeline's (TableError)."""
    found = pa.schema(table.schema().to_arrow())
    if found.names != schema.names:
        missing = [column for column in schema.names if column not in found.names]
        surplus = [column for column in found.names if column not in schema.names]
        raise TableError(
            f"the table's columns are not those of the pipeline: missing {missing}, unexpected {surplus}",
            where=f"table {name}",
            remedy="give the pipeline another name or root, or move the table away",
        )
