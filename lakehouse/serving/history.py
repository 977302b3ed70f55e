"""A rollup's tables of all grains, each pinned to a version, so that together they hold every partial exactly once.

A derived table says up to which version of its source it covers it. What the source gained since is its *tail*. So all
rows of a grain, in whatever range of time, are the rows of its table, and the tails of all finer ones:

    1h ─ covers 1m up to version 17          rows at 1h = 1h @ 9  +  1m gained in (17, 21]  +  1s gained in (880, 914]
    1m @ 21 ─ covers 1s up to version 880
    1s @ 914

The boundary between history and tail is a version and no time: a late event is in one of both, once. Tables are opened
from the coarsest to the finest, so that none covers more of its source than is seen of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from lakehouse.chain import COMMIT_KEY
from lakehouse.errors import TableError
from lakehouse.retirement import retired_before
from lakehouse.rollups.cover import COVER_KEY, Cover
from lakehouse.schemas import FIRST_US, LAST_US, TIMESTAMP
from lakehouse.serving.log import LogTail
from lakehouse.storage import resolve_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lakehouse.config.models import Pipeline, Rollup

_NEWEST_VERSIONS = 1_000
"""Commits that are searched backwards for the last derivation; only rewrites come after it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One data file.

    Attributes:
        path: relative to its table.
        first_us, last_us: its first and last window, µs since 1970 UTC; None where unknown.
        rows: in it; 0 where unknown.
    """

    path: str
    first_us: int | None = None
    last_us: int | None = None
    rows: int = 0

    def may_hold(self, start_us: int, end_us: int) -> bool:
        """Whether any of its windows may begin in [start_us, end_us)."""
        return self.first_us is None or self.last_us is None or (self.first_us < end_us and self.last_us >= start_us)


@dataclass(frozen=True)
class Held:
    """A table of one grain at one version.

    Attributes:
        grain: such as `1m`; name: such as `gold/clicks_by_page_1m`.
        tail: its log.
        table_id: Delta's id.
        version: the version.
        parts: the live files.
        retired_us: its windows from before this have left by a rule, µs since 1970 UTC; None where all are there.
        batch_ms: when the last batch was committed, ms since 1970 UTC; None in a derived table.
        cover: what it covers of the table of the next finer grain; None for the one that the stream writes.
    """

    grain: str
    name: str
    tail: LogTail
    table_id: str
    version: int
    parts: tuple[Part, ...]
    retired_us: int | None = None
    batch_ms: int | None = None
    cover: Cover | None = None


@dataclass(frozen=True)
class Source:
    """Files to read from one table."""

    table: Held
    parts: tuple[Part, ...]


class History:
    """The pinned tables of one rollup.

    Args:
        tables: coarsest first; the last one is written by the stream.
    """

    def __init__(self, tables: Sequence[Held]) -> None:
        self.tables = {table.grain: table for table in reversed(tables)}
        self._tails = {finer.grain: _tail(finer, coarser) for coarser, finer in pairwise(tables)}

    @property
    def versions(self) -> tuple[tuple[str, str, int], ...]:
        """(name, Delta's id, version) of each table, finest first: what an answer depends on."""
        return tuple((table.name, table.table_id, table.version) for table in self.tables.values())

    def sources(self, grain: str) -> list[Source]:
        """What holds the rows of a grain: its table and the tails of all finer ones. Empty tails are left out."""
        finer = list(self.tables)[: list(self.tables).index(grain)]
        tails = [Source(self.tables[name], self._tails[name]) for name in finer if self._tails[name]]
        return [Source(self.tables[grain], self.tables[grain].parts), *tails]


def open_coarser(root: str, tables: Iterable[tuple[str, str]]) -> list[Held]:
    """The derived tables of one rollup that hold something already, coarsest first.

    Args:
        root: of the pipeline.
        tables: (grain, name) of each, finest first.

    Raises:
        TableError: a table cannot be read, or does not say what it covers.
    """
    found = []
    for grain, name in reversed(list(tables)):
        held = open_held(root, grain, name)
        if held is not None and held.version > 0:
            found.append(held)
    return found


def grains_of(pipeline: Pipeline, rollup: str) -> list[tuple[str, str]]:
    """(grain, name) of each table of a rollup, finest first."""
    found: Rollup = pipeline.rollups[rollup]
    return [(grain, f"gold/{pipeline.name}_{rollup}_{grain}") for grain in found.grains]


def open_history(root: str, tables: Sequence[tuple[str, str]]) -> History | None:
    """Every table of a rollup at its newest version; None where the stream has written none yet.

    Args:
        root: of the pipeline.
        tables: (grain, name) of each, finest first.

    Raises:
        TableError: a table cannot be read.
    """
    coarser = open_coarser(root, tables[1:])
    finest = open_held(root, *tables[0])
    return None if finest is None else History([*coarser, finest])


def open_held(root: str, grain: str, name: str) -> Held | None:
    """One table at its newest version; None where there is none.

    Raises:
        TableError: it cannot be read.
    """
    try:
        table = DeltaTable(f"{resolve_root(root)}/{name}")
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise TableError(
            f"the table cannot be opened: {error}", where=f"{root}/{name}", remedy="see what `lakehouse doctor` says"
        ) from error
    return hold(table, grain, name)


def hold(table: DeltaTable, grain: str, name: str) -> Held:
    """One version of a table.

    Raises:
        TableError: its log cannot be read.
    """
    tail = LogTail(table.table_uri.removeprefix("file://"), version=table.version())
    actions = pa.table(table.get_add_actions(flatten=True))
    known = actions.column_names
    paths = [unquote(path) for path in actions["path"].to_pylist()]
    firsts, lasts = _windows(actions, "min"), _windows(actions, "max")
    rows = [count or 0 for count in actions["num_records"].to_pylist()] if "num_records" in known else [0] * len(paths)
    parts = tuple(Part(*part) for part in zip(paths, firsts, lasts, rows, strict=True))
    batch_ms, cover = _find_newest(tail, name, table.version())
    version, table_id = table.version(), str(table.metadata().id)
    return Held(grain, name, tail, table_id, version, parts, retired_before(table), batch_ms, cover)


def _windows(actions: pa.Table, which: str) -> list[int | None]:
    column = f"{which}.window_start"
    if column not in actions.column_names:
        return [None] * actions.num_rows
    micros: list[int | None] = actions[column].cast(TIMESTAMP).cast(pa.int64()).to_pylist()
    return micros


def _find_newest(tail: LogTail, name: str, version: int) -> tuple[int | None, Cover | None]:
    """(when the last batch was committed, what the table covers): one of both, by who writes the table."""
    for candidate in range(version, max(-1, version - _NEWEST_VERSIONS), -1):
        commit = tail.read(candidate)
        if commit is None:
            break
        if COMMIT_KEY in commit.commit_info:
            return commit.timestamp_ms, None
        recorded = commit.commit_info.get(COVER_KEY)
        if recorded is not None:
            return None, Cover.from_json(recorded, where=f"table {name}, version {candidate}")
    return None, None


def _tail(finer: Held, coarser: Held) -> tuple[Part, ...]:
    """What the finer table holds, and the coarser one does not."""
    cover = coarser.cover
    if cover is None or cover.source_id != finer.table_id or cover.source != finer.name:
        return finer.parts
    parts = []
    for version in range(cover.version + 1, finer.version + 1):
        commit = finer.tail.read(version)
        if commit is None:
            raise TableError(
                f"version {version} is gone from the log, and {coarser.name} covers only what came before it",
                where=f"table {finer.name}",
                remedy="ask again; if it stays so, see what `lakehouse doctor` says",
            )
        parts += [Part(added.path, rows=added.num_records or 0) for added in commit.adds if added.data_change]
    return tuple(parts)


def read_rows(
    sources: Iterable[Source],
    schema: pa.Schema,
    *,
    start_us: int = FIRST_US,
    end_us: int = LAST_US + 1,
    read: Callable[[Held, Part, pa.Schema], pa.Table] | None = None,
) -> pa.Table:
    """The partials whose windows begin in a range of time.

    Args:
        sources: as `History.sources` gives them.
        schema: columns to read; `window_start` among them.
        start_us: where the range begins, µs since 1970 UTC, inclusive.
        end_us: where it ends, exclusive.
        read: instead of `read_part`; may leave out rows that are not in the range.

    Raises:
        TableError: a file is missing or damaged.
    """
    read = read or read_part
    found = [
        _within(read(source.table, part, schema), part, start_us, end_us)
        for source in sources
        for part in source.parts
        if part.may_hold(start_us, end_us)
    ]
    return pa.concat_tables([schema.empty_table(), *found])


def _within(rows: pa.Table, part: Part, start_us: int, end_us: int) -> pa.Table:
    if part.first_us is not None and part.last_us is not None and start_us <= part.first_us <= part.last_us < end_us:
        return rows
    windows = rows["window_start"].cast(pa.int64())
    return rows.filter(pc.and_(pc.greater_equal(windows, start_us), pc.less(windows, end_us)))


def read_part(table: Held, part: Part, schema: pa.Schema) -> pa.Table:
    """The rows of one file, in the columns of `schema`.

    Raises:
        TableError: the file is missing or damaged.
    """
    try:
        body = table.tail.store.get(part.path).bytes()
        return pq.ParquetFile(pa.BufferReader(pa.py_buffer(body))).read(schema.names, use_threads=False).cast(schema)
    except (FileNotFoundError, pa.ArrowException, pa.ArrowKeyError) as error:
        raise unreadable(table, part, error) from error


def unreadable(table: Held, part: Part, error: Exception) -> TableError:
    """The error of a file that is missing or damaged."""
    return TableError(
        f"a file of the table cannot be read: {error}",
        where=f"table {table.name}, file {part.path}",
        remedy="ask again: it may have been replaced long ago; if it stays so, see what `lakehouse doctor` says",
    )
