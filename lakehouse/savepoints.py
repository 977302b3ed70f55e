"""Savepoints of a pipeline: make one beside the running stream, see what coming back would mean, come back, fork.

`create` takes no lock and stops nobody: it reads the newest versions of all tables, settles for the last batch that all
of them have, and looks again where a replay is between them. `restore` and `fork` show their plan first; what they
decide is carried out by `lakehouse.sinks.restores` and by commits that a second call recognises, so that either may be
killed at any instruction and called again.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import obstore
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from lakehouse import kafka_admin, storage
from lakehouse.chain import COMMIT_KEY, describe, encode, leading
from lakehouse.errors import ConfigError, TableDamaged, TableError, first_line
from lakehouse.maintenance.derive import derivations, merge_files
from lakehouse.maintenance.run import MIB
from lakehouse.maintenance.view import LiveFile
from lakehouse.retirement import RETIRED_APP_ID
from lakehouse.rollups.cover import COVER_KEY, Cover
from lakehouse.serving.grid import render_grid
from lakehouse.sinks.delta_log import ENGINE, TableLog, configuration, find_cover, find_recorded, gained, table_exists
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.replays import Replays, last_replay
from lakehouse.sinks.restores import RestorePlan, Restores, Target, restore_batch
from lakehouse.sinks.savepoints import SavedTable, Savepoint, Savepoints, bytes_held, live_adds, live_paths
from lakehouse.sinks.sink import latest_ingestion
from lakehouse.streaming.resume import require_topic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from obstore.store import ObjectStore

    from lakehouse.chain import Add, Batch, Offsets
    from lakehouse.config.models import Pipeline
    from lakehouse.maintenance.derive import Derivation

_SETTLES_S = 30.0
"""Within which a replay is in every table, and tables are seen at most one batch apart."""
_PAUSE_S = 0.1
_SHARE = 0.5
"""Share of the retention within which a savepoint has to be made: later, vacuum may have begun on its files."""


@dataclass(frozen=True)
class Change:
    """What a restore does to one table.

    Attributes:
        table: its name.
        rows_now, rows_then: in it, as the logs count them.
        files_back: files that come back; files_gone: files that leave.
    """

    table: str
    rows_now: int
    rows_then: int
    files_back: int
    files_gone: int


@dataclass(frozen=True)
class Restoration:
    """What coming back to a savepoint means.

    Attributes:
        pipeline: its name; savepoint: that of the savepoint; made: when that was.
        stands: where the tables end now; goes_on: where the stream goes on afterwards.
        again: offsets that the stream reads a second time, over all partitions.
        changes: of each table.
        joining: tables that the savepoint does not have: they begin anew, empty.
    """

    pipeline: str
    savepoint: str
    made: str
    stands: Offsets
    goes_on: Offsets
    again: int
    changes: tuple[Change, ...]
    joining: tuple[str, ...] = ()

    @property
    def nothing_to_do(self) -> bool:
        """Whether the tables stand there already."""
        return self.stands == self.goes_on and not any(one.files_back or one.files_gone for one in self.changes)

    def __str__(self) -> str:
        if self.nothing_to_do:
            return f"{self.pipeline} stands at savepoint {self.savepoint} already"
        rows = [
            (one.table, f"{one.rows_now:,}", f"{one.rows_then:,}", f"{one.files_back:,}", f"{one.files_gone:,}")
            for one in self.changes
        ]
        head = ("table", "rows now", "rows then", "files back", "files gone")
        lines = [
            f"{self.pipeline} goes back to savepoint {self.savepoint} of {self.made}, by a commit in each table:",
            render_grid(head, rows, right=(False, True, True, True, True)),
            f"the stream stands at {describe(self.stands)} and goes on at {describe(self.goes_on)}",
            f"{self.again:,} offsets are read again, and judged by the suite that the pipeline's file has then",
            "the checkpoint is set aside; versions from before the restore stay readable for the retention",
        ]
        if self.joining:
            lines.append(f"not in the savepoint, and empty afterwards: {', '.join(self.joining)}")
        return "\n".join(lines)


def create(pipeline: Pipeline, name: str, *, note: str = "") -> Savepoint:
    """Keep the last batch that every table has, under a name, beside whatever runs.

    Raises:
        ConfigError: the name is none, or is taken.
        TableError: the pipeline has no batch yet, a table cannot be read, or a replay did not end in time.
    """
    root = storage.resolve_root(pipeline.root)
    saved = Savepoints(root, pipeline.name)
    path = saved.path(name)
    if any(known.name == name for known in saved.saved()):
        raise _taken(name, f"{root}/{path}")
    began = time.monotonic()
    while True:
        found = _look(root, pipeline, name, note)
        if found is not None and _copied(root, saved, found, pipeline):
            break
        if time.monotonic() - began > _SETTLES_S:
            raise TableError(
                f"the tables did not come to a common point within {_SETTLES_S:.0f} s",
                where=f"pipeline {pipeline.name}",
                remedy="let a replay that runs end, or start the pipeline to finish one that was cut short; try again",
            )
        time.sleep(_PAUSE_S)
    if time.monotonic() - began > _SHARE * pipeline.maintenance.retention.total_seconds():
        raise TableError(
            "making the savepoint took so long that its files may be gone",
            where=f"pipeline {pipeline.name}",
            remedy="raise maintenance.retention, or try again while there is less to do",
        )
    if not saved.put(found):
        raise _taken(name, f"{root}/{path}")
    return found


def _taken(name: str, where: str) -> ConfigError:
    return ConfigError(
        f"there is a savepoint {name} already", where=where, remedy="choose another name, or drop that one first"
    )


def _look(root: str, pipeline: Pipeline, name: str, note: str) -> Savepoint | None:
    """The newest common point; None where the tables are seen too far apart, or a replay is between them."""
    streamed = {table: _newest(root, table) for table in OnePass(root, pipeline, {}).schemas}
    oldest = min((batch for _, _, batch in streamed.values()), key=lambda batch: batch.sequence)
    versions: dict[str, int] = {}
    for table, (version, at, batch) in streamed.items():
        if batch.covers_same(oldest):
            versions[table] = version
            continue
        recorded = find_recorded(storage.open_store(f"{root}/{table}"), table, at - 1)
        if recorded is None or not recorded.batch.covers_same(oldest):
            return None
        versions[table] = at - 1
    states = {table: DeltaTable(f"{root}/{table}", version=version) for table, version in versions.items()}
    replay = max(map(last_replay, states.values()))
    touched = Replays(root, pipeline).touched(replay)
    if any(last_replay(state) < replay for table, state in states.items() if table in touched):
        return None
    tables = {
        table: SavedTable(state.version(), _adds(root, table, state), state.transaction_version(RETIRED_APP_ID))
        for table, state in states.items()
    }
    for table, derivation in derivations(root, pipeline).items():
        found = _look_derived(root, derivation, tables.get(derivation.source))
        if found is not None:
            tables[table] = found
    now_ms = time.time_ns() // 1_000_000
    return Savepoint(name, pipeline.name, now_ms, note, replace(oldest, adds={}), tables, replay)


def _newest(root: str, table: str) -> tuple[int, int, Batch]:
    """(newest version, version of its last batch, that batch)."""
    state = _open(root, table)
    recorded = find_recorded(storage.open_store(f"{root}/{table}"), table, state.version())
    if recorded is None:
        raise TableError(
            "the table has no batch yet, so there is nothing to save",
            where=f"table {table}",
            remedy="start the pipeline first",
        )
    return state.version(), recorded.version, recorded.batch


def _open(root: str, table: str) -> DeltaTable:
    try:
        return DeltaTable(f"{root}/{table}")
    except (DeltaError, OSError) as error:
        raise TableError(
            f"the table cannot be opened: {first_line(error)}",
            where=f"table {table} at {root}/{table}",
            remedy="start the pipeline first; where it has run, `lakehouse doctor` says what is damaged",
        ) from error


def _adds(root: str, table: str, state: DeltaTable) -> list[Add]:
    """The add actions of a version, held against what delta-rs reads of it."""
    found = live_adds(storage.open_store(f"{root}/{table}"), table, state.version())
    known = {unquote(path) for path in pa.table(state.get_add_actions())["path"].to_pylist()}
    if {unquote(add["path"]) for add in found} != known:
        raise TableDamaged(
            f"the log of version {state.version()} does not add up to its files",
            where=f"table {table}",
            remedy="`lakehouse doctor` says which file of the log is damaged",
        )
    return found


def _look_derived(root: str, derivation: Derivation, source: SavedTable | None) -> SavedTable | None:
    """A derived table at its newest version that covers no more than its source has; None where there is none."""
    if source is None or not table_exists(derivation.url):
        return None
    store, version = storage.open_store(derivation.url), _open(root, derivation.name).version()
    while (covering := find_cover(store, derivation.name, version)) is not None:
        if covering.cover.version <= source.version:
            break
        version = covering.version - 1
    source_id = str(_open(root, derivation.source).metadata().id)
    if covering is None or covering.cover.source_id != source_id:
        return None
    state = DeltaTable(derivation.url, version=version)
    source_store = storage.open_store(f"{root}/{derivation.source}")
    return SavedTable(
        version,
        _adds(root, derivation.name, state),
        state.transaction_version(RETIRED_APP_ID),
        pending=list(gained(source_store, derivation.source, covering.cover.version, source.version)),
        whole_from=covering.cover.whole_from,
    )


def _copied(root: str, saved: Savepoints, found: Savepoint, pipeline: Pipeline) -> bool:
    """Copy what derived tables had yet to take in; whether all of it was still there."""
    sources = {name: derivation.source for name, derivation in derivations(root, pipeline).items()}
    store = storage.open_store(root)
    for table, of in found.tables.items():
        for add in of.pending or ():
            try:
                body = obstore.get(store, f"{sources[table]}/{unquote(add['path'])}").bytes()
            except FileNotFoundError:
                return False
            obstore.put(store, saved.pending_path(found.name, table, add["path"]), bytes(body))
    return True


@dataclass(frozen=True)
class Listed:
    """A savepoint as `lakehouse savepoint list` shows it.

    Attributes:
        name, made, note: of the savepoint.
        end: where the stream goes on from it.
        rows: table → rows; bytes: of all its files.
        held: bytes that only savepoints keep: the tables' newest versions do without them.
        dollars_month: what these cost a month at the store's price.
    """

    name: str
    made: str
    note: str
    end: Offsets
    rows: dict[str, int]
    bytes: int
    held: int
    dollars_month: float


def listed(pipeline: Pipeline, *, gb_month: float) -> list[Listed]:
    """The pipeline's savepoints, oldest first.

    Args:
        pipeline: whose.
        gb_month: price of 10^9 bytes for a month, dollars.
    """
    root = storage.resolve_root(pipeline.root)
    found = Savepoints(root, pipeline.name).saved()
    live = {table: live_paths(root, table) for one in found for table in one.tables}
    held = bytes_held(found, live)
    return [
        Listed(
            one.name,
            one.made,
            one.note,
            one.batch.end,
            {table: of.rows for table, of in one.tables.items()},
            sum(of.size for of in one.tables.values()),
            held[one.name],
            round(held[one.name] / 1e9 * gb_month, 4),
        )
        for one in found
    ]


def render(found: Iterable[Listed]) -> str:
    """A line per savepoint, for people."""
    rows = [
        (
            one.name,
            one.made,
            describe(one.end),
            f"{sum(one.rows.values()):,}",
            f"{one.bytes / MIB:,.1f}",
            f"{one.held / MIB:,.1f}",
            f"{one.dollars_month:,.4f}",
            one.note,
        )
        for one in found
    ]
    head = ("savepoint", "made", "goes on at", "rows", "MiB", "MiB kept for it", "$ a month", "note")
    return render_grid(head, rows, right=(False, False, False, True, True, True, True, False)) if rows else "none"


def plan_restore(pipeline: Pipeline, name: str) -> Restoration:
    """What coming back to a savepoint would do; changes nothing.

    Raises:
        ConfigError: there is no such savepoint.
        SourceError: the topic no longer holds what comes after it.
        SourceUnavailable: Kafka cannot be asked.
        TableError: a table or a file of it is gone.
    """
    root = storage.resolve_root(pipeline.root)
    saved = Savepoints(root, pipeline.name).find(name)
    _require_readable(pipeline, saved)
    streamed = list(OnePass(root, pipeline, {}).schemas)
    heads = [batch for table in streamed if table_exists(f"{root}/{table}") for _, _, batch in [_newest(root, table)]]
    head = leading(heads)
    if head is None or len(heads) < len([table for table in streamed if table in saved.tables]):
        raise TableError(
            "a table of the savepoint is gone",
            where=f"pipeline {pipeline.name} under {root}",
            remedy="restore the table's log from a backup, or fork the savepoint into another root",
        )
    changes = []
    for table, of in saved.tables.items():
        if not table_exists(f"{root}/{table}"):
            continue
        _require_files(root, table, of)
        now = {unquote(add["path"]): add for add in live_adds(*_at(root, table))}
        then = {unquote(add["path"]) for add in of.adds}
        rows_now = SavedTable(0, list(now.values())).rows
        changes.append(Change(table, rows_now, of.rows, len(then - now.keys()), len(now.keys() - then)))
    end = saved.batch.end
    return Restoration(
        pipeline=pipeline.name,
        savepoint=name,
        made=saved.made,
        stands=head.end,
        goes_on=end,
        again=sum(
            offset - end.get(topic, {}).get(partition, 0)
            for topic, of in head.end.items()
            for partition, offset in of.items()
        ),
        changes=tuple(changes),
        joining=tuple(table for table in streamed if table not in saved.tables and table_exists(f"{root}/{table}")),
    )


def _at(root: str, table: str) -> tuple[ObjectStore, str, int]:
    return storage.open_store(f"{root}/{table}"), table, _open(root, table).version()


def _require_readable(pipeline: Pipeline, saved: Savepoint) -> None:
    """The topic has to hold what comes after the savepoint: the tables would lose what they have of it now."""
    source = pipeline.source
    options = {name: secret.get_secret_value() for name, secret in source.options.items()}
    state = kafka_admin.topic_state(source.servers, source.topic, options)
    require_topic(saved.batch, source.topic, state.topic_id, state.offsets)


def _require_files(root: str, table: str, of: SavedTable) -> None:
    store = storage.open_store(f"{root}/{table}")
    present = {entry["path"]: entry["size"] for entries in obstore.list(store) for entry in entries}
    gone = [add["path"] for add in of.adds if present.get(unquote(add["path"])) != add["size"]]
    if gone:
        raise TableDamaged(
            f"{len(gone)} files that the savepoint needs are gone or cut; the first is {gone[0]}",
            where=f"table {table} at {root}/{table}",
            remedy="restore them from a backup: nothing was changed",
        )


def restore(pipeline: Pipeline, name: str) -> RestorePlan:
    """Bring every table back to a savepoint. For the holder of the driver's lock, after `plan_restore`.

    Raises:
        TableError: a table cannot be read, or another restore was decided meanwhile.
    """
    root = storage.resolve_root(pipeline.root)
    restores = Restores(root, pipeline.name)
    restores.finish()  # one that was cut short comes before this one
    saved = Savepoints(root, pipeline.name).find(name)
    streamed = [table for table in OnePass(root, pipeline, {}).schemas if table_exists(f"{root}/{table}")]
    head = leading(_newest(root, table)[2] for table in streamed)
    assert head is not None, "a pipeline with a savepoint has a batch"  # noqa: S101 - `plan_restore` refuses others
    mark = latest_ingestion(root, head)
    targets = {
        table: Target(of.adds, of.retired_ms)
        for table, of in saved.tables.items()
        if of.pending is None and table_exists(f"{root}/{table}")
    }
    joining = [table for table in streamed if table not in targets]
    targets |= {table: Target([]) for table in joining}
    for table, derivation in derivations(root, pipeline).items():
        if derivation.source in targets and table_exists(derivation.url):
            targets[table] = _derived_target(root, pipeline, saved, derivation, targets[derivation.source])
    number = restores.next_number()
    batch = restore_batch(saved.batch, head, streamed, number, dict.fromkeys(joining, mark))
    plan = RestorePlan(number, name, batch, targets)
    if not restores.decide(plan):
        raise TableError(
            "another restore of this pipeline was decided meanwhile",
            where=f"pipeline {pipeline.name}",
            remedy="see `lakehouse savepoint list`, and restore again where that is still meant",
        )
    restores.finish()
    return plan


def _derived_target(root: str, pipeline: Pipeline, saved: Savepoint, derivation: Derivation, source: Target) -> Target:
    """What a derived table is to hold: what it had, and what it had yet to take in, which is derived here."""
    of = saved.tables.get(derivation.name)
    limit = pipeline.maintenance.target_file_mib * MIB
    here = storage.open_store(f"{root}/{derivation.source}")
    if of is None:
        files = [*source.adds, *source.derived]
        retired_us = None if not source.retired_ms else source.retired_ms * 1_000
        whole_from = None if retired_us is None else -(-retired_us // derivation.width) * derivation.width
        derived = merge_files(derivation, here, _files(files), limit)
        return Target([], None, derivation.source, tuple(derived), whole_from)
    derived = _taken_in(root, saved, derivation.name, derivation, limit)
    derived += merge_files(derivation, here, _files(source.derived), limit)
    return Target(of.adds, of.retired_ms, derivation.source, tuple(derived), of.whole_from)


def _taken_in(root: str, saved: Savepoint, table: str, derivation: Derivation, limit: int) -> list[Add]:
    """New files of a derived table, made of what the saved one had yet to take in, whose copies lie under `root`."""
    pending = saved.tables[table].pending or []
    if not pending:
        return []
    folder = Savepoints(root, saved.pipeline).pending_path(saved.name, table, "").rstrip("/")
    return merge_files(derivation, storage.open_store(f"{root}/{folder}"), _files(pending), limit)


def _files(adds: Iterable[Add]) -> list[LiveFile]:
    return [LiveFile.of_add(add) for add in adds]


@dataclass(frozen=True)
class Fork:
    """What a fork makes.

    Attributes:
        savepoint: of the pipeline `pipeline`; into: the new pipeline's name; root: its root.
        goes_on: where its stream begins.
        tables: new table → (table of the savepoint, files, bytes).
        linked: whether files are linked and not copied: on one local file system, where they take no room.
    """

    savepoint: str
    pipeline: str
    into: str
    root: str
    goes_on: Offsets
    tables: dict[str, tuple[str, int, int]]
    linked: bool

    def __str__(self) -> str:
        rows = [(new, old, f"{files:,}", f"{size / MIB:,.1f}") for new, (old, files, size) in self.tables.items()]
        how = "linked: they take no room until the original deletes them" if self.linked else "copied"
        return "\n".join(
            [
                f"a new pipeline {self.into} under {self.root}, from savepoint {self.savepoint} of {self.pipeline}:",
                render_grid(("table", "from", "files", "MiB"), rows, right=(False, False, True, True)),
                f"files are {how}; its stream begins at {describe(self.goes_on)}, and the two share nothing afterwards",
            ]
        )


def plan_fork(pipeline: Pipeline, name: str, into: Pipeline) -> Fork:
    """What making a new pipeline from a savepoint would do; changes nothing.

    Raises:
        ConfigError: there is no such savepoint, or the two pipelines cannot share records or a root.
        SourceError: the topic no longer holds what comes after the savepoint.
        TableError: a file of the savepoint is gone.
    """
    root, new_root = storage.resolve_root(pipeline.root), storage.resolve_root(into.root)
    saved = Savepoints(root, pipeline.name).find(name)
    if root == new_root:
        raise ConfigError("the new pipeline has the root of the old one", where="root", remedy="give it another root")
    if into.source.fields != pipeline.source.fields or into.source.topic != pipeline.source.topic:
        raise ConfigError(
            "the new pipeline reads another topic, or other fields, than the savepoint's tables hold",
            where="source",
            remedy="fork with the same topic and fields; change the rest of the file as you like",
        )
    _require_readable(into, saved)
    tables = _mapped(pipeline, saved, into)
    for old in tables.values():
        _require_files(root, old, saved.tables[old])
    return Fork(
        name,
        pipeline.name,
        into.name,
        new_root,
        saved.batch.end,
        {new: (old, len(saved.tables[old].adds), saved.tables[old].size) for new, old in tables.items()},
        linked=_linkable(root, new_root),
    )


def fork(pipeline: Pipeline, name: str, into: Pipeline) -> None:
    """Make the new pipeline's tables. May be killed and called again; after `plan_fork`.

    Raises:
        TableError: a table of the new pipeline holds data that is not of this fork.
    """
    root, new_root = storage.resolve_root(pipeline.root), storage.resolve_root(into.root)
    saved = Savepoints(root, pipeline.name).find(name)
    tables = _mapped(pipeline, saved, into)
    schemas, derived = _schemas(into), derivations(new_root, into)
    joined = {new: saved.batch.past.joined[old] for new, old in tables.items() if old in saved.batch.past.joined}
    batch = replace(
        saved.batch,
        pipeline=into.name,
        query_id=f"fork-of-{pipeline.name}-{name}-{saved.made_ms}",
        batch_id=0,
        start=saved.batch.end,
        adds={new: [] for new in tables if new not in derived},
        # Not the first of its chain: of tables that a kill left out, a start says that they are lost.
        sequence=1,
        past=replace(saved.batch.past, joined=joined),
    )
    _copy_suites(root, new_root, pipeline.name, into.name)
    for new, old in tables.items():
        of, url = saved.tables[old], f"{new_root}/{new}"
        if _is_forked(url, new, batch.query_id):
            continue
        adds = list(of.adds)
        for add in of.adds:
            _bring(f"{root}/{old}", url, unquote(add["path"]))
        state = _made(url, new, schemas[new], into)
        told: dict[str, Any] = {COMMIT_KEY: batch.to_json(), "userMetadata": encode(batch)}
        if new in derived:
            adds += _taken_in(root, saved, old, derived[new], into.maintenance.target_file_mib * MIB)
            source = _open(new_root, derived[new].source)
            # Finer tables come first, so that the source stands at its one commit.
            cover = Cover(derived[new].source, str(source.metadata().id), 1, of.whole_from)
            adds += _derived_of_pending(new_root, derived[new], source, saved, tables, into)
            told = {COVER_KEY: cover.to_json()}
        _commit_fork(url, new, state, told, batch.query_id, adds, of.retired_ms)


def _derived_of_pending(
    new_root: str,
    derivation: Derivation,
    source: DeltaTable,
    saved: Savepoint,
    tables: dict[str, str],
    into: Pipeline,
) -> list[Add]:
    """Of a grain that is derived from a derived one: what the finer table took in only while it was forked."""
    known = {unquote(add["path"]) for add in saved.tables[tables[derivation.source]].adds}
    store = storage.open_store(f"{new_root}/{derivation.source}")
    fresh = [add for add in live_adds(store, derivation.source, source.version()) if unquote(add["path"]) not in known]
    return merge_files(derivation, store, _files(fresh), into.maintenance.target_file_mib * MIB)


def _mapped(pipeline: Pipeline, saved: Savepoint, into: Pipeline) -> dict[str, str]:
    """Table of the new pipeline → the savepoint's table that it begins with; others join at the first start."""
    known, found = _schemas(pipeline), {}
    for new, schema in _schemas(into).items():
        layer, _, rest = new.partition("/")
        old = f"{layer}/{pipeline.name}{rest.removeprefix(into.name)}"
        if old in saved.tables and known.get(old) == schema:
            found[new] = old
    return found


