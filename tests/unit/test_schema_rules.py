from __future__ import annotations

import json
import logging
from typing import Any

import pyspark.sql.types as T
import pytest

from lakehouse.config.models import EventField
from lakehouse.errors import SuiteError
from lakehouse.quality.schema_rules import broken_by, column_types, require_schema
from lakehouse.quality.spark_types import KNOWN_TYPES, SPARK_TYPES
from lakehouse.quality.suite import Suite, parse_suite
from lakehouse.schemas import silver_schema

SILVER = silver_schema({"id": EventField(type="long"), "name": EventField(type="string")})
NAMES = [
    *("id", "name", "_topic", "_partition", "_offset", "_timestamp", "_ingested_at", "_warnings"),
    *("_replayed_from", "_rescued_data"),
]


def suite(kind: str, severity: str = "critical", meta: dict[str, Any] | None = None, **kwargs: Any) -> Suite:
    item = {"type": f"expect_{kind}", "kwargs": kwargs, "severity": severity, "meta": meta or {}}
    return parse_suite(json.dumps({"name": "s", "expectations": [item]}), source="s.json")


def test_the_names_are_those_of_spark() -> None:
    classes = {
        "string": T.StringType, "integer": T.IntegerType, "long": T.LongType, "double": T.DoubleType,
        "boolean": T.BooleanType, "timestamp": T.TimestampType, "date": T.DateType, "verdicts": T.ArrayType,
    }  # fmt: skip
    for name, spark_class in classes.items():
        bases = {base.__name__ for base in spark_class.__mro__ if issubclass(base, T.DataType)}
        assert set(SPARK_TYPES[name]) == bases, name
    assert all(hasattr(T, name) for name in KNOWN_TYPES)


def test_silver_is_what_such_expectations_speak_of() -> None:
    assert list(column_types(SILVER)) == NAMES
    assert column_types(SILVER)["_warnings"] == "verdicts"


@pytest.mark.parametrize(
    ("kind", "kwargs", "broken"),
    [
        ("column_to_exist", {"column": "id"}, None),
        ("column_to_exist", {"column": "ids"}, "there is no column ids"),
        ("column_to_exist", {"column": "name", "column_index": 1}, None),
        ("column_to_exist", {"column": "id", "column_index": 1}, "column 1 is not id"),
        ("column_type_to_be", {"column": "id", "type_": "LongType"}, None),
        ("column_type_to_be", {"column": "id", "type_": "NumericType"}, None),
        ("column_values_to_be_of_type", {"column": "id", "type_": "IntegerType"}, "id is LongType"),
        ("column_values_to_be_in_type_list", {"column": "name", "type_list": ["LongType", "StringType"]}, None),
        ("table_column_count_to_equal", {"value": 10}, None),
        ("table_column_count_to_be_between", {"max_value": 8}, "there are 10 columns"),
        ("table_columns_to_match_ordered_list", {"column_list": NAMES}, None),
        ("table_columns_to_match_ordered_list", {"column_list": NAMES[:2]}, "the columns are id"),
        ("table_columns_to_match_set", {"column_set": ["id", "name"], "exact_match": False}, None),
        (
            "table_columns_to_match_set",
            {"column_set": ["id", "gone"]},
            "missing ['gone'], beyond the set ['_ingested_at'",
        ),
    ],
)
def test_what_is_so_instead(kind: str, kwargs: dict[str, Any], broken: str | None) -> None:
    found = [what for _, what in broken_by(suite(kind, **kwargs), column_types(SILVER))]
    assert (found == []) if broken is None else found[0].startswith(broken)


def test_a_critical_one_stops_the_start_and_a_warning_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SuiteError, match=r"Silver does not meet it: id is LongType"):
        require_schema(suite("column_type_to_be", column="id", type_="StringType"), SILVER)
    with caplog.at_level(logging.WARNING):
        require_schema(suite("column_type_to_be", "warning", column="id", type_="StringType"), SILVER)
    assert "id is LongType" in caplog.text
    require_schema(suite("column_type_to_be", meta={"stream": "off"}, column="id", type_="StringType"), SILVER)
