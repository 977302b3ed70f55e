"""How far sketches are off on Zipf data, merged from many parts as partials are, against what their columns state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import datasketches
import numpy as np
import pyarrow as pa

from lakehouse.config.models import EventField, Rollup
from lakehouse.rollups.merge import merge_partials
from lakehouse.rollups.partials import aggregate
from lakehouse.rollups.sketches import count_theta, read_top
from lakehouse.schemas import TIMESTAMP, gold_schema

if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS = {
    name: EventField.model_validate(kind)
    for name, kind in (("at", "timestamp"), ("d", "string"), ("n", "long"), ("s", "string"), ("x", "double"))
}
ROLLUP = Rollup.model_validate(
    {
        "dimensions": ["d"],
        "metrics": [
            {"name": "hll", "type": "distinct", "column": "n"},
            {"name": "theta", "type": "distinct", "column": "n", "sketch": "theta"},
            {"name": "kll", "type": "quantiles", "column": "x"},
            {"name": "top", "type": "top", "column": "s", "lg_k": 8},
        ],
    }
)
SCHEMA = gold_schema(ROLLUP, FIELDS)
_EVENTS, _PARTS = 20_000, 8
_RANKS = (0.01, 0.25, 0.5, 0.75, 0.9, 0.99)


@dataclass(frozen=True)
class Found:
    """A sketch's errors.

    Attributes:
        name: of the sketch; stated: error in its column's metadata, times what it takes for `confidence`.
        confidence: share of the samples that should be within.
        within: share that are; largest: error of any sample.
    """

    name: str
    stated: float
    confidence: float
    within: float
    largest: float


def sketch_errors(samples: int, seed: int = 0) -> list[Found]:
    """The errors over so many samples of Zipf data, each merged from several parts."""
    errors: dict[str, list[float]] = {"HLL": [], "Theta": [], "KLL": [], "frequent items": []}
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        for name, error in _errors(rng).items():
            errors[name].append(error)
    stated = {name: float(SCHEMA.field(column).metadata[b"lakehouse.error"]) for name, column in _COLUMNS.items()}
    # Counts state two standard deviations (95 %); 99 % are 2.576 of them.
    widened: dict[str, Callable[[float], float]] = {"HLL": _to_99, "Theta": _to_99}
    confidence = {"frequent items": 1.0}
    return [
        Found(
            name,
            bound := widened.get(name, float)(stated[name]),
            confidence.get(name, 0.99),
            float(np.mean(np.array(found) <= bound)),
            max(found),
        )
        for name, found in errors.items()
    ]


_COLUMNS = {"HLL": "hll", "Theta": "theta", "KLL": "kll", "frequent items": "top"}


def _to_99(two_deviations: float) -> float:
    return two_deviations * 2.576 / 2


def _errors(rng: np.random.Generator) -> dict[str, float]:
    """Errors of one sample; of a rank the quantile whose error is largest does not count alone: one rank is drawn."""
    numbers = (rng.zipf(1.1, _EVENTS) + int(rng.integers(2**40))) % 2**62
    values = numbers.astype(np.float64) % 9_973 + rng.random(_EVENTS)
    row = _merged(numbers, values)
    exact = len(np.unique(numbers))
    rank = float(rng.choice(_RANKS))
    quantile = datasketches.kll_doubles_sketch.deserialize(row["kll"]).get_quantile(rank)
    names, counts = np.unique(numbers % 5_000, return_counts=True)
    known = dict(zip(map(str, names.tolist()), counts.tolist(), strict=True))
    return {
        "HLL": abs(datasketches.hll_sketch.deserialize(row["hll"]).get_estimate() / exact - 1),
        "Theta": abs(count_theta(row["theta"]) / exact - 1),
        "KLL": abs(float(np.mean(values <= quantile)) - rank),
        "frequent items": max(abs(each.count - known[each.value]) for each in read_top(row["top"], 50)) / _EVENTS,
    }


def _merged(numbers: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """The one row that all parts come to."""
    rows = pa.table(
        {
            "at": pa.array(np.zeros(_EVENTS, dtype=np.int64)).cast(TIMESTAMP),
            "d": pa.array(["d"] * _EVENTS),
            "n": pa.array(numbers),
            "s": pa.array(list(map(str, (numbers % 5_000).tolist()))),
            "x": pa.array(values),
        }
    )
    size = _EVENTS // _PARTS
    parts = [aggregate(rows.slice(first, size), ROLLUP, "1s", event_time="at") for first in range(0, _EVENTS, size)]
    (row,) = merge_partials(pa.concat_tables(parts), ROLLUP).to_pylist()
    found: dict[str, Any] = row
    return found
