"""Errors that someone could make in the product, each as a patch: the harness has to notice every one of them.

A mutant is switched on in a victim's process only (`--mutant`, or by the tests). Each names the check that turns
red; docs/torture.md has the same table.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse import guard, pipeline
from lakehouse.errors import ChainError, ConfigError
from lakehouse.maintenance import cleanup, vacuum
from lakehouse.maintenance import run as maintaining
from lakehouse.maintenance.rewrite import rewrite
from lakehouse.sinks import delta_log, onepass, sink
from lakehouse.sinks.files import write_file
from lakehouse.storage import commit_path
from lakehouse.streaming import query, resume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lakehouse.maintenance.choose import Run
    from lakehouse.maintenance.view import LiveFile
    from lakehouse.torture.points import Patches, Side


@dataclass(frozen=True)
class Mutant:
    """One error.

    Attributes:
        name: how tests and `--mutant` call it.
        what: the error, in a few words.
        red: the check that has to notice it; None where the chain makes good for it, so that all stay green.
        side: the process whose code it is.
        patch: makes the error.
    """

    name: str
    what: str
    red: str | None
    side: Side
    patch: Callable[[Patches], None]


def apply(patches: Patches, names: Iterable[str], *, side: Side) -> None:
    """Switch on the mutants of this side.

    Raises:
        ConfigError: there is no mutant of that name.
    """
    for name in names:
        if name not in MUTANTS:
            raise ConfigError(f"there is no mutant named {name!r}", where="--mutant", remedy=", ".join(MUTANTS))
        if MUTANTS[name].side == side:
            MUTANTS[name].patch(patches)


# --- driver ---


def _chain_check_removed(patches: Patches) -> None:
    """Neither against the last batch that is known, nor against one that another driver put meanwhile."""
    patches.set(delta_log, "decide", lambda *_, **__: "commit")
    patches.set(delta_log.TableLog, "_admit", lambda *_: None)


def _version_check_removed(patches: Patches) -> None:
    def put(self: Any, version: int, body: bytes) -> bool:  # noqa: ANN401 - TableLog
        obstore.put(self.store, commit_path(version), body, mode="overwrite")
        return True

    patches.set(delta_log.TableLog, "_put", put)


def _spark_commits_first(patches: Patches) -> None:
    """A batch is written when Spark calls for the next one: by then Spark has noted it as done."""
    call = query.Handler.__call__

    def later(self: Any, results: Any, batch_id: int) -> None:  # noqa: ANN401 - Handler, DataFrame
        held = getattr(self, "_held", None)
        self._held = (results, batch_id)
        if held:
            call(self, *held)

    patches.set(query.Handler, "__call__", later)


def _commit_order_swapped(patches: Patches) -> None:
    """Each table but the first commits one batch late."""
    append = delta_log.TableLog.append
    held: dict[str, Any] = {}

    def late(self: Any, batch: Any) -> bool:  # noqa: ANN401 - TableLog, Batch
        if self.name == next(iter(batch.adds)):
            return append(self, batch)
        before, held[self.name] = held.get(self.name), batch
        return append(self, before) if before else True

    patches.set(delta_log.TableLog, "append", late)


def _file_listed_twice(patches: Patches) -> None:
    actions = delta_log._append_actions  # noqa: SLF001 - to get at the product's inside is the point
    patches.set(delta_log, "_append_actions", lambda batch, adds: actions(batch, [*adds, *adds[-1:]]))


def _file_forgotten(patches: Patches) -> None:
    collect = sink.collect_files

    def fewer(*arguments: Any) -> Any:  # noqa: ANN401
        files = collect(*arguments)
        return {name: adds[:-1] if name.startswith("silver/") else adds for name, adds in files.items()}

    patches.set(sink, "collect_files", fewer)


def _half_batch_not_finished(patches: Patches) -> None:
    patches.set(sink, "_finish", lambda *_: None)


def _verdict_made_twice(patches: Patches) -> None:
    """Every table that lags gets what is judged anew, not what the first table's commit says."""

    def commit(self: Any, batch: Any) -> Any:  # noqa: ANN401 - Sink, Batch
        for log in self._logs.values():
            log.append(batch)
        return batch

    patches.set(sink, "_finish", lambda *_: None)
    patches.set(sink.Sink, "_commit", commit)


def _first_table_decides_nothing(patches: Patches) -> None:
    """A driver that lost the first table to another one goes on to the others all the same."""

    def commit(self: Any, batch: Any) -> Any:  # noqa: ANN401 - Sink, Batch
        failures = []
        for log in self._logs.values():
            try:
                log.append(batch)
            except ChainError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return batch

    patches.set(sink.Sink, "_commit", commit)


def _driver_lock_removed(patches: Patches) -> None:
    patches.set(pipeline, "driver_lock", lambda _: nullcontext())


