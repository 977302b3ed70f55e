"""The Pipeline page's figures: the journals of every table of one pipeline, and the topic's ends.

Shared by all sessions. A look reads only the commits that came since the last one, and is made at most once a
second; the topic is asked in a thread of its own, so that a broker that is away holds up no page.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from dashboard import panels, wording
from dashboard.held import Held
from dashboard.panels import marked
from lakehouse import kafka_admin, storage
from lakehouse.errors import LakehouseError, TableError
from lakehouse.serving.journal import Journal, batches, last_commits, pace, partition_rates

if TYPE_CHECKING:
    from dashboard.alarms import Alarms
    from dashboard.panels import Cell, Mood, Panel
    from lakehouse.config.models import Pipeline
    from lakehouse.serving.journal import Entry, Pace, Sizes

LOOK_S = 1.0
"""Viewers between two looks get the same bytes."""
SIZES_S = 10.0
ENDS_S = 5.0
POINTS = 60
OTHERS = 400
"""Commits kept of each table but silver: enough to see when each batch of the last minute was complete."""
LATE_MS, STALE_MS = 1_000, 10_000
_LOG_BYTES = 65_536
_PROBLEMS = 8


@dataclass(frozen=True)
class Ends:
    """Where the topic's partitions end, or why that is not known."""

    ends: dict[int, int] = field(default_factory=dict)
    problem: str = "asking Kafka"


class Topic:
    """The ends of a pipeline's topic, asked in the background while somebody wants them."""

    def __init__(self, pipeline: Pipeline, *, every_s: float = ENDS_S) -> None:
        self._source, self._every_s = pipeline.source, every_s
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="topic-ends")
        self._asked: tuple[float, Future[Ends]] | None = None
        self._newest = Ends()
        self._lock = threading.Lock()

    def ends(self) -> Ends:
        """The newest answer. Never waits."""
        with self._lock:
            if self._asked is not None and self._asked[1].done():
                self._newest = self._asked[1].result()
            idle = self._asked is None or self._asked[1].done()
            if idle and (self._asked is None or time.monotonic() - self._asked[0] >= self._every_s):
                self._asked = (time.monotonic(), self._pool.submit(self._ask))
            return self._newest

    def _ask(self) -> Ends:
        options = {name: secret.get_secret_value() for name, secret in self._source.options.items()}
        try:
            found = kafka_admin.offsets(self._source.servers, self._source.topic, options)
        except LakehouseError as error:
            return Ends(problem=error.what)
        return Ends({partition: end for partition, (_, end) in found.items()}, "")


@dataclass(frozen=True)
class View:
    """What was seen of every table at one look."""

    entries: dict[str, tuple[Entry, ...]]
    problems: dict[str, str]


@dataclass(frozen=True)
class Course:
    """How the pipeline went, step by step: `start` and `step` in seconds since 1970 UTC."""

    start: float
    step: float
    paces: tuple[Pace, ...]


