"""What a rollup's Live page is made of: as its pipeline's file declares it, or derived from the rollup's metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import datasketches

from lakehouse.config.models import HeatmapPanel, LeaderboardPanel, LivePage, PageFigure, SeriesPanel
from lakehouse.serving.figures import EVENTS, USUAL_RANK, Figure, declared, derived_tiles, figure
from lakehouse.serving.questions import Board, Wanted
from lakehouse.serving.snapshot import Shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lakehouse.config.models import AnyPanel, Pipeline

_SKETCHES = ("kll", "hll")
_EXTREMES = ("min", "max", "sum")
_UNITS = {
    "us": "µs", "ms": "ms", "s": "s", "bytes": "B", "kb": "kB", "mb": "MB",
    "eur": "€", "usd": "$", "gbp": "£", "celsius": "°C", "percent": "%", "watts": "W", "meters": "m",
}  # fmt: skip
_TIMES = ("µs", "ms", "s")
_FAILURE = re.compile(r"error|fail|declin|refus|reject|timeout|drop|lost")
_GOOD = {"up": 1, "down": -1, "neither": 0}


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A page's parts. Equal only to itself, so that what was made for it can be kept by it.

    Attributes:
        wanted: what is asked of the snapshot.
        tiles: id, label, unit, kind of number and better direction of each tile, for the page.
        panels: what is below them, for the page.
        heats: names of the metrics of `wanted.heats`.
        foot: how exact the figures are.
    """

    wanted: Wanted
    tiles: tuple[dict[str, Any], ...]
    panels: tuple[dict[str, Any], ...]
    heats: tuple[str, ...]
    foot: str


def layout(pipeline: Pipeline, rollup: str) -> Layout:
    """The Live page of a rollup."""
    of = pipeline.rollups[rollup]
    shape = Shape.of(of, pipeline.source.fields)
    page = pipeline.dashboard.get(rollup, LivePage())
    shown = [(declared(shape, one), one) for one in page.tiles]
    shown = shown or [(one, PageFigure(metric=one.metric)) for one in derived_tiles(of, shape)]
    tiles = [one for one, _ in shown]
    panels = page.panels or _derived_panels(shape, tiles)
    drawn = [_panel(panel, index, shape, shown) for index, panel in enumerate(panels)]
    charted = [one for part in drawn for one in part.lines]
    heats = tuple(dict.fromkeys(part.heat for part in drawn if part.heat is not None))
    return Layout(
        wanted=Wanted(
            tiles=tuple(tiles),
            lines=tuple(dict.fromkeys([*tiles, *charted])),
            stacks=tuple(dict.fromkeys(one for part in drawn for one in part.stacks)),
            heats=heats,
            boards=tuple(part.board for part in drawn if part.board is not None),
        ),
        tiles=tuple(spec(one, of_file) for one, of_file in shown),
        panels=tuple(part.spec for part in drawn),
        heats=tuple(shape.sketches[index][0] for index in heats),
        foot=footnote(shape, [*tiles, *charted]),
    )


def _derived_panels(shape: Shape, tiles: Sequence[Figure]) -> list[AnyPanel]:
    """Events over time, the first quantiles or else a further tile beside them, and the first dimension's values."""
    panels: list[AnyPanel] = [SeriesPanel(kind="series", figures=[PageFigure(metric=EVENTS)])]
    sketch = next((name for name, kind, _ in shape.sketches if kind == "quantiles"), None)
    if sketch is not None:
        panels.append(HeatmapPanel(kind="heatmap", metric=sketch))
    elif len(tiles) > 1:
        panels.append(SeriesPanel(kind="series", figures=[PageFigure(metric=tiles[1].metric)]))
    return [*panels, LeaderboardPanel(kind="leaderboard", dimension=shape.dimensions[0])]


@dataclass(frozen=True, slots=True)
class _Part:
    """A panel: what the page is told of it, and what it needs of the snapshot."""

    spec: dict[str, Any]
    lines: tuple[Figure, ...] = ()
    stacks: tuple[Figure, ...] = ()
    heat: int | None = None
    board: Board | None = None


def _panel(panel: AnyPanel, index: int, shape: Shape, tiles: Sequence[tuple[Figure, PageFigure]]) -> _Part:
    common = {"kind": panel.kind, "id": f"{panel.kind}-{index}"}
    match panel:
        case SeriesPanel():
            return _series(panel, common, [(declared(shape, one), one) for one in panel.figures])
        case HeatmapPanel():
            place = next(i for i, (name, _, _) in enumerate(shape.sketches) if name == panel.metric)
            name, unit = words(panel.metric)
            return _Part(common | {"title": panel.title or name, "unit": unit, "metric": panel.metric}, heat=place)
        case LeaderboardPanel():
            columns = [(declared(shape, one), one) for one in panel.figures] or _columns(shape, tiles)
            title = panel.title or f"By {panel.dimension.replace('_', ' ')}"
            told = {"title": title, "dimension": panel.dimension, "columns": [spec(*one) for one in columns]}
            board = Board(shape.dimensions.index(panel.dimension), tuple(one for one, _ in columns))
            return _Part(common | told, board=board)


