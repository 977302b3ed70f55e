"""The figures of a Live page: which number is read off merged cells, and how. Plain data and pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lakehouse.rollups.merge import merge_hll, merge_kll

if TYPE_CHECKING:
    from collections.abc import Iterable

    import datasketches

    from lakehouse.config.models import PageFigure, Rollup
    from lakehouse.serving.snapshot import Cell, Shape

EVENTS = "events"
USUAL_RANK = 0.95
Per = Literal["second", "event", "range"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a stretch of time.

    Attributes:
        metric: as in the pipeline's file, or `events`.
        kind: of what it is read: a sum, the smallest or largest value, a sketch.
        index: in `Shape.numbers` or `Shape.sketches`; None is the number of events.
        per: what a sum is divided by.
        rank: of a quantile, 0 to 1.
    """

    metric: str
    kind: Literal["sum", "extreme", "quantiles", "distinct"]
    index: int | None
    per: Per = "range"
    rank: float = 0.0

    @property
    def id(self) -> str:
        """Its name on the page: `events`, `errors-event`, `latency_ms_kll-99`."""
        if self.kind == "quantiles":
            return f"{self.metric}-{self.rank * 100:g}".replace(".", "_")
        return self.metric if self.kind != "sum" or self.per == "second" else f"{self.metric}-{self.per}"

    @property
    def adds_up(self) -> bool:
        """Whether the values of parts add up to the value of the whole, so that they can be stacked."""
        return self.kind == "sum" and self.per == "second"

    @property
    def tail(self) -> str:
        """What is said after the metric's name: `p99`, or nothing."""
        return f" p{self.rank * 100:g}" if self.kind == "quantiles" else ""


def figure(shape: Shape, metric: str, per: Per | None = None, rank: float | None = None) -> Figure:
    """The figure of a metric.

    Args:
        shape: of the rollup.
        metric: a metric of the rollup, or `events`.
        per: what a sum is divided by; None: events for a count with a condition, otherwise seconds.
        rank: of a metric of type quantiles; None: `USUAL_RANK`.

    Raises:
        KeyError: the rollup has no such metric.
    """
    if metric == EVENTS:
        return Figure(metric, "sum", None, per or "second")
    for index, (name, how) in enumerate(shape.numbers):
        if name == metric:
            divided: Per = per or ("event" if name in shape.parts else "second")
            return Figure(metric, "sum", index, divided) if how == "sum" else Figure(metric, "extreme", index)
    for index, (name, kind, _) in enumerate(shape.sketches):
        if name == metric and kind == "quantiles":
            return Figure(metric, "quantiles", index, rank=USUAL_RANK if rank is None else rank)
        if name == metric:
            return Figure(metric, "distinct", index)
    raise KeyError(metric)


def declared(shape: Shape, wanted: PageFigure) -> Figure:
    """The figure that a pipeline's file asks for."""
    return figure(shape, wanted.metric, wanted.per, wanted.quantile)


def values(cell: Cell | None, elapsed: float, figures: Iterable[Figure], shape: Shape) -> tuple[float | None, ...]:
    """Each figure of merged cells.

    Args:
        cell: all cells of the stretch merged; None where there was no event.
        elapsed: seconds of the stretch that have happened.
        figures: which.
        shape: of the rollup.

    Returns:
        In the figures' order; None where there is nothing to measure. Sums and distinct counts are 0 without events.
    """
    opened: dict[int, datasketches.kll_doubles_sketch] = {}
    return tuple(_value(cell, elapsed, one, shape, opened) for one in figures)


def _value(
    cell: Cell | None, elapsed: float, one: Figure, shape: Shape, opened: dict[int, datasketches.kll_doubles_sketch]
) -> float | None:
    if cell is None or cell.events == 0:
        return 0.0 if one.kind == "distinct" or (one.kind == "sum" and one.per != "event") else None
    if one.index is None or one.kind in ("sum", "extreme"):
        found = cell.events if one.index is None else cell.numbers[one.index]
        return found if one.kind == "extreme" else _divided(found or 0, one.per, cell.events, elapsed)
    parts, size = cell.sketches[one.index], shape.sketches[one.index][2]
    if one.kind == "distinct":
        return float(merge_hll(parts, size).get_estimate())
    if not parts:
        return None
    # Each sketch is merged once, whatever the number of its quantiles.
    if one.index not in opened:
        opened[one.index] = merge_kll(parts, size)
    sketch = opened[one.index]
    return None if sketch.is_empty() else float(sketch.get_quantile(one.rank))


def _divided(value: float, per: Per, events: int, elapsed: float) -> float:
    match per:
        case "second":
            return value / elapsed
        case "event":
            return value / events
        case "range":
            return float(value)


def derived_tiles(rollup: Rollup, shape: Shape, most: int = 6) -> tuple[Figure, ...]:
    """What a page shows at its top where its file says nothing.

    Events per second, the share of the first count with a condition, p50, p95 and p99 of the first quantiles, and the
    first distinct count; where the rollup lacks some, its sums, extremes and further metrics take their places.
    """
    first: dict[str, str] = {}
    live = [metric for metric in rollup.metrics if shape.has(metric.name)]
    for metric in live:
        kind = "part" if metric.name in shape.parts else metric.type
        first.setdefault(kind, metric.name)
    found = [figure(shape, EVENTS)]
    if "part" in first:
        found.append(figure(shape, first["part"]))
    if "quantiles" in first:
        found += [figure(shape, first["quantiles"], rank=rank) for rank in (0.5, 0.95, 0.99)]
    if "distinct" in first:
        found.append(figure(shape, first["distinct"]))
    known = {one.metric for one in found}
    rest = [metric.name for metric in live if metric.name not in known]
    return tuple([*found, *(figure(shape, name) for name in rest)][:most])
