"""Whether an alert's condition holds now: pure functions of (alert, what the tables say, now)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from lakehouse.config.models import format_duration
from lakehouse.serving.figures import figure, values
from lakehouse.serving.questions import freshness_ms, frontier_ms
from lakehouse.serving.scale import Level
from lakehouse.serving.snapshot import gather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta

    from lakehouse.alerts.figures import Figures
    from lakehouse.config.models import (
        AbsenceAlert,
        AnyAlert,
        BurnRateAlert,
        FigureAlert,
        FigureName,
        FreshnessAlert,
        LagAlert,
        QuarantineAlert,
        ThresholdAlert,
        Where,
    )
    from lakehouse.serving.snapshot import Cell, Selection, Shape, Snapshot

_GRIDS = ((300, 1), (7_200, 60), (259_200, 900))
"""(windows up to so many seconds, the width that their start lies on): long windows are made of wide buckets."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the tables say at one moment.

    Attributes:
        now_s: seconds since 1970 UTC.
        snapshots: rollup → its hot table's last minutes or hours.
        readable: rollups whose table can be read now; the snapshot of another one is what was read last.
        figures: of `_ops`.
        room: (bytes left, bytes in all) where the tables are; None over an object store.
        dashboard_behind_s: since a dashboard has last shown the newest versions; None where none is asked.
    """

    now_s: float
    snapshots: Mapping[str, Snapshot]
    readable: frozenset[str]
    figures: Figures
    room: tuple[int, int] | None = None
    dashboard_behind_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """An alert's condition at one moment.

    Attributes:
        active: whether it holds; None where nobody can say, as while a table cannot be read.
        value: the number that was compared; None where there is none.
        limit: the number that it was compared with.
        summary: both in words. Names and numbers only: no value of an event.
    """

    active: bool | None
    value: float | None
    limit: float
    summary: str


def read(alert: AnyAlert, facts: Facts) -> Reading:
    """Whether the condition holds."""
    match alert.kind:
        case "threshold":
            found = _threshold(alert, facts)
        case "absence":
            found = _absence(alert, facts)
        case "freshness":
            found = _freshness(alert, facts)
        case "lag":
            found = _lag(alert, facts)
        case "quarantine":
            found = _quarantine(alert, facts)
        case "burn_rate":
            found = _burn_rate(alert, facts)
        case "figure":
            found = _figure(alert, facts)
    return found


@dataclass(frozen=True, slots=True)
class Of:
    """A figure of the pipeline itself: how it is read off the facts, what it is called, the page of its runbook."""

    read: Callable[[Facts, float], float | None]
    words: str
    page: str


FIGURES: dict[FigureName, Of] = {
    "kafka_unreachable_seconds": Of(
        lambda facts, _: facts.figures.unreachable(facts.now_s), "seconds without an answer from Kafka", "kafka"
    ),
    "silent_seconds": Of(
        lambda facts, _: facts.figures.silent(facts.now_s), "seconds without a word of a driver", "down"
    ),
    "unmaintained_seconds": Of(
        lambda facts, _: facts.figures.unmaintained(facts.now_s),
        "seconds since maintenance was last through every table",
        "maintenance",
    ),
    "commit_seconds": Of(
        lambda facts, window_s: facts.figures.commit_s(window_s, facts.now_s),
        "seconds that a batch's commits take on average",
        "slow_storage",
    ),
    "clock_ahead_seconds": Of(
        lambda facts, window_s: facts.figures.ahead(window_s, facts.now_s),
        "seconds that events or Kafka's times lie ahead of the driver's clock",
        "clock",
    ),
    "late_share": Of(
        lambda facts, window_s: facts.figures.late(window_s, facts.now_s), "the share of events that come late", "clock"
    ),
    "suite_change_share": Of(
        lambda facts, window_s: facts.figures.suite_change(window_s, facts.now_s),
        "the refused share by which this suite exceeds the one before it",
        "suite_change",
    ),
    "disk_free_bytes": Of(lambda facts, _: facts.room and facts.room[0], "bytes left on the tables' disk", "disk"),
    "dashboard_behind_seconds": Of(
        lambda facts, _: facts.dashboard_behind_s, "seconds since a dashboard had the newest versions", "dashboard"
    ),
}
"""Each figure that an alert of kind `figure` can watch; `read` takes the facts and the window in seconds."""


def page(alert: AnyAlert) -> str:
    """Name of the alert's runbook."""
    return FIGURES[alert.figure].page if alert.kind == "figure" else alert.kind