def _columns(shape: Shape, tiles: Sequence[tuple[Figure, PageFigure]]) -> list[tuple[Figure, PageFigure]]:
    """A leaderboard's columns where none are declared: events, and the tiles without their lower quantiles."""
    ranks: dict[str, float] = {}
    for one, _ in tiles:
        if one.kind == "quantiles":
            ranks[one.metric] = USUAL_RANK if USUAL_RANK in (ranks.get(one.metric), one.rank) else one.rank
    rest = [(one, told) for one, told in tiles if one.metric != EVENTS and ranks.get(one.metric, one.rank) == one.rank]
    return [(figure(shape, EVENTS), PageFigure(metric=EVENTS)), *rest[:4]]


def _series(panel: SeriesPanel, common: dict[str, Any], figures: list[tuple[Figure, PageFigure]]) -> _Part:
    one, told = figures[0]
    specs = [spec(*each) for each in figures]
    if len(figures) == 1 and one.adds_up:
        title = panel.title or specs[0]["label"]
        return _Part(common | {"title": title, "unit": specs[0]["unit"], "stack": one.id}, stacks=(one,))
    same = len({each.metric for each, _ in figures}) == 1
    name = told.label or words(one.metric)[0]
    title = panel.title or (specs[0]["label"] if len(figures) == 1 else name if same else "Figures")
    units = {each["unit"] for each in specs}
    lines = [each | {"label": each["label"].removeprefix(name).strip() or name} if same else each for each in specs]
    unit = units.pop() if len(units) == 1 else ""
    return _Part(common | {"title": title, "unit": unit, "lines": lines}, lines=tuple(each for each, _ in figures))


def spec(one: Figure, told: PageFigure | None = None) -> dict[str, Any]:
    """A figure for the page: id, label, unit, kind of number, and which direction is better (1, -1, or 0 for neither).

    Labels and units come from the metric's name unless the file says otherwise: `latency_ms_kll` is Latency in ms. A
    share that speaks of failure, and a time, are better when they fall; for others neither direction is.
    """
    name, unit = words(one.metric)
    label, text, good = name, "number", -1 if unit in _TIMES and one.kind != "sum" else 0
    match one.kind:
        case "quantiles":
            label = f"{name}{one.tail}"
        case "distinct":
            label, text, unit = f"Distinct {name.lower()}", "count", ""
        case "sum" if one.per == "second":
            label, unit = f"{name} per second", f"{unit}/s"
        case "sum" if one.per == "event" and unit:
            label = f"{name} per event"
        case "sum" if one.per == "event":
            text, unit = "percent", "%"
        case _:
            text = "number" if unit else "count"
    if one.kind == "sum" and _FAILURE.search(name.lower()):
        good = -1
    if told is not None and told.good is not None:
        good = _GOOD[told.good]
    return {"id": one.id, "label": (told.label if told else "") or label, "unit": unit, "text": text, "good": good}


def words(metric: str) -> tuple[str, str]:
    """A metric's name for people, and its unit where the name ends with one: `latency_ms_max` is Latency max in ms."""
    parts = metric.split("_")
    if len(parts) > 1 and parts[-1] in _SKETCHES:
        parts.pop()
    tail = [parts.pop()] if len(parts) > 1 and parts[-1] in _EXTREMES else []
    unit = _UNITS[parts.pop()] if len(parts) > 1 and parts[-1] in _UNITS else ""
    return " ".join([*parts, *tail]).capitalize(), unit


def footnote(shape: Shape, figures: Iterable[Figure]) -> str:
    """How exact the figures are, from the sizes of the sketches that are shown."""
    text = ["Counts are exact."]
    for index in dict.fromkeys(one.index for one in figures if one.index is not None and one.kind == "quantiles"):
        metric, _, k = shape.sketches[index]
        error = datasketches.kll_doubles_sketch.get_normalized_rank_error(k, False)
        text.append(f"{words(metric)[0]} quantiles are within ±{error:.2%} of rank.")
    for index in dict.fromkeys(one.index for one in figures if one.index is not None and one.kind == "distinct"):
        metric, _, lg_k = shape.sketches[index]
        error = datasketches.hll_union.get_rel_err(True, True, max(lg_k, 7), 2)
        text.append(f"Distinct {words(metric)[0].lower()} are within ±{abs(error):.1%} (95 %).")
    return " ".join([*text, "Times are UTC."])