class Pulse:
    """One pipeline's tables as their logs tell of them."""

    def __init__(self, pipeline: Pipeline, alarms: Alarms) -> None:
        self.pipeline = pipeline
        self._alarms = alarms
        name = pipeline.name
        self._root = storage.resolve_root(pipeline.root)
        self._silver = f"silver/{name}"
        layers = ["silver", "quarantine", *(["bronze"] if pipeline.tables.bronze else [])]
        tables = [f"{layer}/{name}" for layer in layers]
        tables += [f"gold/{table}" for table, _, _ in pipeline.rollup_tables()]
        self._stream = tuple(tables)
        self._journals = {table: Journal(f"{self._root}/{table}", most=OTHERS) for table in tables}
        self._journals[self._silver] = Journal(f"{self._root}/{self._silver}")
        self._journals[f"_quality/{name}_observed"] = Journal(
            storage.quality_url(pipeline.root, name, "observed"), most=20
        )
        self._topic = Topic(pipeline)
        self._view = Held(self._look, LOOK_S)
        self._sizes = Held(self._measure, SIZES_S)

    def view(self) -> View:
        """The newest commits of every table."""
        return self._view.get()

    def board(self, minutes: int, now_ms: float, config: str) -> bytes:
        """The Pipeline page."""
        view = self.view()
        silver = view.entries.get(self._silver, ())
        if not batches(silver) and not view.problems:
            return panels.encode_waiting(
                "Waiting for the first commit",
                f"There is no table of {self.pipeline.name} yet. Start the pipeline with: lakehouse run {config}",
            )
        course = self._course(view, silver, minutes, now_ms)
        found = [self._tiles(view, silver, now_ms, course), *_charts(course)]
        found += [self._alarms.panel(now_ms), self._partitions(silver, now_ms)]
        found += [self._tables(view, now_ms), self._problems(view)]
        foot = "From the tables' own logs. Behind: from a batch's oldest record in Kafka to its commit. Times are UTC."
        return panels.encode(found, foot=foot)

    def _look(self) -> View:
        entries, problems = {}, {}
        for table, journal in self._journals.items():
            try:
                entries[table] = journal.look()
            except TableError as error:
                problems[table] = error.what
        return View(entries, problems)

    def _measure(self) -> dict[str, Sizes]:
        found = {}
        for table, journal in self._journals.items():
            try:
                sizes = journal.sizes()
            except TableError:
                continue  # the look says why
            if sizes is not None:
                found[table] = sizes
        return found

    def _pace(self, silver: tuple[Entry, ...], last_ms: dict[int, int], start_ms: float, end_ms: float) -> Pace:
        return pace(silver, last_ms, start_ms, end_ms, self.pipeline.name)

    def _course(self, view: View, silver: tuple[Entry, ...], minutes: int, now_ms: float) -> Course:
        last_ms = last_commits(view.entries[table] for table in self._stream if table in view.entries)
        step = minutes * 60 / POINTS
        # Steps lie on a grid of their own, so that a refresh moves none of them; the open one is left out.
        end = now_ms / 1000 // step * step
        starts = [end - step * (POINTS - index) for index in range(POINTS)]
        paces = [self._pace(silver, last_ms, start * 1000, (start + step) * 1000) for start in starts]
        return Course(starts[0], step, tuple(paces))

    def _tiles(self, view: View, silver: tuple[Entry, ...], now_ms: float, course: Course) -> Panel:
        last_ms = last_commits(view.entries[table] for table in self._stream if table in view.entries)
        minute = self._pace(silver, last_ms, now_ms - 60_000, now_ms)
        newest = batches(silver)[-1] if batches(silver) else None
        age = None if newest is None else max(0.0, now_ms - newest.at_ms)
        total = minute.kept + minute.refused
        lag, note = self._lag(newest)
        worst, spread = wording.span(minute.worst_ms), wording.span(minute.spread_ms)
        since = "none" if age is None else f"{wording.span(age)} ago"
        stopped: Mood = "bad" if age is None or age > STALE_MS else ""
        share = minute.refused / total if total else None
        return panels.tiles(
            [
                panels.tile(
                    "rate",
                    "Events",
                    f"{wording.number(total)} /s",
                    note="over the last minute",
                    spark=[round(one.kept + one.refused, 2) for one in course.paces],
                ),
                panels.tile(
                    "behind",
                    "Behind at the commit",
                    wording.span(minute.behind_ms),
                    note=f"worst {worst}",
                    mood=_mood(minute.behind_ms),
                    spark=[_whole(one.behind_ms) for one in course.paces],
                ),
                panels.tile(
                    "batches",
                    "Batches",
                    f"{wording.number(minute.batches)} /s",
                    note=f"{spread} over all tables",
                    spark=[round(one.batches, 2) for one in course.paces],
                ),
                panels.tile(
                    "refused",
                    "Quarantined",
                    wording.percent(share),
                    note=f"{wording.number(minute.refused)} /s",
                    spark=[round(one.refused, 2) for one in course.paces],
                ),
                panels.tile("lag", "Waiting in Kafka", wording.count(lag), note=note),
                panels.tile(
                    "newest", "Newest commit", since, note=f"version {newest.version:,}" if newest else "", mood=stopped
                ),
            ]
        )

    def _lag(self, newest: Entry | None) -> tuple[int | None, str]:
        topic = self._topic.ends()
        if topic.problem or newest is None or newest.work is None:
            return None, topic.problem
        end = newest.work.end.get(self.pipeline.source.topic, {})
        return sum(max(0, last - end.get(partition, 0)) for partition, last in topic.ends.items()), "records"

    def _partitions(self, silver: tuple[Entry, ...], now_ms: float) -> Panel:
        newest = batches(silver)[-1] if batches(silver) else None
        rates = partition_rates(silver, now_ms - 60_000, now_ms)
        topic = self._topic.ends()
        rows: list[list[Cell]] = []
        for name, of in sorted(newest.work.end.items() if newest and newest.work else ()):
            for partition, offset in sorted(of.items()):
                known = topic.ends.get(partition) if name == self.pipeline.source.topic else None
                # Kafka is asked less often than the tables are: the topic ends no earlier than what was read of it.
                last = None if known is None else max(known, offset)
                lag = None if last is None else last - offset
                rate = rates.get((name, partition))
                rows.append(
                    [
                        f"{name} {partition}",
                        wording.count(offset),
                        wording.count(last),
                        wording.count(lag),
                        f"{wording.number(rate)} /s",
                    ]
                )
        columns = ("partition", "in the tables", "end of the topic", "lag", "read")
        caption = topic.problem or "offsets"
        return panels.table("partitions", "Partitions", columns, rows, right=columns[1:], caption=caption)

    def _tables(self, view: View, now_ms: float) -> Panel:
        sizes = self._sizes.get()
        rows: list[list[Cell]] = []
        for table in self._journals:
            entries, found = view.entries.get(table, ()), sizes.get(table)
            if table in view.problems:
                rows.append([table, marked("damaged", "bad"), *[wording.NONE] * 6])
            elif entries and found:
                upkeep = next((entry.at_ms for entry in reversed(entries) if entry.operation == "OPTIMIZE"), None)
                rows.append(
                    [
                        table, wording.count(found.rows), wording.size(found.bytes), wording.count(found.files),
                        wording.count(found.version), wording.count(found.since_checkpoint),
                        f"{wording.span(max(0, now_ms - entries[-1].at_ms))} ago",
                        "none seen" if upkeep is None else f"{wording.span(max(0, now_ms - upkeep))} ago",
                    ]
                )  # fmt: skip
        columns = (
            "table",
            "rows",
            "size",
            "files",
            "version",
            "commits since checkpoint",
            "newest commit",
            "files merged",
        )
        return panels.table(
            "tables", "Tables", columns, rows, right=columns[1:], caption=f"sizes every {SIZES_S:.0f} s"
        )

    def _problems(self, view: View) -> Panel:
        rows: list[list[Cell]] = [["now", table, marked(text, "bad")] for table, text in view.problems.items()]
        rows += [[wording.moment(at_ms), "pipeline", text] for at_ms, text in self._logged()]
        return panels.table(
            "problems", "Last errors", ("time", "where", "what"), rows[:_PROBLEMS],
            empty="No table is damaged, and the pipeline's log here names no error.",
        )  # fmt: skip

    def _logged(self) -> list[tuple[float | None, str]]:
        """What the pipeline's log says of errors, newest first, where `lakehouse demo` keeps one beside the tables."""
        if self._root.startswith("s3://"):
            return []
        try:
            with open(f"{self._root}/_logs/pipeline.log", "rb") as log:  # noqa: PTH123 - the root is text everywhere
                log.seek(0, 2)
                log.seek(max(0, log.tell() - _LOG_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return []
        found = [problem for line in reversed(lines) if (problem := _problem(line)) is not None]
        return found[:_PROBLEMS]


def _charts(course: Course) -> list[Panel]:
    start, step, paces = course.start, course.step, course.paces
    rates = {"silver": [round(one.kept, 2) for one in paces], "quarantine": [round(one.refused, 2) for one in paces]}
    behind = {
        "median": [_whole(one.behind_ms) for one in paces],
        "worst": [_whole(one.worst_ms) for one in paces],
        "first table to last": [_whole(one.spread_ms) for one in paces],
    }
    return [
        panels.chart(
            "rates", "Rows per second", "/s", rates, start=start, step=step, stacked=True, caption="by their commits"
        ),
        panels.chart(
            "behind",
            "Behind at the commit",
            "ms",
            behind,
            start=start,
            step=step,
            caption="oldest record of each batch",
        ),
    ]


def _problem(line: str) -> tuple[float | None, str] | None:
    if line.startswith("error: "):
        return None, line.removeprefix("error: ")
    if not line.startswith('{"'):
        return None
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if event.get("event") != "waiting":
        return None
    return event.get("time_ms"), f"{event.get('reason')}; tried again"


def _mood(ms: float | None) -> Mood:
    if ms is None:
        return ""
    return "good" if ms < LATE_MS else "warn" if ms < STALE_MS else "bad"


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
