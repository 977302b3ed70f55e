"""Heatmaps of quantile sketches: how often which values were, column by column of time. Pure functions."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import datasketches

if TYPE_CHECKING:
    from collections.abc import Sequence

PER_DECADE = 12
"""Rows of a logarithmic axis from one power of ten to the next: each is a fifth higher than the one below it."""
ROWS = 24
"""Rows of a linear axis, about."""
ROWS_MAX = 64
WIDE = 4.0
"""Positive values whose range spans this factor are drawn on a logarithmic axis."""
TAILS = (0.002, 0.998)
"""Ranks between which an axis reaches: a single outlier must not flatten the rest."""
RANKS = (0.5, 0.95, 0.99)
"""Quantiles that are drawn over the cells."""
SHADES = (0.0, 0.005, 0.01, 0.02, 0.04, 0.07, 0.11, 0.17, 0.26)
"""Share of a column's values above which a cell has the shade 1, 2, …: fixed, so that shades never shift."""


@dataclass(frozen=True, slots=True)
class Heat:
    """Columns at `start + i * step` seconds since 1970 UTC, of rows of values.

    Attributes:
        start: where the first column begins, seconds since 1970 UTC.
        step: width of a column, seconds.
        log: whether row r begins at 10 ** (r / unit); otherwise at r * unit.
        unit: rows per decade, or the height of a row.
        first: number of the lowest row.
        rows: how many.
        columns: the shade of each row, 0 to 9, from the lowest upwards; empty without values.
        quantiles: for each of `RANKS` its value per column.
    """

    start: int
    step: int
    log: bool
    unit: float
    first: int
    rows: int
    columns: tuple[str, ...]
    quantiles: tuple[tuple[float | None, ...], ...]


def heat(sketches: Sequence[bytes | None], start: int, end: int, step: int) -> Heat:
    """The heatmap of one sketch per column.

    Args:
        sketches: serialised KLL sketches of doubles; None for a column without values.
        start: of the range, seconds since 1970 UTC; columns lie on the grid of `step`.
        end: of the range.
        step: width of a column, seconds.
    """
    opened = [None if part is None else datasketches.kll_doubles_sketch.deserialize(part) for part in sketches]
    known = [sketch for sketch in opened if sketch is not None and not sketch.is_empty()]
    first = start // step * step
    count = max(0, -(-(end - first) // step))
    opened += [None] * (count - len(opened))
    if not known:
        return Heat(first, step, log=True, unit=PER_DECADE, first=0, rows=0, columns=("",) * count, quantiles=())
    low = min(sketch.get_quantile(TAILS[0]) for sketch in known)
    high = max(sketch.get_quantile(TAILS[1]) for sketch in known)
    log, unit = _axis(low, high)
    row = (lambda value: math.floor(math.log10(value) * unit)) if log else (lambda value: math.floor(value / unit))
    bottom = row(low)
    rows = min(ROWS_MAX, row(high) - bottom + 1)
    edges = [10 ** (index / unit) if log else index * unit for index in range(bottom, bottom + rows + 1)]
    found = [None if sketch is None or sketch.is_empty() else sketch for sketch in opened]
    points = [[None] * len(RANKS) if one is None else one.get_quantiles(list(RANKS)) for one in found]
    return Heat(
        first,
        step,
        log=log,
        unit=unit,
        first=bottom,
        rows=rows,
        columns=tuple("" if one is None else _column(one, edges) for one in found),
        quantiles=tuple(tuple(_short(point[rank]) for point in points) for rank in range(len(RANKS))),
    )


def _axis(low: float, high: float) -> tuple[bool, float]:
    """Whether rows are logarithmic, and their unit."""
    if low > 0 and high / low >= WIDE:
        return True, PER_DECADE
    raw = max(high - low, abs(high) * 0.01, 1e-9) / ROWS
    power = 10.0 ** math.floor(math.log10(raw))
    return False, next(nice * power for nice in (1, 2, 5, 10) if nice * power >= raw * 0.999)


def _column(sketch: datasketches.kll_doubles_sketch, edges: list[float]) -> str:
    """The shade of each row between two edges."""
    ranks = sketch.get_cdf(edges)
    shares = (ranks[index + 1] - ranks[index] for index in range(len(edges) - 1))
    return "".join(str(0 if share <= 0 else bisect_right(SHADES, share)) for share in shares)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
