"""The driver's half of the one pass: collect the tasks' answers and commit every table, exactly once."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa

from lakehouse.chain import Batch, describe, extend_origin
from lakehouse.errors import ChainError
from lakehouse.sinks.delta_log import TableLog
from lakehouse.sinks.files import write_file
from lakehouse.sinks.replays import Replays

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lakehouse.chain import Add, Offsets
    from lakehouse.sinks.onepass import OnePass

logger = logging.getLogger(__name__)

Answer = tuple[str, bytes | None, bytes | None]
"""One row of a task's result: table, its add actions as JSON, its partial aggregates as an Arrow stream."""


class Sink:
    """All tables of one pipeline, and the one way in which a batch gets into them."""

    def __init__(self, one_pass: OnePass, logs: dict[str, TableLog]) -> None:
        self._one_pass = one_pass
        self._logs = logs
        self._pool = ThreadPoolExecutor(len(logs), thread_name_prefix="commit")

    @classmethod
    def open(cls, one_pass: OnePass) -> Sink:
        """Open every table, made where missing, and finish a replay and a batch that had reached only some of them.

        Raises:
            TableError: where a table is damaged or another one stands in its place.
            ChainError: where the tables' last batches cannot be of one history.
        """
        Replays(one_pass.root, one_pass.pipeline).finish()
        retention = one_pass.pipeline.maintenance.retention
        logs = {
            name: TableLog.open(f"{one_pass.root}/{name}", name, schema, retention=retention)
            for name, schema in one_pass.schemas().items()
        }
        sink = cls(one_pass, logs)
        sink._finish_last_batch()
        return sink

    @property
    def end(self) -> Offsets | None:
        """Where the tables end: the offsets that the next batch has to begin at. None before the first batch."""
        head = self.head
        return head.end if head else None

    @property
    def head(self) -> Batch | None:
        """The last batch, which after `open` is the same in every table."""
        return next(iter(self._logs.values())).head

    def holds(self, start: Offsets, end: Offsets) -> bool:
        """True where every table has exactly this range as its last batch."""
        return all(log.head and log.head.start == start and log.head.end == end for log in self._logs.values())

    def next_batch(self, query_id: str, batch_id: int, start: Offsets, end: Offsets, suite_sha256: str) -> Batch:
        """A batch of this pipeline that has no files yet."""
        origin = extend_origin(self.head, start)
        return Batch(self._one_pass.pipeline.name, query_id, batch_id, start, end, origin, suite_sha256, {})

    def write(self, batch: Batch, answers: Iterable[Answer]) -> Batch:
        """Commit one batch to every table.

        Args:
            batch: as `next_batch` made it; the files named in `answers` are put in.
            answers: what the tasks returned.

        Returns:
            The batch with the files of every table, as the commits record it.

        Raises:
            ChainError: where the batch does not follow what the tables hold; no table got it then, or those
                that did are finished from their own commits at the next start.
        """
        whole = replace(batch, adds=collect_files(self._one_pass, answers, batch.batch_id))
        self._commit(whole, self._logs.values())
        return whole

    def close(self) -> None:
        """Let the commit threads go."""
        self._pool.shutdown(wait=True)

    def _commit(self, batch: Batch, logs: Iterable[TableLog]) -> None:
        pending = [self._pool.submit(log.append, batch) for log in logs]
        failures = [error for future in pending if (error := future.exception())]
        if failures:
            raise failures[0]

    def _finish_last_batch(self) -> None:
        """Bring tables that a crash left one batch behind up to the others, with the first attempt's files.

        Each commit names the files of every table, so the verdicts already made stand whatever happened to
        the suite or the checkpoint since.
        """
        heads = {name: log.head for name, log in self._logs.items()}
        leaders = [head for head in heads.values() if head is not None]
        if not leaders:
            return
        last = max(leaders, key=lambda head: sum(offset for of in head.end.values() for offset in of.values()))
        behind = [log for log in self._logs.values() if log.head is None or not log.head.covers_same(last)]
        for log in behind:
            if log.name not in last.adds:
                raise ChainError(
                    f"the table is new to this pipeline, whose other tables already end at {describe(last.end)}",
                    where=f"table {log.name}",
                    remedy="a table cannot join later: remove it from the file, or choose another name or root",
                )
            logger.warning("finishing batch %s in %s, which a crash had left out", last.batch_id, log.name)
        self._commit(last, behind)


def collect_files(one_pass: OnePass, answers: Iterable[Answer], batch_id: int | None) -> dict[str, list[Add]]:
    """Table → the files that the tasks wrote for it; their partial aggregates are written here, a file per rollup."""
    schemas = one_pass.schemas()
    files: dict[str, list[Add]] = {name: [] for name in schemas}
    partials: dict[str, list[pa.Table]] = {}
    for name, adds, stream in answers:
        if adds is not None:
            files[name].extend(orjson.loads(adds))
        if stream is not None:
            partials.setdefault(name, []).append(pa.ipc.open_stream(stream).read_all())
    for name, tables in partials.items():
        rows = pa.concat_tables(tables)
        rows = rows.append_column("_batch_id", pa.array([batch_id] * rows.num_rows, pa.int64()))
        rows = rows.select(schemas[name].names).cast(schemas[name])
        files[name].append(write_file(one_pass.root, name, rows, "max_event_time"))
    return files
