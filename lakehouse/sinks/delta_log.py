"""Blind appends to a Delta log: the next version's file is put if it is absent, and nothing is listed.

Why not the writer of delta-rs: its commit lists the log folder, so that its cost grows with the table's
age, and on conflict it rebases by itself, where this sink must first look at what came between
(docs/adr/0007-commit-by-put-if-absent.md). delta-rs still makes the tables and reads their state.

Format: https://github.com/delta-io/delta/blob/master/PROTOCOL.md, reader 1 and writer 2.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import obstore
import orjson
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from obstore.exceptions import AlreadyExistsError

from lakehouse.chain import COMMIT_KEY, Batch, decide, encode
from lakehouse.errors import ChainError, TableError
from lakehouse.storage import open_store

if TYPE_CHECKING:
    import pyarrow as pa
    from obstore.store import ObjectStore

_ENGINE = "lakehouse/0.1.0"
_NEWEST_VERSIONS = 1_000
"""How many commits are searched backwards for the last one of the pipeline; between two of its batches
stand only maintenance commits, a few an hour."""

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
    """

    name: str
    store: ObjectStore
    version: int
    head: Batch | None = field(default=None)

    @classmethod
    def open(cls, url: str, name: str, schema: pa.Schema) -> TableLog:
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
                table = DeltaTable.create(url, schema, name=name.replace("/", "_"), configuration=CONFIGURATION)
        except (DeltaError, OSError) as error:
            raise TableError(
                f"the table cannot be opened: {error}",
                where=url,
                remedy="restore its _delta_log from a backup",
            ) from error
        _require_columns(table, schema, name)
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
        txn_id = str(uuid.uuid4())
        body = self._render(batch, txn_id)
        while True:
            if self._put(self.version + 1, body):
                self.version += 1
                self.head = batch
                return True
            interposed = _read(self.store, self.name, self.version + 1)
            self.version += 1
            if _commit_info(interposed).get("txnId") == txn_id:
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
        recorded = _commit_info(interposed).get(COMMIT_KEY)
        if recorded is not None:
            self.head = Batch.from_json(recorded, where=f"table {self.name}, version {self.version}")
            if decide(self.head, batch, table=self.name) == "skip":
                raise ChainError(
                    f"another driver committed batch {self.head.batch_id} of this pipeline first",
                    where=f"table {self.name}, version {self.version}",
                    remedy="run one driver per pipeline; stop this one or the other",
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
            obstore.put(self.store, _path(version), body, mode="create")
        except AlreadyExistsError:
            return False
        return True


def find_head(store: ObjectStore, name: str, version: int) -> Batch | None:
    """The last batch that the pipeline committed at or before `version`; None where there is none.

    Raises:
        TableError: where a commit cannot be read, or the table is old and no recent commit is the pipeline's.
    """
    for candidate in range(version, max(-1, version - _NEWEST_VERSIONS), -1):
        recorded = _commit_info(_read(store, name, candidate)).get(COMMIT_KEY)
        if recorded is not None:
            return Batch.from_json(recorded, where=f"table {name}, version {candidate}")
    if version >= _NEWEST_VERSIONS:
        raise TableError(
            f"none of the last {_NEWEST_VERSIONS} commits is this pipeline's, so its offsets are unknown",
            where=f"table {name}",
            remedy="move the table away if it belongs to something else",
        )
    return None


def _read(store: ObjectStore, name: str, version: int) -> list[dict[str, Any]]:
    try:
        body = bytes(obstore.get(store, _path(version)).bytes())
        return [orjson.loads(line) for line in body.splitlines() if line]
    except (FileNotFoundError, orjson.JSONDecodeError) as error:
        raise TableError(
            f"a commit of the log cannot be read: {error}",
            where=f"table {name}, version {version}",
            remedy="restore the file from a backup; nothing was written",
        ) from error


def _path(version: int) -> str:
    return f"_delta_log/{version:020d}.json"


def _commit_info(actions: list[dict[str, Any]]) -> dict[str, Any]:
    for action in actions:
        if "commitInfo" in action:
            info: dict[str, Any] = action["commitInfo"]
            return info
    return {}


def _require_columns(table: DeltaTable, schema: pa.Schema, name: str) -> None:
    import pyarrow as pa  # noqa: PLC0415 - only its schema class, and only here

    found = pa.schema(table.schema().to_arrow())
    if found.names != schema.names:
        missing = [column for column in schema.names if column not in found.names]
        surplus = [column for column in found.names if column not in schema.names]
        raise TableError(
            f"the table's columns are not those of the pipeline: missing {missing}, unexpected {surplus}",
            where=f"table {name}",
            remedy="give the pipeline another name or root, or move the table away",
        )
