"""Questions to a rollup's whole history: metrics by dimensions, filtered, over a range, in windows of any width.

Each part of the range is answered by the coarsest grain that fits (`planner`), rows of a grain are its table and the
tails of the finer ones (`history`), sketches are merged, and the answer says which versions it is of. The same
question at the same versions is answered once. No Spark, no JVM, nothing written.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import datasketches
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from lakehouse.config.models import (
    CountMetric,
    DistinctMetric,
    MomentsMetric,
    QuantilesMetric,
    TopMetric,
    format_duration,
    parse_duration,
)
from lakehouse.config.problems import choose
from lakehouse.errors import ConfigError, TableError, TooSlow, TooStale
from lakehouse.rollups.merge import merge_by
from lakehouse.rollups.moments import means, variances
from lakehouse.rollups.partials import GRAIN_US, window_of
from lakehouse.rollups.sketches import count_bitmap, count_theta, read_top
from lakehouse.schemas import TIMESTAMP, gold_schema, wide
from lakehouse.serving.files import Files, Wanted
from lakehouse.serving.grid import render_grid
from lakehouse.serving.history import Held, History, grains_of, hold, read_rows
from lakehouse.serving.lru import Lru
from lakehouse.serving.planner import Kept, Segment, moment, plan
from lakehouse.serving.revisions import Revisions
from lakehouse.storage import resolve_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lakehouse.config.models import AnyMetric, Pipeline, Rollup
    from lakehouse.serving.history import Part
    from lakehouse.serving.revisions import Lately

EVENTS = "events"
REVISED = "revised"
"""Events of a row that came long after their window had ended, lately: see `revisions`."""
_REOPEN_S = 5.0
"""After so long without a commit a table is opened anew: it may have been made anew, or its log cleaned."""
_ANSWERS = 256
_RANKED = {"quantiles": "@0.99", "top": "@10"}
"""Types of metrics of which a measure says what is read → how."""
_NUMBERS = {"count", "sum", "min", "max", "mean", "variance", "distinct"}
_MOST_TOP = 1_000
_FREQUENT = pa.list_(
    pa.struct([("value", pa.string()), ("count", pa.int64()), ("at_least", pa.int64()), ("at_most", pa.int64())])
)
"""The most frequent values of a cell, the first one first."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of the answer: `events`, `errors`, `errors/events`, `latency_ms_kll@0.99`, `pages_top@10`.

    Attributes:
        metric: name of a metric or of a ratio, or `events`.
        rank: of a quantile, 0 to 1, for metrics of type quantiles; how many values, for those of type top.
        over: metric that it is divided by; for numbers only. Null where that is 0.
    """

    metric: str
    rank: float | None = None
    over: str | None = None

    @property
    def name(self) -> str:
        """Column in the answer."""
        if self.rank is not None:
            return f"{self.metric}@{self.rank:g}"
        return self.metric if self.over is None else f"{self.metric}/{self.over}"

    @classmethod
    def parse(cls, text: str) -> Measure:
        """Read what `name` spells.

        Raises:
            ConfigError: the rank is no number.
        """
        metric, at, rank = text.partition("@")
        if at:
            try:
                return cls(metric, rank=float(rank))
            except ValueError:
                raise ConfigError(f"{rank!r} is no rank", remedy="write METRIC@0.99") from None
        metric, slash, over = text.partition("/")
        return cls(metric, over=over if slash else None)


@dataclass(frozen=True, slots=True)
class Query:
    """One question.

    Attributes:
        rollup: its name in the pipeline's file.
        measures: what is asked.
        start_us, end_us: the range, µs since 1970 UTC; the end is exclusive.
        step_us: width of the answer's windows, which begin at its multiples since 1970; None for one window.
        dimensions: one row for each combination of their values.
        filters: (dimension, the values let in); None is a value like any other.
        max_staleness: the last batch must have been committed no longer ago than this.
    """

    rollup: str
    measures: tuple[Measure, ...]
    start_us: int
    end_us: int
    step_us: int | None = None
    dimensions: tuple[str, ...] = ()
    filters: tuple[tuple[str, frozenset[Any]], ...] = ()
    max_staleness: timedelta | None = None


@dataclass(frozen=True)
class Use:
    """What a part of the range is answered from.

    Attributes:
        segment: the part and its grain.
        table: such as `gold/clicks_by_page_1m`; version: of it.
        tail: whether only what the table gained since the coarser one was derived; else its live files.
        files: that may hold rows of the part; rows: in them.
    """

    segment: Segment
    table: str
    version: int
    tail: bool
    files: int
    rows: int


@dataclass(frozen=True)
class Prospect:
    """What is known of an answer before it is made.

    Attributes:
        uses: which tables will answer which part of the range.
        versions: as in `Answer`.
        batch_ms: as in `Answer`.
        cached: whether the answer is known already.
    """

    uses: tuple[Use, ...]
    versions: tuple[tuple[str, str, int], ...]
    batch_ms: int | None
    cached: bool

    @property
    def rows(self) -> int:
        """That have to be read at most."""
        return 0 if self.cached else sum(use.rows for use in self.uses)


@dataclass(frozen=True)
class Answer:
    """The rows, and what they are made of.

    Attributes:
        rows: `window_start`, the dimensions, a column for each measure; sorted by window and dimensions.
        uses: which tables answer which part of the range.
        versions: (table, its id, version): the answer is that of these, whenever it is given.
        batch_ms: when the last batch in it was committed, ms since 1970 UTC.
        seconds: how long it took when it was made.
        cached: whether it was made before.
    """

    rows: pa.Table
    uses: tuple[Use, ...]
    versions: tuple[tuple[str, str, int], ...]
    batch_ms: int | None
    seconds: float
    cached: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rows": self.rows.to_pylist(),
            "uses": [asdict(use) for use in self.uses],
            "versions": {name: version for name, _, version in self.versions},
            "batch_ms": self.batch_ms,
            "seconds": self.seconds,
            "cached": self.cached,
        }

    def explain(self) -> str:
        """The plan as text for a terminal."""
        return (
            render_uses(self.uses)
            + f"\n{self.rows.num_rows} rows in {1_000 * self.seconds:.1f} ms"
            + (", from the cache" if self.cached else "")
        )


def render_uses(uses: Iterable[Use]) -> str:
    """Which tables answer which part, as text for a terminal."""
    rows = [
        [
            moment(use.segment.start_us),
            moment(use.segment.end_us),
            use.segment.grain,
            f"{use.table}@{use.version}{' tail' if use.tail else ''}",
            str(use.files),
        ]
        for use in uses
    ]
    return render_grid(["from", "to", "grain", "table", "files"], rows, right=(False, False, False, False, True))


@dataclass
class _Pinned:
    """A table that stays open between questions."""

    table: DeltaTable
    held: Held
    opened_s: float = field(default_factory=time.monotonic)


class Rollups:
    """A pipeline's rollups, open for questions; shared by all threads of a process.

    Args:
        pipeline: whose rollups.
        clock: seconds since 1970 UTC.
    """

    def __init__(self, pipeline: Pipeline, *, clock: Callable[[], float] = time.time) -> None:
        self._pipeline = pipeline
        self._root = resolve_root(pipeline.root)
        self._clock = clock
        self._pins: dict[str, _Pinned] = {}
        self._lock = threading.Lock()
        self._revisions: dict[tuple[str, str], Revisions] = {}
        self._answers: Lru[tuple[Any, ...], Answer] = Lru(_ANSWERS)
        self._files = Files()

    def ask(self, query: Query, *, until_s: float = math.inf) -> Answer:
        """The answer of the tables as they are now.

        Args:
            query: the question.
            until_s: when the answer is no longer of use, by `time.monotonic`; looked at before each file is read.

        Raises:
            ConfigError: the question names what does not exist, or rows that no grain has.
            TooStale: the last batch is further back than the question allows.
            TooSlow: it took until `until_s`.
            TableError: a table cannot be read, or there is none yet.
        """
        began = time.perf_counter()
        self._check(query)
        try:
            return self._answer(query, self._pin(query), began, until_s)
        except TableError:
            # A file may have been replaced and vacuumed since its table was opened.
            with self._lock:
                self._pins.clear()
            return self._answer(query, self._pin(query), began, until_s)

    def look(self, query: Query) -> Prospect:
        """What can be said of the answer without making it. Reads logs only; raises as `ask`."""
        self._check(query)
        history = self._pin(query)
        finest = next(iter(history.tables.values()))
        self._require_fresh(query, finest)
        known = self._answers.get(_key(query, history)) is not None
        return Prospect(self._uses(history, query), history.versions, finest.batch_ms, known)

    def revised(self, rollup: str) -> Lately:
        """What came late into a rollup within the last minutes before its last batch. Raises as `ask`."""
        query = Query(rollup, (Measure(EVENTS),), 0, 1)
        self._check(query)
        return self._lately(self._pin(query), rollup)

    def _lately(self, history: History, rollup: str) -> Lately:
        finest = next(iter(history.tables.values()))
        described, fields = self._pipeline.rollups[rollup], self._pipeline.source.fields
        wanted = ("window_start", *described.dimensions, EVENTS)
        schema = wide(pa.schema([gold_schema(described, fields).field(name) for name in wanted]))
        late_after_ms = self._pipeline.event_time.late_after // timedelta(milliseconds=1)
        with self._lock:
            known = self._revisions.setdefault(
                (finest.name, finest.table_id), Revisions(schema, late_after_ms, self._files.whole)
            )
        return known.upto(finest)

    def _answer(self, query: Query, history: History, began: float, until_s: float) -> Answer:
        finest = next(iter(history.tables.values()))
        self._require_fresh(query, finest)
        key = _key(query, history)
        if known := self._answers.get(key):
            return replace(known, cached=True, seconds=time.perf_counter() - began)
        uses = self._uses(history, query)
        rows = self._rows(history, query, until_s)
        answer = Answer(rows, uses, history.versions, finest.batch_ms, time.perf_counter() - began)
        self._answers.put(key, answer)
        return answer

    def _segments(self, history: History, query: Query) -> tuple[Segment, ...]:
        kept = [Kept(grain, GRAIN_US[grain], held.retired_us) for grain, held in history.tables.items()]
        return plan(kept, query.start_us, query.end_us, query.step_us)

    def _uses(self, history: History, query: Query) -> tuple[Use, ...]:
        return tuple(
            Use(
                segment,
                source.table.name,
                source.table.version,
                number > 0,
                len(parts),
                sum(part.rows for part in parts),
            )
            for segment in self._segments(history, query)
            for number, source in enumerate(history.sources(segment.grain))
            if (parts := [part for part in source.parts if part.may_hold(segment.start_us, segment.end_us)])
        )

    def _rows(self, history: History, query: Query, until_s: float) -> pa.Table:
        rollup, fields = self._pipeline.rollups[query.rollup], self._pipeline.source.fields
        measures = [(each.name, _resolved(each, rollup)) for each in query.measures]
        needed = {name for _, measure in measures for name in (measure.metric, measure.over)}
        metrics: list[AnyMetric] = [metric for metric in rollup.metrics if metric.name in needed]
        selected = {*query.dimensions, *(name for name, _ in query.filters)}
        whole = wide(gold_schema(rollup, fields))
        columns = {"window_start", EVENTS, *selected, *(metric.name for metric in metrics)}
        schema = pa.schema([each for each in whole if each.name in columns])
        values = _values(schema, query.filters)
        found = [schema.empty_table()]
        for segment in self._segments(history, query):
            wanted = Wanted(schema, segment.start_us, segment.end_us, values)

            def read(held: Held, part: Part, _: pa.Schema, wanted: Wanted = wanted) -> pa.Table:
                _require_time(until_s)
                return self._files.read(held, part, wanted)

            bounds = {"start_us": segment.start_us, "end_us": segment.end_us}
            found.append(read_rows(history.sources(segment.grain), schema, **bounds, read=read))
        _require_time(until_s)
        if any(measure.metric == REVISED for _, measure in measures) and REVISED not in schema.names:
            metrics.append(CountMetric(name=REVISED, type="count"))
            found = [_with_revised(found, self._lately(history, query.rollup).rows, query)]
        rows = _filtered(pa.concat_tables(found), values)
        rows = rows.set_column(0, schema.field(0), _windows(rows, query))
        rows = rows.select(["window_start", *query.dimensions, EVENTS, *(metric.name for metric in metrics)])
        merged = merge_by(rows, ["window_start", *query.dimensions], metrics)
        merged = merged.filter(
            pc.greater(merged[EVENTS], 0)
        )  # of windows that a rule retired only the revision is known
        columns_of = {name: merged[name] for name in ("window_start", *query.dimensions)}
        by_name: dict[str, AnyMetric] = {metric.name: metric for metric in metrics}
        return pa.table(columns_of | {name: _measured(merged, measure, by_name) for name, measure in measures})

    def _pin(self, query: Query) -> History:
        """The rollup's tables, coarsest first, so that none covers more of its source than is seen of it."""
        tables = grains_of(self._pipeline, query.rollup)
        with self._lock:
            found = [held for grain, name in reversed(tables) if (held := self._newest(grain, name))]
        if not found or found[-1].name != tables[0][1]:
            raise TableError(
                "the rollup has no table yet", where=f"{self._root}/{tables[0][1]}", remedy="run the pipeline first"
            )
        return History([held for held in found if held.cover or held.name == tables[0][1]])

    def _newest(self, grain: str, name: str) -> Held | None:
        pinned = self._pins.get(name)
        now_s = time.monotonic()
        if pinned is not None and now_s - pinned.opened_s >= _REOPEN_S:
            pinned = None
        if pinned is not None and pinned.held.tail.read(pinned.held.version + 1) is None:
            return pinned.held
        try:
            if pinned is not None:
                pinned.table.update_incremental()
            table = pinned.table if pinned is not None else DeltaTable(f"{self._root}/{name}")
        except TableNotFoundError:
            self._pins.pop(name, None)
            return None
        except (DeltaError, OSError) as error:
            raise TableError(
                f"the table cannot be opened: {error}",
                where=f"{self._root}/{name}",
                remedy="see what `lakehouse doctor` says",
            ) from error
        self._pins[name] = _Pinned(table, hold(table, grain, name))
        return self._pins[name].held

    def _require_fresh(self, query: Query, finest: Held) -> None:
        if query.max_staleness is None:
            return
        behind_s = self._clock() - (finest.batch_ms or 0) / 1_000
        if behind_s > query.max_staleness.total_seconds():
            ago = f"{behind_s:.1f} s ago" if finest.batch_ms else "never"
            raise TooStale(
                f"the last batch was committed {ago}; the question allows {format_duration(query.max_staleness)}",
                where=f"table {finest.name}, version {finest.version}",
                remedy="see whether the pipeline runs and events arrive, or ask without a bound",
            )

    def _check(self, query: Query) -> None:
        """Refuse names that do not exist and measures that mean nothing."""
        rollups = self._pipeline.rollups
        if query.rollup not in rollups:
            raise ConfigError(f"there is no rollup {query.rollup}", remedy=choose(query.rollup, rollups, "there are"))
        rollup = rollups[query.rollup]
        kinds = measure_names(rollup)
        for name in (*query.dimensions, *(name for name, _ in query.filters)):
            if name not in rollup.dimensions:
                remedy = choose(name, rollup.dimensions, "the dimensions are")
                raise ConfigError(f"{name} is no dimension of {query.rollup}", remedy=remedy)
        if not query.measures:
            raise ConfigError("no measure is asked for", remedy=f"the metrics are {', '.join(kinds)}")
        for measure in query.measures:
            _check_measure(measure, kinds)
        if query.start_us >= query.end_us or (query.step_us is not None and query.step_us <= 0):
            raise ConfigError("the range or its windows are empty", remedy="let it end after it begins")


