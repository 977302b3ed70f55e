"""What benchmarks compute from what was observed; the stack itself runs in no test."""

from __future__ import annotations

import numpy as np
import pytest

from lakehouse.bench.latency import _freshness
from lakehouse.bench.saturation import _judge, drift_of
from lakehouse.bench.stack import Events


def steady(seconds: float, age_ms: float, *, growing: float = 0.0) -> Events:
    sent = np.arange(0, 1_000 * seconds, 10.0)
    return Events(1e12 + sent, age_ms + growing * sent)


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


@pytest.mark.parametrize(
    ("events", "sent", "late", "reason"),
    [
        (steady(30, 300.0), 1_000.0, "", ""),
        (steady(30, 1_200.0), 1_000.0, "", "p99 is not below 1,000 ms"),
        (steady(5, 300.0, growing=0.08), 1_000.0, "", "events grow older and older"),
        (steady(30, 300.0), 900.0, "", "the load could not send so many"),
        (steady(30, 300.0), 1_000.0, "never read", "never read"),
        (Events(np.empty(0), np.empty(0)), 1_000.0, "", "p99 is not below 1,000 ms"),
    ],
)
def test_a_rate_is_sustained_only_where_events_stay_fresh(events: Events, sent: float, late: str, reason: str) -> None:
    rate = _judge(1_000.0, sent, events, 1_000.0, late)
    assert rate.reason == reason
    assert rate.sustained == (not reason)


def test_drift_is_the_slope_of_the_age() -> None:
    assert drift_of(steady(10, 200.0, growing=0.25)) == pytest.approx(0.25)
    assert drift_of(steady(10, 200.0)) == pytest.approx(0.0, abs=1e-9)
    assert drift_of(Events(np.array([1.0]), np.array([1.0]))) == 0.0
