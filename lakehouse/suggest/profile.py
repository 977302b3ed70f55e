"""What is in some rows, column by column and pair by pair. A profile is small, and two of them merge."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import reduce
from itertools import combinations
from typing import TYPE_CHECKING, Any

import datasketches
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.quality.observe import ColumnStatistics, statistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lakehouse.config.models import EventField

NUMBERS = ("integer", "long", "double")
MOST_VALUES = 200
"""Distinct values of a column that are counted one by one; beyond, only their number is estimated."""
_EXAMPLES = 1_000
_LISTED = ("string", "integer", "long")
_IDS = ("string", "integer", "long")


@dataclass(frozen=True)
class ColumnProfile:
    """One column.

    Attributes:
        rows: rows that were looked at.
        statistics: of the values that are not null: extremes and sketches.
        nans: values that are no number.
        listed: value → rows; None for types that are not listed, and once there were more than `MOST_VALUES`.
        shortest, longest: characters of texts; None for other types.
        examples: some distinct texts.
        hashes: a sorted 64-bit hash of every value, as long as no two are equal; None from then on. Two values of
            one hash pass for a repetition, so a column that is said to be unique is.
    """

    rows: int
    statistics: ColumnStatistics
    nans: int = 0
    listed: dict[Any, int] | None = None
    shortest: int | None = None
    longest: int | None = None
    examples: frozenset[str] = frozenset()
    hashes: np.ndarray | None = field(default=None, compare=False)

    @property
    def nulls(self) -> int:
        """Rows without a value."""
        return self.rows - self.statistics.present

    @property
    def distinct(self) -> int:
        """Distinct values: exact where they were counted or are all different, else by a HyperLogLog sketch."""
        if self.listed is not None:
            return len(self.listed)
        if self.hashes is not None:
            return len(self.hashes)
        sketch = self.statistics.hll
        return round(datasketches.hll_sketch.deserialize(sketch).get_estimate()) if sketch else 0

    def quantiles(self, ranks: Iterable[float]) -> list[float]:
        """Of numbers, by a KLL sketch; empty where there is none."""
        if self.statistics.kll is None:
            return []
        sketch = datasketches.kll_doubles_sketch.deserialize(self.statistics.kll)
        return [] if sketch.is_empty() else [float(sketch.get_quantile(rank, True)) for rank in ranks]

    def merge(self, other: ColumnProfile) -> ColumnProfile:
        """The profile of both parts' rows."""
        listed = None
        if self.listed is not None and other.listed is not None:
            listed = _few(Counter(self.listed) + Counter(other.listed))
        shortest = [one.shortest for one in (self, other) if one.shortest is not None]
        longest = [one.longest for one in (self, other) if one.longest is not None]
        return ColumnProfile(
            rows=self.rows + other.rows,
            statistics=self.statistics.merge(other.statistics),
            nans=self.nans + other.nans,
            listed=listed,
            shortest=min(shortest, default=None),
            longest=max(longest, default=None),
            examples=frozenset(sorted(self.examples | other.examples)[:_EXAMPLES]),
            hashes=_all_different(self.hashes, other.hashes),
        )


@dataclass(frozen=True)
class PairProfile:
    """Two columns that can be compared: rows where both have a value, by which is greater."""

    less: int = 0
    equal: int = 0
    greater: int = 0

    @property
    def both(self) -> int:
        """Rows where both have a value."""
        return self.less + self.equal + self.greater

    def merge(self, other: PairProfile) -> PairProfile:
        """Both parts together."""
        return PairProfile(self.less + other.less, self.equal + other.equal, self.greater + other.greater)


@dataclass(frozen=True)
class Profile:
    """Some rows: column → profile, and (column, later column of the file of one kind) → profile."""

    columns: dict[str, ColumnProfile]
    pairs: dict[tuple[str, str], PairProfile]

    def merge(self, other: Profile) -> Profile:
        """Both parts together."""
        return Profile(
            {name: of.merge(other.columns[name]) for name, of in self.columns.items()},
            {names: of.merge(other.pairs[names]) for names, of in self.pairs.items()},
        )


def profile(parts: Iterable[pa.Table], fields: Mapping[str, EventField]) -> Profile:
    """Look at rows, part by part.

    Args:
        parts: at least one, each with every field as a column.
        fields: the event's fields.
    """
    return reduce(Profile.merge, (_profile(part, fields) for part in parts))


def _profile(rows: pa.Table, fields: Mapping[str, EventField]) -> Profile:
    kinds = {name: _kind(of.type) for name, of in fields.items()}
    pairs = [(a, b) for a, b in combinations(fields, 2) if kinds[a] and kinds[a] == kinds[b]]
    return Profile(
        {name: _column(rows[name], of) for name, of in fields.items()},
        {(a, b): _pair(rows[a], rows[b]) for a, b in pairs},
    )


def _kind(name: str) -> str | None:
    """Fields of one kind can be ordered against each other; texts and booleans are not looked at."""
    return "number" if name in NUMBERS else name if name in ("timestamp", "date") else None


def _column(values: pa.ChunkedArray, of: EventField) -> ColumnProfile:
    present = values.drop_null().combine_chunks()
    kept = {"extremes", "hll"} | ({"kll"} if of.type in NUMBERS else set())
    text = of.type == "string" and len(present)
    lengths = pc.min_max(pc.utf8_length(present)) if text else None
    return ColumnProfile(
        rows=len(values),
        statistics=statistics(values, frozenset(kept)),
        nans=(pc.sum(pc.is_nan(present)).as_py() or 0) if of.type == "double" else 0,
        listed=_few(_counts(present)) if of.type in _LISTED else None,
        shortest=lengths["min"].as_py() if lengths else None,
        longest=lengths["max"].as_py() if lengths else None,
        examples=frozenset(present.unique()[:_EXAMPLES].to_pylist()) if text else frozenset(),
        hashes=_hashes(present) if of.type in _IDS else None,
    )


def _counts(values: pa.Array) -> dict[Any, int]:
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(values).to_pylist()}


def _few(counts: Mapping[Any, int]) -> dict[Any, int] | None:
    return dict(counts) if len(counts) <= MOST_VALUES else None


def _hashes(values: pa.Array) -> np.ndarray | None:
    hashes = np.unique(pd.util.hash_array(values.to_numpy(zero_copy_only=False), categorize=False))
    return hashes if len(hashes) == len(values) else None


def _all_different(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    if one is None or other is None:
        return None
    merged = np.union1d(one, other)
    return merged if len(merged) == len(one) + len(other) else None


def _pair(a: pa.ChunkedArray, b: pa.ChunkedArray) -> PairProfile:
    if a.type != b.type:
        a, b = a.cast(pa.float64(), safe=False), b.cast(pa.float64(), safe=False)
    less, equal, greater = (pc.sum(compare(a, b)).as_py() or 0 for compare in (pc.less, pc.equal, pc.greater))
    return PairProfile(less, equal, greater)
