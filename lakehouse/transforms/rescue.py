"""What an event holds beyond its contract, as JSON: plain Python over the values that may hold more (`more`)."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Container

_WIDE = re.compile(rb"[0-9.]{17}|[0-9][eE]")
"""Numbers of which a double may not hold every digit, or none."""


def rescued(value: bytes, known: Container[str]) -> str | None:
    """The fields that are not `known`, as one JSON object; None where there are none, or they hold nothing.

    Numbers keep their value; one that a double cannot hold is kept as its text. A value that is nested too deeply to be
    taken apart here is kept as a whole.
    """
    wide = _WIDE.search(value) is not None
    try:
        event = json.loads(value, parse_float=_number) if wide else orjson.loads(value)
        more = {name: held for name, held in event.items() if name not in known and held is not None}
        if not more:
            return None
        return json.dumps(more, ensure_ascii=False, separators=(",", ":")) if wide else orjson.dumps(more).decode()
    except (RecursionError, TypeError, ValueError):
        return value.decode()


def _number(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) and Decimal(repr(number)) == Decimal(text) else text
