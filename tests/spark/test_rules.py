"""Each row-level type on rows chosen by hand, nulls among them; property tests compare the rest with the original."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest
from chispa import assert_column_equality
from pyspark.sql import functions as F

from lakehouse.errors import SuiteError
from lakehouse.quality.catalogue import CATALOGUE
from lakehouse.quality.rules import compile_rules, count_unexpected
from lakehouse.quality.suite import parse_suite

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakehouse.quality.rules import RowRule

NAN = float("nan")
INF = float("inf")


def rules_of(*expectations: dict[str, Any]) -> tuple[RowRule, ...]:
    return compile_rules(parse_suite(json.dumps({"name": "s", "expectations": expectations}), source="s.json"))


def case(kind: str, schema: str, rows: list[tuple[Any, bool]], **kwargs: Any) -> Any:
    """Rows as (values, whether they are unexpected); a lone value needs no tuple."""
    columns = [field.split()[0] for field in schema.split(", ")]
    if len(columns) == 1:
        kwargs = {"column": columns[0], **kwargs}
    elif "column_pair" in kind:
        kwargs = {"column_A": columns[0], "column_B": columns[1], **kwargs}
    else:
        kwargs = {"column_list": columns, **kwargs}
    given = "-".join(f"{key}={value}" for key, value in kwargs.items() if not key.startswith("column"))
    return pytest.param(kind, schema, rows, kwargs, id=f"{kind.removeprefix('expect_')}-{given}"[:90])


CASES = [
    case("expect_column_values_to_not_be_null", "s string", [("a", False), ("", False), (None, True)]),
    case("expect_column_values_to_not_be_null", "d double", [(1.0, False), (NAN, False), (None, True)]),
    case("expect_column_values_to_be_null", "d double", [(1.0, True), (NAN, True), (None, False)]),
    case(
        "expect_column_values_to_be_in_set",
        "s string",
        [("ok", False), ("OK", True), ("ok\n", True), ("", True), (None, False)],
        value_set=["ok", "error"],
    ),
    # A null in the set makes IN null instead of false, so nothing can fail any more.
    case("expect_column_values_to_be_in_set", "s string", [("ok", False), ("no", False)], value_set=["ok", None]),
    case("expect_column_values_to_be_in_set", "n long", [(1, False), (2, True), (None, False)], value_set=[1, 2.5]),
    case(
        "expect_column_values_to_not_be_in_set", "s string", [("a", True), ("b", False), (None, False)], value_set=["a"]
    ),
    case("expect_column_values_to_not_be_in_set", "s string", [("a", True), ("b", False)], value_set=["a", None]),
    case(
        "expect_column_values_to_be_between",
        "d double",
        [
            (0.0, False),
            (-0.0, False),
            (5.0, False),
            (5.5, True),
            (-1.0, True),
            (NAN, True),
            (-INF, True),
            (None, False),
        ],
        min_value=0,
        max_value=5,
    ),
    # NaN is larger than every number.
    case("expect_column_values_to_be_between", "d double", [(NAN, False), (INF, False), (0.0, True)], min_value=1),
    case(
        "expect_column_values_to_be_between",
        "n long",
        [(0, True), (1, False), (4, False), (5, True), (None, False)],
        min_value=0,
        max_value=5,
        strict_min=True,
        strict_max=True,
    ),
    case("expect_column_values_to_be_between", "n long", [(2**53 + 1, False)], max_value=2**53),
    case(
        "expect_column_values_to_be_between",
        "t timestamp",
        [(datetime(2026, 1, 1, tzinfo=UTC), False), (datetime(2025, 12, 31, 23, 59, tzinfo=UTC), True), (None, False)],
        min_value="2026-01-01T00:00:00Z",
    ),
    case(
        "expect_column_values_to_be_between",
        "y date",
        [(date(2026, 1, 1), False), (date(2027, 1, 1), True)],
        max_value="2026-12-31",
    ),
    case(
        "expect_column_value_lengths_to_be_between",
        "s string",
        [("", True), ("a", False), ("日本", False), ("𝒳𝒳𝒳", False), ("abcd", True), (None, False)],
        min_value=1,
        max_value=4,
        strict_max=True,
    ),
    case(
        "expect_column_value_lengths_to_equal",
        "s string",
        [("", True), ("ab", False), ("abc", True), (None, False)],
        value=2,
    ),
    case(
        "expect_column_values_to_match_regex",
        "s string",
        [("ok", False), ("ok\n", False), ("ok\n\n", True), ("xok", True), ("", True), (None, False)],
        regex="^ok$",
    ),
    case("expect_column_values_to_match_regex", "s string", [("ok", False), ("ok\n", True)], regex=r"^ok\z"),
    case("expect_column_values_to_match_regex", "s string", [("any\nthing", False), ("", False)]),
    case(
        "expect_column_values_to_not_match_regex", "s string", [("a1", True), ("a", False), (None, False)], regex=r"\d"
    ),
    case(
        "expect_column_values_to_match_regex_list",
        "s string",
        [("a", False), ("b", False), ("c", True), (None, False)],
        regex_list=["a", "b"],
    ),
    case(
        "expect_column_values_to_match_regex_list",
        "s string",
        [("ab", False), ("a", True), (None, False)],
        regex_list=["a", "b"],
        match_on="all",
    ),
    # Joined by a bar, as in the original: the flag of the first pattern reaches the second.
    case("expect_column_values_to_match_regex_list", "s string", [("B", False)], regex_list=["(?i)a", "b"]),
    case(
        "expect_column_values_to_not_match_regex_list",
        "s string",
        [("ab", True), ("b", True), ("c", False), (None, False)],
        regex_list=["a", "b"],
    ),
    case(
        "expect_column_values_to_match_like_pattern",
        "s string",
        [("eu-west", False), ("eu-\n", False), ("EU-west", True), ("xeu-", True), ("", True), (None, False)],
        like_pattern="eu-%",
    ),
    case(
        "expect_column_values_to_not_match_like_pattern",
        "s string",
        [("5%", True), ("5x", False), ("5%\n", False), (None, False)],
        like_pattern="_!%",
        escape="!",
    ),
    case(
        "expect_column_values_to_match_like_pattern_list",
        "s string",
        [("ab", False), ("a", True), ("b", True), (None, False)],
        like_pattern_list=["a%", "%b"],
        match_on="all",
    ),
    case(
        "expect_column_values_to_not_match_like_pattern_list",
        "s string",
        [("ab", True), ("b", True), ("c", False), (None, False)],
        like_pattern_list=["a%", "b"],
    ),
    case(
        "expect_column_pair_values_a_to_be_greater_than_b",
        "a long, b long",
        [
            ((2, 1), False),
            ((1, 1), True),
            ((1, 2), True),
            ((None, 1), False),
            ((1, None), False),
            ((None, None), False),
        ],
    ),
    case(
        "expect_column_pair_values_a_to_be_greater_than_b",
        "a long, b long",
        [((1, 1), False), ((1, 2), True), ((None, 1), False), ((None, None), False)],
        or_equal=True,
        ignore_row_if="neither",
    ),
    case(
        "expect_column_pair_values_to_be_equal",
        "a double, b double",
        [((1.0, 1.0), False), ((1.0, 2.0), True), ((NAN, NAN), False), ((None, 1.0), True), ((None, None), False)],
    ),
    case(
        "expect_column_pair_values_to_be_equal",
        "a string, b string",
        [(("x", "y"), True), ((None, "x"), False), ((None, None), False)],
        ignore_row_if="either_value_is_missing",
    ),
    case(
        "expect_column_pair_values_to_be_in_set",
        "a string, b long",
        [(("x", 1), False), (("x", 2), True), (("y", None), False), ((None, 1), True), ((None, None), False)],
        value_pairs_set=[["x", 1], ["y", None]],
    ),
    case(
        "expect_column_pair_values_to_be_in_set",
        "a string, b long",
        [((None, None), True)],
        value_pairs_set=[["x", 1]],
        ignore_row_if="neither",
    ),
    case(
        "expect_multicolumn_sum_to_equal",
        "a long, b int",
        [((1, 2), False), ((3, None), False), ((1, 1), True), ((2**63 - 1, 2**31 - 1), True), ((None, None), False)],
        sum_total=3,
    ),
    case("expect_multicolumn_sum_to_equal", "a long, b long", [((2**63 - 1, 2**63 - 1), False)], sum_total=2**64),
    case(
        "expect_multicolumn_sum_to_equal",
        "a double, b double",
        [((0.1, 0.2), True), ((0.15, 0.15), False), ((NAN, 0.3), True)],
        sum_total=0.3,
    ),
    case(
        "expect_multicolumn_sum_to_equal", "a long, b long", [((None, None), True)], sum_total=3, ignore_row_if="never"
    ),
    case(
        "expect_multicolumn_values_to_be_equal",
        "a long, b int, c long",
        [((1, 1, 1), False), ((1, 1, 2), True), ((1, 1, None), True), ((None, None, None), False)],
    ),
    case(
        "expect_multicolumn_values_to_be_equal",
        "a long, b long",
        [((1, None), False), ((1, 2), True)],
        ignore_row_if="any_value_is_missing",
    ),
    case(
        "expect_select_column_values_to_be_unique_within_record",
        "a string, b string, c string",
        [(("x", "y", "z"), False), (("x", "y", "x"), True), (("x", None, None), True), ((None, None, None), False)],
    ),
    case(
        "expect_select_column_values_to_be_unique_within_record",
        "a string, b string",
        [((None, None), True)],
        ignore_row_if="never",
    ),
]


def test_every_row_level_type_has_a_case() -> None:
    assert {case.values[0] for case in CASES} == {name for name, entry in CATALOGUE.items() if entry.judges_rows}


@pytest.mark.parametrize(("kind", "schema", "rows", "kwargs"), CASES)
def test_unexpected(spark: SparkSession, kind: str, schema: str, rows: list[Any], kwargs: dict[str, Any]) -> None:
    data = [(*(row if isinstance(row, tuple) else (row,)), unexpected) for row, unexpected in rows]
    frame = spark.createDataFrame(data, f"{schema}, expected boolean")
    [rule] = rules_of({"type": kind, "kwargs": kwargs})
    judged = frame.withColumn("actual", rule.unexpected)
    assert not judged.schema["actual"].nullable
    assert_column_equality(judged, "actual", "expected")


def test_nan_and_a_long_set_with_a_null(spark: SparkSession) -> None:
    """Spark's interpreter says false instead of null here; the verdict must not depend on how Spark runs."""
    frame = spark.createDataFrame([(NAN,), (99.0,)], "d double")
    kwargs = {"column": "d", "value_set": [*range(12), None]}
    [rule] = rules_of({"type": "expect_column_values_to_be_in_set", "kwargs": kwargs})
    before = spark.conf.get("spark.sql.codegen.factoryMode")
    spark.conf.set("spark.sql.codegen.wholeStage", "false")
    spark.conf.set("spark.sql.codegen.factoryMode", "NO_CODEGEN")
    try:
        assert [row[0] for row in frame.select(rule.unexpected).collect()] == [False, False]
    finally:
        spark.conf.set("spark.sql.codegen.wholeStage", "true")
        spark.conf.set("spark.sql.codegen.factoryMode", str(before))


