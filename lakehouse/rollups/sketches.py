"""Theta and frequent-items sketches, and bitmaps, which are exact: made, merged and read here alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import datasketches
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

BITMAP_BITS = 32_768
"""A bitmap holds the values from 0 up to this, exclusive, as Spark's `bitmap_count` and `bitmap_or_agg` do."""
_OVERFLOW = b"\xff" * (BITMAP_BITS // 8 + 1)
"""A bitmap that was given a value it cannot hold. Longer than any other, it stays so whatever it is merged with."""


@dataclass(frozen=True)
class Frequent:
    """A value and how often it was there: the estimate, and the bounds that it certainly lies in."""

    value: str
    count: int
    at_least: int
    at_most: int


def theta(values: Iterable[int | str], lg_k: int) -> bytes:
    """A Theta sketch of the values."""
    sketch = datasketches.update_theta_sketch(lg_k)
    for value in values:
        if value != "":  # as in HLL sketches
            sketch.update(value)
    return bytes(sketch.compact().serialize())


def merge_theta(parts: Iterable[bytes], lg_k: int) -> bytes:
    """The Theta sketch of what the parts have seen together."""
    union = datasketches.theta_union(lg_k)
    for part in parts:
        union.update(datasketches.compact_theta_sketch.deserialize(part))
    return bytes(union.get_result().serialize())


def count_theta(sketch: bytes) -> float:
    """About how many distinct values a Theta sketch has seen."""
    return float(datasketches.compact_theta_sketch.deserialize(sketch).get_estimate())


def top(values: Iterable[str], lg_k: int) -> bytes:
    """A frequent-items sketch of the values."""
    sketch = datasketches.frequent_strings_sketch(lg_k)
    for value in values:
        sketch.update(value)
    return bytes(sketch.serialize())


def merge_top(parts: Iterable[bytes], lg_k: int) -> bytes:
    """The frequent-items sketch of all values of the parts."""
    merged = datasketches.frequent_strings_sketch(lg_k)
    for part in parts:
        merged.merge(datasketches.frequent_strings_sketch.deserialize(part))
    return bytes(merged.serialize())


def size_top(sketch: bytes) -> int:
    """The `lg_k` that a frequent-items sketch was made with, which its fourth byte says."""
    return sketch[3]


def read_top(sketch: bytes, count: int) -> list[Frequent]:
    """The values that were there most often, the first so many that the sketch still knows; ties by value."""
    opened = datasketches.frequent_strings_sketch.deserialize(sketch)
    found = opened.get_frequent_items(datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES, 0)
    known = [Frequent(value, estimate, lower, upper) for value, estimate, lower, upper in found]
    return sorted(known, key=lambda each: (-each.count, each.value))[:count]


def bitmap(numbers: np.ndarray) -> bytes:
    """A bit for each value, value n in bit n % 8 of byte n // 8, without the bytes after the last bit."""
    if not len(numbers):
        return b""
    if numbers.min() < 0 or numbers.max() >= BITMAP_BITS:
        return _OVERFLOW
    bits = np.zeros(int(numbers.max()) + 1, dtype=np.uint8)
    bits[numbers] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def merge_bitmaps(parts: Iterable[bytes]) -> bytes:
    """The bitmap of what the parts have seen together."""
    found = list(parts)
    merged = np.zeros(max(map(len, found), default=0), dtype=np.uint8)
    for part in found:
        merged[: len(part)] |= np.frombuffer(part, dtype=np.uint8)
    return merged.tobytes()


def count_bitmap(found: bytes) -> int | None:
    """How many distinct values there were; None where one of them was none that a bitmap holds."""
    if len(found) * 8 > BITMAP_BITS:
        return None
    return int(np.unpackbits(np.frombuffer(found, dtype=np.uint8)).sum())
