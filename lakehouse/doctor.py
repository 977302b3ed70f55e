"""Examines a pipeline at rest: its checkpoint, every table's log and files, and the topic. Reads, never writes.

A start checks what it is about to rely on; this looks at everything, and says for each finding what to do.
docs/recovery.md lists what can be found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse import kafka_admin, storage
from lakehouse.chain import leading
from lakehouse.errors import LakehouseError, SourceUnavailable, first_line
from lakehouse.sinks.delta_log import damaged_files, find_cover, find_head, table_exists
from lakehouse.sinks.log_files import LogFiles
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.replays import Replays
from lakehouse.sinks.savepoints import kept_by_any
from lakehouse.sinks.sink import table_problems
from lakehouse.streaming.checkpoint import Checkpoint
from lakehouse.streaming.resume import require_topic, starting_offsets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lakehouse.chain import Batch
    from lakehouse.config.models import Pipeline

Severity = Literal["error", "warning", "info"]
"""error: a start or a reader fails, or records are lost; warning: the next start mends it; info: harmless."""

_RECOVER = "`lakehouse recover` moves it aside"
_RESTORE = "restore the file from a backup"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        severity: how grave.
        where: table, checkpoint or topic.
        what: in one sentence.
        remedy: what to do.
    """

    severity: Severity
    where: str
    what: str
    remedy: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found, the gravest first."""

    pipeline: str
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing but harmless things were found."""
        return all(finding.severity == "info" for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"{f.severity:<7} {f.where}: {f.what}\n        to do: {f.remedy}" for f in self.findings]
        return "\n".join([*lines, f"{self.pipeline} is {'healthy' if self.healthy else 'not healthy'}"])


def examine(pipeline: Pipeline) -> Diagnosis:
    """Look at everything that belongs to a pipeline; what is wrong stands in the answer and is not raised."""
    one_pass = OnePass(storage.resolve_root(pipeline.root), pipeline, storage.storage_environment())
    logs = {
        name: LogFiles.scan(storage.open_store(f"{one_pass.root}/{name}"), name)
        for name in one_pass.schemas
        if table_exists(f"{one_pass.root}/{name}")
    }
    findings: list[Finding] = []
    heads: dict[str, Batch | None] = {}
    for name, files in logs.items():
        try:
            heads[name] = find_head(files.store, name, files.newest)
        except LakehouseError as error:
            findings.append(_from(error, name))
    last = leading(heads.values())
    for table in pipeline.derived_tables():
        findings += _derived_findings(one_pass.root, f"gold/{table.name}", logs.get(f"gold/{table.source}"))
    for name, files in logs.items():
        findings += _log_findings(files)
        findings += _log_checkpoint_findings(files)
        head = heads.get(name)
        unfinished = last if last and not (head and head.covers_same(last)) else None
        findings += _data_findings(f"{one_pass.root}/{name}", files, unfinished)
    if last is None:
        findings.append(Finding("info", pipeline.name, "the tables hold no batch yet", "nothing; run the pipeline"))
    else:
        damaged = logs.keys() - heads.keys()
        findings += _chain_findings(last, heads, [name for name in one_pass.schemas if name not in damaged])
        findings += _topic_findings(last, pipeline)
    findings += _replay_findings(last, Replays(one_pass.root, pipeline))
    findings += _checkpoint_findings(last, Checkpoint(storage.checkpoint_url(pipeline.root, pipeline.name)))
    order: tuple[Severity, ...] = ("error", "warning", "info")
    unique = dict.fromkeys(findings)
    return Diagnosis(pipeline.name, tuple(sorted(unique, key=lambda finding: order.index(finding.severity))))


def _from(error: LakehouseError, where: str) -> Finding:
    return Finding("error", error.where or where, error.what, error.remedy or "see docs/recovery.md")


def _log_findings(files: LogFiles) -> Iterator[Finding]:
    """The commits of one table."""
    needed = max(files.checkpoints, default=-1)
    for version, problem in files.problems.items():
        where = f"table {files.name}, version {version}"
        if version == files.newest and version > 0:
            yield Finding("error", where, problem, f"{_RECOVER}; what it held is finished or read again")
        elif version > needed:
            yield Finding("error", where, problem, f"{_RESTORE}; without it no reader can open the table")
        else:
            yield Finding("info", where, problem, "nothing: a later checkpoint holds what it said")
    for version in files.missing():
        where = f"table {files.name}, version {version}"
        remedy = f"{_RESTORE}; without it no reader can open the table"
        yield Finding("error", where, "the commit's JSON is missing, and later ones are there", remedy)


def _log_checkpoint_findings(files: LogFiles) -> Iterator[Finding]:
    """The Parquet checkpoints of one table's log, and `_last_checkpoint`."""
    needed = max(files.checkpoints, default=-1)
    redundant = dict(files.redundant())
    for version, parts in files.checkpoints.items():
        for part in parts:
            broken = files.parquet_problem(part)
            if broken is None:
                continue
            what = f"the checkpoint {part} cannot be read ({broken})"
            where = f"table {files.name}, version {version}"
            if version < needed:
                yield Finding("info", where, what, "nothing: a later checkpoint is used")
            elif part in redundant:
                yield Finding("error", where, what, f"{_RECOVER}: the commits hold what it says")
            else:
                yield Finding("error", where, what, f"{_RESTORE}: older commits are no longer there")
    if files.hint_problem:
        # A hint that cannot be read is passed over; one that names what is not there stops delta-rs.
        severity: Severity = "error" if files.hint is not None else "warning"
        what = f"_last_checkpoint {files.hint_problem}"
        yield Finding(severity, f"table {files.name}", what, "move the file away: it is only a hint for readers")


