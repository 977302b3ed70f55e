"""Derives the table of a coarser grain from the one of a finer grain, each row of it exactly once.

A derivation reads the files that its source has gained since the version that the derived table covers, merges their
partials into wider windows, writes them, and commits files and the new cover by one put-if-absent. A late event is
one more partial of an old window, in whatever commit it comes. The first derivation reads the source as it stands.

A kill before the commit leaves files that no commit names; a second maintainer that was quicker has moved the cover,
and the commit is refused. What a derivation still has to read is kept from clean-up and vacuum (`uncovered`).
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

import obstore
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse.errors import TableError, first_line
from lakehouse.maintenance.rewrite import UnreadableFileError
from lakehouse.maintenance.view import LiveFile, open_view
from lakehouse.rollups.cover import Cover
from lakehouse.rollups.layout import row_groups
from lakehouse.rollups.merge import coarsen
from lakehouse.rollups.partials import GRAIN_US
from lakehouse.schemas import gold_schema
from lakehouse.sinks.delta_log import TableLog, configuration, gained, table_exists
from lakehouse.sinks.files import DataFile, conform
from lakehouse.storage import open_store

if TYPE_CHECKING:
    from datetime import timedelta

    from obstore.store import ObjectStore

    from lakehouse.chain import Add
    from lakehouse.config.models import DerivedTable, Pipeline
    from lakehouse.maintenance.view import TableView

COMMITS = 1_000
"""Versions of the source that one derivation reads at most; the next one goes on."""
_CELLS_AT_ONCE = 65_536
"""Rows that wait before they are merged: what a derivation holds depends on its cells, not on its source's rows."""
_CELLS = 8_192
"""Rows that are ordered at once at least; one may hold KiB of sketches."""
_SHARE_OF_GRAIN = 4
"""Derivations per window of the grain. Between them readers take the rest from the source."""


@dataclass(frozen=True)
class Derivation:
    """One derived table.

    Attributes:
        name: such as `gold/clicks_by_page_1m`; source: the table of the finer grain.
        url: its folder or s3:// URL.
        table: its grain and rollup.
        schema: of its rows, and of its source's.
    """

    name: str
    source: str
    url: str
    table: DerivedTable
    schema: pa.Schema

    @property
    def width(self) -> int:
        """Of its windows, µs."""
        return GRAIN_US[self.table.grain]

    def open(self) -> TableView | None:
        """Its newest version; None where there is no table yet. Raises as `open_view`."""
        return open_view(self.url, self.name, self.schema, kind="derived")

    def due(self, view: TableView | None, now_ms: int) -> bool:
        """Whether the last derivation is so long ago that the next one is worth a commit."""
        every_ms = self.width // 1_000 // _SHARE_OF_GRAIN
        return view is None or view.cover is None or now_ms - view.cover.timestamp_ms >= every_ms


def derivations(root: str, pipeline: Pipeline) -> dict[str, Derivation]:
    """Each derived table of a pipeline by its name, finer ones first; `root` is resolved."""
    fields = pipeline.source.fields
    return {
        f"gold/{table.name}": Derivation(
            name=f"gold/{table.name}",
            source=f"gold/{table.source}",
            url=f"{root}/gold/{table.name}",
            table=table,
            schema=gold_schema(table.rollup, fields),
        )
        for table in pipeline.derived_tables()
    }


