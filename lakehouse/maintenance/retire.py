"""Carries out the rules of retention: rows that are older than a rule keeps them leave their table, and no others.

A retirement has one *boundary*: a window's beginning in a rollup, Kafka's timestamp in any other table. One commit
removes every file that lies before it, replaces those that it cuts by what remains of them, and writes the boundary
into the table (`lakehouse.retirement`). `remove` says `dataChange: true`, the `add` of a remainder says `false`: its
rows were in the table already, so that neither a derivation nor a follower takes them for new.

Cutting costs a rewrite. So a retirement waits until what goes is at least as much as what would be rewritten for it:
a row is rewritten about once on its way out, and none stays for more than about twice the time it is kept for.
"""

from __future__ import annotations

import io
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import obstore
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.maintenance.rewrite import UnreadableFileError
from lakehouse.maintenance.view import rewritten_path
from lakehouse.retirement import RETIRED_APP_ID
from lakehouse.schemas import TIMESTAMP
from lakehouse.sinks.delta_log import ENGINE, TableLog, commit_info
from lakehouse.sinks.files import DataFile, conform

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from datetime import timedelta

    from lakehouse.chain import Add
    from lakehouse.maintenance.rewrite import Form
    from lakehouse.maintenance.view import LiveFile, TableView
    from lakehouse.sinks.delta_log import Actions

Span = tuple[int, int]
"""First and last time of a file's rows, µs since 1970 UTC."""
_FRESH = 0.5
"""Share of the table's own retention of files after which a retirement that has not been committed is given up."""
_TAIL = 65_536
"""Bytes of a Parquet file's end that are read first, in search of its footer."""


