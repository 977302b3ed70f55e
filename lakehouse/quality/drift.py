"""Whether a share or a distribution of now is another than that of before: pure functions, without tables or clocks.

Both answer with what is *certain* at a level of confidence: how far apart the two are at the least, sampling and the
sketches' own error taken off. Drift is where even that is more than a tolerance, so that neither few rows nor a
difference that is real and small raises it.

* Shares: the interval for the difference of two proportions from their score intervals, method 10 of R. G. Newcombe,
  "Interval estimation for the difference between independent proportions", Statistics in Medicine 17 (1998), 873-890.
* Distributions: the Kolmogorov-Smirnov distance, less the bound of P. Massart, "The tight constant in the
  Dvoretzky-Kiefer-Wolfowitz inequality", Annals of Probability 18 (1990), 1269-1283, for each side, and less the rank
  error of each KLL sketch (Z. Karnin, K. Lang, E. Liberty, "Optimal quantile approximation in streams", FOCS 2016).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import datasketches

CONFIDENCE = 0.999
"""Of each comparison on its own: of a thousand without any drift, one may show some."""
SHARE_TOLERANCE = 0.01
"""One of a hundred rows."""
DISTANCE_TOLERANCE = 0.1
"""One of ten values lies on the other side of some bound."""
_FEWEST = 30
_RANKS = [(number + 0.5) / 200 for number in range(200)]


@dataclass(frozen=True)
class Drift:
    """A comparison.

    Attributes:
        current, baseline: rows or values of now, and of before.
        now, before: the shares; for distributions the shares of values up to `at`.
        difference: of the two, or the largest between the distributions; at_least: what of it is certain.
        tolerance: how much is let pass.
        at: the value where two distributions differ most; None for shares.
        drifted: whether `at_least` is more than `tolerance`; None where there are too few rows to tell.
    """

    current: int
    baseline: int
    now: float
    before: float
    difference: float
    at_least: float
    tolerance: float
    at: float | None
    drifted: bool | None

    def __str__(self) -> str:
        if self.drifted is None:
            return f"too few to tell: {self.current:,} now and {self.baseline:,} before, {_FEWEST} are needed of each"
        up_to = "" if self.at is None else f" are at most {self.at:.6g}"
        told = (
            f"{self.now:.2%} of {self.current:,}{up_to}, {self.before:.2%} of {self.baseline:,} before;"
            f" at least {self.at_least:.2%} apart, {self.tolerance:.2%} are let pass"
        )
        return f"drifted: {told}" if self.drifted else told


def share_drift(
    current: tuple[int, int],
    baseline: tuple[int, int],
    *,
    tolerance: float = SHARE_TOLERANCE,
    confidence: float = CONFIDENCE,
) -> Drift:
    """Compare two shares.

    Args:
        current: (rows that count, all rows) of now, such as (failed, evaluated).
        baseline: likewise, of before.
        tolerance: how far apart they may be, as a fraction.
        confidence: of the interval.
    """
    (k, n), (j, m) = current, baseline
    p, q = (k / n if n else 0.0), (j / m if m else 0.0)
    at_least = 0.0
    if n and m:
        (low_p, high_p), (low_q, high_q) = _wilson(k, n, confidence), _wilson(j, m, confidence)
        low = p - q - math.hypot(p - low_p, high_q - q)
        high = p - q + math.hypot(high_p - p, q - low_q)
        at_least = max(0.0, low, -high)
    enough = min(n, m) >= _FEWEST
    return Drift(n, m, p, q, p - q, at_least, tolerance, None, at_least > tolerance if enough else None)


def distribution_drift(
    current: datasketches.kll_doubles_sketch,
    baseline: datasketches.kll_doubles_sketch,
    *,
    tolerance: float = DISTANCE_TOLERANCE,
    confidence: float = CONFIDENCE,
) -> Drift:
    """Compare two distributions by their sketches.

    Args:
        current: of the values of now.
        baseline: of those of before.
        tolerance: how large a share of values may have moved past some bound.
        confidence: of both sides' bounds together.
    """
    n, m = current.n, baseline.n
    if min(n, m) < _FEWEST:
        return Drift(n, m, 0.0, 0.0, 0.0, 0.0, tolerance, None, None)
    points = sorted({float(sketch.get_quantile(rank, True)) for sketch in (current, baseline) for rank in _RANKS})
    ranks = [(current.get_rank(point, True), baseline.get_rank(point, True), point) for point in points]
    now, before, at = max(ranks, key=lambda one: abs(one[0] - one[1]))
    unsure = sum(math.sqrt(math.log(4 / (1 - confidence)) / (2 * of.n)) + _rank_error(of) for of in (current, baseline))
    at_least = max(0.0, abs(now - before) - unsure)
    return Drift(n, m, now, before, now - before, at_least, tolerance, at, at_least > tolerance)


def sketch_of(values: list[float]) -> datasketches.kll_doubles_sketch:
    """A sketch of some values, NaN left out."""
    sketch = datasketches.kll_doubles_sketch()
    for value in values:
        if not math.isnan(value):
            sketch.update(value)
    return sketch


def _rank_error(sketch: datasketches.kll_doubles_sketch) -> float:
    return float(sketch.normalized_rank_error(False)) if sketch.is_estimation_mode() else 0.0


def _wilson(count: int, rows: int, confidence: float) -> tuple[float, float]:
    """The score interval of a share (E. B. Wilson, 1927)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = count / rows
    middle = share + z * z / (2 * rows)
    spread = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    return (middle - spread) / scale, (middle + spread) / scale
