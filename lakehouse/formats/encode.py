"""Events as Avro or Protobuf behind a registry's header: what the load sends where the pipeline reads such a format.

The schema is made of the contract's fields, and is registered as the topic's (`TOPIC-value`, as producers name it by
default). What no event of the schema can be, such as the faults of a load, is left as it is: readers quarantine it.
"""

from __future__ import annotations

import io
import json
from base64 import b64encode
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from lakehouse.errors import ConfigError
from lakehouse.formats.decode import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lakehouse.config.models import EventField, Source

_AVRO: dict[str, Any] = {
    "string": "string",
    "integer": "int",
    "long": "long",
    "double": "double",
    "boolean": "boolean",
    "timestamp": {"type": "long", "logicalType": "timestamp-micros"},
    "date": {"type": "int", "logicalType": "date"},
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encoder(source: Source) -> Callable[[bytes | None], bytes | None]:
    """A function from a value in JSON, or what a fault has made of one, to the value that is sent.

    The registry has its schema by then.

    Raises:
        RegistryUnavailable: the registry does not answer.
        ConfigError: it refuses the schema or the user, or a field cannot be spelled in the format.
    """
    kind, text, spell = _avro(source) if source.format == "avro" else _protobuf(source)
    number = connect(source).register(f"{source.topic}-value", kind, text)
    header = b"\0" + number.to_bytes(4, "big")

    def encode(value: bytes | None) -> bytes | None:
        try:
            return header + spell(orjson.loads(value or b""))
        except Exception:  # noqa: BLE001 - a fault can be anything
            return value

    return encode


def avro_schema(fields: Mapping[str, EventField]) -> dict[str, Any]:
    """A record of the contract's fields; those that are not required may be null."""
    described = [
        {
            "name": name,
            "type": _AVRO[field.type] if field.required else ["null", _AVRO[field.type]],
            **({"doc": field.description} if field.description else {}),
            **({} if field.required else {"default": None}),
        }
        for name, field in fields.items()
    ]
    return {"type": "record", "name": "Event", "fields": described}


def _avro(source: Source) -> tuple[str, str, Callable[[Any], bytes]]:
    import fastavro  # noqa: PLC0415 - loaded where it is used

    from lakehouse.formats.avro import plain  # noqa: PLC0415

    schema = avro_schema(source.fields)
    numbers = [{**field, "type": plain(field["type"])} for field in schema["fields"]]
    parsed = fastavro.parse_schema({**schema, "fields": numbers})
    times = _times(source.fields)

    def spell(event: Any) -> bytes:  # noqa: ANN401 - any JSON
        for name, kind in times.items():
            if event.get(name) is not None:
                event[name] = _micros(event[name]) if kind == "timestamp" else _days(event[name])
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, parsed, event)
        return buffer.getvalue()

    return "AVRO", json.dumps(schema), spell


def _protobuf(source: Source) -> tuple[str, str, Callable[[Any], bytes]]:
    from lakehouse.formats import protobuf  # noqa: PLC0415 - loaded where it is used

    if dates := [name for name, field in source.fields.items() if field.type == "date"]:
        raise ConfigError(
            f"Protobuf has no dates, such as {dates[0]}",
            where=f"source.fields.{dates[0]}",
            remedy="make the field a timestamp or a string",
        )
    file, kind = protobuf.describe(source.fields, source.message or "Event")
    times = _times(source.fields)

    def spell(event: Any) -> bytes:  # noqa: ANN401 - any JSON
        held = {name: value for name, value in event.items() if value is not None}
        for name in times:
            if name in held:
                seconds, micros = divmod(_micros(held[name]), 1_000_000)
                held[name] = {"seconds": seconds, "nanos": micros * 1_000}
        body: bytes = kind(**held).SerializeToString()
        # The first message of the file has the shortest place.
        return b"\0" + body

    return "PROTOBUF", b64encode(file).decode(), spell


def _times(fields: Mapping[str, EventField]) -> dict[str, str]:
    return {name: field.type for name, field in fields.items() if field.type in ("timestamp", "date")}


def _micros(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND


def _days(text: str) -> int:
    return date.fromisoformat(text).toordinal() - _EPOCH.toordinal()
