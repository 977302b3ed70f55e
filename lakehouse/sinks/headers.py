"""A record's headers on their way from Spark into the Python task: JSON text, one string per record.

For every row that Spark hands over it asks each column for its size in bytes, to end an Arrow batch in time. Of a list
of structs that answer takes longer than parsing and judging the row; of a string it takes next to nothing
(docs/adr/0025-flat-columns-to-python.md).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from lakehouse.schemas import RAW

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NAME = "_headers"
_TYPE = dict(RAW)[_NAME]
FLAT_RAW = [(name, pa.string() if name == _NAME else kind) for name, kind in RAW]
"""`schemas.RAW` as a task gets it."""


def unpack(rows: pa.Table) -> pa.Table:
    """`FLAT_RAW` → `schemas.RAW`; the other columns are left as they are."""
    texts = rows[_NAME]
    if texts.null_count == rows.num_rows:
        headers = pa.nulls(rows.num_rows, _TYPE)
    else:
        headers = pa.array([None if text is None else _read(text) for text in texts.to_pylist()], _TYPE)
    return rows.set_column(rows.column_names.index(_NAME), _NAME, headers)


def pack(headers: Iterable[Mapping[str, Any]]) -> str:
    """One record's headers, `{key, value}` each, as Spark's `to_json` writes them: without a null value."""
    return orjson.dumps([_text(header["key"], header["value"]) for header in headers]).decode()


def _text(key: str, value: bytes | None) -> dict[str, str]:
    return {"key": key} if value is None else {"key": key, "value": b64encode(value).decode()}


def _read(text: str) -> list[dict[str, Any]]:
    return [
        {"key": header["key"], "value": b64decode(header["value"]) if "value" in header else None}
        for header in orjson.loads(text)
    ]
