"""The driver's half of the one pass: collect the tasks' answers and commit every table, exactly once."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from lakehouse.chain import Batch, Past, describe, extend_origin, follows, leading
from lakehouse.errors import ChainError, TableLost
from lakehouse.evolution import require_additive
from lakehouse.lock import replay_lock
from lakehouse.schemas import gold_schema
from lakehouse.sinks.alter import alter
from lakehouse.sinks.delta_log import TableLog, table_exists
from lakehouse.sinks.files import write_file
from lakehouse.sinks.onepass import OBSERVED
from lakehouse.sinks.replays import Replays, reached
from lakehouse.sinks.restores import Restores
from lakehouse.storage import machine_root, require_put_if_absent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from lakehouse.chain import Add, Offsets
    from lakehouse.errors import LakehouseError
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
    def open(cls, one_pass: OnePass, *, joining: Collection[str] = ()) -> Sink:
        """Open every table, made where missing; finish a restore, a batch and a replay that had reached only some.

        Both are finished in every table that they name, before the pipeline's file is looked at: also in one that
        the file no longer has, or has with other columns. After that tables are given the columns that they lack, as
        far as the file lets evolve them; and a table that joins does so: what silver holds by then is none of its.

        Args:
            one_pass: names the tables.
            joining: tables that are gone and may join anew, as a person said.

        Raises:
            TableError: where a table is damaged, lost, or another one stands in its place.
            SchemaChanged: where the event's fields have changed in a way that the file refuses; nothing was changed.
            ChainError: where the tables' last batches cannot be of one history.
            StorageError: where the store cannot decide between two writers, or refuses this one.
            StorageUnavailable: where the store does not answer.
        """
        require_put_if_absent(one_pass.root)
        Restores(one_pass.root, one_pass.pipeline.name).finish()
        schemas = one_pass.schemas
        retention = one_pass.pipeline.maintenance.retention
        replays = Replays(one_pass.root, one_pass.pipeline)
        found = find_tables(one_pass.root, schemas)
        last = leading(log.head for log in found.values())
        if last is None:
            replays.require_none()
        else:
            heads = {name: log.head for name, log in found.items()}
            for name, problem in table_problems(last, heads, schemas):
                if name not in joining:
                    raise problem
            retired = find_tables(one_pass.root, [name for name in last.adds if name not in schemas])
            _finish(last, {**found, **retired})
            replays.finish(without=[name for name in schemas if name not in found or found[name].head is None])
        found |= evolve(one_pass, found)
        logs = {
            name: found.get(name) or TableLog.open(f"{one_pass.root}/{name}", name, schema, retention=retention)
            for name, schema in schemas.items()
        }
        joining_now = [log for log in logs.values() if log.head is None]
        if last is not None and joining_now:
            # A replay that is judging has not seen these tables, and may reach silver after they have joined.
            with replay_lock(machine_root(one_pass.root), one_pass.pipeline.name):
                number = replays.finish(without=[log.name for log in joining_now])
                join(last, joining_now, one_pass.root, number)
        return cls(one_pass, logs)

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

    @property
    def past(self) -> Past:
        """What the next batch carries on; a table that has just joined is the only one that knows of it."""
        pasts = [log.head.past for log in self._logs.values() if log.head]
        joined = {name: mark for past in pasts for name, mark in past.joined.items()}
        return replace(pasts[0], joined=joined) if pasts else Past()

    def next_batch(
        self,
        query_id: str,
        batch_id: int,
        start: Offsets,
        end: Offsets,
        suite_sha256: str,
        topic_ids: dict[str, str] | None = None,
    ) -> Batch:
        """A batch of this pipeline that has no files yet."""
        head = self.head
        return Batch(
            pipeline=self._one_pass.pipeline.name,
            query_id=query_id,
            batch_id=batch_id,
            start=start,
            end=end,
            origin=extend_origin(head, start),
            suite_sha256=suite_sha256,
            adds={},
            sequence=head.sequence + 1 if head else 0,
            topic_ids=topic_ids or {},
            past=self.past,
        )

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
        return self._commit(replace(batch, adds=collect_files(self._one_pass, answers, batch.batch_id)))

    def close(self) -> None:
        """Let the commit threads go."""
        self._pool.shutdown(wait=True)

    def _commit(self, batch: Batch) -> Batch:
        """Commit to the first table alone, then to the others; returns the batch that stands.

        The first table decides: of two drivers with the same range, only the one whose commit landed there goes
        on to the others. Committed side by side, each could win some of the tables, with verdicts of its own.
        """
        first, *others = self._logs.values()
        first.append(batch)
        standing = first.head
        assert standing is not None, "a table that took a batch has a head"  # noqa: S101 - append set it
        pending = [self._pool.submit(log.append, standing) for log in others]
        failures = [error for future in pending if (error := future.exception())]
        if failures:
            raise failures[0]
        return standing


def evolve(one_pass: OnePass, found: Mapping[str, TableLog]) -> dict[str, TableLog]:
    """Give tables the columns of the pipeline's fields, derived tables too; those of `found` that were changed.

    Each table by itself: after a kill the next start changes those that are left. Before the first is changed, all of
    them are looked at.

    Args:
        one_pass: names the tables of the stream.
        found: those that exist.

    Raises:
        SchemaChanged, TableError: as `alter`.
    """
    pipeline, root = one_pass.pipeline, one_pass.root
    schemas = one_pass.schemas
    asked = {name: (log.columns, schemas[name]) for name, log in found.items()}
    for derived in pipeline.derived_tables():
        if table_exists(f"{root}/gold/{derived.name}"):
            schema = gold_schema(derived.rollup, pipeline.source.fields)
            asked[f"gold/{derived.name}"] = DeltaTable(f"{root}/gold/{derived.name}").schema(), schema
    needing = [name for name, (has, wanted) in asked.items() if require_additive(name, has, wanted, pipeline)]
    if not needing:
        return {}
    # A replay that is judging writes files for the columns of now.
    with replay_lock(machine_root(root), pipeline.name):
        Replays(root, pipeline).finish(without=[name for name in schemas if name not in found or not found[name].head])
        for name in needing:
            event_time = "max_event_time" if name.startswith("gold/") else pipeline.event_time.column
            alter(f"{root}/{name}", name, asked[name][1], event_time, pipeline)
    return find_tables(root, [name for name in needing if name in found])


def find_tables(root: str, names: Iterable[str]) -> dict[str, TableLog]:
    """The tables among `names` that exist; see `TableLog.find`."""
    found = {name: TableLog.find(f"{root}/{name}", name) for name in names}
    return {name: log for name, log in found.items() if log is not None}


def table_problems(
    last: Batch, heads: Mapping[str, Batch | None], names: Iterable[str]
) -> Iterator[tuple[str, LakehouseError]]:
    """What keeps a table from being of the history whose last batch is `last`.

    Args:
        last: the newest of the tables' last batches.
        heads: each table's last batch, None where it has none; a table that is gone is no key.
        names: the tables that should be there.

    Yields:
        (table, the error): a `TableLost` where it is gone or has missed batches; a `ChainError` where two tables
        hold the same batch from different runs.
    """
    for name in names:
        head = heads.get(name)
        if head is None:
            # The tables are made before the first commit, and each has a commit before the second.
            if name in last.adds and (name not in heads or last.sequence > 0):
                yield name, _lost(name, f"is {'empty' if name in heads else 'gone'}", last)
        elif head.covers_same(last):
            if not head.same_attempt(last):
                yield (
                    name,
                    ChainError(
                        f"batch {last.batch_id} stands in the tables with files of two different runs",
                        where=f"table {name}",
                        remedy="something wrote past the chain: `lakehouse reconcile` says which records are affected",
                    ),
                )
        elif name not in last.adds or not follows(head.end, last.start):
            yield name, _lost(name, f"ends at {describe(head.end)}", last)


def _lost(name: str, what: str, last: Batch) -> TableLost:
    return TableLost(
        f"the table {what}, while the pipeline's other tables end at {describe(last.end)}"
        f" (batch {last.batch_id} of query {last.query_id}, which begins at {describe(last.start)})",
        where=f"table {name}",
        remedy=(
            "restore the table from a backup; a rollup or bronze can join anew from the next batch on:"
            " `lakehouse recover`"
        ),
    )


def _finish(last: Batch, logs: dict[str, TableLog]) -> None:
    """Bring tables that a crash left one batch behind up to the others, with the first attempt's files.

    Each commit names the files of every table, so the verdicts already made stand whatever happened to the
    suite, the pipeline's file or the checkpoint since.
    """
    for name, log in logs.items():
        behind = log.head is None or not log.head.covers_same(last)
        if name in last.adds and behind:
            logger.warning("finishing batch %s in %s, which a crash had left out", last.batch_id, name)
            log.append(last)


def join(last: Batch, joining: list[TableLog], root: str, number: int) -> None:
    """Let tables join that the pipeline did not have before: their first commit says from where on they count.

    Args:
        last: the batch behind which they join.
        joining: the tables, which are empty.
        root: resolved root of the tables.
        number: of the last replay, which is behind them too.
    """
    mark = latest_ingestion(root, last)
    for log in joining:
        logger.warning("%s joins the pipeline at %s", log.name, describe(last.end))
        log.append(last.with_joined(log.name, mark), [reached(number)] if number else [])


def latest_ingestion(root: str, head: Batch) -> int:
    """The latest `_ingested_at` of any row of silver and quarantine, µs since 1970 UTC; at least the past's mark.

    Reads one column; the tasks of the next run ingest later than this (`OnePass.not_before`).
    """
    latest = head.past.mark
    for name in (f"silver/{head.pipeline}", f"quarantine/{head.pipeline}"):
        for batch in DeltaTable(f"{root}/{name}").to_pyarrow_dataset().to_batches(columns=["_ingested_at"]):
            if batch.num_rows:
                latest = max(latest, pc.max(batch["_ingested_at"].cast(pa.int64())).as_py() or 0)
    return latest


def collect_files(one_pass: OnePass, answers: Iterable[Answer], batch_id: int | None) -> dict[str, list[Add]]:
    """Table → the files that the tasks wrote for it; their partial aggregates are written here, a file per rollup."""
    schemas = one_pass.schemas
    files: dict[str, list[Add]] = {name: [] for name in schemas}
    partials: dict[str, list[pa.Table]] = {}
    for name, adds, stream in answers:
        if name == OBSERVED:
            continue
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
