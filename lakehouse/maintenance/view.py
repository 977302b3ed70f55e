"""One table as maintenance sees it at the beginning of a pass: its live files and the pipeline's last batch."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import orjson
import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError

from lakehouse.errors import TableError
from lakehouse.schemas import TIMESTAMP
from lakehouse.sinks.delta_log import Covering, Recorded, find_cover, find_recorded, require_columns
from lakehouse.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import ObjectStore

    from lakehouse.chain import Add

Kind = Literal["streamed", "derived", "journal"]

_REWRITTEN = re.compile(r"rewrite-(?P<tier>[0-9]{1,3})-[0-9a-f-]{36}\.parquet")


@dataclass(frozen=True, slots=True)
class LiveFile:
    """One file of the newest version.

    Attributes:
        path: relative to the table, as the log spells it.
        size: bytes.
        rows: as the log counts them; None where it does not.
        modified_ms: when it was written, ms since 1970 UTC.
        tier: how many times its rows were rewritten; 0 for a file that the stream wrote.
        window: first and last window that it holds, µs since 1970 UTC; None where the log does not say.
    """

    path: str
    size: int
    rows: int | None
    modified_ms: int
    tier: int = 0
    window: tuple[int, int] | None = None

    @classmethod
    def of_add(cls, add: Add) -> LiveFile:
        """The file that an add action of this project makes part of the table."""
        stats = orjson.loads(add["stats"])
        first, last = (
            _micros(datetime.fromisoformat(moment)) if (moment := stats[key].get("window_start")) else None
            for key in ("minValues", "maxValues")
        )
        return cls(
            path=add["path"],
            size=add["size"],
            rows=stats["numRecords"],
            modified_ms=add["modificationTime"],
            tier=_tier(add["path"]),
            window=None if first is None or last is None else (first, last),
        )


@dataclass(frozen=True)
class TableView:
    """One version of a table.

    Attributes:
        name: such as `silver/feature_events`.
        url: its folder or s3:// URL.
        store: the same place.
        table: the version as delta-rs holds it.
        version: the newest when the view was taken.
        files: those that are live in it.
        head: the pipeline's last batch; None before the first, and in tables of the other two kinds.
        cover: what a derived table covers; None before anything was derived, and in tables of the other two kinds.
        kind: whether the stream writes it, maintenance derives it, or it is a journal, which nothing follows from.
    """

    name: str
    url: str
    store: ObjectStore
    table: DeltaTable
    version: int
    files: tuple[LiveFile, ...]
    head: Recorded | None
    cover: Covering | None = None
    kind: Kind = "streamed"

    @property
    def anchor(self) -> Recorded | Covering | None:
        """The commit that says where the table stands; a journal has none."""
        return self.head or self.cover

    @property
    def settled(self) -> int | None:
        """The version from which on all commits stay in the log; None before the first batch or derivation."""
        if self.kind == "journal":
            return self.version
        return self.anchor.version if self.anchor else None

    @property
    def bytes(self) -> int:
        """Size of the live files."""
        return sum(file.size for file in self.files)


def open_view(url: str, name: str, schema: pa.Schema, *, kind: Kind = "streamed") -> TableView | None:
    """The table's newest version; None where there is no table yet. Only what its kind has is searched for in its log.

    Always read anew from the log as it stands: what a process remembers may be of a version that was cleaned up
    while it stood still.

    Raises:
        TableError: the table cannot be read, or has other columns than `schema`, beside an event's fields.
    """
    try:
        with _as_table_error(url):
            table = DeltaTable(url)
    except TableNotFoundError:
        return None
    columns = table.schema()
    if name.startswith("silver/"):
        # The event's own fields may be of an earlier or a later file: rows are rewritten by the columns that are there.
        columns = Schema([field for field in columns.fields if field.name.startswith("_")])
        schema = pa.schema([field for field in schema if field.name.startswith("_")])
    require_columns(columns, schema, name)
    return _view_of(table, url, name, kind)


def refresh(view: TableView) -> TableView:
    """The same table at the version that is the newest now.

    Raises:
        TableError: the table can no longer be read.
    """
    with _as_table_error(view.url):
        view.table.update_incremental()
    return _view_of(view.table, view.url, view.name, view.kind)


def _view_of(table: DeltaTable, url: str, name: str, kind: Kind) -> TableView:
    with _as_table_error(url):
        files = tuple(_live(row) for row in pa.table(table.get_add_actions(flatten=True)).to_pylist())
    store, version = open_store(url), table.version()
    head = find_recorded(store, name, version) if kind == "streamed" else None
    cover = find_cover(store, name, version) if kind == "derived" else None
    return TableView(name, url, store, table, version, files, head, cover, kind)


@contextmanager
def _as_table_error(url: str) -> Iterator[None]:
    try:
        yield
    except TableNotFoundError:
        raise
    except (DeltaError, OSError, ValueError) as error:
        raise TableError(
            f"the table cannot be opened: {error}", where=url, remedy="restore its _delta_log from a backup"
        ) from error


def rewritten_path(tier: int, unique: str) -> str:
    """Name of a rewritten file. The tier is in the name because that alone survives every engine's checkpoint."""
    return f"rewrite-{tier}-{unique}.parquet"


def _tier(path: str) -> int:
    found = _REWRITTEN.fullmatch(path)
    return int(found["tier"]) if found else 0


def _live(row: dict[str, Any]) -> LiveFile:
    first, last = _micros(row.get("min.window_start")), _micros(row.get("max.window_start"))
    return LiveFile(
        path=row["path"],
        size=row["size_bytes"],
        rows=row.get("num_records"),
        modified_ms=_millis(row["modification_time"]),
        tier=_tier(row["path"]),
        window=None if first is None or last is None else (first, last),
    )


def _micros(value: Any) -> int | None:  # noqa: ANN401 - what delta-rs makes of a statistic
    if value is None:
        return None
    micros: int = pa.scalar(value, TIMESTAMP).cast(pa.int64()).as_py()
    return micros


def _millis(when: Any) -> int:  # noqa: ANN401 - a number or a time, by delta-rs' version
    if isinstance(when, int):
        return when
    millis: int = pa.scalar(when, pa.timestamp("ms", tz="UTC")).cast(pa.int64()).as_py()
    return millis
