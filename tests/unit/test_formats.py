"""Avro and Protobuf by a schema registry: what is an event, and what each other value is told to be."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from lakehouse.config.checks import check
from lakehouse.config.models import EventField, Source
from lakehouse.errors import ConfigError, RegistryUnavailable
from lakehouse.formats import decode as decoding
from lakehouse.formats.decode import Decode, connect
from lakehouse.formats.encode import encoder
from lakehouse.formats.registry import Registry
from lakehouse.transforms.contract import Contract
from lakehouse.validation import validate_pipeline
from tests.pipelines import small_pipeline
from tests.registry import StandIn, serving

FIELDS: dict[str, Any] = {
    "id": {"type": "string", "required": True},
    "at": "timestamp",
    "user": "long",
    "n": "integer",
    "ms": "double",
    "ok": "boolean",
}
EVENT = {"id": "é:1", "at": "2026-03-01T12:00:00.123456Z", "user": 2**40, "n": -7, "ms": 1.5, "ok": True}
AT = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)
HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))


@pytest.fixture
def registry() -> Iterator[StandIn]:
    with serving() as held:
        yield held


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_PAUSE_S", 0.01)


def source(registry: StandIn, kind: str, fields: dict[str, Any] = FIELDS, **more: Any) -> Source:
    raw = {"servers": "localhost:1", "topic": "clicks", "format": kind, "registry": {"url": registry.url}}
    return Source.model_validate(raw | {"fields": fields} | more)


def decoded(of: Source, *values: bytes | None) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pydict({"_value": pa.array(values, pa.binary())})
    return [row for found in Decode(of)(iter([batch])) for row in found.to_pylist()]


def told(of: Source, value: bytes | None) -> list[tuple[str, str]]:
    """(rule, message) of each reason against a value."""
    (row,) = decoded(of, value)
    contract = Contract({name: one.type for name, one in of.fields.items()}, "at", timedelta(minutes=5), ("id",))
    row |= {"_timely": row["at"] is not None, "_timestamp": AT}
    return [(reason["rule_id"], reason["message"]) for reason in contract.reasons(row)]


def avro(registry: StandIn, schema: dict[str, Any], event: dict[str, Any], subject: str = "clicks-value") -> bytes:
    number = registry.add(subject, {"schema": json.dumps(schema)})
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), event)
    return b"\0" + number.to_bytes(4, "big") + body.getvalue()


def record(**fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "E", "fields": [{"name": name, "type": kind} for name, kind in fields.items()]}


@pytest.mark.parametrize("kind", ["avro", "protobuf"])
def test_an_event_is_sent_and_read_with_every_type(registry: StandIn, kind: str) -> None:
    of = source(registry, kind)
    encode = encoder(of)
    rare = {"id": "a", "at": EVENT["at"]}
    whole, sparse = decoded(of, encode(orjson.dumps(EVENT)), encode(orjson.dumps(rare)))
    assert {name: whole[name] for name in FIELDS} == EVENT | {"at": AT}
    assert whole["_fits"]
    assert (whole["_misfit"], whole["_rescued_data"]) == (None, None)
    assert {name: sparse[name] for name in FIELDS} == dict.fromkeys(FIELDS) | {"id": "a", "at": AT}
    assert encode(b"no event") == b"no event"
    assert encode(b'{"id":7}') == b'{"id":7}'
    assert list(registry.subjects) == ["clicks-value"]


@pytest.mark.parametrize("kind", ["avro", "protobuf"])
def test_what_is_no_event_is_told_in_words(registry: StandIn, kind: str) -> None:
    of = source(registry, kind)
    good = encoder(of)(orjson.dumps(EVENT))
    assert good is not None
    other = registry.add("x", {"schema": "{}", "schemaType": "JSON"})
    assert told(of, good) == []
    assert told(of, None) == [("contract.empty", "the record has no value (a tombstone)")]
    assert told(of, b"") == [("contract.empty", "the value is empty")]
    (framed,) = told(of, b'{"id":"a"}')
    assert framed[0] == "contract.encoding"
    assert "begins with 0x7b226964" in framed[1]
    assert told(of, good[:4])[0][0] == "contract.encoding"
    unknown = told(of, b"\0\0\0\x03\xe7" + good[5:])
    assert unknown == [("contract.schema_id", f"the registry at {registry.url} has no schema of the id 999")]
    (wrong,) = told(of, b"\0" + other.to_bytes(4, "big") + good[5:])
    assert wrong[0] == "contract.schema_id"
    assert "is of the kind JSON" in wrong[1]
    (short,) = told(of, good[:-3])
    assert short[0] == f"contract.{kind}"
    assert "too early" in short[1]


def test_avro_bytes_left_over_are_no_event(registry: StandIn) -> None:
    of = source(registry, "avro")
    good = encoder(of)(orjson.dumps(EVENT))
    assert good is not None
    assert told(of, good + b"\0") == [("contract.avro", "the value does not fit schema 1: 1 bytes are left over")]


def test_each_record_is_read_by_its_own_schema(registry: StandIn) -> None:
    of = source(registry, "avro")
    moment = {"type": "long", "logicalType": "timestamp-millis"}
    first = avro(registry, record(id="string", at=moment), {"id": "a", "at": AT})
    second = avro(
        registry,
        record(at=["null", moment], id="string", user="int", colour="string", tags={"type": "array", "items": "bytes"}),
        {"id": "b", "at": AT, "user": 7, "colour": "rot", "tags": [b"\x01"]},
    )
    a, b = decoded(of, first, second)
    assert (a["id"], a["user"], a["_rescued_data"]) == ("a", None, None)
    assert (b["id"], b["user"], b["_fits"]) == ("b", 7, True)
    assert json.loads(b["_rescued_data"]) == {"colour": "rot", "tags": ["AQ=="]}
    assert a["at"] == b["at"] == AT.replace(microsecond=123_000)


def test_values_of_another_type_are_told_with_their_field(registry: StandIn) -> None:
    of = source(registry, "avro")
    strange = avro(
        registry,
        record(id=["null", "string"], at="long", user="string", n="long", ms="double", ok="int"),
        {"id": None, "at": 7, "user": "seven", "n": 2**31, "ms": float("nan"), "ok": 1},
    )
    rules = dict(told(of, strange))
    assert rules["contract.type.at"] == "at is 7, not a time such as 2026-01-31T12:00:00.000Z"
    assert rules["contract.type.user"] == 'user is "seven", not a whole number of 64 bits'
    assert rules["contract.type.n"] == "n is 2147483648, not a whole number of 32 bits"
    assert rules["contract.missing.id"] == "id is missing, and is required"
    assert rules.keys() >= {"contract.type.ms", "contract.type.ok"}
    assert len(rules) == 6


def test_avro_schemas_that_need_others_are_read(registry: StandIn) -> None:
    of = source(registry, "avro")
    place = {"type": "record", "name": "Place", "fields": [{"name": "city", "type": "string"}]}
    registry.add("place", {"schema": json.dumps(place)})
    whole = record(id="string", place="Place")
    number = registry.add(
        "clicks-value",
        {"schema": json.dumps(whole), "references": [{"name": "Place", "subject": "place", "version": 1}]},
    )
    named: dict[str, Any] = {}
    fastavro.parse_schema(place, named_schemas=named)
    body = io.BytesIO()
    fastavro.schemaless_writer(
        body, fastavro.parse_schema(whole, named_schemas=named), {"id": "a", "place": {"city": "Rom"}}
    )
    (row,) = decoded(of, b"\0" + number.to_bytes(4, "big") + body.getvalue())
    assert (row["id"], row["_rescued_data"]) == ("a", '{"place":{"city":"Rom"}}')


def proto(registry: StandIn) -> tuple[int, Any]:
    """A file with two messages, `Other` and `Click`, which has an enumeration, a list and a message; the classes."""
    file = descriptor_pb2.FileDescriptorProto(name="c.proto", package="shop", syntax="proto3")
    file.message_type.add(name="Other").field.add(name="x", number=9, type=9, label=1)
    click = file.message_type.add(name="Click")
    for number, (name, kind) in enumerate([("id", 9), ("user", 3), ("tags", 9), ("colour", 14), ("place", 11)], 1):
        one = click.field.add(name=name, number=number, type=kind, label=3 if name == "tags" else 1)
        if kind in (11, 14):
            one.type_name = f".shop.Click.{name.title()}"
    colours = click.enum_type.add(name="Colour")
    for number, name in enumerate(["NONE", "RED"]):
        colours.value.add(name=name, number=number)
    click.nested_type.add(name="Place").field.add(name="city", number=1, type=9, label=1)
    body = file.SerializeToString()
    pool = descriptor_pool.DescriptorPool()
    found = pool.AddSerializedFile(body)
    number = registry.add("clicks-value", {"schemaType": "PROTOBUF", "schema": b64encode(body).decode()})
    return number, {name: message_factory.GetMessageClass(of) for name, of in found.message_types_by_name.items()}


def test_protobuf_names_its_message_and_holds_more(registry: StandIn) -> None:
    of = source(registry, "protobuf", {"id": "string", "user": "long", "colour": "string"}, message="shop.Click")
    number, kinds = proto(registry)
    header = b"\0" + number.to_bytes(4, "big")
    click = kinds["Click"](id="a", user=7, tags=["x"], colour=1, place={"city": "Rom"}).SerializeToString()
    (row,) = decoded(of, header + b"\x02\x02" + click)  # one index, which is 1
    assert (row["id"], row["user"], row["colour"], row["_fits"]) == ("a", 7, "RED", True)
    assert json.loads(row["_rescued_data"]) == {"tags": ["x"], "place": {"city": "Rom"}}

    def why(value: bytes) -> str:
        (found,) = decoded(of, value)
        return str(json.loads(found["_misfit"])["message"])

    assert "holds the message shop.Other, not shop.Click" in why(header + b"\0" + click)
    assert "no message at [5]" in why(header + b"\x02\x0a" + click)
    assert "no message at [1, 3]" in why(header + b"\x04\x02\x06" + click)
    assert "before it says which message" in why(header + b"\x02")
    assert "levels deep" in why(header + b"\x01")
    other = kinds["Other"](x="text").SerializeToString()
    assert "holds fields that shop.Click has not" in why(header + b"\x02\x02" + other)


def test_a_schema_is_asked_for_once_and_an_unknown_one_again(
    registry: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Registry(registry.url)
    number = registry.add("s", {"schema": json.dumps(record(id="string"))})
    assert client.schema(number) is client.schema(number)
    assert len(registry.asked) == 1
    assert client.schema(number + 1) is None
    assert client.schema(number + 1) is None
    assert len(registry.asked) == 2
    registry.add("s", {"schema": json.dumps(record(id="long"))})
    monkeypatch.setattr("lakehouse.formats.registry.time.monotonic", lambda: 1e12)
    assert client.schema(number + 1) is not None


def test_a_registry_that_is_away_is_waited_for_and_nothing_is_quarantined(
    registry: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = source(registry, "avro")
    good = encoder(of)(orjson.dumps(EVENT))
    registry.away = True
    pauses: list[float] = []

    def returns(pause_s: float) -> None:
        pauses.append(pause_s)
        registry.away = len(pauses) < 3

    monkeypatch.setattr(decoding.time, "sleep", returns)
    (row,) = decoded(of, good)
    assert row["_fits"]
    assert len(pauses) == 3


def test_one_that_stays_away_ends_the_batch_by_name(registry: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    of = source(registry, "avro")
    good = encoder(of)(orjson.dumps(EVENT))
    registry.away = True
    monkeypatch.setattr(decoding, "_WAIT_S", 0.05)
    with pytest.raises(RegistryUnavailable, match="HTTP 503"):
        decoded(of, good)
    with pytest.raises(RegistryUnavailable, match="does not answer"):
        connect(of).require()
    with pytest.raises(RegistryUnavailable, match="refused"):
        Registry("http://127.0.0.1:9").require()


def test_what_is_no_registry_is_told(registry: StandIn) -> None:
    with pytest.raises(ConfigError, match="no Confluent-compatible schema registry"):
        Registry(f"{registry.url}/elsewhere").require()


def test_dates_have_no_type_in_protobuf(registry: StandIn) -> None:
    with pytest.raises(ConfigError, match="Protobuf has no dates, such as day"):
        encoder(source(registry, "protobuf", {"day": EventField(type="date")}))


def test_validate_looks_for_the_registry(registry: StandIn, tmp_path: Path) -> None:
    suite = {"name": "s", "expectations": []}
    (tmp_path / "suite.json").write_text(json.dumps(suite))
    raw = {
        "name": "clicks",
        "root": str(tmp_path / "data"),
        "source": {
            "servers": "localhost:1",
            "topic": "clicks",
            "format": "avro",
            "registry": {"url": registry.url, "auth": "me:secret"},
            "fields": {"at": "timestamp"},
        },
        "event_time": {"column": "at"},
        "quality": {"suite": "suite.json"},
    }
    (tmp_path / "p.yaml").write_text(json.dumps(raw))

    def found() -> tuple[str, str]:
        report = validate_pipeline(tmp_path / "p.yaml", {})
        assert "secret" not in str(report)
        return next((check.status, check.detail) for check in report.checks if check.name == "registry")

    assert found() == ("ok", f"avro by the schemas of {registry.url}")
    registry.away = True
    assert found()[0] == "error"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"format": "avro"}, "the format avro needs a schema registry"),
        ({"registry": {"url": "http://r:8081"}}, "values in JSON name no schema"),
        ({"message": "Event"}, "only values in Protobuf hold messages"),
    ],
)
def test_what_does_not_go_together_is_told(source: dict[str, Any], message: str, tmp_path: Path) -> None:
    pipeline = small_pipeline(tmp_path)
    whole = pipeline.source.model_dump(mode="json") | source
    assert message in [found.what for found in check(small_pipeline(tmp_path, source=whole))]
