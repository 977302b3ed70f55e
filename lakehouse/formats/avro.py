"""Avro by the schema that wrote it, as decoded events."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, cast

import fastavro
from fastavro.schema import SchemaParseException

from lakehouse.formats.event import Event, Unfit, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lakehouse.formats.registry import Registered

_UNITS = {"timestamp": {"timestamp-millis": 1_000, "timestamp-micros": 1}, "date": {"date": 1}}
"""Type of the contract → Avro's logical types that are of it → by how much their numbers are multiplied."""


def reader(schema: Registered, fields: Mapping[str, str]) -> Callable[[bytes], Event]:
    """A function that reads a record behind its header; it raises `Unreadable` where a record does not fit the schema.

    Args:
        schema: the writer's.
        fields: the contract's: name → type.

    Raises:
        Unreadable: no event can be of this schema.
    """
    named: dict[str, Any] = {}
    try:
        for _, text in schema.references:
            fastavro.parse_schema(json.loads(text), named_schemas=named)
        raw = json.loads(schema.text)
        if not isinstance(raw, dict) or raw.get("type") != "record":
            raise Unreadable("contract.avro", f"schema {schema.id} of the registry is no record")
        units = {field["name"]: _unit(field["type"], fields.get(field["name"])) for field in raw["fields"]}
        for field in raw["fields"]:
            field["type"] = plain(field["type"])
        parsed = fastavro.parse_schema(raw, named_schemas=named)
    except (ValueError, KeyError, TypeError, SchemaParseException) as error:
        raise Unreadable("contract.avro", f"schema {schema.id} of the registry cannot be used: {error}") from error
    timed = [(name, unit) for name, unit in units.items() if unit != 1]
    return lambda body: _read(body, schema.id, parsed, timed)


def _read(body: bytes, number: int, parsed: Any, timed: list[tuple[str, int]]) -> Event:  # noqa: ANN401 - parsed Avro
    buffer = io.BytesIO(body)
    try:
        event = cast("Event", fastavro.schemaless_reader(buffer, parsed, None))
    except Exception as error:
        what = "it ends too early" if isinstance(error, EOFError | IndexError) else str(error) or type(error).__name__
        raise Unreadable("contract.avro", f"the value does not fit schema {number}: {what}") from error
    if left := len(body) - buffer.tell():
        raise Unreadable("contract.avro", f"the value does not fit schema {number}: {left} bytes are left over")
    for name, unit in timed:
        value = event[name]
        if value is not None:
            event[name] = value * unit if unit and isinstance(value, int) else Unfit(value)
    return event


def _unit(kind: Any, wanted: str | None) -> int:  # noqa: ANN401 - any JSON
    """What makes the contract's time of a field's number; 0 where it is no time, 1 where nothing has to be done."""
    known = _UNITS.get(wanted or "")
    if known is None:
        return 1
    branches = [branch for branch in (kind if isinstance(kind, list) else [kind]) if branch != "null"]
    units = {known.get(branch.get("logicalType", ""), 0) if isinstance(branch, dict) else 0 for branch in branches}
    return units.pop() if len(units) == 1 else 0


def plain(kind: Any) -> Any:  # noqa: ANN401 - any JSON
    """The type with times as the numbers that they are written as: objects of Python would cost as much as all else."""
    if isinstance(kind, list):
        return [plain(branch) for branch in kind]
    if isinstance(kind, dict) and kind.get("logicalType") in ("timestamp-millis", "timestamp-micros", "date"):
        return kind["type"]
    return kind