def _schemas(pipeline: Pipeline) -> dict[str, pa.Schema]:
    """The columns of every table of a pipeline, finer grains before coarser ones."""
    derived = {name: derivation.schema for name, derivation in derivations("", pipeline).items()}
    return OnePass("", pipeline, {}).schemas | derived


def _made(url: str, name: str, schema: pa.Schema, into: Pipeline) -> DeltaTable:
    storage.open_store(url)  # makes the folder, which a local table needs
    if not table_exists(url):
        settings = configuration(into.maintenance.retention)
        DeltaTable.create(url, schema, name=name.replace("/", "_"), configuration=settings)
    return DeltaTable(url)


def _is_forked(url: str, name: str, query_id: str) -> bool:
    """Whether a call before this one has made the table.

    Raises:
        TableError: it holds something else.
    """
    try:
        state = DeltaTable(url)
    except TableNotFoundError:
        return False
    if state.version() == 0 and not state.file_uris():
        return False
    if state.transaction_version(query_id) is None:
        raise TableError(
            "the table holds data that is not of this fork",
            where=f"table {name} at {url}",
            remedy="fork into an empty root, or give the new pipeline another name",
        )
    return True


def _commit_fork(
    url: str, name: str, state: DeltaTable, told: dict[str, Any], query_id: str, adds: list[Add], retired_ms: int | None
) -> None:
    now_ms = time.time_ns() // 1_000_000
    info = {
        "timestamp": now_ms,
        "operation": "CLONE",
        "operationParameters": {"query": query_id},
        "isBlindAppend": True,
    }
    transactions = {query_id: 0} | ({} if retired_ms is None else {RETIRED_APP_ID: retired_ms})
    log = TableLog(name, storage.open_store(url), state.version(), None, state.schema())
    actions = [
        {"commitInfo": info | {"engineInfo": ENGINE} | told},
        *({"txn": {"appId": app, "version": at, "lastUpdated": now_ms}} for app, at in transactions.items()),
        *({"add": add | {"dataChange": True}} for add in adds),
    ]
    if not log.commit(actions, lambda _: False):
        raise TableError(
            "another process wrote to the table meanwhile",
            where=f"table {name} at {url}",
            remedy="start the new pipeline only after the fork has ended; fork again",
        )


