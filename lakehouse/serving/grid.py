"""Rows as aligned text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDEST = 60
"""Characters of a cell; a longer one is cut."""
_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), "·")
"""Control characters would move the cursor, or worse; a value from a topic may hold any."""


def render_grid(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[bool] = ()) -> str:
    """Columns as wide as their longest cell.

    Args:
        header: names of the columns.
        rows: cells, as many a row as there are names.
        right: which columns are aligned to the right, as numbers are; none where empty.
    """
    cells = [[cut(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    sides = right or [False] * len(header)
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, sides, strict=True)
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def cut(text: str) -> str:
    """The text in one line, without control characters and at most as long as a cell."""
    plain = text.translate(_CONTROL)
    return plain if len(plain) <= _WIDEST else f"{plain[: _WIDEST - 1]}…"
