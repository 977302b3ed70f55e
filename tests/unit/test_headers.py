"""Headers are text between Spark and the task, and come out of it as they went in."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from lakehouse.schemas import RAW
from lakehouse.sinks.headers import FLAT_RAW, pack, unpack

MANY = [
    [],
    [{"key": "a", "value": None}],
    [{"key": "a", "value": b""}, {"key": "a", "value": b"\x00\xff"}],
    [{"key": "", "value": b"1"}, {"key": '"\\\u202e\n\U0001f600', "value": bytes(range(256))}],
]


def rows_of(texts: list[str | None]) -> pa.Table:
    return pa.table({"_offset": list(range(len(texts))), "_headers": pa.array(texts, dict(FLAT_RAW)["_headers"])})


def test_what_was_packed_is_unpacked() -> None:
    found = unpack(rows_of([*map(pack, MANY), None]))
    assert found.schema.field("_headers").type == dict(RAW)["_headers"]
    assert found["_headers"].to_pylist() == [*MANY, None]
    assert found["_offset"].to_pylist() == [0, 1, 2, 3, 4]


def test_rows_without_headers_have_the_type_of_the_tables() -> None:
    found = unpack(rows_of([None, None]))
    assert found["_headers"].to_pylist() == [None, None]
    assert found.schema.field("_headers").type == dict(RAW)["_headers"]


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ('[{"key":"a","value":"AP8="}]', [{"key": "a", "value": b"\x00\xff"}]),
        ('[{"key":"a"},{"key":"b","value":""}]', [{"key": "a", "value": None}, {"key": "b", "value": b""}]),
    ],
)
def test_the_text_is_that_of_sparks_to_json(text: str, headers: list[dict[str, Any]]) -> None:
    assert pack(headers) == text
    assert unpack(rows_of([text]))["_headers"].to_pylist() == [headers]