def measure_names(rollup: Rollup) -> dict[str, str]:
    """What may be asked of a rollup: name → type of the metric."""
    metrics = {metric.name: str(metric.type) for metric in rollup.metrics}
    return {EVENTS: "count", REVISED: "count"} | metrics | dict.fromkeys(rollup.ratios, "ratio")


def _resolved(measure: Measure, rollup: Rollup) -> Measure:
    """The measure, where it is a declared ratio as the quotient that it stands for."""
    ratio = rollup.ratios.get(measure.metric)
    return measure if ratio is None else Measure(ratio.of, over=ratio.over)


def _key(query: Query, history: History) -> tuple[Any, ...]:
    """What an answer depends on."""
    return replace(query, max_staleness=None), history.versions


def _require_time(until_s: float) -> None:
    if time.monotonic() > until_s:
        raise TooSlow(
            "the question was not answered within the time that it had",
            remedy="ask for a shorter range, wider windows or fewer dimensions, or try again later",
        )


def _check_measure(measure: Measure, kinds: dict[str, str]) -> None:
    for name in (measure.metric, measure.over):
        if name is not None and name not in kinds:
            raise ConfigError(f"there is no metric {name}", remedy=choose(name, kinds, "the metrics are"))
    kind = kinds[measure.metric]
    example = f"{measure.metric}{_RANKED.get(kind, '')}"
    if (kind in _RANKED) != (measure.rank is not None):
        raise ConfigError(f"{measure.metric} is a metric of type {kind}", remedy=f"write {example}")
    if measure.rank is not None and not _is_rank(kind, measure.rank):
        within = f"a whole number from 1 to {_MOST_TOP}" if kind == "top" else "between 0 and 1"
        raise ConfigError(f"the rank {measure.rank:g} is not {within}", remedy=f"write {example}")
    if measure.over is not None and not {kind, kinds[measure.over]} <= _NUMBERS:
        remedy = "divide counts, sums, extremes, means or distinct counts"
        raise ConfigError(f"a metric of type {kind} is not divided by one of type {kinds[measure.over]}", remedy=remedy)