def derive(
    derivation: Derivation,
    source: TableView,
    target: TableView | None,
    *,
    retired_us: int | None,
    target_bytes: int,
    retention: timedelta,
) -> bool:
    """Bring the derived table up to the version that `source` shows, as far as one derivation goes.

    Args:
        derivation: which table.
        source: the finer table.
        target: the derived table; None where it does not exist yet.
        retired_us: the source holds no window before this, µs since 1970 UTC; None where it holds all.
        target_bytes: size after which the next file is begun.
        retention: how long the source keeps commits, and a new table replaced files.

    Returns:
        Whether anything was committed: not where the source has gained nothing, or another maintainer was quicker.

    Raises:
        UnreadableFileError: a file of the source is missing or damaged.
        TableError: commits that are still to be read are gone, or the derived rows do not hold the events read.
    """
    began = time.monotonic()
    known = target.cover.cover if target and target.cover else None
    source_id = str(source.table.metadata().id)
    if known and known.source_id == source_id:
        cover = replace(known, version=min(source.version, known.version + COMMITS))
        files = gained_files(source, known.version, cover.version)
    else:
        bounds = [
            -(-moment // derivation.width) * derivation.width
            for moment in (retired_us, _end(target, derivation))
            if moment is not None
        ]
        cover = Cover(derivation.source, source_id, source.version, max(bounds, default=None))
        files = list(source.files)
    if not files and (known is None or cover.version - known.version < COMMITS):
        return False  # a cover that moves over versions which gained nothing is worth a commit once there are many
    adds = _write(_merged(source.store, derivation, files), derivation, target_bytes) if files else []
    if (known is None or known.source_id != source_id) and time.monotonic() - began > retention.total_seconds() / 2:
        return False  # commits that the next derivation has to read may be gone by now: begin again
    log = _log(derivation, target, retention)
    return log.derive(cover, adds)


def merge_files(derivation: Derivation, store: ObjectStore, files: list[LiveFile], target_bytes: int) -> list[Add]:
    """Files of the source, in any store, as new files of the derived table; no commit names them yet.

    Raises:
        UnreadableFileError: a file is missing or damaged.
    """
    return _write(_merged(store, derivation, files), derivation, target_bytes) if files else []


def uncovered(source: TableView, target: TableView | None) -> tuple[int, set[str]]:
    """What the next derivation still reads of its source: all commits after a version, and the files gained by them.

    Raises:
        TableError: such a commit is gone.
    """
    if target is None or target.cover is None or target.cover.cover.source_id != str(source.table.metadata().id):
        return source.version, set()
    covered = target.cover.cover.version
    return covered, {file.path for file in gained_files(source, covered, source.version)}


def covers(target: TableView | None, source: TableView) -> bool:
    """Whether the derived table holds every row of this version of its source.

    Raises:
        TableError: that cannot be known.
    """
    known = target.cover.cover if target and target.cover else None
    return (
        known is not None
        and known.source_id == str(source.table.metadata().id)
        and not gained_files(source, known.version, source.version)
    )


def gained_files(source: TableView, after: int, upto: int) -> list[LiveFile]:
    """The files that the source gained by the versions in (after, upto].

    Raises:
        TableError: one of those commits cannot be read.
    """
    try:
        return [LiveFile.of_add(add) for add in gained(source.store, source.name, after, upto)]
    except TableError as error:
        raise TableError(
            f"what {source.name} gained since version {after} cannot be read: {error.what}",
            where=error.where,
            remedy=(
                "restore the commit from a backup; or move the derived table away: it is derived anew from the rows"
                " that the finer one still has"
            ),
        ) from error


def _end(target: TableView | None, derivation: Derivation) -> int | None:
    """Where the last window ends that a table holds of a former source, µs since 1970 UTC."""
    windows = [file.window[1] for file in target.files if file.window] if target else []
    return max(windows) + derivation.width if windows else None


def _merged(store: ObjectStore, derivation: Derivation, files: list[LiveFile]) -> pa.Table:
    """One row for each wider window and dimensions of all the files' rows."""
    rollup, grain = derivation.table.rollup, derivation.table.grain
    waiting: list[pa.Table] = []
    size, enough, read = 0, _CELLS_AT_ONCE, 0
    for file in files:
        rows = _read(store, derivation, file)
        read += _events(rows)
        waiting.append(rows)
        size += rows.num_rows
        if size >= enough:
            waiting = [coarsen(pa.concat_tables(waiting), rollup, grain)]
            size = waiting[0].num_rows
            enough = max(_CELLS_AT_ONCE, 2 * size)
    merged = coarsen(pa.concat_tables(waiting), rollup, grain)
    if _events(merged) != read:
        raise TableError(
            f"a derivation would have made {_events(merged)} events of {read}",
            where=f"table {derivation.name}",
            remedy="nothing was committed; this is a defect: report it with the table's log",
        )
    return merged


def _events(rows: pa.Table) -> int:
    return int(pc.sum(rows["events"]).as_py() or 0)


def _read(store: ObjectStore, derivation: Derivation, file: LiveFile) -> pa.Table:
    try:
        body = obstore.get(store, unquote(file.path)).bytes()
        found = pq.ParquetFile(pa.BufferReader(pa.py_buffer(body)))
        rows = conform(found.read(use_threads=False), derivation.schema)
    except (FileNotFoundError, pa.ArrowException) as error:
        raise UnreadableFileError(file.path, str(error), table=derivation.source) from error
    if file.rows is not None and rows.num_rows != file.rows:
        what = f"it holds {rows.num_rows} rows, not the {file.rows} of the log"
        raise UnreadableFileError(file.path, what, table=derivation.source)
    return rows


def _write(rows: pa.Table, derivation: Derivation, target_bytes: int) -> list[Add]:
    """The rows as new files of the derived table, invisible to readers until they are committed."""
    store = open_store(derivation.url)
    adds: list[Add] = []
    file: DataFile | None = None
    slices = (rows.slice(first, _CELLS) for first in range(0, rows.num_rows, _CELLS))
    for group in row_groups(slices, derivation.table.rollup):
        file = file or DataFile(derivation.schema, "max_event_time")
        if file.write(group) >= target_bytes:
            adds.append(file.put(store, f"part-{uuid.uuid4()}.parquet", data_change=True))
            file = None
    if file is not None:
        adds.append(file.put(store, f"part-{uuid.uuid4()}.parquet", data_change=True))
    return adds


def _log(derivation: Derivation, target: TableView | None, retention: timedelta) -> TableLog:
    """The derived table's log at the version where its cover was read; the table is made where it is missing.

    Raises:
        TableError: the table cannot be made.
    """
    if target is not None:
        return TableLog(derivation.name, target.store, target.version, None, target.table.schema())
    try:
        name = derivation.name.replace("/", "_")
        DeltaTable.create(derivation.url, derivation.schema, name=name, configuration=configuration(retention))
    except (DeltaError, OSError) as error:
        # Another maintainer may have been quicker; what it derived comes between, and voids this derivation.
        if not table_exists(derivation.url):
            raise TableError(f"the table cannot be made: {first_line(error)}", where=derivation.url) from error
    made = DeltaTable(derivation.url, version=0)
    return TableLog(derivation.name, open_store(derivation.url), 0, None, made.schema())