@pytest.mark.parametrize(
    "condition",
    [
        "kind = 'sale'",
        {"type": "comparison", "column": {"name": "kind"}, "operator": "==", "parameter": "sale"},
        {
            "type": "and",
            "conditions": [
                {"type": "comparison", "column": {"name": "kind"}, "operator": "IN", "parameter": ["sale", "it's"]},
                {"type": "comparison", "column": {"name": "kind"}, "operator": "!=", "parameter": "it's"},
            ],
        },
    ],
)
def test_row_condition_leaves_out_rows_where_it_is_false_or_null(spark: SparkSession, condition: Any) -> None:
    frame = spark.createDataFrame(
        [("sale", None, True), ("sale", 1.0, False), ("view", None, False), ("it's", None, False), (None, None, False)],
        "kind string, amount double, expected boolean",
    )
    kwargs = {"column": "amount", "row_condition": condition}
    [rule] = rules_of({"type": "expect_column_values_to_not_be_null", "kwargs": kwargs})
    assert_column_equality(frame.withColumn("actual", rule.unexpected), "actual", "expected")


def test_the_streams_off_and_report_only_are_not_compiled(spark: SparkSession) -> None:
    assert spark
    rules = rules_of(
        {"type": "expect_column_values_to_be_null", "kwargs": {"column": "a"}, "meta": {"stream": "off"}},
        {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "a", "min_value": 1}},
        {"type": "expect_column_values_to_be_null", "kwargs": {"column": "b"}, "severity": "info"},
    )
    assert [rule.expectation.rule_id for rule in rules] == ["b:values_to_be_null"]