def _is_rank(kind: str, rank: float) -> bool:
    return (1 <= rank <= _MOST_TOP and rank.is_integer()) if kind == "top" else 0 <= rank <= 1


def _with_revised(found: list[pa.Table], late: pa.Table, query: Query) -> pa.Table:
    """The partials with a column of revised events, which are partials as well, of no events."""
    rows = pa.concat_tables(found)
    rows = rows.append_column(REVISED, pa.array(np.zeros(rows.num_rows, dtype=np.int64)))
    micros = late["window_start"].cast(pa.int64())
    late = late.filter(pc.and_(pc.greater_equal(micros, query.start_us), pc.less(micros, query.end_us)))
    none = pa.array(np.zeros(late.num_rows, dtype=np.int64))
    columns = {
        field.name: {EVENTS: none, REVISED: late[EVENTS]}.get(
            field.name, late[field.name] if field.name in late.column_names else pa.nulls(late.num_rows, field.type)
        )
        for field in rows.schema
    }
    return pa.concat_tables([rows, pa.table(columns, rows.schema)])


def _values(schema: pa.Schema, filters: Iterable[tuple[str, frozenset[Any]]]) -> tuple[tuple[str, pa.Array], ...]:
    """The filters' values in the types of their columns."""
    found = []
    for name, values in filters:
        kind = schema.field(name).type
        try:
            found.append((name, pa.array(sorted(values, key=str), kind)))
        except (pa.ArrowException, OverflowError):
            what = f"a value for {name} does not fit its type, {kind}"
            raise ConfigError(what, remedy="write a value of it") from None
    return tuple(found)


