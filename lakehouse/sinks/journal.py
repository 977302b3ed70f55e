"""A journal: a Delta table of figures about a pipeline, appended beside the hot path by a thread of its own.

What cannot be written is said in the log, counted and left out: figures about the stream must not stop the stream, nor
slow it. So a journal is a series of figures and no record; what has to be complete is in the tables themselves.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import TableNotFoundError

from lakehouse import storage
from lakehouse.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

WAITING = 64
"""Appends that may wait for a slow store; more than so many are left out, so that memory stays bounded."""

_CONFIGURATION = {
    # Maintenance writes the checkpoints and cleans the log.
    "delta.checkpointInterval": "1000000",
    "delta.enableExpiredLogCleanup": "false",
}


class Journal:
    """One journal, made with its first rows.

    Args:
        url: of the table.
        schema: its columns.
        what: how the log calls what an append holds, such as `a minute of observations`.
    """

    def __init__(self, url: str, schema: pa.Schema, *, what: str) -> None:
        self.url = url
        self._schema = schema
        self._what = what
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._room = threading.BoundedSemaphore(WAITING)
        self.left_out = 0

    def append(self, rows: Callable[[], Sequence[dict[str, Any]]]) -> None:
        """Append what `rows` returns in one commit; returns at once, and both happens in the journal's thread."""
        if not self._room.acquire(blocking=False):
            self._leave_out("the store is too slow")
            return
        self._pool.submit(self._write, rows)

    def close(self) -> None:
        """Wait until everything handed over is written."""
        self._pool.shutdown(wait=True)

    def _write(self, rows: Callable[[], Sequence[dict[str, Any]]]) -> None:
        try:
            table = pa.Table.from_pylist(list(rows()), schema=self._schema)
            write_deltalake(self._opened(), table, mode="append")
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not pass unseen or stop anything
            self._leave_out(first_line(error))
        finally:
            self._room.release()

    def _opened(self) -> DeltaTable:
        try:
            return self._with_columns(DeltaTable(self.url))
        except TableNotFoundError:
            storage.open_store(self.url)  # makes the folder, which a local table needs
            return DeltaTable.create(self.url, self._schema, mode="ignore", configuration=_CONFIGURATION)

    def _with_columns(self, table: DeltaTable) -> DeltaTable:
        """The table, with the columns that one of an earlier version lacks."""
        known = {field.name for field in table.schema().fields}
        missing = pa.schema([field for field in self._schema if field.name not in known])
        if not len(missing):
            return table
        table.alter.add_columns(Schema.from_arrow(missing).fields)
        return DeltaTable(self.url)

    def _leave_out(self, why: str) -> None:
        self.left_out += 1
        logger.warning("%s: %s is left out: %s", self.url, self._what, why)
