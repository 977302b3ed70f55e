"""One pass over a pipeline's tables, and pass after pass: derive, retire, rewrite, checkpoint, vacuum, clean the log.

Each step commits or deletes by itself and leaves the table as every reader expects it, so that a pass may be killed
at any instruction, started twice, or run beside another one. docs/architecture.md says what a kill leaves behind.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote

from deltalake.exceptions import DeltaError
from obstore.exceptions import BaseError

from lakehouse import storage
from lakehouse.config.models import format_duration
from lakehouse.errors import LakehouseError, TableError
from lakehouse.maintenance import cleanup, retire, vacuum
from lakehouse.maintenance.choose import Limits, choose, simulate
from lakehouse.maintenance.derive import covers, derivations, derive, uncovered
from lakehouse.maintenance.retire import Spans
from lakehouse.maintenance.rewrite import Form, UnreadableFileError, rewrite
from lakehouse.maintenance.view import Kind, LiveFile, open_view, refresh
from lakehouse.retirement import retired_before
from lakehouse.schemas import journals
from lakehouse.sinks.delta_log import TableLog, last_checkpoint
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.restores import Restores
from lakehouse.sinks.savepoints import Savepoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lakehouse.config.models import Pipeline
    from lakehouse.maintenance.retire import Retirement
    from lakehouse.maintenance.view import TableView

MIB = 2**20
_PASS_S = 30.0
"""A table's share of a pass, after which the next table has its turn and the rest waits for the next pass."""
_BACKFILL = 500
"""Commits from before the first pass that one pass reads in search of removed files; each takes 0.07 ms."""
_LOOKS = 0.01
"""Share of the time that rows are kept, from one look for those that can leave to the next."""
_LISTING_S = 600.0
"""From one search for orphans to the next: it lists the table's folder."""


@dataclass
class TableReport:
    """What a pass did to one table, or would do.

    Attributes:
        table: its name.
        version: newest version after the pass.
        files_before, files_after, bytes_before, bytes_after: of the live files.
        derivations: commits that took in what the table of the finer grain has gained.
        retired_before: boundary up to which rows left by a rule of retention, ISO 8601; None where none left.
        retired_files: files that left with all of their rows; cut_files: those of which a part stays.
        retired_rows: how many left; of a plan: those of the whole files.
        rewrites: commits that replaced files; rewritten_files and rewritten_bytes: what they read.
        given_up: rewrites that a commit in between made void.
        checkpoint: version of the checkpoint written; None for none.
        log_files: in the log after the pass; None where it was not listed.
        log_files_deleted: commits and checkpoints cleaned up.
        expired_files: of a journal, removed with their rows.
        vacuumed_files: replaced files deleted; orphans_deleted, orphan_bytes: those that no commit named.
        seconds: how long it took; cpu_s: of this process.
        error: what kept the table from being maintained to the end.
    """

    table: str
    version: int = -1
    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    derivations: int = 0
    retired_before: str | None = None
    retired_files: int = 0
    cut_files: int = 0
    retired_rows: int = 0
    rewrites: int = 0
    rewritten_files: int = 0
    rewritten_bytes: int = 0
    given_up: int = 0
    checkpoint: int | None = None
    log_files: int | None = None
    log_files_deleted: int = 0
    expired_files: int = 0
    vacuumed_files: int = 0
    orphans_deleted: int = 0
    orphan_bytes: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    error: str | None = None

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        done = (
            self.derivations,
            self.expired_files,
            self.rewrites,
            self.given_up,
            self.log_files_deleted,
            self.vacuumed_files,
            self.orphans_deleted,
        )
        return not any(done) and all(said is None for said in (self.checkpoint, self.retired_before, self.error))

    def __str__(self) -> str:
        if self.error:
            return f"{self.table}: {self.error}"
        size = f"{self.bytes_before / MIB:,.1f} → {self.bytes_after / MIB:,.1f} MiB"
        done = [f"{self.files_before:,} → {self.files_after:,} files ({size})"]
        if self.derivations:
            done.append(f"{self.derivations} derivations")
        if self.retired_before is not None:
            what = f"{self.retired_rows:,} rows, {self.retired_files:,} files whole and {self.cut_files:,} in part"
            done.append(f"retired before {self.retired_before}: {what}")
        if self.rewrites:
            done.append(f"{self.rewrites} rewrites of {self.rewritten_files:,} files")
        if self.expired_files:
            done.append(f"{self.expired_files} files expired")
        if self.checkpoint is not None:
            done.append(f"checkpoint {self.checkpoint}")
        if self.log_files is not None:
            done.append(f"{self.log_files:,} log files, {self.log_files_deleted:,} deleted")
        if self.vacuumed_files or self.orphans_deleted:
            done.append(f"{self.vacuumed_files:,} replaced files and {self.orphans_deleted:,} orphans deleted")
        return f"{self.table}: {', '.join(done)}; {self.seconds:.2f} s"