def _filtered(rows: pa.Table, values: Iterable[tuple[str, pa.Array]]) -> pa.Table:
    for name, wanted in values:
        rows = rows.filter(pc.is_in(rows[name], value_set=wanted))
    return rows


def _windows(rows: pa.Table, query: Query) -> pa.ChunkedArray | pa.Array:
    if query.step_us is not None:
        return window_of(rows["window_start"], query.step_us)
    return pa.repeat(pa.scalar(query.start_us, pa.int64()), rows.num_rows).cast(TIMESTAMP)


def _measured(merged: pa.Table, measure: Measure, metrics: dict[str, AnyMetric]) -> pa.ChunkedArray | pa.Array:
    found = _numbers(merged, measure.metric, metrics, measure.rank)
    if measure.over is None:
        return found
    below = _numbers(merged, measure.over, metrics, None).cast(pa.float64())
    return pc.divide(found.cast(pa.float64()), pc.if_else(pc.equal(below, 0.0), None, below))


def _numbers(
    merged: pa.Table, name: str, metrics: dict[str, AnyMetric], rank: float | None
) -> pa.ChunkedArray | pa.Array:
    metric = metrics.get(name)
    match metric:
        case MomentsMetric():
            return (means if metric.type == "mean" else variances)(merged[name])
        case DistinctMetric():
            return pa.array([_distinct(sketch, metric) for sketch in merged[name].to_pylist()], pa.float64())
        case QuantilesMetric():
            return pa.array([_quantile(sketch, rank or 0.0) for sketch in merged[name].to_pylist()], pa.float64())
        case TopMetric():
            sketches = merged[name].to_pylist()
            return pa.array([_top(sketch, int(rank or 0)) for sketch in sketches], _FREQUENT)
        case _:
            return merged[name]


