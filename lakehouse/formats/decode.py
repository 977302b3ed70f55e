"""One task's decoding of values that a schema registry describes, between Kafka and the rules.

A value begins with the byte 0 and four bytes of a schema's id, the first of them the highest; Protobuf's goes on with
the place of the message in its file. What cannot be read is marked, and goes to quarantine with its bytes. A registry
that does not answer marks nothing: the task waits for it, and in the end the batch is run anew.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from lakehouse.errors import RegistryUnavailable
from lakehouse.formats.event import Unreadable, more_than, to_columns
from lakehouse.formats.registry import Registry
from lakehouse.schemas import RESCUED
from lakehouse.transforms.contract import LARGEST, MISFIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lakehouse.config.models import Source
    from lakehouse.formats.event import Event
    from lakehouse.formats.registry import Registered

HEADER = 5
_KINDS = {"avro": "AVRO", "protobuf": "PROTOBUF"}
_WAIT_S, _PAUSE_S = 60.0, 1.0
"""How long a task waits for the registry, and between two tries."""
_SHOWN = 16


@dataclass(frozen=True)
class Decode:
    """Pickled with the query's plan.

    Attributes:
        source: fields, format and registry.
    """

    source: Source

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Records as `parse.position` leaves them in; with fields, `_fits`, `_misfit` and `_rescued_data` out."""
        fields = {name: field.type for name, field in self.source.fields.items()}
        readers: dict[int, Callable[[bytes], Event]] = {}
        for batch in batches:
            events: list[Event | None] = []
            misfits: dict[int, dict[str, Any]] = {}
            for row, value in enumerate(batch["_value"].to_pylist()):
                try:
                    number, body = split(value)
                    read = readers.get(number) or readers.setdefault(number, self._reader(number, fields))
                    events.append(read(body))
                except Unreadable as why:
                    events.append(None)
                    misfits[row] = {"rule_id": why.rule_id, "message": why.message, "value": _shown(value)}
            columns, unfit = to_columns(events, fields)
            misfits |= {row: {"fields": of} for row, of in unfit.items()}
            told = [orjson.dumps(misfits[row]).decode() if row in misfits else None for row in range(len(events))]
            more = [more_than(event, fields) if event else None for event in events]
            added = {
                **columns,
                "_fits": pa.array([one is None for one in told], pa.bool_()),
                MISFIT: pa.array(told, pa.string()),
                RESCUED: pa.array(more, pa.string()),
            }
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, *added.values()], names=[*batch.schema.names, *added.keys()]
            )

    def _reader(self, number: int, fields: Mapping[str, str]) -> Callable[[bytes], Event]:
        registry, kind = connect(self.source), self.source.format
        schema = _schema(registry, number)
        if schema is None:
            raise Unreadable("contract.schema_id", f"the registry at {registry.url} has no schema of the id {number}")
        if schema.kind != _KINDS[kind]:
            what = f"schema {number} of the registry is of the kind {schema.kind}, not {_KINDS[kind]}"
            raise Unreadable("contract.schema_id", what)
        return _made(schema, kind, self.source.message, tuple(fields.items()))


def split(value: bytes | None) -> tuple[int, bytes]:
    """A value as (id of its schema, what follows).

    Raises:
        Unreadable: it is not framed so.
    """
    if not value:
        what = "the record has no value (a tombstone)" if value is None else "the value is empty"
        raise Unreadable("contract.empty", what)
    if len(value) > LARGEST:
        raise Unreadable("contract.oversize", f"the value has {len(value):,} bytes; at most {LARGEST:,} are read")
    if value[0] or len(value) < HEADER:
        what = f"the value begins with {_shown(value)}, not with the byte 0 and four bytes of a schema's id"
        raise Unreadable("contract.encoding", what)
    return int.from_bytes(value[1:HEADER], "big"), value[HEADER:]


def connect(source: Source) -> Registry:
    """The source's registry, one for the process."""
    registry = source.registry
    assert registry is not None, "a format with schemas has a registry"  # noqa: S101 - config.checks
    return _registry(registry.url, registry.auth.get_secret_value())


@cache
def _registry(url: str, auth: str) -> Registry:
    return Registry(url, auth)


@lru_cache(maxsize=1_000)
def _made(schema: Registered, kind: str, message: str, fields: tuple[tuple[str, str], ...]) -> Callable[[bytes], Event]:
    if kind == "avro":
        from lakehouse.formats import avro  # noqa: PLC0415 - loaded where it is used

        return avro.reader(schema, dict(fields))
    from lakehouse.formats import protobuf  # noqa: PLC0415

    return protobuf.reader(schema, dict(fields), message)


def _schema(registry: Registry, number: int) -> Registered | None:
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            return registry.schema(number)
        except RegistryUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)


def _shown(value: bytes | None) -> str | None:
    if value is None:
        return None
    return "0x" + value[:_SHOWN].hex() + ("…" if len(value) > _SHOWN else "")
