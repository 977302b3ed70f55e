"""Which grain answers which part of a range: the coarsest that fits, finer ones at its edges. Pure.

10:59:58 ─ 1s ─ 11:00 ─ 1m ─ 12:00 ─ 1h ─ 18:00 ─ 1m ─ 18:20 ─ 1s ─ 18:20:07
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lakehouse.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Kept:
    """A grain as there are rows of it.

    Attributes:
        grain: its name; width: of its windows, µs.
        from_us: its windows from before this have left by a rule, µs since 1970 UTC; None where all are there.
    """

    grain: str
    width: int
    from_us: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the range, [start_us, end_us) in µs since 1970 UTC, and the grain that answers it."""

    grain: str
    start_us: int
    end_us: int


def plan(kept: Sequence[Kept], start_us: int, end_us: int, step_us: int | None) -> tuple[Segment, ...]:
    """Segments that together are the range, each once, in order.

    Args:
        kept: the grains, finest first; each width divides the next.
        start_us: where the range begins, µs since 1970 UTC, inclusive.
        end_us: where it ends, exclusive.
        step_us: width of the answer's windows, which no row may straddle; None for one window that is the range.

    Raises:
        ConfigError: no grain has windows as narrow as asked, or the rows that it would need have left.
    """
    usable = [each for each in kept if step_us is None or step_us % each.width == 0]
    if not usable:
        raise ConfigError(
            f"the windows of the answer are no multiple of {kept[0].grain}, the finest grain there is",
            remedy=f"ask for a multiple of {kept[0].grain}",
        )
    return tuple(_cover(usable, start_us, end_us))


def _cover(kept: Sequence[Kept], start_us: int, end_us: int) -> list[Segment]:
    if start_us >= end_us:
        return []
    if not kept:
        raise _unanswerable(start_us, end_us)
    *finer, coarsest = kept
    width = coarsest.width
    begin = start_us if coarsest.from_us is None else max(start_us, coarsest.from_us)
    first, last = -(-begin // width) * width, end_us // width * width
    if first >= last:
        return _cover(finer, start_us, end_us)
    middle = Segment(coarsest.grain, first, last)
    return [*_cover(finer, start_us, first), middle, *_cover(finer, last, end_us)]


def _unanswerable(start_us: int, end_us: int) -> ConfigError:
    return ConfigError(
        f"no grain has rows as narrow as the part of the range from {moment(start_us)} to {moment(end_us)} needs",
        remedy=(
            "begin and end at a whole window of a grain that is kept for so long (`retention` in the pipeline's file),"
            " or ask for wider windows"
        ),
    )


def moment(us: int) -> str:
    """A time for people: ISO 8601, UTC, with a fraction only where there is one."""
    when = datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)
    return when.isoformat().replace("+00:00", "Z")
