"""Drift of a pipeline: its latest stretch of time against the trailing day, from tables that are there anyway.

* `_quality/NAME_observed`: the share of failures of each rule, and each aggregate's values by the minute;
* `quarantine/NAME` against a rollup's events: the share of records that were refused;
* gold: the share of each `count` metric, the distribution of each `quantiles` metric.

Only the columns and files of the stretch are read, a batch at a time. `quality.drift` compares; no JVM.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import datasketches
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from lakehouse import storage
from lakehouse.config.models import CountMetric, QuantilesMetric
from lakehouse.errors import TableError, first_line
from lakehouse.quality.drift import distribution_drift, share_drift, sketch_of
from lakehouse.schemas import TIMESTAMP
from lakehouse.serving.grid import render_grid
from lakehouse.sinks.observed import table_url as observed_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lakehouse.config.models import Pipeline, Rollup
    from lakehouse.quality.drift import Drift

SCHEMA = pa.schema(
    [
        ("compared_at", TIMESTAMP),
        ("current_start", TIMESTAMP),
        ("current_end", TIMESTAMP),
        ("baseline_start", TIMESTAMP),
        ("source", pa.string()),
        ("name", pa.string()),
        *((name, pa.int64()) for name in ("current", "baseline")),
        *((name, pa.float64()) for name in ("now", "before", "difference", "at_least", "tolerance", "at")),
        ("drifted", pa.bool_()),
    ]
)
"""Of `_quality/NAME_drift`: a row per comparison; times are UTC, the rest as in `quality.drift.Drift`."""


@dataclass(frozen=True)
class Stretch:
    """The stretch that is looked at, `[start, end)`, and where the one before it begins; UTC."""

    baseline_start: datetime
    start: datetime
    end: datetime

    @classmethod
    def until(cls, end: datetime, *, last: timedelta, against: timedelta) -> Stretch:
        """The last `last` up to `end`, against the `against` before that."""
        return cls(end - last - against, end - last, end)


@dataclass(frozen=True)
class Comparison:
    """One figure, now and before.

    Attributes:
        source: the table that it is from.
        name: a rule's id, or a metric's name; what: of it, for people.
        drift: how they compare.
    """

    source: str
    name: str
    what: str
    drift: Drift


@dataclass(frozen=True)
class DriftReport:
    """Every comparison of a pipeline, drifted ones first."""

    pipeline: str
    stretch: Stretch
    comparisons: tuple[Comparison, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing drifted."""
        return not any(one.drift.drifted for one in self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """For scripts."""
        return asdict(self) | {"ok": self.ok}

    def __str__(self) -> str:
        stretch = self.stretch
        head = (
            f"{self.pipeline}: {stretch.start:%Y-%m-%d %H:%M} to {stretch.end:%Y-%m-%d %H:%M} UTC against the time from"
            f" {stretch.baseline_start:%Y-%m-%d %H:%M}"
        )
        rows = [
            (
                {True: "DRIFTED", False: "ok", None: "too few"}[one.drift.drifted],
                one.name,
                one.what,
                f"{one.drift.now:.2%}",
                f"{one.drift.before:.2%}",
                f"{one.drift.at_least:.2%}",
            )
            for one in self.comparisons
        ]
        header = ("", "name", "compared", "now", "before", "at least apart")
        grid = render_grid(header, rows, right=(False, False, False, True, True, True))
        why = [f"{one.name}, {one.what}: {one.drift}" for one in self.comparisons if one.drift.drifted]
        return "\n".join([head, "", grid, *(["", *why] if why else ["nothing drifted"])])


def find_drift(
    pipeline: Pipeline, stretch: Stretch, *, share_tolerance: float, distance_tolerance: float
) -> DriftReport:
    """Compare everything that can be compared.

    Args:
        pipeline: whose tables.
        stretch: which time; by when a batch was committed, a record came to Kafka, or an event happened.
        share_tolerance: by how much a share may differ.
        distance_tolerance: which share of a distribution's values may have moved.

    Raises:
        TableError: a table is damaged, or there is none at all.
    """
    root = storage.resolve_root(pipeline.root)
    observed = _open(observed_url(root, pipeline.name))
    found: list[Comparison] = []
    if observed is not None:
        found += _observed(observed, stretch, share_tolerance, distance_tolerance)
    accepted: tuple[int, int] | None = None
    for table_name, _, rollup in pipeline.rollup_tables():
        table = _open(f"{root}/gold/{table_name}")
        if table is not None:
            rows, comparisons = _rollup(table, table_name, rollup, stretch, share_tolerance, distance_tolerance)
            accepted = accepted or rows
            found += comparisons
    quarantine = _open(f"{root}/quarantine/{pipeline.name}")
    if quarantine is not None and accepted is not None:
        refused = [_count(quarantine, "_timestamp", *span) for span in _spans(stretch)]
        shares = [(no, no + yes) for no, yes in zip(refused, accepted, strict=True)]
        drift = share_drift(shares[0], shares[1], tolerance=share_tolerance)
        found.append(Comparison(f"quarantine/{pipeline.name}", "quarantine", "share of records refused", drift))
    if observed is None and accepted is None:
        raise TableError(
            "the pipeline has written neither observations nor rollups",
            where=f"{root}/_quality/{pipeline.name}_observed",
            remedy="run the pipeline first; `lakehouse tables` lists what there is",
        )
    order = {True: 0, False: 1, None: 2}
    found.sort(key=lambda one: (order[one.drift.drifted], -one.drift.at_least, one.source, one.name))
    return DriftReport(pipeline.name, stretch, tuple(found))


def append(report: DriftReport, root: str) -> str:
    """Append the comparisons to `_quality/NAME_drift`; the table's path."""
    url = storage.quality_url(root, report.pipeline, "drift")
    stretch = report.stretch
    times = {
        "compared_at": datetime.now(UTC),
        "current_start": stretch.start,
        "current_end": stretch.end,
        "baseline_start": stretch.baseline_start,
    }
    rows = [{**times, "source": one.source, "name": one.name, **asdict(one.drift)} for one in report.comparisons]
    storage.open_store(url)  # makes the folder, which a local table needs
    write_deltalake(url, pa.Table.from_pylist(rows, schema=SCHEMA), mode="append")
    return url


def _spans(stretch: Stretch) -> tuple[tuple[datetime, datetime], tuple[datetime, datetime]]:
    """The current one, then the baseline."""
    return (stretch.start, stretch.end), (stretch.baseline_start, stretch.start)


def _open(url: str) -> DeltaTable | None:
    try:
        return DeltaTable(url)
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise TableError(
            f"the table cannot be read: {first_line(error)}", where=url, remedy="run `lakehouse doctor`"
        ) from error


def _batches(
    table: DeltaTable, columns: list[str], time: str, start: datetime, end: datetime
) -> Iterator[pa.RecordBatch]:
    inside = (ds.field(time) >= pa.scalar(start, TIMESTAMP)) & (ds.field(time) < pa.scalar(end, TIMESTAMP))
    yield from table.to_pyarrow_dataset().to_batches(columns=columns, filter=inside)


def _count(table: DeltaTable, time: str, start: datetime, end: datetime) -> int:
    return sum(batch.num_rows for batch in _batches(table, [time], time, start, end))


def _observed(
    table: DeltaTable, stretch: Stretch, share_tolerance: float, distance_tolerance: float
) -> Iterator[Comparison]:
    """Of each rule: the share of failures; of each aggregate: its values by the minute."""
    sides: list[tuple[dict[str, Counter[str]], dict[str, list[float]]]] = []
    for span in _spans(stretch):
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        values: dict[str, list[float]] = defaultdict(list)
        for batch in _batches(table, ["rule_id", "evaluated", "failed", "value"], "window_end", *span):
            for row in batch.to_pylist():
                if row["failed"] is not None:
                    counts[row["rule_id"]].update(failed=row["failed"], evaluated=row["evaluated"])
                elif isinstance(number := json.loads(row["value"] or "null"), int | float):
                    values[row["rule_id"]].append(float(number))
        sides.append((counts, values))
    (counts, values), (counts_before, values_before) = sides
    name = "/".join(table.table_uri.rstrip("/").rsplit("/", 2)[-2:])
    for rule_id in sorted(counts.keys() | counts_before.keys()):
        now, before = _failed(rule_id, counts), _failed(rule_id, counts_before)
        drift = share_drift(now, before, tolerance=share_tolerance)
        yield Comparison(name, rule_id, "share of rows that fail", drift)
    for rule_id in sorted(values.keys() | values_before.keys()):
        drift = distribution_drift(
            sketch_of(values[rule_id]), sketch_of(values_before[rule_id]), tolerance=distance_tolerance
        )
        yield Comparison(name, rule_id, "its values by the minute", drift)


def _failed(rule_id: str, counts: dict[str, Counter[str]]) -> tuple[int, int]:
    """(failed, evaluated). Rules of the contract are named only where records fail them: elsewhere none did."""
    of = counts.get(rule_id, Counter())
    if of["evaluated"] or not rule_id.startswith("contract."):
        return of["failed"], of["evaluated"]
    return 0, max((one["evaluated"] for one in counts.values()), default=0)


def _rollup(
    table: DeltaTable,
    name: str,
    rollup: Rollup,
    stretch: Stretch,
    share_tolerance: float,
    distance_tolerance: float,
) -> tuple[tuple[int, int], list[Comparison]]:
    """Events (now, before), and the comparisons of the metrics."""
    counted = [metric.name for metric in rollup.metrics if isinstance(metric, CountMetric)]
    sketched = [metric for metric in rollup.metrics if isinstance(metric, QuantilesMetric)]
    columns = ["events", *counted, *(metric.name for metric in sketched)]
    sides: list[tuple[Counter[str], dict[str, datasketches.kll_doubles_sketch]]] = []
    for span in _spans(stretch):
        totals: Counter[str] = Counter()
        sketches = {metric.name: datasketches.kll_doubles_sketch(metric.k) for metric in sketched}
        for batch in _batches(table, columns, "window_start", *span):
            totals.update({column: pc.sum(batch[column]).as_py() or 0 for column in ("events", *counted)})
            for column, sketch in sketches.items():
                _merge(sketch, batch[column].drop_null().to_pylist())
        sides.append((totals, sketches))
    (now, sketches), (before, sketches_before) = sides
    found = [
        Comparison(
            f"gold/{name}",
            column,
            "share of events",
            share_drift((now[column], now["events"]), (before[column], before["events"]), tolerance=share_tolerance),
        )
        for column in counted
    ]
    found += [
        Comparison(
            f"gold/{name}",
            column,
            "distribution",
            distribution_drift(sketches[column], sketches_before[column], tolerance=distance_tolerance),
        )
        for column in sketches
    ]
    return (now["events"], before["events"]), found


def _merge(sketch: datasketches.kll_doubles_sketch, parts: Iterable[bytes]) -> None:
    for part in parts:
        sketch.merge(datasketches.kll_doubles_sketch.deserialize(part))
