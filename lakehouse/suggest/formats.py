r"""Families of texts: identifiers, versions, addresses, told from examples.

A family is a regular expression that means the same to Java, which judges the stream, and to RE2, which proves a
proposal here: ASCII classes, no look-around, `\z` for the end.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_HEX = "[0-9a-f]"
FAMILIES: tuple[tuple[str, str], ...] = (
    ("UUID", f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"),
    ("ULID", "[0-7][0-9A-HJKMNP-TV-Z]{25}"),
    ("SHA-256", f"{_HEX}{{64}}"),
    ("SHA-1", f"{_HEX}{{40}}"),
    ("MD5", f"{_HEX}{{32}}"),
    ("semantic version", r"[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?"),
    ("IPv4 address", r"[0-9]{1,3}(\.[0-9]{1,3}){3}"),
    ("e-mail address", r"[^@ \t\r\n]+@[^@ \t\r\n]+\.[^@ \t\r\n]+"),
    (
        "ISO 8601 time",
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}:?[0-9]{2})?",
    ),
    ("ISO 8601 date", "[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    ("http address", r"https?://[^ \t\r\n]+"),
    ("digits", "[0-9]+"),
    ("hexadecimal digits", f"{_HEX}+"),
    ("lower-case words", "[a-z]+([ _.-][a-z]+)*"),
    ("letters and digits", "[0-9A-Za-z]+([_.:/-][0-9A-Za-z]+)*"),
)
"""Name → what the whole text is, the narrowest first."""
CLOSED = frozenset({"digits", "hexadecimal digits", "lower-case words", "letters and digits"})
"""Families of which a column may hold a few members for ever, such as names of regions; the others go on."""
_AFTER_A_PREFIX = frozenset({"UUID", "ULID", "SHA-256", "SHA-1", "MD5", "digits", "hexadecimal digits"})
_SEPARATOR = re.compile(r"[_:/.-]")
_LONGEST_PREFIX = 32


def format_of(examples: Collection[str]) -> tuple[str, str] | None:
    """The narrowest family of all the examples: its name, and a regular expression of the whole text.

    A beginning that all share up to a separator, as in `ord_1234`, is part of the expression, letter by letter.
    """
    if not examples:
        return None
    prefix = _prefix(examples)
    for name, body in FAMILIES:
        if _all(examples, body):
            return name, rf"\A{body}\z"
        if prefix and name in _AFTER_A_PREFIX and _all([text[len(prefix) :] for text in examples], body):
            return f"{prefix}, then {name}", rf"\A{_literal(prefix)}{body}\z"
    return None


def _all(texts: Collection[str], body: str) -> bool:
    return all(re.fullmatch(body, text) for text in texts)


def _prefix(examples: Collection[str]) -> str:
    """What all begin with, up to a separator; empty where nothing varies behind it."""
    first, last = min(examples), max(examples)
    shared = next((number for number, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    ends = [match.end() for match in _SEPARATOR.finditer(first[:shared])]
    prefix = first[: ends[-1]] if ends else ""
    return prefix if len(prefix) <= _LONGEST_PREFIX and prefix.isascii() and prefix.isprintable() else ""


def _literal(text: str) -> str:
    """The text itself, for Java and RE2 alike."""
    return re.sub(r"([^0-9A-Za-z_:/-])", r"\\\1", text)
