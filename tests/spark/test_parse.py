"""Parsing in Spark: what fits, what does not, and that no record is lost on the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, MapType, StructType

from lakehouse.transforms.more import may_hold_more
from lakehouse.transforms.parse import parse_json, position, with_timeliness

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIELDS = {
    "id": "string",
    "at": "timestamp",
    "user": "long",
    "ms": "double",
    "n": "integer",
    "ok": "boolean",
    "d": "date",
}


def records(spark: SparkSession, *values: bytes | None) -> DataFrame:
    rows = [(None if value is None else bytearray(value), number) for number, value in enumerate(values)]
    return spark.createDataFrame(rows, "value binary, offset long").select(
        F.lit(b"k").alias("key"),
        "value",
        F.lit("t").alias("topic"),
        F.lit(0).alias("partition"),
        "offset",
        F.lit(NOW).alias("timestamp"),
        F.lit(None).cast("array<struct<key:string,value:binary>>").alias("headers"),
    )


def parsed(spark: SparkSession, *values: bytes | None) -> DataFrame:
    return records(spark, *values).transform(position).transform(parse_json, FIELDS)


def test_a_whole_event_is_read_into_its_types(spark: SparkSession) -> None:
    value = (
        b' {"id":"a","at":"2026-03-01T11:59:59.123Z","user":7,"ms":1.5,"n":2,"ok":true,"d":"2026-03-01","more":[1]} '
    )
    found = parsed(spark, value).select(*FIELDS, "_fits")
    at = datetime(2026, 3, 1, 11, 59, 59, 123_000, tzinfo=UTC)
    expected = spark.createDataFrame(
        [("a", at, 7, 1.5, 2, True, at.date(), True)],
        "id string, at timestamp, user long, ms double, n int, ok boolean, d date, _fits boolean",
    )
    assert_df_equality(found, expected, ignore_nullable=True)


def test_only_flat_columns_leave_and_one_step_is_outside_the_compiled_loop(spark: SparkSession) -> None:
    found = parsed(spark, b"{}")
    assert [field.name for field in found.schema if isinstance(field.dataType, ArrayType | StructType | MapType)] == []
    plan = found._jdf.queryExecution().executedPlan().toString()  # what `explain` prints
    steps = [line for line in plan.splitlines() if "Project [" in line]
    interpreted = [line for line in steps if "*(" not in line]
    assert [line.count("from_json") > 0 for line in interpreted] == [True], plan
    assert not any("from_json" in line for line in steps if line not in interpreted)


def test_missing_and_null_fields_fit(spark: SparkSession) -> None:
    found = parsed(spark, b"{}", b'{"id":null,"user":null}').select("_offset", "id", "user", "_fits")
    expected = spark.createDataFrame(
        [(0, None, None, True), (1, None, None, True)], "_offset long, id string, user long, _fits boolean"
    )
    assert_df_equality(found, expected, ignore_nullable=True, ignore_row_order=True)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"  ",
        b"null",
        b"7",
        b'"text"',
        b"[]",
        b'[{"id":"a"}]',
        b'{"id":"a"',
        b'{"id":"a"} trailing',
        b'{"id":"a"}{"id":"b"}',
        b'{"id":"a"},{"id":"b"}',
        b'{"o":{}}{"id":"b"}',
        b'{"id":"\xff"}',
        b"\x00\x01\x02",
        b'\xef\xbb\xbf{"id":"a"}',
        b'{"ms":NaN}',
        b'{"ms":"NaN"}',
        b'{"ms":Infinity}',
        b'{"user":"7"}',
        b'{"user":1.5}',
        b'{"user":9223372036854775808}',
        b'{"n":2147483648}',
        b'{"at":"soon"}',
        b'{"ok":"yes"}',
        b'{"d":"tomorrow"}',
        b'{"ms":{"x":1}}',
        b'{"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
)
def test_what_does_not_fit_is_marked_and_keeps_its_bytes(spark: SparkSession, value: bytes | None) -> None:
    (row,) = parsed(spark, value).collect()
    assert row["_fits"] is False
    assert (None if row["_value"] is None else bytes(row["_value"])) == value


@pytest.mark.parametrize("value", [b'{"id":"}{"}', b'{"o":{"a":1},"id":"x"}', b'{"id":"a"}\n', b'{"id":"caf\xc3\xa9"}'])
def test_braces_and_nesting_inside_one_object_fit(spark: SparkSession, value: bytes) -> None:
    (row,) = parsed(spark, value).collect()
    assert row["_fits"] is True


def test_readable_fields_of_a_record_that_does_not_fit_keep_their_values(spark: SparkSession) -> None:
    (row,) = parsed(spark, b'{"id":"a","user":"x","ms":2}').collect()
    assert (row["id"], row["user"], row["ms"], row["_fits"]) == ("a", None, 2.0, False)


def test_timeliness_is_measured_from_the_arrival_in_kafka(spark: SparkSession) -> None:
    limit = timedelta(minutes=5)
    cases = [
        ("at the limit", NOW + limit, True),
        ("beyond it", NOW + limit + timedelta(milliseconds=1), False),
        ("long ago", datetime(1970, 1, 1, tzinfo=UTC), True),
        ("without a time", None, False),
    ]
    frame = spark.createDataFrame(
        [(name, at, NOW) for name, at, _ in cases], "name string, at timestamp, _timestamp timestamp"
    )
    found = frame.transform(with_timeliness, event_time="at", max_future=limit).select("name", "_timely")
    expected = spark.createDataFrame([(name, timely) for name, _, timely in cases], "name string, _timely boolean")
    assert_df_equality(found, expected, ignore_nullable=True, ignore_row_order=True)


def test_no_value_that_holds_more_is_passed_over(spark: SparkSession) -> None:
    cases = {
        b'{"id":"a:b","at":"2026-03-01T11:59:59.123+01:00","user":7,"n":null,"d":"2026-03-01"}': False,
        b' { "id": "a" , "user":\n7 } ': False,
        b'{"id":"a","\\u0075ser":7}': False,
        b'{"id":"\\u0022:","user":7}': False,
        b"{}": False,
        b'{"id":"a","more":1}': True,
        b'{"id":"a","n":null,"more":{"n":1}}': True,
        b'{"id":{"x":1,"y":{"z":":"}},"user":7}': True,  # the task finds nothing to keep in this one and the next three
        b'{"more":null}': True,
        b'{"id":"a","id":"b:c"}': True,
        b'{"id" :"a"}': True,
        b'{"id":"\\u003a","more":1}': True,
        b'{"x\\"n":1}': True,  # a name that ends like that of `n`, which is missing
        b'{"id":"a","User":7}': True,
    }
    rows = parsed(spark, *cases).orderBy("_offset").toArrow()
    assert rows["_fits"].to_pylist() == [True] * len(cases)
    may = may_hold_more(rows["_value"].combine_chunks(), rows, FIELDS)
    assert dict(zip(cases, may.tolist(), strict=True)) == cases