def _linkable(root: str, new_root: str) -> bool:
    """Whether both roots are on one local file system."""
    if "://" in root or "://" in new_root:
        return False
    there = Path(new_root)
    while not there.exists():
        there = there.parent
    return Path(root).stat().st_dev == there.stat().st_dev


def _bring(url: str, to: str, path: str) -> None:
    """One data file into the new table, whole or not at all. Data files never change, so that a link is a copy."""
    if "://" in url or "://" in to:
        obstore.put(storage.open_store(to), path, bytes(obstore.get(storage.open_store(url), path).bytes()))
        return
    source, target = Path(url) / path, Path(to) / path
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        partial = target.with_name(f".{target.name}.{uuid.uuid4()}")
        shutil.copyfile(source, partial)
        os.replace(partial, target)  # noqa: PTH105 - one rename


def _copy_suites(root: str, new_root: str, old: str, new: str) -> None:
    """The suites that judged the rows, and from where on each did."""
    source = storage.find_store(f"{root}/_suites")
    if source is None:
        return
    target = storage.open_store(f"{new_root}/_suites")
    for path in [entry["path"] for entries in obstore.list(source) for entry in entries]:
        own = path.startswith(f"uses/{old}/")
        if own or "/" not in path:
            place = f"uses/{new}/{path.rpartition('/')[2]}" if own else path
            obstore.put(target, place, bytes(obstore.get(source, path).bytes()))


