"""Reasons against a record: each names the field, quotes what was there, and is safe to show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.schemas import VERDICT
from lakehouse.transforms.contract import EXAMINED, LARGEST, SHOWN, Contract, quote

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CONTRACT = Contract({"id": "string", "at": "timestamp", "ms": "double"}, "at", timedelta(minutes=5))


def row(value: bytes | None, *, fits: bool = False, timely: bool = False, **fields: Any) -> dict[str, Any]:
    empty = {"id": None, "at": None, "ms": None}
    return {"_value": value, "_fits": fits, "_timely": timely, "_timestamp": NOW, **empty, **fields}


def messages(found: dict[str, Any]) -> list[str]:
    reasons = CONTRACT.reasons(found)
    pa.array([reasons], pa.list_(VERDICT))  # each has the shape of a verdict
    return [f"{reason['rule_id']}: {reason['message']}" for reason in reasons]


def test_a_record_that_fits_and_is_timely_has_no_reason() -> None:
    assert CONTRACT.reasons(row(b"{}", fits=True, timely=True, at=NOW)) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "contract.empty: the record has no value (a tombstone)"),
        (b"", "contract.empty: the value is empty"),
        (b" \n\t", "contract.empty: the value is empty"),
        (b"\xff\x00", "contract.encoding: byte 0 is not valid UTF-8: 0xff00"),
        (b"\xff\xfe", "contract.encoding: the value begins like UTF-16, not like JSON: 0xfffe"),
        (b'{"id":"\xc3("}', "contract.encoding: byte 7 is not valid UTF-8: 0x7b226964223a22c328227d"),
        (
            b"\xef\xbb\xbf{}",
            "contract.encoding: the value begins like a UTF-8 byte order mark, not like JSON: 0xefbbbf7b7d",
        ),
        (b"{\x00}\x00", "contract.encoding: the value begins like UTF-16, not like JSON: 0x7b007d00"),
        (
            b"\x00\x00\x00\x00\x07{}",
            "contract.encoding: the value begins like a record of a schema registry (magic byte 0, then a schema's id),"
            " not like JSON: 0x00000000077b7d",
        ),
        (
            rb'{"id":"\ud800"}',
            "contract.encoding: the value escapes half of a surrogate pair, which is no text: "
            r'"{"id":"\ud800"}"',
        ),
        (b"null", 'contract.json: the value is not a JSON object: "null"'),
        (b"[1]", 'contract.json: the value is not a JSON object: "[1]"'),
    ],
)
def test_a_value_without_fields_has_one_reason(value: bytes | None, message: str) -> None:
    assert messages(row(value)) == [message]


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (b'{"id":"a","at', "Unterminated string"),
        (b'{"a":1}{"b":2}', "Extra data"),
        (b'{"ms":NaN}', "NaN is not JSON"),
        (b'{"x":' + b"[" * 200_000, "nested too deeply"),
        (b"hello", "Expecting value"),
    ],
)
def test_what_is_not_one_json_object_says_where_it_breaks(value: bytes, part: str) -> None:
    (message,) = messages(row(value))
    assert message.startswith("contract.json: the value is not one JSON object (")
    assert part in message


def test_each_mistyped_field_has_a_reason_of_its_own() -> None:
    found = row(b'{"id":"a","at":"soon","ms":[2]}', id="a")
    assert messages(found) == [
        'contract.type.at: at is "soon", not a time such as 2026-01-31T12:00:00.000Z',
        "contract.type.ms: ms is [2], not a number of 64 bits",
    ]


def test_a_missing_time_is_a_reason_beside_mistyped_fields() -> None:
    assert messages(row(b'{"ms":"x"}')) == [
        'contract.type.ms: ms is "x", not a number of 64 bits',
        "contract.event_time.missing: at is missing",
    ]


def test_an_event_from_the_future_says_how_far() -> None:
    found = row(b"{}", fits=True, at=NOW + timedelta(days=1))
    assert messages(found) == [
        "contract.event_time.future: at is 2026-03-02T12:00:00.000Z, 86,400 s after the record reached Kafka;"
        " at most 300 s are believed"
    ]


def test_a_record_that_spark_refuses_for_a_cause_unseen_here_still_has_a_reason() -> None:
    found = row(b'{"id":"a","at":"2026-03-01T12:00:00Z","ms":1}', id="a", at=NOW, ms=1.0, timely=True)
    (message,) = messages(found)
    assert message.startswith("contract.json: the value does not fit the contract")


def test_quotes_are_cut_and_show_no_control_or_bidirectional_characters() -> None:
    assert quote("x" * 500) == '"' + "x" * (SHOWN - 1) + '…"'
    assert quote("a\nb\x00c\u202ed\u200be") == '"a·b·c·d·e"'
    assert quote({"a": 1}) == '{"a": 1}'
    assert quote("a\u2028b\u2029c") == '"a·b·c"'


def test_a_number_is_quoted_as_it_was_written() -> None:
    assert messages(row(b'{"id":"a","at":"2026-03-01T12:00:00Z","ms":1e400}', id="a", at=NOW, timely=True)) == [
        "contract.type.ms: ms is 1e400, not a number of 64 bits"
    ]
    digits = "9" * 5_000
    (message,) = messages(row(b'{"id":"a","ms":%s}' % digits.encode(), id="a", at=NOW, timely=True))
    assert message == f"contract.type.ms: ms is {digits[: SHOWN - 1]}…, not a number of 64 bits"


def test_quoting_takes_no_longer_for_a_value_that_is_large_or_deep() -> None:
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    assert quote(deep) == "[" * (SHOWN - 1) + "…"
    assert quote(list(range(1_000_000))).endswith("…")


def test_a_value_beyond_kafkas_own_limit_is_not_parsed_again() -> None:
    value = b'{"ms":[' + b"[]," * (EXAMINED // 3) + b"[]]}"
    (message,) = messages(row(value))
    assert message.startswith(f"contract.unexamined: the value does not fit the contract; with {len(value):,} bytes")
    assert len(message) < 2 * SHOWN + 100
    # One that is shorter is told field by field.
    assert messages(row(value[: EXAMINED // 2].rsplit(b",", 1)[0] + b"]}", at=NOW, timely=True))[0].startswith(
        "contract.type.ms: ms is [[], [],"
    )


def test_a_value_that_is_not_read_is_refused_for_its_size() -> None:
    value = b"{" + b"\xff" * LARGEST
    (message,) = messages(row(value))
    assert message.startswith(f"contract.oversize: the value has {len(value):,} bytes; at most {LARGEST:,} are read")


def test_a_value_that_spark_could_not_read_at_all_is_not_blamed_on_its_fields() -> None:
    (message,) = messages(row(b'{"id":"a","at":"2026-03-01T12:00:00Z","ms":1,"more":%s}' % (b"7" * 2_000)))
    assert message.startswith("contract.json: the value is beyond what Spark's JSON reader takes")
