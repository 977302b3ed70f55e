"""Panels: what a page outside Live is made of. Plain data, encoded once for all viewers, drawn by `browser/panels.js`.

Every text reaches the page as a text node, so that a value from a topic is never markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Mood = Literal["", "good", "bad", "warn"]
Panel = dict[str, Any]
Cell = str | dict[str, str]


def tile(
    name: str, label: str, value: str, *, note: str = "", mood: Mood = "", spark: Sequence[float | None] = ()
) -> dict[str, Any]:
    """One figure with its label, a line below it, and a sparkline where there are values."""
    return {"id": name, "label": label, "value": value, "note": note, "mood": mood, "spark": list(spark)}


def tiles(items: Iterable[dict[str, Any]]) -> Panel:
    """A row of figures."""
    return {"kind": "tiles", "id": "tiles", "items": list(items)}


def chart(
    name: str,
    title: str,
    unit: str,
    series: Mapping[str, Sequence[float | None]],
    *,
    start: float,
    step: float,
    stacked: bool = False,
    caption: str = "",
    empty: str = "Nothing in this range",
) -> Panel:
    """Lines, or stacked areas, over time; `start` is seconds since 1970 UTC, `step` seconds."""
    points = max((len(values) for values in series.values()), default=0)
    return {
        "kind": "chart",
        "id": name,
        "title": title,
        "unit": unit,
        "stacked": stacked,
        "caption": caption,
        "empty": empty,
        "start": start,
        "step": step,
        "points": points,
        "minutes": points * step / 60,
        "series": [[label, list(values)] for label, values in series.items()],
    }


def table(
    name: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    right: Sequence[str] = (),
    caption: str = "",
    empty: str = "Nothing yet",
) -> Panel:
    """Rows of texts; `right` names the columns that hold numbers."""
    heads = [{"label": column, "right": column in right} for column in columns]
    return {
        "kind": "table", "id": name, "title": title, "caption": caption, "empty": empty, "columns": heads,
        "rows": [list(row) for row in rows],
    }  # fmt: skip


def marked(text: str, mood: Mood) -> Cell:
    """A cell in the colour of a mood."""
    return {"text": text, "mood": mood}


def encode(panels: Iterable[Panel], *, foot: str = "") -> bytes:
    """The page's message."""
    return orjson.dumps({"panels": list(panels), "foot": foot}, option=orjson.OPT_NON_STR_KEYS)


def encode_waiting(title: str, text: str) -> bytes:
    """A page that has nothing to show yet, and what to do."""
    return orjson.dumps({"waiting": text, "title": title})