def _checkpoint_check_removed(patches: Patches) -> None:
    def unchecked(head: Any, checkpoint: Any) -> Any:  # noqa: ANN401 - Batch, Checkpoint
        return head.end if head and not checkpoint.exists() else None

    patches.set(pipeline, "starting_offsets", unchecked)


def _topic_id_not_checked(patches: Patches) -> None:
    patches.set(resume, "require_same_topic", lambda *_, **__: None)


def _topic_not_watched(patches: Patches) -> None:
    patches.set(guard.TopicGuard, "watch", lambda _: None)


def _offsets_off_by_one(patches: Patches) -> None:
    make = sink.Sink.next_batch

    def shifted(self: Any, query_id: str, batch_id: int, start: Any, end: Any, *rest: Any) -> Any:  # noqa: ANN401
        def by_one(offsets: Any) -> Any:  # noqa: ANN401 - Offsets
            return {topic: {number: at + 1 for number, at in of.items()} for topic, of in offsets.items()}

        return make(self, query_id, batch_id, by_one(start) if batch_id else start, by_one(end), *rest)

    patches.set(sink.Sink, "next_batch", shifted)


def _partials_merged_twice(patches: Patches) -> None:
    collect = sink.collect_files

    def doubled(one_pass: Any, answers: Any, batch_id: Any) -> Any:  # noqa: ANN401
        twice = [answer for answer in answers if answer[2] is not None]
        return collect(one_pass, [*answers, *twice], batch_id)

    patches.set(sink, "collect_files", doubled)


# --- tasks ---


def _written(patches: Patches, change: Callable[[str, pa.Table], pa.Table]) -> None:
    write = onepass.OnePass._written  # noqa: SLF001

    def changed(self: Any, name: str, rows: pa.Table) -> Any:  # noqa: ANN401 - OnePass
        return write(self, name, change(name.partition("/")[0], rows))

    patches.set(onepass.OnePass, "_written", changed)


def _quarantine_skipped(patches: Patches) -> None:
    _written(patches, lambda layer, rows: rows.slice(0, 0) if layer == "quarantine" else rows)


def _first_record_skipped(patches: Patches) -> None:
    call = onepass.OnePass.__call__

    def skipping(self: Any, batches: Any) -> Any:  # noqa: ANN401 - OnePass
        rows = [batch for batch in batches if batch.num_rows]
        yield from call(self, iter([rows[0].slice(1), *rows[1:]] if rows else []))

    patches.set(onepass.OnePass, "__call__", skipping)


def _raw_bytes_altered(patches: Patches) -> None:
    def stripped(layer: str, rows: pa.Table) -> pa.Table:
        if layer != "quarantine":
            return rows
        values = [value[:-1] if value else value for value in rows["_value"].to_pylist()]
        return rows.set_column(rows.column_names.index("_value"), "_value", pa.array(values, pa.binary()))

    _written(patches, stripped)


def _bronze_bytes_altered(patches: Patches) -> None:
    def cleaned(layer: str, rows: pa.Table) -> pa.Table:
        if layer != "bronze":
            return rows
        values = [value or None for value in rows["_value"].to_pylist()]
        return rows.set_column(rows.column_names.index("_value"), "_value", pa.array(values, pa.binary()))

    _written(patches, cleaned)


def _silver_value_rounded(patches: Patches) -> None:
    def rounded(layer: str, rows: pa.Table) -> pa.Table:
        if layer != "silver":
            return rows
        for at, field in enumerate(rows.schema):
            if pa.types.is_floating(field.type):
                rows = rows.set_column(at, field.name, pc.round(rows[field.name]))
        return rows

    _written(patches, rounded)


def _refused_kept_in_silver(patches: Patches) -> None:
    call = onepass.OnePass.__call__

    def both(self: Any, batches: Any) -> Any:  # noqa: ANN401 - OnePass
        for answers in call(self, batches):
            rows = answers.to_pylist()
            refused = next((row for row in rows if row["table_name"] == self.quarantine), None)
            if refused:
                path = orjson.loads(refused["adds"])[0]["path"]
                table = pq.read_table(Path(self.root) / self.quarantine / path)
                schema = self.schemas[self.silver]
                columns = [
                    table[name].cast(schema.field(name).type) if name in table.column_names and name != "_warnings"
                    else pa.nulls(len(table), schema.field(name).type)
                    for name in schema.names
                ]  # fmt: skip
                add = write_file(
                    self.root, self.silver, pa.table(columns, schema=schema), self.pipeline.event_time.column
                )
                rows.append({"table_name": self.silver, "adds": orjson.dumps([add]), "partials": None})
            yield pa.RecordBatch.from_pylist(rows, schema=answers.schema)

    patches.set(onepass.OnePass, "__call__", both)


# --- maintenance ---


def _compaction_loses_a_file(patches: Patches) -> None:
    patches.set(maintaining, "rewrite", _rewriting(lambda name, files: files[name.startswith("silver/") :]))


