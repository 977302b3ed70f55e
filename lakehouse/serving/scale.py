"""How far back a Live page looks, and in which steps, by the finest grain of its rollup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lakehouse.config.models import Grain

POINTS_MAX = 300
"""Of a series: a chart is some 700 pixels wide."""
COLUMNS_MAX = 100
"""Of a heatmap, whose columns have to be told apart."""


@dataclass(frozen=True, slots=True)
class Level:
    """Buckets of one width, kept for so long; both in seconds."""

    width: int
    keep: int


@dataclass(frozen=True, slots=True)
class Range:
    """A range's length, the step of its series, the grid that its start lies on and the width of its heatmaps' columns.

    All in seconds; all but the length are widths of levels.
    """

    seconds: int
    step: int
    grid: int
    column: int


@dataclass(frozen=True, slots=True)
class Zoom:
    """A range that stays where it is.

    Attributes:
        range: its length and steps.
        end: the second after its last one, seconds since 1970 UTC.
        compared: whether the range of the same length before it is held as well.
    """

    range: Range
    end: int
    compared: bool


@dataclass(frozen=True, slots=True)
class Scale:
    """The buckets that are held of a rollup, and the ranges that a page offers over them.

    Attributes:
        levels: the narrowest first; each width divides the next. Their `keep` is twice the longest range whose start
            lies on their grid, since a range is compared with the one before it.
        ranges: label → range.
        usual: the label of the one that a page opens with.
    """

    levels: tuple[Level, ...]
    ranges: Mapping[str, Range]
    usual: str

    def zoomed(self, start: int, end: int, now_s: float) -> Zoom | None:
        """The range that covers [start, end), seconds since 1970 UTC, in the finest steps that are still held.

        Args:
            start: first second; rounded down to a step.
            end: the second after the last one; rounded up.
            now_s: the clock.

        Returns:
            None where what it covers is held no longer, or it covers less than two steps.
        """
        for level in self.levels:
            first, last = start // level.width * level.width, -(-end // level.width) * level.width
            length = last - first
            if not 2 * level.width <= length <= POINTS_MAX * level.width or now_s - first > level.keep:
                continue
            columns = (one.width for one in self.levels if one.width >= level.width)
            column = next((width for width in columns if length <= width * COLUMNS_MAX), self.levels[-1].width)
            compared = now_s - first + length <= level.keep
            return Zoom(Range(length, level.width, level.width, column), last, compared)
        return None


_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400

SCALES: Mapping[Grain, Scale] = {
    "1s": Scale(
        (Level(1, 6 * _MINUTE), Level(5, 16 * _MINUTE), Level(15, 62 * _MINUTE), Level(60, 125 * _MINUTE)),
        {
            "1m": Range(_MINUTE, 1, 1, 1),
            "5m": Range(5 * _MINUTE, 1, 5, 5),
            "15m": Range(15 * _MINUTE, 5, 15, 15),
            "60m": Range(_HOUR, 15, 60, 60),
        },
        "5m",
    ),
    "1m": Scale(
        (Level(60, 130 * _MINUTE), Level(300, 25 * _HOUR), Level(900, 49 * _HOUR)),
        {
            "15m": Range(15 * _MINUTE, 60, 60, 60),
            "1h": Range(_HOUR, 60, 60, 60),
            "6h": Range(6 * _HOUR, 300, 300, 300),
            "24h": Range(_DAY, 300, 900, 900),
        },
        "1h",
    ),
    "1h": Scale(
        (Level(_HOUR, 8 * _DAY), Level(3 * _HOUR, 31 * _DAY), Level(12 * _HOUR, 91 * _DAY), Level(_DAY, 182 * _DAY)),
        {
            "24h": Range(_DAY, _HOUR, _HOUR, _HOUR),
            "7d": Range(7 * _DAY, _HOUR, 3 * _HOUR, 3 * _HOUR),
            "30d": Range(30 * _DAY, 3 * _HOUR, 12 * _HOUR, 12 * _HOUR),
            "90d": Range(90 * _DAY, 12 * _HOUR, _DAY, _DAY),
        },
        "7d",
    ),
    "1d": Scale(
        (Level(_DAY, 732 * _DAY), Level(7 * _DAY, 750 * _DAY)),
        {
            "30d": Range(30 * _DAY, _DAY, _DAY, _DAY),
            "90d": Range(90 * _DAY, _DAY, _DAY, _DAY),
            "1y": Range(364 * _DAY, _DAY, 7 * _DAY, 7 * _DAY),
        },
        "90d",
    ),
}
"""Finest grain of a rollup → its scale."""
LEVELS = SCALES["1s"].levels
