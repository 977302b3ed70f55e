"""Spoils good events on purpose, each in one known way, so that a test can ask where each of them ended.

Each fault is a pure function of the event's bytes and of one random number, which picks a variant.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

REQUIRED = ("event_id", "event_time", "feature", "action", "user_id", "region", "status", "latency_ms")
"""Fields that every good event has, with a value."""

MAX_FUTURE = timedelta(minutes=5)
"""How far ahead an event's time is believed in conf/feature_events.yaml; faults go beyond."""

_MISTYPES: tuple[tuple[str, Any], ...] = (
    ("user_id", "not-a-number"),
    ("user_id", 12.75),
    ("user_id", {"id": 7}),
    ("user_id", 2**63),
    ("latency_ms", "fast"),
    ("latency_ms", [120.5]),
    ("latency_ms", True),
    ("amount", "free"),
    ("amount", {"value": 9.99, "currency": "EUR"}),
    ("event_time", "yesterday at noon"),
    ("event_time", {"seconds": 1}),
)
"""Values that a JSON reader cannot turn into the field's type. Numbers in text fields are none: they fit."""

_OUT_OF_RANGE: tuple[tuple[str, float], ...] = (
    ("latency_ms", -5.0),
    ("latency_ms", 1.0e7),
    ("amount", -19.99),
    ("amount", 1.0e9),
)
_UNKNOWN_MEMBERS = (("status", "maybe"), ("status", "OK"), ("region", "atlantis"), ("region", ""))
_NOT_JSON = (b"hello, world", b"<event/>", b"{'event_id': 'single quotes'}", b"\x00\x00\x00\x00\x07Schema")
_BAD_UTF8 = (b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80")
"""No UTF-8: a byte that never occurs, a cut sequence, a lone surrogate, a sequence of five bytes."""


class Fault(StrEnum):
    """What can be wrong with an event."""

    MISSING_FIELD = "missing_field"
    NULL_FIELD = "null_field"
    MISTYPED_FIELD = "mistyped_field"
    OUT_OF_RANGE = "out_of_range"
    UNKNOWN_MEMBER = "unknown_member"
    TRUNCATED_JSON = "truncated_json"
    NOT_JSON = "not_json"
    INVALID_UTF8 = "invalid_utf8"
    EMPTY = "empty"
    TOMBSTONE = "tombstone"
    FUTURE = "future"
    ARRAY_ROOT = "array_root"


def spoil(fault: Fault, value: bytes, pick: int) -> bytes | None:
    """The event `value` with this fault in it; None is Kafka's null value.

    Args:
        fault: what is to be wrong.
        value: a good event, as JSON.
        pick: any whole number of 0 or more; chooses the field and the variant.
    """
    return _FAULTS[fault](value, pick)


def _missing_field(value: bytes, pick: int) -> bytes:
    event = orjson.loads(value)
    del event[REQUIRED[pick % len(REQUIRED)]]
    return orjson.dumps(event)


def _null_field(value: bytes, pick: int) -> bytes:
    return _with(value, REQUIRED[pick % len(REQUIRED)], None)


def _mistyped_field(value: bytes, pick: int) -> bytes:
    return _with(value, *_MISTYPES[pick % len(_MISTYPES)])


def _out_of_range(value: bytes, pick: int) -> bytes:
    return _with(value, *_OUT_OF_RANGE[pick % len(_OUT_OF_RANGE)])


def _unknown_member(value: bytes, pick: int) -> bytes:
    return _with(value, *_UNKNOWN_MEMBERS[pick % len(_UNKNOWN_MEMBERS)])


def _truncated_json(value: bytes, pick: int) -> bytes:
    # At least the opening brace stays, and at least the closing one goes.
    return value[: 1 + pick % (len(value) - 1)]


def _not_json(_value: bytes, pick: int) -> bytes:
    return _NOT_JSON[pick % len(_NOT_JSON)]


def _invalid_utf8(value: bytes, pick: int) -> bytes:
    """Put bytes that are no UTF-8 into the text of the field `feature`; all else stays valid JSON."""
    at = value.index(b'"feature":"') + len(b'"feature":"')
    return value[:at] + _BAD_UTF8[pick % len(_BAD_UTF8)] + value[at:]


def _empty(_value: bytes, _pick: int) -> bytes:
    return b""


def _tombstone(_value: bytes, _pick: int) -> None:
    return None


def _future(value: bytes, pick: int) -> bytes:
    """Six minutes to a day ahead."""
    event = orjson.loads(value)
    ahead = MAX_FUTURE + timedelta(minutes=1) + timedelta(seconds=pick % 86_000)
    moment = datetime.fromisoformat(event["event_time"]) + ahead
    event["event_time"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return orjson.dumps(event)


def _array_root(value: bytes, pick: int) -> bytes:
    return (b"[" + value + b"]", b"[" + value + b"," + value + b"]", b"[]", b"[1,2,3]")[pick % 4]


def _with(value: bytes, field: str, content: Any) -> bytes:  # noqa: ANN401 - any JSON value is the point
    event = orjson.loads(value)
    event[field] = content
    return orjson.dumps(event)


_FAULTS: dict[Fault, Callable[[bytes, int], bytes | None]] = {
    Fault.MISSING_FIELD: _missing_field,
    Fault.NULL_FIELD: _null_field,
    Fault.MISTYPED_FIELD: _mistyped_field,
    Fault.OUT_OF_RANGE: _out_of_range,
    Fault.UNKNOWN_MEMBER: _unknown_member,
    Fault.TRUNCATED_JSON: _truncated_json,
    Fault.NOT_JSON: _not_json,
    Fault.INVALID_UTF8: _invalid_utf8,
    Fault.EMPTY: _empty,
    Fault.TOMBSTONE: _tombstone,
    Fault.FUTURE: _future,
    Fault.ARRAY_ROOT: _array_root,
}
