"""Records too large to keep as files. Each function makes one from an otherwise good event; no chance, no clock."""

from __future__ import annotations

import hashlib
import json
from itertools import product

_EVENT = {
    "event_time": "2026-03-01T12:00:00.000Z",
    "feature": "search",
    "action": "query",
    "user_id": 10_000_001,
    "session_id": "s-1",
    "region": "eu-west",
    "app_version": "5.0.1",
    "status": "ok",
    "latency_ms": 85.5,
    "amount": None,
}


def event(name: str, field: str = "more", raw: bytes = b"1") -> bytes:
    """A good event with `raw` as the JSON of one field."""
    good = {key: value for key, value in {"event_id": f"poison:{name}", **_EVENT}.items() if key != field}
    return json.dumps(good, separators=(",", ":")).encode()[:-1] + b',"' + field.encode() + b'":' + raw + b"}"


def nested(name: str, *, field: str, depth: int, objects: bool = False, closed: bool = True) -> bytes:
    """A field that holds `depth` arrays (or objects) in each other."""
    opening, closing = (b'{"a":', b"}") if objects else (b"[", b"]")
    if not closed:
        return event(name, field, opening * depth)[:-1]
    return event(name, field, opening * depth + b"1" + closing * depth)


def digits(name: str, *, field: str, count: int) -> bytes:
    """A number of so many digits."""
    return event(name, field, b"7" * count)


def many_keys(name: str, *, count: int, mistyped: bool = False) -> bytes:
    """An object with so many more names, and perhaps a text where a number belongs."""
    more = b",".join(b'"key%d":%d' % (number, number) for number in range(count))
    return event(name, "user_id", b'"x"' if mistyped else b"10000001")[:-1] + b"," + more + b"}"


def duplicate_keys(name: str, *, count: int) -> bytes:
    """One name so many times."""
    repeated = b",".join(b'"session_id":"v%d"' % number for number in range(count))
    return event(name)[:-1] + b"," + repeated + b',"session_id":"last"}'


def colliding_names(name: str, *, letters: int, nested: bool = False) -> bytes:
    """2^letters names whose hashes are equal where a hash is a polynomial in 33, as Jackson's."""
    # 33 * "B" + "a" = 33 * "C" + "@", and the same again in each pair of characters.
    names = ("".join(pairs) for pairs in product(("Ba", "C@"), repeat=letters))
    fields = b",".join(b'"%s":1' % each.encode() for each in names)
    return event(name, "more", b"{%s}" % fields) if nested else event(name)[:-1] + b"," + fields + b"}"


def long_name(name: str, *, length: int) -> bytes:
    """A field with a name of so many characters."""
    return event(name, "n" * length)


def long_text(name: str, *, field: str, length: int) -> bytes:
    """A text of so many characters."""
    return event(name, field, b'"' + b"x" * length + b'"')


def long_escapes(name: str, *, field: str, count: int) -> bytes:
    """A text of so many escaped surrogate pairs."""
    return event(name, field, b'"' + rb"\ud83d\ude80" * count + b'"')


def array_of_arrays(name: str, *, length: int) -> bytes:
    """About so many bytes of empty arrays, where a number belongs."""
    return event(name, "user_id", b"[" + b",".join([b"[]"] * (length // 3)) + b"]")


def noise(name: str, *, length: int) -> bytes:
    """Bytes without any pattern."""
    return hashlib.shake_128(name.encode()).digest(length)


def spaces(_name: str, *, length: int) -> bytes:
    """White space."""
    return b" \t\r\n" * (length // 4)


def padded(name: str, *, length: int) -> bytes:
    """An event with white space before and after it."""
    return spaces(name, length=length // 2) + event(name) + spaces(name, length=length // 2)


def documents(name: str, *, count: int) -> bytes:
    """Several events, one after the other."""
    return b"\n".join([event(name)] * count)


def quotes(_name: str, *, length: int) -> bytes:
    """Quotation marks."""
    return b'"' * length
