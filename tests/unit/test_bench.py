"""What benchmarks compute from what was observed; the stack itself runs in no test."""

from __future__ import annotations

import numpy as np

from lakehouse.bench.latency import _freshness
from lakehouse.bench.stack import Events


def steady(seconds: float, age_ms: float) -> Events:
    sent = np.arange(0, 1_000 * seconds, 10.0)
    return Events(1e12 + sent, np.full(len(sent), age_ms))


def test_percentiles_are_over_events_and_not_over_slices() -> None:
    quick, slow = steady(9.0, 100.0), steady(1.0, 900.0)
    both = Events(np.concatenate([quick.sent_ms, slow.sent_ms + 9_000]), np.concatenate([quick.age_ms, slow.age_ms]))
    found = _freshness(both, 1e12)
    assert found.events == 1_000
    assert found.percentiles_ms["p50"] == 100.0
    assert found.percentiles_ms["p95"] == found.max_ms == 900.0
    assert found.mean_ms == 180.0
    assert found.over_time == {0.0: (100.0, 100.0), 5.0: (100.0, 900.0)}
    assert (found.curve[0], found.curve[100]) == (100.0, 900.0)


def test_no_event_has_no_percentile() -> None:
    none = _freshness(Events(np.empty(0), np.empty(0)), 0.0)
    assert (none.events, none.percentiles_ms) == (0, {})


def test_events_between_two_moments() -> None:
    events = steady(10.0, 100.0)
    assert len(events.between(1e12 + 1_000, 1e12 + 2_000).sent_ms) == 100
    assert np.isnan(events.between(0, 1).percentile(99))