def _compaction_merges_partials_twice(patches: Patches) -> None:
    patches.set(maintaining, "rewrite", _rewriting(lambda name, files: files + files[: name.startswith("gold/")]))


def _rewriting(change: Callable[[str, tuple[LiveFile, ...]], tuple[LiveFile, ...]]) -> Callable[..., Any]:
    """Rewrites other files than the commit will say."""

    def changed(store: Any, name: str, run: Run, form: Any, target: int) -> Any:  # noqa: ANN401 - as `rewrite`
        return rewrite(store, name, replace(run, files=change(name, run.files)), form, target)

    return changed


def _vacuum_deletes_a_promised_file(patches: Patches) -> None:
    orphans = vacuum.orphans

    def eager(view: Any, *, now_ms: int, removed: Any, **_: Any) -> Any:  # noqa: ANN401 - as `orphans`
        if view.head is None:
            return []  # a journal, to which no batch is committed
        future = replace(view.head, timestamp_ms=now_ms)
        return orphans(replace(view, head=future), now_ms=now_ms, retention_ms=0, named=(), removed=removed)

    patches.set(vacuum, "orphans", eager)


def _cleanup_deletes_the_head(patches: Patches) -> None:
    """Everything before the newest checkpoint, even where the pipeline's last commit is before it."""

    def expired(files: list[cleanup.LogFile], **_: object) -> list[cleanup.LogFile]:
        cut = max((file.version for file in files if file.kind != "json"), default=0)
        return [file for file in files if file.version < cut]

    patches.set(cleanup, "expired", expired)


MUTANTS = {
    mutant.name: mutant
    for mutant in (
        Mutant("chain_check_removed", "a batch is committed whatever the table's last one was", "positions", "driver",
               _chain_check_removed),
        Mutant("version_check_removed", "a version is overwritten instead of put if absent", "versions", "driver",
               _version_check_removed),
        Mutant("spark_commits_first", "Spark notes a batch before the tables have it", "chain", "driver",
               _spark_commits_first),
        Mutant("commit_order_swapped", "all tables but one commit a batch late", "chain", "driver",
               _commit_order_swapped),
        Mutant("file_listed_twice", "a commit lists its last file twice", "files", "driver", _file_listed_twice),
        Mutant("file_forgotten", "a commit leaves one of silver's files out", "positions", "driver", _file_forgotten),
        Mutant("half_batch_not_finished", "a start leaves a half-committed batch as it is", "chain", "driver",
               _half_batch_not_finished),
        Mutant("verdict_made_twice", "a half-committed batch is judged again", "positions", "driver",
               _verdict_made_twice),
        Mutant("first_table_decides_nothing", "a driver that lost the first table commits to the others", "positions",
               "driver", _first_table_decides_nothing),
        Mutant("driver_lock_removed", "two drivers run on one machine", None, "driver", _driver_lock_removed),
        Mutant("checkpoint_check_removed", "a start goes on wherever the checkpoint says", None, "driver",
               _checkpoint_check_removed),
        Mutant("topic_id_not_checked", "a start takes any topic of the right name", "bronze", "driver",
               _topic_id_not_checked),
        Mutant("topic_not_watched", "a running query takes any topic of the right name", "bronze", "driver",
               _topic_not_watched),
        Mutant("offsets_off_by_one", "a commit records its range one too far", "conservation", "driver",
               _offsets_off_by_one),
        Mutant("partials_merged_twice", "a rollup gets its partial aggregates twice", "positions", "driver",
               _partials_merged_twice),
        Mutant("quarantine_skipped", "refused rows are dropped", "positions", "task", _quarantine_skipped),
        Mutant("refused_kept_in_silver", "refused rows go into both tables", "quarantine", "task",
               _refused_kept_in_silver),
        Mutant("first_record_skipped", "each task forgets its first record", "positions", "task",
               _first_record_skipped),
        Mutant("raw_bytes_altered", "quarantine loses the last byte of a value", "quarantine", "task",
               _raw_bytes_altered),
        Mutant("bronze_bytes_altered", "bronze turns an empty value into null", "bronze", "task",
               _bronze_bytes_altered),
        Mutant("silver_value_rounded", "silver rounds its numbers", "silver", "task", _silver_value_rounded),
        Mutant("compaction_loses_a_file", "a rewrite leaves one file's rows out", "positions", "maintenance",
               _compaction_loses_a_file),
        Mutant("compaction_merges_partials_twice", "a rewrite merges one file's partial aggregates twice", "positions",
               "maintenance", _compaction_merges_partials_twice),
        Mutant("vacuum_deletes_a_promised_file", "vacuum deletes a file that a half-committed batch needs", "files",
               "maintenance", _vacuum_deletes_a_promised_file),
        Mutant("cleanup_deletes_the_head", "log clean-up deletes the pipeline's last commit", "versions",
               "maintenance", _cleanup_deletes_the_head),
    )
}  # fmt: skip
