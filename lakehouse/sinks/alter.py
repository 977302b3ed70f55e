"""Changes a table's columns, in one commit that is checked as every other: all of the change is there, or none.

New columns and looser ones cost a line in the log: files without them are whole. For a wider type every live file is
written anew, and the commit exchanges them: a column whose files hold another type than the log says could be read by
some readers of Delta only (docs/adr/0026-evolution.md).
"""

from __future__ import annotations

import logging
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse.chain import COMMIT_KEY
from lakehouse.errors import SecondDriver, TableDamaged
from lakehouse.evolution import altered, require_additive, settle
from lakehouse.sinks.delta_log import CHANGE_COLUMNS, ENGINE, TableLog, commit_info, table_exists
from lakehouse.sinks.files import DataFile, conform
from lakehouse.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Collection

    from deltalake import Schema

    from lakehouse.chain import Add
    from lakehouse.config.models import Pipeline
    from lakehouse.evolution import Change, Settled
    from lakehouse.sinks.delta_log import Actions

logger = logging.getLogger(__name__)

_UNIQUE = len(f"{uuid.UUID(int=0)}.parquet")
"""Characters at the end of a data file's name that make it one that never was before."""


def settled(root: str, pipeline: Pipeline) -> Settled:
    """The pipeline as it can run on the silver that it has; see `evolution.settle`.

    Raises:
        SchemaChanged: a field has changed in a way that breaks the table, and the policy refuses that.
    """
    url = f"{root}/silver/{pipeline.name}"
    try:
        silver = DeltaTable(url).schema() if table_exists(url) else None
    except (DeltaError, OSError):
        silver = None  # opening the tables says what is damaged
    return settle(pipeline, silver)


def alter(url: str, name: str, wanted: pa.Schema, event_time: str, pipeline: Pipeline) -> bool:
    """Make the additive changes that a table needs; whether it needed any.

    A kill before the commit leaves files that no commit names. Where maintenance has rewritten files meanwhile, it
    begins again.

    Args:
        url: the table's folder or s3:// URL.
        name: such as `silver/feature_events`.
        wanted: the columns that the pipeline asks for.
        event_time: the column whose range goes into the statistics of files.
        pipeline: whose policy.

    Raises:
        SchemaChanged: the policy refuses a change.
        SecondDriver: another driver committed a batch meanwhile.
        TableError: the table cannot be read, or is another one.
    """
    while True:
        table = DeltaTable(url)
        found = require_additive(name, table.schema(), wanted, pipeline)
        if not found:
            return False
        logger.warning("table %s: %s", name, "; ".join(map(str, found)))
        columns = altered(table.schema(), found)
        log = TableLog(name, open_store(url), table.version(), None, table.schema())
        widened = any(change.kind == "widened" for change in found)
        files = _live(table) if widened else {}
        adds = [_rewritten(log, path, columns, event_time) for path in files]
        if log.commit(_actions(table, columns, found, files, adds), partial(_admit, name, files, widened=widened)):
            return True


def _admit(name: str, files: Collection[str], interposed: Actions, *, widened: bool) -> bool:
    """Whether the change still holds behind a commit that came between; if not, it is made anew.

    Raises:
        SecondDriver: that commit is a batch.
    """
    if COMMIT_KEY in commit_info(interposed):
        raise SecondDriver(
            "another driver of this pipeline committed a batch while this one changed the table's columns",
            where=f"table {name}",
            remedy="run one driver per pipeline; this one has stopped, and the table's columns are as before",
        )
    if any("metaData" in action or "protocol" in action for action in interposed):
        return False
    added = any("add" in action for action in interposed)
    return not (widened and added) and not any(action.get("remove", {}).get("path") in files for action in interposed)


def _live(table: DeltaTable) -> dict[str, int]:
    """Path → bytes of each file of the version."""
    actions = pa.table(table.get_add_actions())
    return dict(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True))


def _rewritten(log: TableLog, path: str, columns: Schema, event_time: str) -> Add:
    """The same rows under wider types, in a new file whose name tells the same as the old one's."""
    schema = pa.schema(columns.to_arrow())
    file = DataFile(schema, event_time)
    try:
        found = pq.ParquetFile(pa.BufferReader(pa.py_buffer(obstore.get(log.store, path).bytes())))
        for index in range(found.num_row_groups):
            file.write(conform(found.read_row_group(index, use_threads=False), schema))
    except (FileNotFoundError, pa.ArrowException) as error:
        raise TableDamaged(
            f"a data file cannot be read: {error}",
            where=f"table {log.name}, file {path}",
            remedy="restore the file from a backup; the table's columns are as before",
        ) from error
    return file.put(log.store, f"{path[:-_UNIQUE]}{uuid.uuid4()}.parquet", data_change=False)


def _actions(
    table: DeltaTable, columns: Schema, found: list[Change], files: dict[str, int], adds: list[Add]
) -> Actions:
    now_ms = time.time_ns() // 1_000_000
    info = {
        "timestamp": now_ms,
        "operation": CHANGE_COLUMNS,
        "operationParameters": {change.column: change.kind for change in found},
        "isBlindAppend": False,
        "engineInfo": ENGINE,
    }
    gone = {"deletionTimestamp": now_ms, "dataChange": False, "extendedFileMetadata": True, "partitionValues": {}}
    return [
        {"commitInfo": info},
        {"metaData": _metadata(table, columns)},
        *({"remove": {"path": path, "size": size, **gone}} for path, size in files.items()),
        *({"add": add} for add in adds),
    ]


def _metadata(table: DeltaTable, columns: Schema) -> dict[str, Any]:
    known = table.metadata()
    return {
        "id": str(known.id),
        **{key: value for key, value in (("name", known.name), ("description", known.description)) if value},
        "format": {"provider": "parquet", "options": {}},
        "schemaString": columns.to_json(),
        "partitionColumns": known.partition_columns,
        "configuration": known.configuration,
        "createdTime": known.created_time,
    }