def windows(alert: AnyAlert) -> tuple[timedelta, ...]:
    """How far back an alert looks into its rollup."""
    match alert.kind:
        case "threshold" | "absence":
            return (alert.window,)
        case "burn_rate":
            return tuple(pair.long for pair in alert.windows)
        case _:
            return ()


def levels(spans: Iterable[timedelta]) -> tuple[Level, ...]:
    """The buckets that windows of these lengths are made of: narrow ones for their edges, wide ones for the rest."""
    longest = max((round(span.total_seconds()) for span in spans), default=0)
    found = [Level(1, _GRIDS[0][0] + 60)]
    for (shorter, _), (reach, width) in pairwise(_GRIDS):
        if longest > shorter:
            found.append(Level(width, min(longest, reach) + 3 * width))
    return tuple(found)


def _threshold(alert: ThresholdAlert, facts: Facts) -> Reading:
    snapshot = facts.snapshots[alert.rollup]
    what = alert.metric
    value: float | None = None
    if _known(alert.rollup, facts):
        cell, seconds = _cell(snapshot, alert.window, alert.where, facts.now_s)
        value, what = _measure(alert, cell, seconds, snapshot.shape)
    beyond = value is not None and (value > alert.limit if alert.when == "above" else value < alert.limit)
    active = beyond if _known(alert.rollup, facts) else None
    shown = "unknown" if value is None else f"{value:.6g}"
    place = f"{alert.rollup}{_narrowed(alert.where)} over {format_duration(alert.window)}"
    return Reading(active, value, alert.limit, f"{what} of {place} is {shown}; it fires {alert.when} {alert.limit:.6g}")


def _measure(alert: ThresholdAlert, cell: Cell | None, seconds: float, shape: Shape) -> tuple[float | None, str]:
    """The metric's value, and what it is called; sums are 0 without events, other metrics have no value then."""
    one = figure(shape, alert.metric, "range" if alert.per == "window" else alert.per, alert.quantile)
    (value,) = values(cell, seconds, (one,), shape)
    match one.kind:
        case "quantiles":
            return value, f"the {alert.quantile:g} quantile of {alert.metric}"
        case "distinct":
            return value, f"distinct {alert.metric}"
        case "sum" if alert.per != "window":
            return value, f"{alert.metric} per {alert.per}"
        case _:
            return value, alert.metric


def _absence(alert: AbsenceAlert, facts: Facts) -> Reading:
    snapshot = facts.snapshots[alert.rollup]
    place = f"{alert.rollup}{_narrowed(alert.where)}"
    if not _known(alert.rollup, facts):
        return Reading(None, None, 0, f"events of {place} are unknown")
    # By the wall clock: data that has stopped moves no frontier.
    cell, _ = _cell(snapshot, alert.window, alert.where, facts.now_s, until_s=int(facts.now_s) + 1)
    events = cell.events if cell else 0
    count = "no event" if events == 0 else f"{events:,} events"
    return Reading(
        events == 0, float(events), 0, f"{place} has {count} within {format_duration(alert.window)}; it fires at none"
    )


def _freshness(alert: FreshnessAlert, facts: Facts) -> Reading:
    age_ms, limit_s = freshness_ms(facts.snapshots[alert.rollup], facts.now_s * 1_000), alert.limit.total_seconds()
    if age_ms is None:
        return Reading(None, None, limit_s, f"{alert.rollup} has no event yet")
    summary = f"the newest event of {alert.rollup} is {age_ms / 1_000:.1f} s old; it fires above {limit_s:g} s"
    return Reading(age_ms / 1_000 > limit_s, age_ms / 1_000, limit_s, summary)