def test_counts_by_rule(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(1,), (None,), (None,)], "a long")
    rules = rules_of(
        {"type": "expect_column_values_to_be_null", "kwargs": {"column": "a"}, "meta": {"rule_id": "empty"}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a"}, "meta": {"rule_id": "full"}},
    )
    assert frame.agg(*count_unexpected(rules)).collect()[0].asDict() == {"empty": 1, "full": 2}


@pytest.mark.parametrize("pattern", ["[[a]", "(?<1>a)", r"\p{Nope}", "a{99999999999}"])
def test_regex_that_only_java_can_refuse(spark: SparkSession, pattern: str) -> None:
    assert spark
    with pytest.raises(SuiteError, match="cannot be compiled") as caught:
        rules_of({"type": "expect_column_values_to_match_regex", "kwargs": {"column": "s", "regex": pattern}})
    assert caught.value.where == "s.json, expectations[0] expect_column_values_to_match_regex"


def test_sql_that_only_spark_can_refuse(spark: SparkSession) -> None:
    assert spark
    with pytest.raises(SuiteError, match="Spark cannot read row_condition 'a >'") as caught:
        rules_of({"type": "expect_column_values_to_be_null", "kwargs": {"column": "s", "row_condition": "a >"}})
    assert caught.value.where == "s.json, expectations[0] expect_column_values_to_be_null"


def test_a_bad_row_cannot_stop_the_query(spark: SparkSession) -> None:
    """Under ANSI a sum of longs overflows with an error; the widened sum does not."""
    assert spark.conf.get("spark.sql.ansi.enabled") == "true"
    frame = spark.createDataFrame([(2**63 - 1,) * 20], ", ".join(f"c{number} long" for number in range(20)))
    kwargs = {"column_list": frame.columns, "sum_total": 1}
    [rule] = rules_of({"type": "expect_multicolumn_sum_to_equal", "kwargs": kwargs})
    assert frame.select(F.max(rule.unexpected)).collect()[0][0] is True
