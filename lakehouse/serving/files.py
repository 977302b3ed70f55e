"""Reads of a data file what a question needs, and remembers it: a file never changes.

Small files are read and kept whole, whoever asks for which part. Of a large one only the row groups are read that its
footer does not rule out: by the question's range, and by the values of its filters, for which `rollups.layout` has
ordered them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from lakehouse.schemas import TIMESTAMP
from lakehouse.serving.history import read_part, unreadable
from lakehouse.serving.lru import Lru
from lakehouse.storage import is_remote

if TYPE_CHECKING:
    from lakehouse.serving.history import Held, Part

SMALL_ROWS = 100_000
"""A file with more rows than this is not kept whole."""
_WHOLE_BYTES, _PARTLY_BYTES = 128 * 2**20, 384 * 2**20
"""Of rows that are kept in memory, of small files and of parts of large ones."""
_FOOTERS = 4_096
_ALTERNATIVES = 32
"""Values that are looked for one by one; more are looked up in a set, which rules out no row group."""


@dataclass(frozen=True)
class Wanted:
    """Which rows of a file.

    Attributes:
        schema: the columns; `window_start` among them.
        start_us, end_us: of the windows, µs since 1970 UTC, the end exclusive.
        values: (dimension, the values let in).
    """

    schema: pa.Schema
    start_us: int
    end_us: int
    values: tuple[tuple[str, pa.Array], ...] = ()


class Files:
    """The files of all tables of a process, as far as they were read. Safe between threads."""

    def __init__(self) -> None:
        self._whole: Lru[tuple[object, ...], pa.Table] = Lru(_WHOLE_BYTES, _bytes)
        self._partly: Lru[tuple[object, ...], pa.Table] = Lru(_PARTLY_BYTES, _bytes)
        self._footers: Lru[tuple[str, str], ds.ParquetFileFragment] = Lru(_FOOTERS)

    def read(self, held: Held, part: Part, wanted: Wanted) -> pa.Table:
        """At least the rows that are wanted.

        Raises:
            TableError: the file is missing or damaged.
        """
        return self._scan(held, part, wanted) if part.rows > SMALL_ROWS else self.whole(held, part, wanted.schema)

    def whole(self, held: Held, part: Part, schema: pa.Schema) -> pa.Table:
        """All rows of a file. Raises as `read`."""
        key = (held.table_id, part.path, tuple(schema.names))
        rows = self._whole.get(key)
        if rows is None:
            rows = read_part(held, part, schema)
            self._whole.put(key, rows)
        return rows

    def _scan(self, held: Held, part: Part, wanted: Wanted) -> pa.Table:
        try:
            file = self._footer(held, part)
            groups = tuple(group.id for group in file.subset(_condition(wanted), schema=wanted.schema).row_groups)
            values = tuple((name, tuple(allowed.to_pylist())) for name, allowed in wanted.values)
            # By row groups and not by the range: that of a page moves on, and mostly within the same ones.
            key = (held.table_id, part.path, tuple(wanted.schema.names), groups, values)
            rows = self._partly.get(key)
            if rows is None:
                rows = _read(file, groups, wanted)
                self._partly.put(key, rows)
        except (FileNotFoundError, OSError, pa.ArrowException) as error:
            raise unreadable(held, part, error) from error
        return rows

    def _footer(self, held: Held, part: Part) -> ds.ParquetFileFragment:
        """The file with its footer, which is read once."""
        key = (held.table_id, part.path)
        found = self._footers.get(key)
        if found is None:
            made = ds.ParquetFileFormat()
            if is_remote(held.tail.url):
                body = held.tail.store.get(part.path).bytes()
                return made.make_fragment(pa.BufferReader(pa.py_buffer(body)))
            found = made.make_fragment(f"{held.tail.url}/{part.path}", LocalFileSystem())
            found.ensure_complete_metadata()
            self._footers.put(key, found)
        return found


def _read(file: ds.ParquetFileFragment, groups: tuple[int, ...], wanted: Wanted) -> pa.Table:
    """The rows of some row groups that the filters let in."""
    # Texts stay numbers of a dictionary, as the file holds them, until most rows are gone.
    texts = [field.name for field in wanted.schema if pa.types.is_string(field.type)]
    with file.open() as opened:
        reader = pq.ParquetFile(opened, metadata=file.metadata, read_dictionary=texts)
        rows = reader.read_row_groups(groups, columns=wanted.schema.names, use_threads=False)
    for field in wanted.schema:
        # A file of before a field was widened holds the narrower numbers.
        if field.name not in texts and rows.schema.field(field.name).type != field.type:
            index = rows.column_names.index(field.name)
            rows = rows.set_column(index, field, rows[field.name].cast(field.type))
    for name, values in wanted.values:
        rows = rows.filter(pc.is_in(rows[name], value_set=values))
    return rows.select(wanted.schema.names).cast(wanted.schema)


def _condition(wanted: Wanted) -> pc.Expression:
    window = pc.field("window_start")
    start, end = (pa.scalar(at, pa.int64()).cast(TIMESTAMP) for at in (wanted.start_us, wanted.end_us))
    found = (window >= start) & (window < end)
    for name, values in wanted.values:
        found &= _is_one_of(name, values)
    return found


def _is_one_of(name: str, values: pa.Array) -> pc.Expression:
    column = pc.field(name)
    present = values.drop_null()
    if len(present) > _ALTERNATIVES:
        found = column.isin(present)
    else:
        found = pc.scalar(False)
        for value in present:
            found = found | (column == value)
    return found | column.is_null() if values.null_count else found


def _bytes(rows: pa.Table) -> int:
    return int(rows.nbytes) + 1