def _distinct(sketch: bytes | None, metric: DistinctMetric) -> float | None:
    if sketch is None:
        return 0.0
    match metric.sketch:
        case "hll":
            return float(datasketches.hll_sketch.deserialize(sketch).get_estimate())
        case "theta":
            return count_theta(sketch)
        case "bitmap":
            return count_bitmap(sketch)


def _top(sketch: bytes | None, count: int) -> list[dict[str, Any]]:
    return [] if sketch is None else [asdict(each) for each in read_top(sketch, count)]


def _quantile(sketch: bytes | None, rank: float) -> float | None:
    opened = None if sketch is None else datasketches.kll_doubles_sketch.deserialize(sketch)
    return None if opened is None or opened.is_empty() else float(opened.get_quantile(rank))


def parse_filters(pipeline: Pipeline, rollup: str, texts: Sequence[str]) -> tuple[tuple[str, frozenset[Any]], ...]:
    """`feature=search` and the like as filters; a name that stands twice lets in either value.

    Raises:
        ConfigError: no such dimension, or the value is not of its type.
    """
    found: dict[str, set[Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r} is no filter", remedy="write DIMENSION=VALUE")
        if rollup not in pipeline.rollups or name not in pipeline.rollups[rollup].dimensions:
            known = pipeline.rollups[rollup].dimensions if rollup in pipeline.rollups else ()
            remedy = choose(name, known, "the dimensions are")
            raise ConfigError(f"{name} is no dimension of {rollup}", remedy=remedy)
        found.setdefault(name, set()).add(_typed(value, pipeline.source.fields[name].type, name))
    return tuple(sorted((name, frozenset(values)) for name, values in found.items()))


def parse_range(start: str | None, end: str | None, last: str | None) -> tuple[int, int]:
    """A range of time, µs since 1970 UTC, its end exclusive: two moments, or a duration up to now in whole seconds.

    Raises:
        ConfigError: a moment or duration cannot be read, or there is no beginning.
    """
    # A whole second that is not over yet: its events so far are in the answer.
    now_us = (time.time_ns() // 1_000_000_000 + 1) * 1_000_000
    if last is not None:
        if start or end:
            raise ConfigError("--last comes with --from or --to", remedy="give a duration, or one or two moments")
        try:
            return now_us - parse_duration(last) // timedelta(microseconds=1), now_us
        except ValueError:
            raise ConfigError(f"{last!r} is no duration", remedy="write a whole number and s, m, h or d: 1h") from None
    if start is None:
        raise ConfigError("the range has no beginning", remedy="give --last 1h, or --from 2026-01-31T12:00:00Z")
    return _moment(start), now_us if end is None else _moment(end)


def _moment(text: str) -> int:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no moment", remedy="write it as 2026-01-31T12:00:00Z") from None
    zoned = when if when.tzinfo else when.replace(tzinfo=UTC)
    return (zoned - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _typed(value: str, kind: str, name: str) -> Any:  # noqa: ANN401 - a dimension may have any type
    try:
        match kind:
            case "integer" | "long":
                return int(value)
            case "boolean":
                return {"true": True, "false": False}[value]
            case "date":
                return date.fromisoformat(value)
            case _:
                return value
    except (KeyError, ValueError):
        raise ConfigError(f"{value!r} is not of the type of {name}, {kind}", remedy="write a value of it") from None
