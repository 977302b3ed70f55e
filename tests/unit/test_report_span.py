from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lakehouse.errors import ConfigError
from lakehouse.reports.population import Span, parse_span

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_the_last_hour_ends_now() -> None:
    assert parse_span(None, None, "1h", now=NOW) == Span(NOW - timedelta(hours=1), NOW)


def test_a_side_may_stay_open_and_zones_become_utc() -> None:
    span = parse_span("2026-01-31T13:00:00+01:00", None, None, now=NOW)
    assert span == Span(datetime(2026, 1, 31, 12, tzinfo=UTC), None)
    assert str(span) == "2026-01-31T12:00:00Z to now"
    assert str(parse_span(None, None, None, now=NOW)) == "all records"


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (("2026-01-31", None, None), "--from is '2026-01-31'"),
        (("2026-01-31T12:00:00", None, None), "--from is"),
        ((None, "yesterday", None), "--to is 'yesterday'"),
        (("2026-01-02T00:00Z", "2026-01-02T00:00Z", None), "is empty"),
        ((None, None, "an hour"), "--last is 'an hour'"),
        (("2026-01-02T00:00Z", None, "1h"), "--last names a whole range"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: tuple[str | None, str | None, str | None], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as raised:
        parse_span(*given, now=NOW)
    assert raised.value.remedy
