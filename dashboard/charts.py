"""Answers as the messages that the Live page draws: plain numbers, rounded to what a pixel can show."""

from __future__ import annotations

import zlib
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from lakehouse.serving.figures import EVENTS
from lakehouse.serving.heat import RANKS
from lakehouse.serving.questions import REST, freshness_ms, freshness_state, label

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dashboard.layout import Layout
    from lakehouse.serving.figures import Figure
    from lakehouse.serving.heat import Heat
    from lakehouse.serving.questions import Answer, Question, Series
    from lakehouse.serving.snapshot import Snapshot

SPARK_POINTS = 60
"""A sparkline is some 180 pixels wide: more points than this only blur it."""
_LENGTHS = (("d", 172_800), ("h", 7_200), ("min", 60))
"""From two hours and two days on the larger unit is used."""


def encode_board(snapshot: Snapshot, question: Question, found: Answer, layout: Layout) -> bytes:
    """Tiles, charts and leaderboards as JSON. The same answer gives the same bytes, so nothing is redrawn."""
    drawn, sparks = _charts(found.series, layout)
    seconds = question.range.seconds
    return orjson.dumps(
        {
            "version": snapshot.version,
            "max_event_ms": _round(snapshot.max_event_ms, 0),
            "minutes": seconds / 60,
            "period": f"vs previous {length(seconds)}" if question.until is None else f"vs {length(seconds)} before",
            "events": found.events,
            "zoom": None if question.until is None else [question.until - seconds, question.until],
            "tiles": {one.id: _tile(one, found, index, sparks[index]) for index, one in enumerate(layout.wanted.tiles)},
            "specs": layout.tiles,
            "panels": layout.panels,
            "split": question.split,
            "rest": REST,
            "series_id": zlib.crc32(drawn),
            "series": orjson.Fragment(drawn),
            "boards": [
                {
                    "rows": [[leader.name, leader.before, *map(_short, leader.now)] for leader in leaders],
                    "chosen": sorted(
                        label(value)
                        for name, values in question.filters
                        if name == board["dimension"]
                        for value in values
                    ),
                }
                for leaders, board in zip(
                    found.boards, (panel for panel in layout.panels if panel["kind"] == "leaderboard"), strict=True
                )
            ],
            "foot": layout.foot,
        }
    )


@lru_cache(maxsize=64)
def _charts(series: Series, layout: Layout) -> tuple[bytes, list[list[float | None]]]:
    """The charts' part of the message, and the tiles' sparklines; most versions leave both as they were."""
    by_figure = dict(zip(layout.wanted.lines, series.lines, strict=True))
    charted = {one["id"] for panel in layout.panels for one in panel.get("lines", ())}
    drawn = {
        "start": series.start,
        "step": series.step,
        "points": series.points,
        "lines": {one.id: found for one, found in by_figure.items() if one.id in charted},
        "stacks": {one.id: found for one, found in zip(layout.wanted.stacks, series.stacks, strict=True)},
        "heats": {metric: _heat(found) for metric, found in zip(layout.heats, series.heats, strict=True)},
    }
    return orjson.dumps(drawn), [_spark(by_figure[one]) for one in layout.wanted.tiles]


def _heat(found: Heat) -> dict[str, Any]:
    names = [f"p{rank * 100:g}" for rank in RANKS]
    return asdict(found) | {"quantiles": list(zip(names, found.quantiles, strict=False))}


def _tile(one: Figure, found: Answer, index: int, spark: list[float | None]) -> dict[str, Any]:
    note = f"{found.events:,} events" if one.metric == EVENTS and one.per == "second" else ""
    return {"now": _short(found.now[index]), "before": _short(found.before[index]), "note": note, "spark": spark}


def _spark(values: Iterable[float | None]) -> list[float | None]:
    points = list(values)
    stride = -(-len(points) // SPARK_POINTS) or 1
    return [_short(_mean(points[index : index + stride])) for index in range(0, len(points), stride)]


def encode_waiting(snapshot: Snapshot, table: str, config: str) -> bytes:
    """The board before the first version: the table is being read, or does not exist yet and what to do."""
    if snapshot.loading is not None:
        title, text = "Reading the table", f"{snapshot.loading:.0%} of the files of gold/{table}"
    else:
        title = "Waiting for the first commit"
        text = (
            f"The table gold/{table} does not exist yet. It appears here by itself once the pipeline has"
            f" committed; start it with: lakehouse run {config}"
        )
    empty = {"version": -1, "events": 0, "max_event_ms": None}
    return orjson.dumps({**empty, "waiting": text, "title": title})


def encode_beyond(snapshot: Snapshot, held_s: int) -> bytes:
    """The board of a range that is held no longer: the page keeps only the newest part of the table."""
    return orjson.dumps(
        {
            "version": snapshot.version,
            "events": 0,
            "max_event_ms": _round(snapshot.max_event_ms, 0),
            "zoom": [0, 0],
            "title": "This range is not held here any more",
            "waiting": (
                f"Live holds the newest {length(held_s)}, older parts of it in coarser steps. Explore and"
                " `lakehouse ask` answer for all that the tables keep; Esc goes back to the newest data."
            ),
        }
    )


def encode_badge(snapshot: Snapshot, now_ms: float, *, paused: bool, problem: str | None, **more: Any) -> bytes:  # noqa: ANN401 - JSON
    """Age of the newest event at this render; the page ages it on until the next one."""
    age = freshness_ms(snapshot, now_ms)
    return orjson.dumps(
        {
            "version": snapshot.version,
            "max_event_ms": _round(snapshot.max_event_ms, 0),
            "server_ms": round(now_ms),
            "age_ms": age,
            "state": freshness_state(age),
            "paused": paused,
            "problem": problem,
            **more,
        }
    )


def length(seconds: int) -> str:
    """A length of time as a page says it: 45 s, 5 min, 6 h, 7 d."""
    for unit, size in _LENGTHS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _short(value: float | None) -> float | None:
    """Six digits that count: more than any text on the page."""
    return None if value is None else float(f"{value:.6g}")


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits) if digits else round(value)
