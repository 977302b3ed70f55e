"""Rows of one version of a table: all of them or, beyond a limit, whole row groups chosen by a hash of their place.

A row group is read, looked at and let go of; so memory is that of one of them, whatever the table's size. The choice
depends on nothing but the files: the same version gives the same rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse.errors import TableError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Sample:
    """Which rows are looked at.

    Attributes:
        table: its path or URL; version: of the table.
        rows: rows that are looked at; of_rows: rows of that version.
        row_groups: row groups that are read; of_row_groups: all of them.
    """

    table: str
    version: int
    rows: int
    of_rows: int
    row_groups: int
    of_row_groups: int
    _dataset: Any = field(repr=False, compare=False)
    _chosen: tuple[tuple[Any, int], ...] = field(repr=False, compare=False)

    @property
    def whole(self) -> bool:
        """Whether every row is looked at."""
        return self.rows == self.of_rows

    def __str__(self) -> str:
        if self.whole:
            return f"all {self.rows:,} rows of version {self.version}"
        return (
            f"a sample of {self.rows:,} of {self.of_rows:,} rows of version {self.version}"
            f" ({self.row_groups:,} of {self.of_row_groups:,} row groups, chosen by hash)"
        )

    def read(self, columns: list[str]) -> Iterator[pa.Table]:
        """The rows, some ten thousands at a time."""
        for fragment, group in self._chosen:
            batches = fragment.subset(row_group_ids=[group]).to_batches(
                schema=self._dataset.schema, columns=columns, batch_size=_ROWS_AT_ONCE, use_threads=False
            )
            for batch in batches:
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])


def open_sample(url: str, columns: Iterable[str], *, limit: int, version: int | None = None) -> Sample:
    """Choose rows of a table.

    Args:
        url: the table's path or s3:// URL.
        columns: that will be read.
        limit: about as many rows at most: row groups are added until there are this many.
        version: of the table; the newest where it is None.

    Raises:
        TableError: there is no such table or version, or it lacks a column or has no rows.
    """
    try:
        table = DeltaTable(url, version=version)
        dataset = table.to_pyarrow_dataset()
        groups = [
            (hashlib.sha256(f"{fragment.path}#{group.id}".encode()).digest(), fragment, group.id, group.num_rows)
            for fragment in dataset.get_fragments()
            for group in fragment.row_groups
        ]
    except (DeltaError, OSError) as error:
        raise TableError(
            f"the table cannot be read: {first_line(error)}",
            where=url,
            remedy="run the pipeline first; `lakehouse tables` lists what there is",
        ) from error
    if missing := sorted(set(columns) - set(dataset.schema.names)):
        raise TableError(
            f"the table has no column {', '.join(missing)}",
            where=f"{url}, version {table.version()}",
            remedy="use the file that the pipeline runs with, and a version since its fields are these",
        )
    of_rows = sum(rows for *_, rows in groups)
    if not of_rows:
        raise TableError("the table has no rows yet", where=url, remedy="run the pipeline until there are some")
    chosen: list[tuple[Any, int]] = []
    rows = 0
    for _, fragment, group, count in sorted(groups, key=lambda one: one[0]):
        if rows >= limit:
            break
        chosen.append((fragment, group))
        rows += count
    return Sample(url, table.version(), rows, of_rows, len(chosen), len(groups), dataset, tuple(chosen))
