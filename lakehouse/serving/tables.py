"""Which tables there are under a root, and what each one's log says of it. Reads logs, not data."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from obstore.exceptions import BaseError

from lakehouse.chain import COMMIT_KEY
from lakehouse.errors import ConfigError, TableError, first_line
from lakehouse.serving.grid import render_grid
from lakehouse.storage import layer_url, open_store, resolve_root

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYERS = ("bronze", "silver", "quarantine", "gold")
"""Folders under a root that hold tables, in the order in which data reaches them."""
_NEWEST_COMMITS = 20
"""How many commits are searched for the last batch; only maintenance writes others, and rarely."""
_NOT_IN_PATHS = re.compile(r"[\[\]^|\\\x00-\x1f]|%[0-9A-Fa-f]{2}")
"""delta-rs turns a path into a URL and back, and stops at these or opens another folder."""


@dataclass(frozen=True)
class TableInfo:
    """One table as its log describes it.

    Attributes:
        layer: one of `LAYERS`; name: the table's name in it.
        path: its folder or s3:// URL.
        version: of the last commit.
        files: live files; rows: in them, None where a file's count is not recorded; bytes: of those files.
        last_commit: UTC.
        offsets: topic → partition → where the last batch ended, exclusive; None where no recent commit says so.
        columns: name → type.
        error: why the table cannot be read; everything but layer, name and path is then empty.
    """

    layer: str
    name: str
    path: str
    version: int | None = None
    files: int | None = None
    rows: int | None = None
    bytes: int | None = None
    last_commit: datetime | None = None
    offsets: dict[str, dict[str, int]] | None = None
    columns: dict[str, str] = field(default_factory=dict)
    error: str | None = None


def list_tables(root: str) -> list[TableInfo]:
    """Every Delta table under `root`, layer by layer; a damaged one is an entry with an `error`.

    Raises:
        ConfigError: the root is neither a folder nor an s3:// URL, or has characters that delta-rs cannot take.
        TableError: the object store cannot be listed.
    """
    return [_describe(layer, name, layer_url(root, layer, name)) for layer, name in find_tables(root)]


def find_tables(root: str) -> list[tuple[str, str]]:
    """(layer, name) of every folder with a Delta log; nothing is made where there is none.

    Raises:
        ConfigError, TableError: as `list_tables`.
    """
    place = usable_root(root)
    if not place.startswith("s3://") and not Path(place).is_dir():
        return []
    try:
        store = open_store(place)
        return [
            (layer, name)
            for layer in LAYERS
            for name in _folders(store, layer)
            if "_delta_log" in _folders(store, f"{layer}/{name}")
        ]
    except (BaseError, OSError) as error:
        raise TableError(
            f"the tables cannot be listed: {first_line(error)}",
            where=place,
            remedy="check the address and the credentials (AWS_* variables), or the folder's rights",
        ) from error


def usable_root(root: str) -> str:
    """`storage.resolve_root`, where delta-rs can open tables in it.

    Raises:
        ConfigError: as `resolve_root`, and for a path with characters that delta-rs mistakes for those of a URL.
    """
    place = resolve_root(root)
    if not place.startswith("s3://") and (mistaken := _NOT_IN_PATHS.search(place)):
        raise ConfigError(
            f"no table can be kept in {place}: delta-rs cannot open a path with {mistaken[0]!r} in it",
            remedy="choose a root without [ ] ^ | \\, control characters and % before two digits",
        )
    return place


def render_tables(tables: list[TableInfo]) -> str:
    """The list as text for a terminal."""
    if not tables:
        return "no tables yet"
    header = ("table", "version", "files", "rows", "size", "last commit (UTC)", "offsets")
    rows = [
        (f"{table.layer}.{table.name}", *_cells(table)) if table.error is None else
        (f"{table.layer}.{table.name}", "", "", "", "", "", f"damaged: {table.error}")
        for table in tables
    ]  # fmt: skip
    return render_grid(header, rows, right=(False, True, True, True, True, False, False))


def _folders(store: Any, prefix: str) -> Iterator[str]:  # noqa: ANN401 - any of obstore's stores
    found = obstore.list_with_delimiter(store, prefix)["common_prefixes"]
    return (path.rstrip("/").rsplit("/", 1)[-1] for path in sorted(found))


def _describe(layer: str, name: str, url: str) -> TableInfo:
    try:
        table = DeltaTable(url)
        adds = pa.table(table.get_add_actions(flatten=True))
        commits = table.history(_NEWEST_COMMITS)
        schema = pa.schema(table.schema().to_arrow())
    except (DeltaError, OSError, ValueError) as error:
        return TableInfo(layer, name, url, error=first_line(error))
    return TableInfo(
        layer=layer,
        name=name,
        path=url,
        version=table.version(),
        files=adds.num_rows,
        rows=_total(adds, "num_records"),
        bytes=_total(adds, "size_bytes"),
        last_commit=_moment(commits[0].get("timestamp")) if commits else None,
        offsets=next((offsets for commit in commits if (offsets := _offsets(commit)) is not None), None),
        columns={column.name: str(column.type) for column in schema},
    )


def _total(adds: pa.Table, column: str) -> int | None:
    """The sum over all files; None where a file does not say."""
    if adds.num_rows == 0:
        return 0
    if column not in adds.column_names or adds[column].null_count:
        return None
    return int(pc.sum(adds[column]).as_py())


def _moment(milliseconds: object) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if isinstance(milliseconds, int) else None


def _offsets(commit: dict[str, Any]) -> dict[str, dict[str, int]] | None:
    """Where the commit's batch ended. Other writers of Delta metadata can store only text, hence the parsing."""
    record = commit.get(COMMIT_KEY)
    try:
        record = json.loads(record) if isinstance(record, str) else record
        return {str(topic): dict(of) for topic, of in record["end"].items()} if record else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _cells(table: TableInfo) -> tuple[str, ...]:
    offsets = [
        f"{topic} " + " ".join(f"{partition}:{offset}" for partition, offset in sorted(of.items(), key=_by_number))
        for topic, of in sorted((table.offsets or {}).items())
    ]
    return (
        _number(table.version),
        _number(table.files),
        _number(table.rows),
        _size(table.bytes),
        table.last_commit.strftime("%Y-%m-%d %H:%M:%S") if table.last_commit else "unknown",
        ", ".join(offsets),
    )


def _by_number(item: tuple[str, int]) -> tuple[int, str]:
    return (int(item[0]) if item[0].isdecimal() else -1, item[0])


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}".replace(",", " ")


def _size(value: int | None) -> str:
    if value is None:
        return "unknown"
    size, units = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:  # noqa: PLR2004 - the base of these units
        size, units = size / 1024, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"