@dataclass(frozen=True)
class Retirement:
    """What leaves a table.

    Attributes:
        before_us: rows from before this leave, µs since 1970 UTC.
        whole: files that hold nothing else.
        cut: files that hold both.
    """

    before_us: int
    whole: tuple[LiveFile, ...]
    cut: tuple[LiveFile, ...]

    @property
    def files(self) -> tuple[LiveFile, ...]:
        """All of them."""
        return self.whole + self.cut

    @property
    def before(self) -> str:
        """The boundary for people and logs."""
        return datetime.fromtimestamp(self.before_us / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def choose(
    files: Iterable[LiveFile],
    span_of: Callable[[LiveFile], Span | None],
    before_us: int,
    *,
    but: Collection[str] = (),
) -> Retirement | None:
    """What a retirement up to `before_us` would do; None where it is not worth its rewrites yet.

    Args:
        files: every live file.
        span_of: the times in a file; None where it has no rows.
        before_us: the boundary, µs since 1970 UTC.
        but: paths that must not be touched: none leaves while one of them might have to.
    """
    whole, cut = [], []
    going = staying = 0.0
    for file in files:
        span = span_of(file)
        if span is None or span[0] >= before_us:
            continue
        if file.path in but:
            return None
        share = min(1.0, (before_us - span[0]) / (span[1] - span[0] + 1))
        going += share * file.size
        if span[1] < before_us:
            whole.append(file)
        else:
            cut.append(file)
            staying += (1 - share) * file.size
    return Retirement(before_us, tuple(whole), tuple(cut)) if going and going >= staying else None


def carry_out(view: TableView, form: Form, retirement: Retirement, *, keep: str, retention: timedelta) -> int | None:
    """Commit a retirement.

    Args:
        view: the table, in a version whose every row the next coarser grain has, where there is one.
        form: of its rows.
        retirement: what leaves.
        keep: the rule's time, for the commit.
        retention: of files that no commit names.

    Returns:
        Rows that left; None where another commit came between that touched the same files: nothing was committed.

    Raises:
        UnreadableFileError: a file that has to be cut is missing or damaged.
    """
    began_ms = time.time_ns() // 1_000_000
    gone = sum(file.rows or 0 for file in retirement.whole)
    adds: list[Add] = []
    for file in retirement.cut:
        add, left = _remainder(view, form, file, retirement.before_us)
        adds += [add] if add else []
        gone += left
    paths = {file.path for file in retirement.files}
    latest_ms = began_ms + round(retention.total_seconds() * 1_000 * _FRESH)

    def admit(interposed: Actions) -> bool:
        touched = any(
            "metaData" in action or "protocol" in action or action.get("remove", {}).get("path") in paths
            for action in interposed
        )
        return not touched and commit_info(interposed).get("timestamp", 0) <= latest_ms

    log = TableLog(view.name, view.store, view.version, None, view.table.schema())
    return gone if log.commit(_actions(retirement, adds, gone, keep), admit) else None


def _remainder(view: TableView, form: Form, file: LiveFile, before_us: int) -> tuple[Add | None, int]:
    """(the file of the rows that stay, how many leave)."""
    boundary = pa.scalar(before_us, pa.int64()).cast(TIMESTAMP)
    kept, gone = DataFile(form.schema, form.event_time), 0
    rows_kept = 0
    try:
        found = pq.ParquetFile(pa.BufferReader(pa.py_buffer(obstore.get(view.store, file.path).bytes())))
        for index in range(found.num_row_groups):
            rows = conform(found.read_row_group(index, use_threads=False), form.schema)
            staying = rows.filter(pc.greater_equal(rows[form.time], boundary))
            gone += rows.num_rows - staying.num_rows
            rows_kept += staying.num_rows
            if staying.num_rows:
                kept.write(staying)
    except (FileNotFoundError, pa.ArrowException) as error:
        raise UnreadableFileError(file.path, str(error), table=view.name) from error
    if not rows_kept:
        return None, gone
    return kept.put(view.store, rewritten_path(file.tier, str(uuid.uuid4())), data_change=False), gone


def _actions(retirement: Retirement, adds: list[Add], rows: int, keep: str) -> Actions:
    now_ms = time.time_ns() // 1_000_000
    info = {
        "timestamp": now_ms,
        "operation": "RETIRE",
        "operationParameters": {"before": retirement.before, "keep": keep},
        "operationMetrics": {
            "numRemovedFiles": str(len(retirement.files)),
            "numAddedFiles": str(len(adds)),
            "numDeletedRows": str(rows),
        },
        "isBlindAppend": False,
        "engineInfo": ENGINE,
    }
    gone = {"deletionTimestamp": now_ms, "dataChange": True, "extendedFileMetadata": True, "partitionValues": {}}
    return [
        {"commitInfo": info},
        {"txn": {"appId": RETIRED_APP_ID, "version": retirement.before_us // 1_000, "lastUpdated": now_ms}},
        *({"remove": {"path": file.path, "size": file.size, **gone}} for file in retirement.files),
        *({"add": add} for add in adds),
    ]


class Spans:
    """The times in the files of one table, each read once from the file's own footer.

    The log has them for rollups. For other tables it has statistics of the first columns only, where readers look.
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self._known: dict[str, Span | None] = {}

    def of(self, view: TableView) -> Callable[[LiveFile], Span | None]:
        """A function for the files of this version; others are forgotten.

        The function raises UnreadableFileError where a file is missing or damaged.
        """
        live = {file.path for file in view.files}
        self._known = {path: span for path, span in self._known.items() if path in live}

        def span_of(file: LiveFile) -> Span | None:
            if file.window is not None:
                return file.window
            if file.path not in self._known:
                self._known[file.path] = self._read(view, file)
            return self._known[file.path]

        return span_of

    def _read(self, view: TableView, file: LiveFile) -> Span | None:
        try:
            tail = _end_of(view, file, _TAIL)
            length = int.from_bytes(tail[-8:-4], "little") + 8
            metadata = pq.read_metadata(io.BytesIO(tail if length <= len(tail) else _end_of(view, file, length)))
        except (FileNotFoundError, pa.ArrowException, OSError) as error:
            raise UnreadableFileError(file.path, str(error), table=view.name) from error
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        found = [_statistics(group, self._column) for group in groups if group.num_rows]
        if any(each is None or not each.has_min_max for each in found):
            return (-(2**62), 2**62)  # it may hold anything
        return (min(each.min_raw for each in found), max(each.max_raw for each in found)) if found else None


def _end_of(view: TableView, file: LiveFile, length: int) -> bytes:
    return bytes(obstore.get_range(view.store, file.path, start=max(0, file.size - length), end=file.size))


def _statistics(group: Any, column: str) -> Any:  # noqa: ANN401 - pyarrow has no types
    columns = (group.column(index) for index in range(group.num_columns))
    return next((each.statistics for each in columns if each.path_in_schema == column), None)
