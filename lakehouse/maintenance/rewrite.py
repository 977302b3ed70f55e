"""Rewrites a run of files: rows copied in the order of Kafka, or partial aggregates merged to one row per cell.

The run's row groups are taken in the order of their smallest key. What lies before the next group's smallest key is
complete, and is written; the rest waits. So the output is sorted as a whole (partial aggregates block by block, see
`rollups.layout`), and memory holds the run's compressed files and a few row groups or a block, never all of its rows.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.errors import TableError
from lakehouse.evolution import changes
from lakehouse.maintenance.view import rewritten_path
from lakehouse.rollups.layout import row_groups
from lakehouse.rollups.merge import merge_partials
from lakehouse.schemas import SPARSE_COLUMNS
from lakehouse.sinks.files import DataFile, conform

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from deltalake import Schema
    from obstore.store import ObjectStore

    from lakehouse.chain import Add
    from lakehouse.config.models import Rollup
    from lakehouse.maintenance.choose import Run
    from lakehouse.maintenance.view import LiveFile

_ROWS, _CELLS = 100_000, 8_192
"""Rows of a written row group, of events and of partial aggregates; a row of the latter may hold KiB of sketches."""


class UnreadableFileError(TableError):
    """A live data file is missing or damaged."""

    def __init__(self, path: str, what: str, *, table: str) -> None:
        super().__init__(
            f"a data file cannot be read: {what}",
            where=f"table {table}, file {path}",
            remedy="restore the file from a backup; it is left alone, and the other files are maintained",
        )
        self.path = path


@dataclass(frozen=True)
class Form:
    """What the rows of a table are, and so how they are rewritten.

    Attributes:
        schema: columns of the table.
        event_time: the column whose range goes into the statistics.
        rollup: of the partial aggregates that the table holds; None for a table of events.
        keep: for a journal, how long its rows are kept; None for a table of the pipeline's batches.
    """

    schema: pa.Schema
    event_time: str
    rollup: Rollup | None = None
    keep: timedelta | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that order a rewritten file."""
        if self.keep is not None:
            return (self.event_time,)
        return ("window_start",) if self.rollup else ("_partition", "_offset")

    @property
    def time(self) -> str:
        """The column by which rows are retired."""
        return "window_start" if self.rollup else "_timestamp"

    @property
    def group_rows(self) -> int:
        """Rows of a row group, about."""
        return _CELLS if self.rollup else _ROWS

    def finish(self, rows: pa.Table) -> pa.Table:
        """Rows that belong together, as they are written: merged or copied, in any case sorted."""
        if self.rollup:
            return merge_partials(rows, self.rollup)
        # The stream's files follow one another in this order, and sorting is a quarter of a rewrite.
        return rows if _is_sorted(rows, self.keys) else rows.sort_by([(key, "ascending") for key in self.keys])

    def measure(self, rows: pa.Table) -> int:
        """What a rewrite must not change: the number of events behind the rows."""
        return int(pc.sum(rows["events"]).as_py() or 0) if self.rollup else rows.num_rows

    @property
    def whole(self) -> list[str]:
        """The columns that every file has, however old: a field of the event may have come later."""
        if self.rollup or self.keep is not None:
            return list(self.schema.names)
        return [name for name in self.schema.names if name.startswith("_") and name not in SPARSE_COLUMNS]

    def fitted(self, columns: Schema) -> Form:
        """The same for a table whose columns are those of another version of the pipeline's file."""
        if not changes(columns, self.schema):
            return self
        known = {each.name: each for each in self.schema}
        strange = {change.column for change in changes(columns, self.schema)}
        held = pa.schema(columns.to_arrow())
        return replace(self, schema=pa.schema([each if each.name in strange else known[each.name] for each in held]))


@dataclass(frozen=True)
class _Group:
    """One row group of a file; `least` is not above the key of any of its rows."""

    least: tuple[int, ...]
    file: pq.ParquetFile
    index: int
    path: str


def rewrite(store: ObjectStore, name: str, run: Run, form: Form, target: int) -> list[Add]:
    """Read the run's files and write the files that may take their place, invisible to readers until committed.

    Args:
        store: the table's folder.
        name: of the table, for messages.
        run: files of the table.
        form: what their rows are.
        target: bytes after which the next file is begun.

    Returns:
        The new files' add actions, with `dataChange: false`.

    Raises:
        UnreadableFileError: a file is missing or damaged, or has not the rows that the log counts.
        TableError: the new files do not hold what the old ones do; nothing must be committed then.
    """
    groups = [group for file in run.files for group in _groups(store, name, file, form)]
    writer = _Writer(store, form, target, run.tier)
    before = after = 0

    def finished() -> Iterator[pa.Table]:
        nonlocal before, after
        for rows in _in_order(sorted(groups, key=lambda group: group.least), name, form):
            done = form.finish(rows)
            before, after = before + form.measure(rows), after + form.measure(done)
            yield done

    for part in row_groups(finished(), form.rollup) if form.rollup else finished():
        writer.write(part)
    adds = writer.close()
    if before != after:
        raise TableError(
            f"a rewrite would have made {after} events of {before}",
            where=f"table {name}",
            remedy="nothing was committed; this is a defect: report it with the table's log",
        )
    return adds