def _data_findings(url: str, files: LogFiles, unfinished: Batch | None) -> Iterator[Finding]:
    """Data files of one table: missing, of another size, unreadable, or named by no commit.

    Args:
        url: the table's.
        files: what lies there.
        unfinished: the last batch, where the table does not have it yet.
    """
    where = f"table {files.name}"
    try:
        table = DeltaTable(url)
        live = {unquote(path) for path in pa.table(table.get_add_actions())["path"].to_pylist()}
    except (DeltaError, OSError) as error:
        yield Finding("error", where, f"delta-rs cannot open it: {first_line(error)}", "see its other findings")
        return
    remedy = f"{_RESTORE}; until then every read of the table that needs it fails"
    damaged = damaged_files(files.store, table)
    for path, what in damaged:
        yield Finding("error", where, f"the data file {path} {what}", remedy)
    for path in sorted(live - {unquote(path) for path, _ in damaged}):
        problem = files.parquet_problem(path)
        if problem is not None:
            yield Finding("error", where, f"the data file {path} cannot be read ({problem})", remedy)
    promised = {add["path"] for add in unfinished.adds.get(files.name, [])} if unfinished else set()
    for path in sorted(promised - files.data.keys() - live):
        what = f"the data file {path} of the unfinished batch is missing"
        yield Finding("error", where, what, f"{_RESTORE}; the batch cannot be finished without it")
    saved = kept_by_any(url.removesuffix(f"/{files.name}"), files.name)
    orphans = files.data.keys() - live - {unquote(path) for path in files.removed()} - promised - saved
    if orphans:
        size = sum(files.data[path] for path in orphans)
        what = f"{len(orphans)} files ({size:,} bytes) are named by no commit: attempts that a crash or failure ended"
        yield Finding("info", where, what, "nothing: no reader sees them; a full vacuum removes them")


def _derived_findings(root: str, name: str, source: LogFiles | None) -> Iterator[Finding]:
    """A rollup table that maintenance derives: its log, its files, and whether it can go on from its source."""
    url = f"{root}/{name}"
    if not table_exists(url):
        return
    files = LogFiles.scan(storage.open_store(url), name)
    yield from _log_findings(files)
    yield from _log_checkpoint_findings(files)
    yield from _data_findings(url, files, None)
    try:
        covering = find_cover(files.store, name, files.newest)
    except LakehouseError as error:
        yield _from(error, f"table {name}")
        return
    if covering is None or source is None:
        return
    needed = set(range(covering.cover.version + 1, source.newest + 1))
    if missing := sorted(needed.difference(source.commits)):
        what = f"version {missing[0]} of {source.name} is gone, and the table covers only what came before it"
        remedy = "restore the commit from a backup; or move the table away: it is derived anew from what is there"
        yield Finding("error", f"table {name}", what, remedy)


def _chain_findings(last: Batch, heads: dict[str, Batch | None], names: list[str]) -> Iterator[Finding]:
    """The tables' last batches against each other."""
    problems = dict(table_problems(last, heads, names))
    for name, error in problems.items():
        yield _from(error, f"table {name}")
    for name, head in heads.items():
        if name not in problems and name in last.adds and not (head and head.covers_same(last)):
            what = f"batch {last.batch_id} of query {last.query_id} has not reached it: it was cut in two by a crash"
            yield Finding("warning", f"table {name}", what, "start the pipeline: it finishes the batch first")


def _replay_findings(last: Batch | None, replays: Replays) -> Iterator[Finding]:
    """The last replay of quarantine, where it has not reached every table."""
    try:
        if last is None:
            replays.require_none()
        found = replays.behind()
    except LakehouseError as error:
        yield _from(error, "replays")
        return
    if found:
        plan, names = found
        what = f"replay {plan.id} was decided and has not reached {', '.join(names)}: it runs, or a crash cut it in two"
        yield Finding("info", "replays", what, "nothing: the next start, or any replay, finishes it")


def _checkpoint_findings(last: Batch | None, checkpoint: Checkpoint) -> Iterator[Finding]:
    """Spark's checkpoint, by itself and against the tables."""
    if not checkpoint.exists():
        if last is not None:
            what = "there is no checkpoint"
            yield Finding("info", checkpoint.url, what, "nothing: the next start goes on where the tables end")
        return
    try:
        starting_offsets(last, checkpoint)
        planned = checkpoint.last_planned()
    except LakehouseError as error:
        yield _from(error, checkpoint.url)
        return
    needed = [planned.batch_id, planned.batch_id - 1] if planned else []
    for path in checkpoint.unreadable(besides=needed):
        what = f"{path} cannot be read"
        yield Finding("info", checkpoint.url, what, "nothing: Spark reads only the last two of these files")
    if planned and not planned.committed:
        reached = last is not None and last.end == planned.end
        what = f"commits/{planned.batch_id} is missing: {'the tables have the batch' if reached else 'no table has it'}"
        remedy = f"nothing: the next start {'skips the batch' if reached else 'runs it'}"
        yield Finding("info", checkpoint.url, what, remedy)


def _topic_findings(last: Batch, pipeline: Pipeline) -> Iterator[Finding]:
    """The topic against what the tables remember of it."""
    source = pipeline.source
    options = {name: secret.get_secret_value() for name, secret in source.options.items()}
    try:
        state = kafka_admin.topic_state(source.servers, source.topic, options)
        require_topic(last, source.topic, state.topic_id, state.offsets)
    except SourceUnavailable as error:
        what = f"not compared with the tables: {error.what}"
        yield Finding("info", f"topic {source.topic}", what, "start the broker and examine again")
    except LakehouseError as error:
        yield _from(error, f"topic {source.topic}")