def _lag(alert: LagAlert, facts: Facts) -> Reading:
    lag = facts.figures.lag(facts.now_s)
    if lag is None:
        return Reading(None, None, alert.limit, "how far the tables are behind Kafka is unknown")
    summary = f"the tables are {lag:,} records behind Kafka; it fires above {alert.limit:,}"
    return Reading(lag > alert.limit, float(lag), alert.limit, summary)


def _quarantine(alert: QuarantineAlert, facts: Facts) -> Reading:
    counted, records = facts.figures.refused(alert.window.total_seconds(), facts.now_s, alert.rule)
    share = counted / records if records else 0.0
    did = f"fail {alert.rule}" if alert.rule else "went to quarantine"
    summary = (
        f"{counted:,} of {records:,} records ({share:.2%}) {did} within {format_duration(alert.window)};"
        f" it fires above {alert.limit:.2%}"
    )
    return Reading(records >= alert.least_records and share > alert.limit, share, alert.limit, summary)


def _figure(alert: FigureAlert, facts: Facts) -> Reading:
    of = FIGURES[alert.figure]
    value = of.read(facts, alert.window.total_seconds())
    if value is None:
        return Reading(None, None, alert.limit, f"{alert.figure} is unknown")
    active = value > alert.limit if alert.when == "above" else value < alert.limit
    summary = f"{alert.figure} is {value:.6g} ({of.words}); it fires {alert.when} {alert.limit:.6g}"
    return Reading(active, float(value), alert.limit, summary)


def _burn_rate(alert: BurnRateAlert, facts: Facts) -> Reading:
    if not _known(alert.rollup, facts):
        return Reading(None, None, alert.windows[0].factor, f"failures of {alert.rollup} are unknown")
    snapshot, budget = facts.snapshots[alert.rollup], 1 - alert.objective

    def burned(window: timedelta) -> float:
        cell, _ = _cell(snapshot, window, alert.where, facts.now_s)
        if cell is None or not cell.events:
            return 0.0
        index = next(i for i, (name, _) in enumerate(snapshot.shape.numbers) if name == alert.errors)
        return (cell.numbers[index] or 0) / cell.events / budget

    rates = [(min(burned(pair.long), burned(pair.short)), pair) for pair in alert.windows]
    rate, pair = max(rates, key=lambda found: found[0] / max(found[1].factor, 1e-9))
    summary = (
        f"{alert.rollup}{_narrowed(alert.where)} burns the error budget of {alert.objective:.6g} at {rate:.1f} times"
        f" its rate over {format_duration(pair.long)} and {format_duration(pair.short)}; it fires above {pair.factor:g}"
    )
    return Reading(rate > pair.factor, rate, pair.factor, summary)


def _known(rollup: str, facts: Facts) -> bool:
    return rollup in facts.readable and facts.snapshots[rollup].version >= 0


def _cell(
    snapshot: Snapshot, window: timedelta, where: Where, now_s: float, *, until_s: int | None = None
) -> tuple[Cell | None, float]:
    """The window's events merged, and how many seconds they span; None without events.

    The window ends with the last complete second of the data, or of the clock once the data has stalled, so that a
    batch under way does not look like a dip. Its start is rounded down to its grid.
    """
    span = round(window.total_seconds())
    grid = next(width for reach, width in _GRIDS if span <= reach)
    end = frontier_ms(snapshot, now_s * 1_000) // 1_000 if until_s is None else until_s
    start = (end - span) // grid * grid
    selection = _selection(snapshot.shape, where)
    cells = [
        cell
        for bucket in snapshot.cover(start, end)
        for group in bucket.selected(selection, 0).values()
        for cell in group
    ]
    return (gather(cells, snapshot.shape) if cells else None), float(max(1, end - start))


def _selection(shape: Shape, where: Where) -> Selection:
    return tuple(
        (shape.dimensions.index(name), frozenset(wanted if isinstance(wanted, list) else [wanted]))
        for name, wanted in where.items()
    )


def _narrowed(where: Where) -> str:
    """The alert's own filter in words."""
    return f" ({', '.join(f'{name}={wanted}' for name, wanted in where.items())})" if where else ""
