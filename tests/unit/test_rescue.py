"""What an event holds beyond its contract is kept as JSON, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.config.models import Tables
from lakehouse.schemas import KAFKA_POSITION, RESCUED, silver_schema
from lakehouse.sinks.headers import FLAT_RAW
from lakehouse.sinks.onepass import OnePass
from lakehouse.transforms.rescue import rescued
from tests.pipelines import small_pipeline

DEEP = b'{"x":' + b"[" * 900 + b"]" * 900 + b"}"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b'{"id":"a"}', None),
        (b'{"id":"a","x":null}', None),
        (b'{"id":"a","x":1,"y":{"z":[true,"\xc3\xa4"]}}', '{"x":1,"y":{"z":[true,"ä"]}}'),
        (b'{"x":123456789012345678901234567890}', '{"x":123456789012345678901234567890}'),
        (b'{"x":1e400,"y":0.1}', '{"x":"1e400","y":0.1}'),
        (b'{"x":0.12345678901234567890}', '{"x":"0.12345678901234567890"}'),
        (b'{"ID":"a"}', '{"ID":"a"}'),
        (DEEP, DEEP.decode()),
    ],
)
def test_unknown_fields_are_kept_with_their_values(value: bytes, kept: str | None) -> None:
    assert rescued(value, {"id", "at"}) == kept


@pytest.mark.parametrize("rescue", [True, False])
def test_silver_has_them_and_no_column_where_there_are_none(tmp_path: Path, *, rescue: bool) -> None:
    one_pass = OnePass(str(tmp_path), small_pipeline(tmp_path, rollups={}, tables=Tables(rescue=rescue)), {})
    fields = silver_schema(one_pass.pipeline.source.fields)
    types = {name: fields.field(name).type for name in one_pass.pipeline.source.fields}
    types |= dict([*KAFKA_POSITION, *FLAT_RAW])
    flags = {"_fits": True, "_timely": True, "_refused": False}
    both, neither = [b'{"id":"a","new":1}', b'{"id":"b"}'], [b'{"id":"a"}', b'{"id":"b" }']
    for values in (both, neither, both[:1] * 2):
        row = {name: pa.nulls(2, kind) for name, kind in types.items()} | {n: pa.repeat(f, 2) for n, f in flags.items()}
        row |= {"_value": pa.array(values), "id": pa.array(["a", "b"])}
        (answer,) = list(one_pass(iter([pa.RecordBatch.from_pydict(row)])))
        (add,) = json.loads(answer["adds"][0].as_py())
        written = pq.read_table(tmp_path / "silver" / "clicks" / add["path"])
        if rescue and values != neither:
            assert written[RESCUED].to_pylist() == ['{"new":1}', None if values == both else '{"new":1}']
        else:
            assert RESCUED not in written.column_names