def _groups(store: ObjectStore, name: str, live: LiveFile, form: Form) -> Iterator[_Group]:
    try:
        body = obstore.get(store, live.path).bytes()
        file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(body)))
    except (FileNotFoundError, pa.ArrowException) as error:
        raise UnreadableFileError(live.path, str(error), table=name) from error
    if live.rows is not None and file.metadata.num_rows != live.rows:
        what = f"it holds {file.metadata.num_rows} rows, not the {live.rows} of the log"
        raise UnreadableFileError(live.path, what, table=name)
    if missing := set(form.whole).difference(file.schema_arrow.names):
        raise UnreadableFileError(live.path, f"it lacks {', '.join(sorted(missing))}", table=name)
    leaves = [file.schema.column(index).path for index in range(len(file.schema.names))]
    keys = [leaves.index(key) for key in form.keys]
    for index in range(file.num_row_groups):
        yield _Group(_least(file.metadata.row_group(index), keys), file, index, live.path)


def _least(group: Any, keys: list[int]) -> tuple[int, ...]:  # noqa: ANN401 - pyarrow has no types
    statistics = [group.column(key).statistics for key in keys]
    if all(found is not None and found.has_min_max for found in statistics):
        return tuple(int(found.min_raw) for found in statistics)
    return (-(2**63),) * len(keys)


def _in_order(groups: list[_Group], name: str, form: Form) -> Iterator[pa.Table]:
    """The rows of all groups in tables of which each lies before the next, at most equal in nothing."""
    waiting: list[pa.Table] = []
    size, enough = 0, form.group_rows
    for number, group in enumerate(groups):
        rows = _read(group, name, form)
        waiting.append(rows)
        size += rows.num_rows
        last = number == len(groups) - 1
        if not last and size < enough:
            continue
        table = pa.concat_tables(waiting)
        if last:
            yield table
            return
        before = _before(table, form.keys, groups[number + 1].least)
        ready, rest = table.filter(before), table.filter(pc.invert(before))
        if ready.num_rows:
            yield ready
        waiting, size = [rest], rest.num_rows
        # What waits is looked at again only once it has doubled.
        enough = max(form.group_rows, 2 * size)


def _read(group: _Group, name: str, form: Form) -> pa.Table:
    try:
        rows = group.file.read_row_group(group.index, columns=form.schema.names, use_threads=False)
        # Casting costs as much as reading a small file, and nearly none needs it.
        return rows if rows.schema.equals(form.schema) else conform(rows, form.schema)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFileError(group.path, str(error), table=name) from error


def _before(rows: pa.Table, keys: tuple[str, ...], bound: tuple[int, ...]) -> pa.ChunkedArray:
    """Which rows have a key below `bound`, compared column by column."""
    first = rows[keys[0]].cast(pa.int64())
    below = pc.less(first, bound[0])
    if len(keys) == 1:
        return below
    return pc.or_(below, pc.and_(pc.equal(first, bound[0]), _before(rows, keys[1:], bound[1:])))


def _is_sorted(rows: pa.Table, keys: tuple[str, ...]) -> bool:
    """Whether no row's key is below that of the row before it, compared column by column."""
    equal = np.ones(max(rows.num_rows - 1, 0), bool)
    for key in keys:
        steps = np.diff(rows[key].cast(pa.int64()).to_numpy())
        # Not `steps < 0`: a null becomes NaN, and where it belongs is for the sort to say.
        if np.any(equal & ~(steps >= 0)):
            return False
        equal &= steps == 0
    return True


class _Writer:
    """Writes rows into files of about the target size, one after the other."""

    def __init__(self, store: ObjectStore, form: Form, target: int, tier: int) -> None:
        self._store, self._form, self._target, self._tier = store, form, target, tier
        self._file: DataFile | None = None
        self._adds: list[Add] = []

    def write(self, rows: pa.Table) -> None:
        if self._file is None:
            self._file = DataFile(self._form.schema, self._form.event_time)
        if self._file.write(rows) >= self._target:
            self._finish(self._file)

    def close(self) -> list[Add]:
        if self._file is not None:
            self._finish(self._file)
        return self._adds

    def _finish(self, file: DataFile) -> None:
        path = rewritten_path(self._tier, str(uuid.uuid4()))
        self._adds.append(file.put(self._store, path, data_change=False))
        self._file = None