@dataclass
class _Memory:
    """What a maintainer remembers of a table between passes. All of it can be found again."""

    spans: Spans
    tombstones: vacuum.Tombstones = field(default_factory=vacuum.Tombstones)
    unreadable: set[str] = field(default_factory=set)
    listed_s: float = float("-inf")
    retired_s: float = float("-inf")
    log_listed: bool = False


@dataclass(frozen=True)
class _Pass:
    """The tables as one pass found them."""

    reports: dict[str, TableReport]
    views: dict[str, TableView]


class Maintainer:
    """Keeps the tables of one pipeline small.

    Args:
        pipeline: whose tables.
        thorough: every step in each pass, and not only when it is due: for a single pass.
        stop: set to end between two steps.
        clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        thorough: bool = True,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = pipeline.maintenance
        self._root = storage.resolve_root(pipeline.root)
        self._thorough = thorough
        self._stop = stop or threading.Event()
        self._clock = clock
        one_pass = OnePass(self._root, pipeline, {})
        self._derivations = derivations(self._root, pipeline)
        self._forms = {
            name: Form(schema, "max_event_time", one_pass.gold[name][1])
            if name in one_pass.gold
            else Form(schema, pipeline.event_time.column)
            for name, schema in one_pass.schemas.items()
        }
        self._streamed = tuple(self._forms)
        for name, derivation in self._derivations.items():
            self._forms[name] = Form(derivation.schema, "max_event_time", derivation.table.rollup)
        self._coarser = {each.source: name for name, each in self._derivations.items()}
        self._keep = {name: keep for name, keep in keeps(one_pass) if keep is not None}
        self._journals = {
            name: Form(schema, moment, keep=pipeline.metrics.keep)
            for name, (schema, moment) in journals(pipeline.name).items()
        }
        self._forms |= self._journals
        self._savepoints = Savepoints(self._root, pipeline.name)
        self._restores = Restores(self._root, pipeline.name)
        self._memory = {name: _Memory(Spans(form.time)) for name, form in self._forms.items()}
        self._retention_ms = round(self._settings.retention.total_seconds() * 1_000)

    def plan(self) -> list[TableReport]:
        """What a pass would do to each table. Writes and deletes nothing."""
        return self._each(self._plan, derive_now=False)

    def maintain(self) -> list[TableReport]:
        """One pass over every table. What fails is in the table's report; the other tables are maintained."""
        return self._each(self._maintain, derive_now=True)

    def _each(self, work: Callable[[TableView, _Pass, TableReport], None], *, derive_now: bool) -> list[TableReport]:
        reports = {name: TableReport(name) for name in self._forms}
        views = {name: view for name in self._streamed if (view := self._open(name, reports[name]))}
        for name, derivation in self._derivations.items():
            source = views.get(derivation.source)
            if source is not None and not reports[derivation.source].error:
                view = self._derive(source, reports[name]) if derive_now else self._open(name, reports[name])
                views |= {name: view} if view else {}
        views |= {name: view for name in self._journals if (view := self._open(name, reports[name]))}
        this = _Pass(reports, views)
        for name, view in views.items():
            if self._stop.is_set():
                break
            with _reported(reports[name]), _timed(reports[name]):
                work(view, this, reports[name])
        return [report for name, report in reports.items() if name in views or report.error]

    def _derive(self, source: TableView, report: TableReport) -> TableView | None:
        """The derived table, with what its source has gained where that is due; None where there is none yet."""
        derivation = self._derivations[report.table]
        view = self._open(report.table, report)
        if report.error:
            return view
        deadline = time.monotonic() + _PASS_S
        retention, target = self._settings.retention, self._limits(report.table).target
        with _reported(report), _timed(report):
            while self._going_on() and time.monotonic() < deadline:
                if not (self._thorough or derivation.due(view, self._now_ms())):
                    break
                retired_us = retired_before(source.table)
                if not derive(
                    derivation, source, view, retired_us=retired_us, target_bytes=target, retention=retention
                ):
                    break
                report.derivations += 1
                view = self._open(report.table, report)
        return view

    def _named(self, view: TableView, this: _Pass) -> set[str] | None:
        """Files of this table that the last batch of another one names, and that this one has not got yet.

        A crash left them; the pipeline's next start commits them. None where a table cannot be read, whose last batch
        may name any file. No batch has files of a table that the stream does not write.
        """
        if view.kind != "streamed":
            return set()
        views = [this.views[name] for name in self._streamed if name in this.views]
        if len(views) < len(self._streamed):
            return None
        own = view.head.batch if view.head else None
        heads = [other.head.batch for other in views if other.head]
        return {
            add["path"]
            for head in heads
            if own is None or not head.covers_same(own)
            for add in head.adds.get(view.name, ())
        }

    def _needed(self, view: TableView, this: _Pass) -> tuple[int, set[str]]:
        """What the next derivation from a table still reads: every commit after a version, and files.

        Raises:
            TableError: that cannot be known, so that nothing must be deleted.
        """
        coarser = self._coarser.get(view.name)
        if coarser is None:
            return view.version, set()
        if coarser not in this.views and this.reports[coarser].error:
            raise TableError(
                f"nothing is deleted while {coarser} cannot be read, since it may still need it",
                where=f"table {view.name}",
                remedy=f"see what is said of {coarser}",
            )
        return uncovered(view, this.views.get(coarser))

    def _kind(self, name: str) -> Kind:
        if name in self._journals:
            return "journal"
        return "derived" if name in self._derivations else "streamed"

    def _open(self, name: str, report: TableReport) -> TableView | None:
        view = None
        with _reported(report), _timed(report):
            view = open_view(f"{self._root}/{name}", name, self._forms[name].schema, kind=self._kind(name))
        if view is not None:
            report.version = view.version
            report.files_before = report.files_after = len(view.files)
            report.bytes_before = report.bytes_after = view.bytes
        return view

    def _form(self, view: TableView) -> Form:
        """What the table's rows are: by its own columns, which may be of an earlier file than this process has."""
        return self._forms[view.name].fitted(view.table.schema())

    def _limits(self, name: str) -> Limits:
        return Limits(
            target=self._settings.target_file_mib * MIB,
            min_age_ms=round(self._settings.min_age.total_seconds() * 1_000),
            overlapping=self._forms[name].rollup is not None,
        )

    def _now_ms(self) -> int:
        return int(self._clock() * 1_000)

    def _going_on(self) -> bool:
        return not self._stop.is_set()

    def _plan(self, view: TableView, this: _Pass, report: TableReport) -> None:
        now_ms = self._now_ms()
        if retirement := self._retirement(view, this):
            _tell(report, retirement, sum(file.rows or 0 for file in retirement.whole))
        report.expired_files = len(self._expired(view))
        runs, left = simulate(view.files, self._limits(view.name), now_ms)
        report.rewrites = len(runs)
        report.rewritten_files = sum(len(run.files) for run in runs)
        report.rewritten_bytes = sum(run.bytes for run in runs)
        report.files_after = len(left)
        if cleanup.checkpoint_due(view, self._settings.checkpoint_every, ahead=len(runs)):
            report.checkpoint = view.version + len(runs)
        upto, kept = self._needed(view, this)
        named = self._named(view, this)
        tombstones = vacuum.Tombstones()
        tombstones.advance(view, backwards=view.version + 1)
        before_ms = now_ms - self._retention_ms
        gone = tombstones.expired(view, before_ms=before_ms, named=kept | (named or set()))
        report.vacuumed_files = len(self._without_saved(view, gone))
        lost = self._orphans(view, named, tombstones, now_ms)
        free = set(self._without_saved(view, [path for path, _ in lost]))
        lost = [(path, size) for path, size in lost if path in free]
        report.orphans_deleted, report.orphan_bytes = len(lost), sum(size for _, size in lost)
        files = cleanup.list_log(view)
        report.log_files = len(files)
        if view.settled is not None:
            hint = last_checkpoint(view.store)
            cleaned = cleanup.expired(files, head=min(upto, view.settled), hint=hint, before_ms=before_ms)
            report.log_files_deleted = len(cleaned)

    def _maintain(self, view: TableView, this: _Pass, report: TableReport) -> None:
        memory = self._memory[view.name]
        failure: LakehouseError | None = None
        view = self._expire(view, report)
        try:
            view = self._retire(view, this, report)
        except LakehouseError as error:
            failure = error
        try:
            self._rewrite(view, memory, report)
        except LakehouseError as error:
            failure = error  # the other steps need no readable data file
        if report.rewrites:
            # What is deleted below is judged by the newest version, and the checkpoint is of it.
            view = refresh(view)
        if cleanup.checkpoint_due(view, self._settings.checkpoint_every):
            report.checkpoint = cleanup.write_checkpoint(view)
        upto, kept = self._needed(view, this)
        # Before the log is cleaned: what a commit removed is only known while it is there.
        self._vacuum(view, self._named(view, this), kept, memory, report)
        if report.checkpoint is not None or self._thorough or not memory.log_listed:
            self._clean(view, upto, report)
            memory.log_listed = True
        if failure:
            raise failure

    def _retirement(self, view: TableView, this: _Pass) -> Retirement | None:
        """What a rule of retention lets go now; None where it is nothing, or not worth the while yet.

        Raises:
            TableError: whether the coarser grain holds the rows cannot be known; none leaves then.
        """
        keep, memory = self._keep.get(view.name), self._memory[view.name]
        now_s = self._clock()
        if keep is None or not (self._thorough or now_s - memory.retired_s >= keep.total_seconds() * _LOOKS):
            return None
        coarser = self._coarser.get(view.name)
        if coarser is not None and not covers(this.views.get(coarser), view):
            return None
        memory.retired_s = now_s
        # No window of the coarser grain is cut: those from the boundary on can be made of either.
        derivation = self._derivations.get(coarser or view.name)
        width = derivation.width if derivation else 1_000_000
        before_us = (int(now_s * 1_000_000) - keep // timedelta(microseconds=1)) // width * width
        known = retired_before(view.table)
        if known is not None and before_us <= known:
            return None
        return retire.choose(view.files, memory.spans.of(view), before_us, but=memory.unreadable)

    def _retire(self, view: TableView, this: _Pass, report: TableReport) -> TableView:
        """Let rows go; the table as it is then."""
        retirement = self._retirement(view, this)
        if retirement is None:
            return view
        keep = format_duration(self._keep[view.name])
        rows = retire.carry_out(view, self._form(view), retirement, keep=keep, retention=self._settings.retention)
        if rows is None:
            report.given_up += 1
            return refresh(view)  # the next pass sees the table as it is now
        _tell(report, retirement, rows)
        return refresh(view)

    def _expired(self, view: TableView) -> list[LiveFile]:
        """Files of a journal whose rows have had their time: a file is never older than its newest row."""
        keep = self._forms[view.name].keep
        if keep is None:
            return []
        before_ms = self._now_ms() - round(keep.total_seconds() * 1_000)
        return [file for file in view.files if file.modified_ms < before_ms and "%" not in file.path]

    def _expire(self, view: TableView, report: TableReport) -> TableView:
        """Remove what has expired; the table as it is then."""
        gone = self._expired(view)
        log = TableLog(view.name, view.store, view.version, None, view.table.schema())
        if not gone or not log.expire([(file.path, file.size) for file in gone]):
            return view
        report.expired_files, report.version = len(gone), log.version
        after = refresh(view)
        report.files_after, report.bytes_after = len(after.files), after.bytes
        return after

    def _rewrite(self, view: TableView, memory: _Memory, report: TableReport) -> None:
        form, limits = self._form(view), self._limits(view.name)
        log = TableLog(view.name, view.store, view.version, None, view.table.schema())
        files = list(view.files)
        failure: UnreadableFileError | None = None
        deadline = time.monotonic() + _PASS_S
        while self._going_on() and time.monotonic() < deadline:
            run = choose(files, limits, self._now_ms(), but=memory.unreadable)
            if run is None:
                break
            try:
                adds = rewrite(view.store, view.name, run, form, limits.target)
            except UnreadableFileError as error:
                memory.unreadable.add(error.path)
                failure = error
                continue
            if not log.rewrite([(file.path, file.size) for file in run.files], adds, fence=self._settings.retention):
                report.given_up += 1
                break  # the next pass sees the table as it is now
            gone = {file.path for file in run.files}
            files = [file for file in files if file.path not in gone] + [LiveFile.of_add(add) for add in adds]
            report.rewrites += 1
            report.rewritten_files += len(run.files)
            report.rewritten_bytes += run.bytes
            report.version = log.version
            report.files_after, report.bytes_after = len(files), sum(file.size for file in files)
        if failure:
            raise failure

    def _vacuum(
        self, view: TableView, named: set[str] | None, kept: set[str], memory: _Memory, report: TableReport
    ) -> None:
        now_ms = self._now_ms()
        tombstones = memory.tombstones
        tombstones.advance(view, backwards=view.version + 1 if self._thorough else _BACKFILL)
        gone = tombstones.expired(view, before_ms=now_ms - self._retention_ms, named=kept | (named or set()))
        gone = self._without_saved(view, gone)
        deleted = vacuum.delete(view, gone, self._going_on)
        tombstones.forget(deleted)
        report.vacuumed_files = len(deleted)
        if self._thorough or now_ms / 1_000 - memory.listed_s >= _LISTING_S:
            memory.listed_s = now_ms / 1_000
            lost = dict(self._orphans(view, named, tombstones, now_ms))
            lost = {path: lost[path] for path in self._without_saved(view, lost)}
            deleted = vacuum.delete(view, lost, self._going_on)
            report.orphans_deleted, report.orphan_bytes = len(deleted), sum(lost[path] for path in deleted)
            for path in vacuum.staged(view, before_ms=now_ms - self._retention_ms):
                path.unlink(missing_ok=True)

    def _without_saved(self, view: TableView, paths: Iterable[str]) -> list[str]:
        """Those that neither a savepoint nor an unfinished restore needs, asked where there is anything to delete.

        Asked just before: a savepoint names what is live when it is made, and that is deleted no sooner than a
        retention after it was removed.
        """
        paths = list(paths)
        if not paths or view.kind == "journal":
            return paths
        saved = {unquote(path) for of in (self._savepoints, self._restores) for path in of.kept(view.name)}
        return [path for path in paths if path not in saved]

    def _orphans(
        self, view: TableView, named: set[str] | None, tombstones: vacuum.Tombstones, now_ms: int
    ) -> list[tuple[str, int]]:
        if named is None:
            return []  # another table cannot be read, and its last batch may name any of these files
        return vacuum.orphans(
            view, now_ms=now_ms, retention_ms=self._retention_ms, named=named, removed=tombstones.removed
        )

    def _clean(self, view: TableView, upto: int, report: TableReport) -> None:
        files = cleanup.list_log(view)
        gone: list[cleanup.LogFile] = []
        if view.settled is not None:
            upto, before_ms = min(upto, view.settled), self._now_ms() - self._retention_ms
            gone = cleanup.clean_up(view, files, before_ms=before_ms, upto=upto, keep_on=self._going_on)
        report.log_files_deleted = len(gone)
        report.log_files = len(files) - len(gone)


def keeps(one_pass: OnePass) -> Iterator[tuple[str, timedelta | None]]:
    """Each table of a pipeline and how long a rule of retention keeps its rows; None for ever."""
    pipeline = one_pass.pipeline
    for table in one_pass.schemas:
        layer = table.split("/")[0]
        if layer != "gold":
            yield table, pipeline.keep(layer)
    for name, rollup in pipeline.rollups.items():
        for grain in rollup.grains:
            yield f"gold/{pipeline.name}_{name}_{grain}", pipeline.keep(grain, name)


def _tell(report: TableReport, retirement: Retirement, rows: int) -> None:
    report.retired_before = retirement.before
    report.retired_files, report.cut_files = len(retirement.whole), len(retirement.cut)
    report.retired_rows = rows


@contextmanager
def _reported(report: TableReport) -> Iterator[None]:
    """Whatever keeps a table from being maintained ends up in its report."""
    try:
        yield
    except LakehouseError as error:
        report.error = str(error)
    except (DeltaError, BaseError, OSError) as error:
        report.error = f"the store does not answer as it should: {error}"


@contextmanager
def _timed(report: TableReport) -> Iterator[None]:
    """Add what the body takes to the report."""
    began, began_cpu = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        report.seconds = round(report.seconds + time.perf_counter() - began, 3)
        report.cpu_s = round(report.cpu_s + time.process_time() - began_cpu, 3)


def follow(
    pipeline: Pipeline, every_s: float, stop: threading.Event, on_pass: Callable[[Iterable[TableReport]], None]
) -> None:
    """Pass after pass, each begun `every_s` after the one before it, until `stop` is set.

    Args:
        pipeline: whose tables.
        every_s: seconds.
        stop: looked at between two steps.
        on_pass: called with each pass's reports; an error that stays the same is reported once.
    """
    maintainer = Maintainer(pipeline, thorough=False, stop=stop)
    known: dict[str, str | None] = {}
    while not stop.is_set():
        began = time.monotonic()
        reports = maintainer.maintain()
        on_pass([report for report in reports if report.error is None or known.get(report.table) != report.error])
        known = {report.table: report.error for report in reports}
        stop.wait(max(0.0, every_s - (time.monotonic() - began)))
