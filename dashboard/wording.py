"""Numbers, sizes, ages and times as the pages write them. Times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime

NONE = "–"
_BINARY = 1024


def number(value: float | None, digits: int = 1) -> str:
    """A figure short enough for a tile: 12.3, 1,234, 12.3 k, 4.56 M."""
    if value is None:
        return NONE
    size = abs(value)
    for unit, factor in (("G", 1e9), ("M", 1e6)):
        if size >= factor:
            return f"{value / factor:.2f} {unit}"
    if size >= 1e5:  # noqa: PLR2004 - from here on thousands are shorter
        return f"{value / 1e3:.0f} k"
    return f"{value:,.0f}" if size >= 100 or size == int(size) else f"{value:.{digits}f}"  # noqa: PLR2004


def count(value: int | None) -> str:
    """A whole number in full."""
    return NONE if value is None else f"{value:,}"


def size(value: float | None) -> str:
    """Bytes in binary units."""
    if value is None:
        return NONE
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < _BINARY:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _BINARY
    return f"{value:.1f} TiB"


def span(ms: float | None) -> str:
    """A length of time: 320 ms, 4.1 s, 12 min, 3 h, 5 d."""
    if ms is None:
        return NONE
    for unit, factor, up_to in (("ms", 1, 1_000), ("s", 1_000, 120_000), ("min", 60_000, 7_200_000)):
        if ms < up_to:
            return f"{ms / factor:.1f} {unit}" if unit == "s" and ms < 10_000 else f"{ms / factor:.0f} {unit}"  # noqa: PLR2004
    hours = ms / 3_600_000
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"  # noqa: PLR2004


def percent(share: float | None) -> str:
    """A share of 1 in percent; never 100 where something is missing, never 0 where something is there."""
    if share is None:
        return NONE
    if share in (0.0, 1.0):
        return f"{share * 100:.0f} %"
    return f"{min(max(share * 100, 0.01), 99.99):.2f} %"


def moment(ms: float | None) -> str:
    """A time to the second."""
    return NONE if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
