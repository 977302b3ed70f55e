"""Decoded events as columns of the contract's types: nothing is converted or guessed, what does not fit is told.

A decoded event is a dict of plain values: texts, whole numbers, doubles, booleans; a time is microseconds since 1970
UTC, a date days since 1970; a list or dict is what a record holds within. `Unfit` marks a value without such a meaning.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.schemas import ARROW_TYPES, FIRST_US, LAST_US
from lakehouse.transforms.contract import quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Event = dict[str, Any]
Misfits = dict[int, dict[str, str]]
"""Row → field → the value that is not of its type, as a reason shows it."""

_DAY_US = 86_400_000_000
_RANGES = {
    "integer": (-(2**31), 2**31 - 1),
    "long": (-(2**63), 2**63 - 1),
    "timestamp": (FIRST_US, LAST_US),
    "date": (FIRST_US // _DAY_US, LAST_US // _DAY_US),
}
_ALIKE: dict[str, frozenset[type]] = {
    "string": frozenset([str]),
    "integer": frozenset([int]),
    "long": frozenset([int]),
    "double": frozenset([float, int]),
    "boolean": frozenset([bool]),
    "timestamp": frozenset([int]),
    "date": frozenset([int]),
}
"""Type of the contract → those of Python whose values are of it, in range."""
_NONE = type(None)


class Unreadable(Exception):
    """A record's bytes are no event; holds the rule, and why in words."""

    def __init__(self, rule_id: str, message: str) -> None:
        super().__init__(message)
        self.rule_id = rule_id
        self.message = message


@dataclass(frozen=True, slots=True)
class Unfit:
    """A value that cannot be of the field's type, such as a number without a unit for a time."""

    value: object


def to_columns(events: Sequence[Event | None], fields: Mapping[str, str]) -> tuple[dict[str, pa.Array], Misfits]:
    """A column for each field, and what did not fit; both null and missing values are null.

    Args:
        events: a row each; None where it could not be read.
        fields: name → type, a key of `schemas.ARROW_TYPES`.
    """
    misfits: Misfits = {}
    columns: dict[str, pa.Array] = {}
    for name, kind in fields.items():
        values = [None if event is None else event.get(name) for event in events]
        columns[name] = _column(name, kind, values, misfits)
    return columns, misfits


def more_than(event: Event, known: Mapping[str, str]) -> str | None:
    """The event's other fields that hold something, as one JSON object; None where there are none."""
    if event.keys() <= known.keys():
        return None
    more = {name: value for name, value in event.items() if name not in known and value is not None}
    return json.dumps(more, ensure_ascii=False, separators=(",", ":"), default=_spell) if more else None


def _column(name: str, kind: str, values: list[Any], misfits: Misfits) -> pa.Array:
    low, high = _RANGES.get(kind, (None, None))
    if set(map(type, values)) - {_NONE} <= _ALIKE[kind]:
        try:
            column = pa.array(values, pa.float64() if kind == "double" else _stored(kind))
        except (OverflowError, pa.ArrowException):
            column = None
        if column is not None and _all_within(column, kind, low, high):
            return column.cast(ARROW_TYPES[kind])
    fitting = []
    for row, value in enumerate(values):
        taken = None if value is None else _taken(kind, value, low, high)
        if taken is None and value is not None:
            shown = value.value if isinstance(value, Unfit) else value
            misfits.setdefault(row, {})[name] = quote(json.loads(_json(shown)))
        fitting.append(taken)
    return pa.array(fitting, _stored(kind)).cast(ARROW_TYPES[kind])


def _stored(kind: str) -> pa.DataType:
    """Arrow's type of the plain values."""
    return {"timestamp": pa.int64(), "date": pa.int32()}.get(kind, ARROW_TYPES[kind])


def _all_within(column: pa.Array, kind: str, low: int | None, high: int | None) -> bool:
    if kind == "double":
        return bool(pc.all(pc.is_finite(column)).as_py() in (True, None))
    if low is None or column.null_count == len(column):
        return True
    found = pc.min_max(column)
    return bool(found["min"].as_py() >= low and found["max"].as_py() <= high)


def _taken(kind: str, value: Any, low: int | None, high: int | None) -> Any:  # noqa: ANN401 - of any type
    """The value as its column holds it; None where it does not fit."""
    if isinstance(value, Unfit):
        return None
    if kind == "string":
        return value if isinstance(value, str) else None if isinstance(value, bytes) else _json(value)
    if type(value) not in _ALIKE[kind]:
        return None
    if kind == "double":
        return float(value) if math.isfinite(value) else None
    return value if low is None or high is None or low <= value <= high else None


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_spell)


def _spell(value: object) -> str:
    """What JSON has no word for: bytes as base64, times and decimals as their text."""
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)
