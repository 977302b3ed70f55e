"""Spoils good events on purpose, each in one known way, so that a test can ask where each of them ended.

Each fault is a pure function of the event's bytes and of one random number, which picks a variant.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lakehouse.load.description import FaultValues

T = TypeVar("T")

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


class Faults:
    """The faults of one load's events.

    Args:
        values: which fields and values they use.
        time: the field that says when the event happened.
        max_future: how far ahead an event's time is believed.
    """

    def __init__(self, values: FaultValues, time: str, max_future: timedelta) -> None:
        self._values, self._time, self._max_future = values, time, max_future
        mistyped, out_of_range, unknown = map(_pairs, (values.mistyped, values.out_of_range, values.unknown))
        self._spoilers: dict[Fault, Callable[[bytes, int], bytes | None]] = {
            Fault.MISSING_FIELD: lambda value, pick: _without(value, _one(values.required, pick)),
            Fault.NULL_FIELD: lambda value, pick: _with(value, _one(values.required, pick), None),
            Fault.MISTYPED_FIELD: lambda value, pick: _with(value, *_one(mistyped, pick)),
            Fault.OUT_OF_RANGE: lambda value, pick: _with(value, *_one(out_of_range, pick)),
            Fault.UNKNOWN_MEMBER: lambda value, pick: _with(value, *_one(unknown, pick)),
            # At least the opening brace stays, and at least the closing one goes.
            Fault.TRUNCATED_JSON: lambda value, pick: value[: 1 + pick % (len(value) - 1)],
            Fault.NOT_JSON: lambda _, pick: _one(_NOT_JSON, pick),
            Fault.INVALID_UTF8: self._invalid_utf8,
            Fault.EMPTY: lambda *_: b"",
            Fault.TOMBSTONE: lambda *_: None,
            Fault.FUTURE: self._future,
            Fault.ARRAY_ROOT: lambda value, pick: _one(_arrays(value), pick),
        }

    def spoil(self, fault: Fault, value: bytes, pick: int) -> bytes | None:
        """The event `value` with this fault in it; None is Kafka's null value.

        Args:
            fault: what is to be wrong.
            value: a good event, as JSON.
            pick: any whole number of 0 or more; chooses the field and the variant.
        """
        return self._spoilers[fault](value, pick)

    def _invalid_utf8(self, value: bytes, pick: int) -> bytes:
        """Put bytes that are no UTF-8 into the text of a field; all else stays valid JSON."""
        start = b'"%b":"' % self._values.text.encode()
        at = value.index(start) + len(start)
        return value[:at] + _one(_BAD_UTF8, pick) + value[at:]

    def _future(self, value: bytes, pick: int) -> bytes:
        """A minute to a day beyond what is believed."""
        event = orjson.loads(value)
        ahead = self._max_future + timedelta(minutes=1) + timedelta(seconds=pick % 86_000)
        moment = datetime.fromisoformat(event[self._time]) + ahead
        event[self._time] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return orjson.dumps(event)


def _without(value: bytes, field: str) -> bytes:
    event = orjson.loads(value)
    del event[field]
    return orjson.dumps(event)


def _with(value: bytes, field: str, content: Any) -> bytes:  # noqa: ANN401 - any JSON value is the point
    event = orjson.loads(value)
    event[field] = content
    return orjson.dumps(event)


def _pairs(wrong: Mapping[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(field, value) for field, values in wrong.items() for value in values]


def _arrays(value: bytes) -> tuple[bytes, ...]:
    return b"[" + value + b"]", b"[" + value + b"," + value + b"]", b"[]", b"[1,2,3]"


def _one(choices: Sequence[T], pick: int) -> T:
    return choices[pick % len(choices)]
