"""Blind appends to a Delta log: the next version's file is put if it is absent, and nothing is listed.

Why not the writer of delta-rs: its commit lists the log folder, so that its cost grows with the table's
age, and on conflict it rebases by itself, where this sink must first look at what came between
(docs/adr/0007-commit-by-put-if-absent.md). delta-rs still makes the tables and reads their state.

Format: https://github.com/delta-io/delta/blob/master/PROTOCOL.md, reader 1 and writer 2.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import obstore
import orjson
import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError
from obstore.exceptions import AlreadyExistsError

from lakehouse.chain import COMMIT_KEY, Batch, decide, describe, encode
from lakehouse.errors import SecondDriver, TableDamaged, TableError, UnknownHistory
from lakehouse.storage import open_store

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_ENGINE = "lakehouse/0.1.0"
_NEWEST_VERSIONS = 1_000
"""How many commits are searched backwards for the last one of the pipeline; between two of its batches
stand only maintenance commits, a few an hour."""
_SEE_DOCTOR = "`lakehouse doctor` says what to do; nothing was written"

CONFIGURATION = {
    # Delta for Spark's default of 10 would have other writers checkpoint at every few batches.
    "delta.checkpointInterval": "100",
    # The sink records statistics for these few columns; other writers need not do more.
    "delta.dataSkippingNumIndexedCols": "8",
}


@dataclass
class TableLog:
    """The end of one table's log, as its only writer knows it.

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

    @classmethod
    def open(cls, url: str, name: str, schema: pa.Schema) -> TableLog:
        """Open the table at `url`, made with `schema` where it is missing; see `find` for what is raised."""
        log = cls.find(url, name)
        if log is not None:
            return log
        open_store(url)  # makes the folder, which a local table needs
        try:
            DeltaTable.create(url, schema, name=name.replace("/", "_"), configuration=CONFIGURATION)
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
            raise TableDamaged(
                f"the table's log cannot be read: {first_line(error)}",
                where=f"table {name} at {url}",
                remedy="`lakehouse doctor` says which file is damaged and what to do; nothing was written",
            ) from error
        store = open_store(url)
        head = find_head(store, name, table.version())
        if head is None and (table.version() > 0 or table.file_uris()):
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

    def require_columns(self, schema: pa.Schema) -> None:
        """Refuse a table whose columns, or their types, are not those of the pipeline's file.

        Raises:
            TableError: naming every column that differs.
        """
        wanted = Schema.from_arrow(schema)
        if self.columns == wanted:
            return
        found = {field.name: field for field in self.columns.fields}
        asked = {field.name: field for field in wanted.fields}
        raise TableError(
            "the table's columns are not those of the pipeline:"
            f" missing {[name for name in asked if name not in found]},"
            f" unexpected {[name for name in found if name not in asked]},"
            f" of another type {[name for name in asked if name in found and asked[name] != found[name]]}",
            where=f"table {self.name}",
            remedy="undo the edit of the pipeline's file, or give the pipeline another name or root",
        )

    def append(self, batch: Batch) -> bool:
        """Commit the batch's files for this table, exactly once.

        Returns:
            False where the table has this batch already.

        Raises:
            ChainError: where the batch does not follow the table's last one.
            SecondDriver: where another driver was quicker.
            TableError: where another writer changed the table's columns or protocol meanwhile.
        """
        if decide(self.head, batch, table=self.name) == "skip":
            return False
        txn_id = str(uuid.uuid4())
        body = self._render(batch, txn_id)
        while True:
            if self._put(self.version + 1, body):
                self.version += 1
                self.head = batch
                return True
            interposed = _read(self.store, self.name, self.version + 1)
            self.version += 1
            if commit_info(interposed).get("txnId") == txn_id:
                # The store answered our own put with "exists": the first answer was lost on its way.
                self.head = batch
                return True
            self._admit(interposed, batch)

    def _admit(self, interposed: list[dict[str, Any]], batch: Batch) -> None:
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

    def _render(self, batch: Batch, txn_id: str) -> bytes:
        now_ms = time.time_ns() // 1_000_000
        adds = batch.adds[self.name]
        actions: list[dict[str, Any]] = [
            {
                "commitInfo": {
                    "timestamp": now_ms,
                    "operation": "STREAMING UPDATE",
                    "operationParameters": {
                        "outputMode": "Append",
                        "queryId": batch.query_id,
                        "epochId": str(batch.batch_id),
                    },
                    "isBlindAppend": True,
                    "engineInfo": _ENGINE,
                    "txnId": txn_id,
                    "userMetadata": encode(batch),
                    COMMIT_KEY: batch.to_json(),
                }
            },
            {"txn": {"appId": batch.query_id, "version": batch.batch_id, "lastUpdated": now_ms}},
            *({"add": add} for add in adds),
        ]
        return b"\n".join(orjson.dumps(action, option=orjson.OPT_NON_STR_KEYS) for action in actions)

    def _put(self, version: int, body: bytes) -> bool:
        try:
            obstore.put(self.store, commit_path(version), body, mode="create")
        except AlreadyExistsError:
            return False
        return True


def table_exists(url: str) -> bool:
    """Whether there is a Delta log at `url`; makes nothing."""
    # Not asked of delta-rs, to which a log without its first version is no table at all.
    if "://" in url:
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
        TableError: where the table is old and no recent commit is the pipeline's.
    """
    for candidate in range(version, max(-1, version - _NEWEST_VERSIONS), -1):
        actions = _read(store, name, candidate)
        recorded = commit_info(actions).get(COMMIT_KEY)
        if recorded is not None:
            where = f"table {name}, version {candidate}"
            batch = Batch.from_json(recorded, where=where)
            require_whole(batch, actions, name, where=where)
            return batch
    if version >= _NEWEST_VERSIONS:
        raise TableError(
            f"none of the last {_NEWEST_VERSIONS} commits is this pipeline's, so its offsets are unknown",
            where=f"table {name}",
            remedy="move the table away if it belongs to something else",
        )
    return None


def require_whole(batch: Batch, actions: list[dict[str, Any]], name: str, *, where: str) -> None:
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


def parse_actions(body: bytes, *, where: str) -> list[dict[str, Any]]:
    """The actions of one commit.

    Raises:
        TableDamaged: where a line is not JSON, or there is none: delta-rs reads an empty file as an empty commit.
    """
    try:
        actions = [orjson.loads(line) for line in body.splitlines() if line.strip()]
    except orjson.JSONDecodeError as error:
        raise TableDamaged(f"a commit of the log is torn: {error}", where=where, remedy=_SEE_DOCTOR) from error
    if not actions:
        raise TableDamaged("a commit of the log is empty", where=where, remedy=_SEE_DOCTOR)
    return actions


def _read(store: ObjectStore, name: str, version: int) -> list[dict[str, Any]]:
    where = f"table {name}, version {version}"
    try:
        body = bytes(obstore.get(store, commit_path(version)).bytes())
    except FileNotFoundError as error:
        raise TableDamaged("a commit of the log is missing", where=where, remedy=_SEE_DOCTOR) from error
    return parse_actions(body, where=where)


def commit_path(version: int) -> str:
    """Name of a version's JSON, relative to the table."""
    return f"_delta_log/{version:020d}.json"


def commit_info(actions: list[dict[str, Any]]) -> dict[str, Any]:
    """The commit's `commitInfo`; empty where its writer gave none."""
    for action in actions:
        if "commitInfo" in action:
            info: dict[str, Any] = action["commitInfo"]
            return info
    return {}


def first_line(error: Exception) -> str:
    """What an error of another library says, without its stack."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
