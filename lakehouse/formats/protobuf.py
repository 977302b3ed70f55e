"""Protobuf by the schema that wrote it, as decoded events.

The registry gives a file's descriptor; the record says which of its messages it holds. No code is generated: messages
are made of the descriptor, and parsed by the library's C core.
"""

from __future__ import annotations

from base64 import b64decode
from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    json_format,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    unknown_fields,
    wrappers_pb2,
)
from google.protobuf.message import DecodeError

from lakehouse.formats.event import Event, Unfit, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lakehouse.config.models import EventField
    from lakehouse.formats.registry import Registered

_WELL_KNOWN = (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
"""Files that every compiler brings along, so that no registry holds them."""
_WRAPPERS = frozenset(wrappers_pb2.DESCRIPTOR.message_types_by_name)
_BITS, _MORE = 7, 0x80
_LONGEST_INDEX = 64
"""Messages within messages that are followed; nobody nests so deep."""


def reader(schema: Registered, fields: Mapping[str, str], message: str) -> Callable[[bytes], Event]:
    """A function that reads a record behind its header; it raises `Unreadable` where a record does not fit the schema.

    Args:
        schema: the writer's.
        fields: the contract's: name → type.
        message: full name of the message that an event is; empty for whichever the record names.

    Raises:
        Unreadable: no event can be of this schema.
    """
    try:
        file = _file(schema)
    except Exception as error:  # whatever is wrong with the descriptor
        raise Unreadable("contract.protobuf", f"schema {schema.id} of the registry cannot be used: {error}") from error
    known = tuple(sorted(fields.items()))

    @cache
    def of(indexes: tuple[int, ...]) -> tuple[type[Any], tuple[tuple[Any, Callable[[Any], Any]], ...]]:
        """The class of a message, and how each of its fields is read."""
        found = _message(file, indexes, schema.id)
        if message and found.full_name != message:
            what = f"the record holds the message {found.full_name}, not {message} (schema {schema.id})"
            raise Unreadable("contract.protobuf", what)
        kinds = dict(known)
        return message_factory.GetMessageClass(found), tuple((each, _value(each, kinds)) for each in found.fields)

    def read(body: bytes) -> Event:
        indexes, begin = _indexes(body)
        kind, getters = of(indexes)
        parsed = kind()
        try:
            parsed.ParseFromString(body[begin:])
        except DecodeError as error:
            raise Unreadable("contract.protobuf", f"the value does not fit schema {schema.id}: it ends too early or is"
                f" no {kind.DESCRIPTOR.full_name}") from error  # fmt: skip
        if len(unknown_fields.UnknownFieldSet(parsed)):
            what = f"the value holds fields that {kind.DESCRIPTOR.full_name} has not (schema {schema.id})"
            raise Unreadable("contract.protobuf", what)
        return {
            each.name: value(parsed) if not each.has_presence or parsed.HasField(each.name) else None
            for each, value in getters
        }

    return read


_TYPES = {"string": 9, "integer": 5, "long": 3, "double": 1, "boolean": 8, "timestamp": 11}
"""Type of the contract → number of the field's type in a descriptor."""


def describe(fields: Mapping[str, EventField], message: str) -> tuple[bytes, type[Any]]:
    """A file with one message of the contract's fields, and the message's class; fields that may be missing say so.

    Args:
        fields: of any type but date.
        message: its full name.
    """
    package, _, name = message.rpartition(".")
    file = descriptor_pb2.FileDescriptorProto(name=f"{message}.proto", package=package, syntax="proto3")
    file.dependency.append(timestamp_pb2.DESCRIPTOR.name)
    made = file.message_type.add(name=name)
    for number, (field_name, field) in enumerate(fields.items(), 1):
        one = made.field.add(name=field_name, number=number, type=_TYPES[field.type], label=1)
        if field.type == "timestamp":
            one.type_name = ".google.protobuf.Timestamp"
        elif not field.required:
            one.proto3_optional, one.oneof_index = True, len(made.oneof_decl)
            made.oneof_decl.add(name=f"_{field_name}")
    pool = _pool()
    body = file.SerializeToString()
    found = pool.AddSerializedFile(body).message_types_by_name[name]
    return body, message_factory.GetMessageClass(found)


def _indexes(body: bytes) -> tuple[tuple[int, ...], int]:
    """The place of the message in its file: outermost first, and where the message begins."""
    count, at = _number(body, 0)
    if count == 0:  # short for the first message of the file
        return (0,), at
    if not 0 < count <= _LONGEST_INDEX:
        raise Unreadable("contract.protobuf", f"the value names a message {count} levels deep")
    found = []
    for _ in range(count):
        index, at = _number(body, at)
        found.append(index)
    return tuple(found), at


def _number(body: bytes, at: int) -> tuple[int, int]:
    """A whole number as the registry's format has it (a varint, zigzag), and where it ends."""
    bits = shift = 0
    while at < len(body) and shift < 5 * _BITS:
        byte = body[at]
        at += 1
        bits |= (byte & ~_MORE) << shift
        shift += _BITS
        if not byte & _MORE:
            return bits >> 1 ^ -(bits & 1), at
    raise Unreadable("contract.protobuf", "the value ends before it says which message it holds")


def _file(schema: Registered) -> Any:  # noqa: ANN401 - protobuf has no types
    pool = _pool()
    for name, text in schema.references:
        if not name.startswith("google/protobuf/"):
            _add(pool, name, text)
    return _add(pool, f"schema-{schema.id}.proto", schema.text)


def _pool() -> Any:  # noqa: ANN401 - protobuf has no types
    pool = descriptor_pool.DescriptorPool()
    for module in _WELL_KNOWN:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool


def _add(pool: Any, name: str, text: str) -> Any:  # noqa: ANN401 - protobuf has no types
    file = descriptor_pb2.FileDescriptorProto.FromString(b64decode(text, validate=True))
    file.name = name  # that by which other files import it
    return pool.AddSerializedFile(file.SerializeToString())


def _message(file: Any, indexes: tuple[int, ...], number: int) -> Any:  # noqa: ANN401 - protobuf has no types
    within = list(file.message_types_by_name.values())
    for depth, index in enumerate(indexes):
        if not 0 <= index < len(within):
            place = ", ".join(map(str, indexes[: depth + 1]))
            raise Unreadable("contract.protobuf", f"schema {number} of the registry has no message at [{place}]")
        found = within[index]
        within = list(found.nested_types)
    return found


def _value(field: Any, kinds: Mapping[str, str]) -> Callable[[Any], Any]:  # noqa: ANN401 - protobuf has no types
    """What reads a field of a message as a plain value."""
    name, wanted = field.name, kinds.get(field.name)
    repeated = field.is_repeated
    inner = field.message_type.full_name if field.message_type else ""
    if inner == "google.protobuf.Timestamp" and not repeated and wanted == "timestamp":
        return lambda message: _micros(getattr(message, name))
    if wanted in ("timestamp", "date"):
        return lambda message: Unfit(_json(message, name))
    if inner.removeprefix("google.protobuf.") in _WRAPPERS and not repeated:
        return lambda message: getattr(message, name).value
    if field.enum_type and not repeated:
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        return lambda message: names.get(getattr(message, name), getattr(message, name))
    if repeated or inner:
        return lambda message: _json(message, name)
    return lambda message: getattr(message, name)


def _micros(moment: Any) -> int:  # noqa: ANN401 - protobuf has no types
    return int(moment.seconds * 1_000_000 + moment.nanos // 1_000)


def _json(message: Any, name: str) -> Any:  # noqa: ANN401 - protobuf has no types
    """A field as Protobuf's own mapping to JSON has it; None of an empty list."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True).get(name)