def drop(pipeline: Pipeline, name: str) -> None:
    """Forget a savepoint; its files go with the next passes of maintenance, where nothing else needs them.

    Raises:
        ConfigError: there is none of this name, or a restore to it is not finished.
    """
    root = storage.resolve_root(pipeline.root)
    saved = Savepoints(root, pipeline.name)
    saved.find(name)
    pending = Restores(root, pipeline.name).pending()
    if pending is not None and pending.savepoint == name:
        raise ConfigError(
            f"the restore of savepoint {name} is not finished",
            where=f"pipeline {pipeline.name}",
            remedy="start the pipeline, or restore again, and drop it afterwards",
        )
    saved.drop(name)


def to_dict(savepoint: Savepoint) -> dict[str, Any]:
    """For scripts: what a savepoint holds, without the names of its files."""
    return {
        "name": savepoint.name,
        "made": savepoint.made,
        "note": savepoint.note,
        "end": savepoint.batch.end,
        "tables": {
            table: {"version": of.version, "files": len(of.adds), "rows": of.rows, "bytes": of.size}
            for table, of in savepoint.tables.items()
        },
    }


def said(savepoint: Savepoint) -> str:
    """For people: what was saved."""
    found = to_dict(savepoint)
    rows = [
        (table, f"{of['version']:,}", f"{of['files']:,}", f"{of['rows']:,}", f"{of['bytes'] / MIB:,.1f}")
        for table, of in found["tables"].items()
    ]
    grid = render_grid(("table", "version", "files", "rows", "MiB"), rows, right=(False, True, True, True, True))
    return (
        f"savepoint {savepoint.name} of {savepoint.pipeline}: the stream goes on at {describe(savepoint.batch.end)}\n"
        f"{grid}\nno byte is copied but what derived tables had yet to take in; vacuum keeps these files until"
        f" `lakehouse savepoint drop`, and `list` says what that holds"
    )
