"""The newest refused rows, found in bounded time and memory: for pages, which must answer whatever the table holds.

A search reads the files of the newest records first and stops at its limits. It says how many rows it has looked at,
and whether those were all. `lakehouse.quarantine` reads every row, for the command line.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from lakehouse.errors import TableError, first_line
from lakehouse.quality.reasons import within_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime as Moment

SCANNED_ROWS = 20_000
"""Rows that one search looks at."""
SCANNED_S = 1.5
"""Seconds after which it stops; a batch of rows that is being read is finished."""
BATCH = 256
"""Rows held at a time: with values of at most 1 MiB, Kafka's own default, 256 MiB in the worst case."""
_COLUMNS = ["_partition", "_offset", "_timestamp", "_errors", "_value"]
_BEGINNING = 120
"""Bytes of a value that a list shows."""


@dataclass(frozen=True)
class Wish:
    """Which refused rows are meant; as `quarantine.Choice`.

    Attributes:
        rule: id that refused the row; None for any.
        since: first Kafka time, inclusive; until: exclusive; None for open ends.
        where: (field, value) pairs that the value, a JSON object, holds.
    """

    rule: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    where: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """One row as a list shows it; `value` is the beginning of the bytes, None for a tombstone."""

    partition: int
    offset: int
    at: Moment
    reasons: tuple[tuple[str, str], ...]
    value: bytes | None
    size: int


@dataclass(frozen=True)
class Search:
    """What a search has found, newest first.

    Attributes:
        rows: at most as many as were wanted.
        scanned: rows looked at; total: rows of the table, None where its log does not say.
        whole: whether every row that could match was looked at.
        counts: rule → rows among those scanned that it refused; only of a search for any rule.
    """

    rows: tuple[Refused, ...]
    scanned: int
    total: int | None
    whole: bool
    counts: dict[str, int]


def newest(url: str, wish: Wish, limit: int, *, clock: Callable[[], float] = time.monotonic) -> Search:
    """The newest refused rows that meet a wish.

    Raises:
        TableError: the table cannot be read.
    """
    try:
        table = DeltaTable(url)
        files = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        ordered = sorted(files, key=_last, reverse=True)
        fragments = {unquote(one.path): one for one in table.to_pyarrow_dataset().get_fragments()}
        wanted = [fragments[unquote(file["path"])] for file in ordered if _overlaps(file, wish)]
        counts = [file.get("num_records") for file in files]
        total = None if None in counts else sum(counts)
        return _search(wanted, wish, limit, total, clock)
    except TableNotFoundError:
        return Search((), 0, 0, whole=True, counts={})
    except (DeltaError, OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise TableError(
            f"quarantine cannot be read: {first_line(error)}",
            where=url,
            remedy="ask again: maintenance may have removed files meanwhile; else lakehouse doctor explains the damage",
        ) from error


def _search(fragments: list[Any], wish: Wish, limit: int, total: int | None, clock: Callable[[], float]) -> Search:
    found: list[Refused] = []
    counts: dict[str, int] = {}
    scanned, deadline = 0, clock() + SCANNED_S
    for fragment in fragments:
        for row in _rows(fragment):
            # The clock is asked once a batch at most; rows of a batch are in memory already.
            if scanned >= SCANNED_ROWS or (scanned % BATCH == 0 and scanned and clock() > deadline):
                return _made(found, limit, scanned, total, counts, whole=False)
            scanned += 1
            for rule in {reason["rule_id"] for reason in row["_errors"] or ()}:
                counts[rule] = counts.get(rule, 0) + 1
            if _meets(row, wish):
                found.append(_refused(row))
        if len(found) >= limit:
            return _made(found, limit, scanned, total, counts, whole=fragment is fragments[-1])
    return _made(found, limit, scanned, total, counts, whole=True)


def _made(
    found: list[Refused], limit: int, scanned: int, total: int | None, counts: dict[str, int], *, whole: bool
) -> Search:
    rows = sorted(found, key=lambda row: row.at, reverse=True)[:limit]
    return Search(tuple(rows), scanned, total, whole, counts)


def _rows(fragment: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - Arrow ships no types
    """A file's rows, from its last row group on: maintenance keeps the order in which records came."""
    for part in reversed(fragment.split_by_row_group()):
        for batch in part.to_batches(columns=_COLUMNS, batch_size=BATCH, batch_readahead=0, use_threads=False):
            rows = pa.Table.from_batches([batch])
            index = rows.column_names.index("_timestamp")
            yield from rows.set_column(index, "_timestamp", within_python(rows["_timestamp"])).to_pylist()


def _meets(row: dict[str, Any], wish: Wish) -> bool:
    at = row["_timestamp"]
    if (wish.since and at < wish.since) or (wish.until and at >= wish.until):
        return False
    if wish.rule and wish.rule not in {reason["rule_id"] for reason in row["_errors"] or ()}:
        return False
    return not wish.where or _holds(row["_value"], wish.where)


def _holds(value: bytes | None, where: tuple[tuple[str, str], ...]) -> bool:
    try:
        found = json.loads((value or b"").decode())
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and all(
        name in found and wanted in (found[name], json.dumps(found[name], ensure_ascii=False)) for name, wanted in where
    )


def _refused(row: dict[str, Any]) -> Refused:
    value = row["_value"]
    return Refused(
        partition=row["_partition"],
        offset=row["_offset"],
        at=row["_timestamp"],
        reasons=tuple((reason["rule_id"], reason["message"] or "") for reason in row["_errors"] or ()),
        value=None if value is None else value[:_BEGINNING],
        size=len(value or b""),
    )


def _last(file: dict[str, Any]) -> datetime:
    """Kafka's time of a file's last record; files whose statistics do not say come first, as they may be new."""
    return file.get("max._timestamp") or datetime.max.replace(tzinfo=UTC)


def _overlaps(file: dict[str, Any], wish: Wish) -> bool:
    first, last = file.get("min._timestamp"), file.get("max._timestamp")
    if first is None or last is None:
        return True
    return not ((wish.since and last < wish.since) or (wish.until and first >= wish.until))
