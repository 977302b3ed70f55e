"""Loading a suite: every mistake is named with file, index, type and remedy, and no JVM is started."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from lakehouse.config.models import EventField
from lakehouse.errors import SuiteError
from lakehouse.quality.checks import Length, Membership, Pattern, Range
from lakehouse.quality.suite import Suite, check_columns, load_suite, parse_suite
from tests.loads import generator

ROOT = Path(__file__).parents[2]
FEATURE_EVENTS = ROOT / "expectations" / "feature_events.json"
NOT_NULL = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "user_id"}}
TYPES = {"name": "string", "count": "long", "price": "double", "at": "timestamp", "day": "date", "flag": "boolean"}


def suite_of(*expectations: Any) -> Suite:
    return parse_suite(json.dumps({"name": "s", "expectations": expectations}), source="s.json")


def one(kind: str, *, severity: str | None = None, meta: Any = None, **kwargs: Any) -> dict[str, Any]:
    rest = {} if severity is None else {"severity": severity}
    return {"type": kind, "kwargs": kwargs, **rest, **({} if meta is None else {"meta": meta})}


def between(**kwargs: Any) -> dict[str, Any]:
    return one("expect_column_values_to_be_between", **{"column": "c", **kwargs})


def with_condition(row_condition: Any, **kwargs: Any) -> dict[str, Any]:
    return one("expect_column_values_to_be_null", column="c", row_condition=row_condition, **kwargs)


def comparison(**changes: Any) -> dict[str, Any]:
    return {"type": "comparison", "column": {"name": "a"}, "operator": "==", "parameter": 1, **changes}


def refused(*expectations: Any) -> SuiteError:
    with pytest.raises(SuiteError) as caught:
        suite_of(*expectations)
    assert caught.value.remedy
    return caught.value


# The file


def test_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"name": "s", "expectations": [NOT_NULL]}), encoding="utf-8")
    suite = load_suite(path)
    assert suite.name == "s"
    assert suite.source == str(path)
    assert [expectation.type for expectation in suite.expectations] == [NOT_NULL["type"]]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="cannot be read: No such file") as caught:
        load_suite(tmp_path / "none.json")
    assert caught.value.where == str(tmp_path / "none.json")


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(b'{"name": "\xff"}')
    with pytest.raises(SuiteError, match="not UTF-8") as caught:
        load_suite(path)
    assert caught.value.where == f"{path}, byte 10"


def test_invalid_json_names_line_and_column() -> None:
    with pytest.raises(SuiteError, match="not JSON") as caught:
        parse_suite('{\n  "name": "s",\n  oops\n}', source="s.json")
    assert caught.value.where == "s.json, line 3, column 3"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "not a JSON object"),
        ('{"expectations": []}', "name is None"),
        ('{"name": "s", "expectations": []}', "no expectations"),
        ('{"name": "s", "expectation": []}', "Unknown key 'expectation'"),
        ('{"name": "s", "name": "t"}', "'name' stands twice"),
        ('{"name": "s", "expectations": [NaN]}', "NaN is not JSON"),
        ('{"name": "s\\ud800", "expectations": []}', "half of a surrogate pair"),
        ('{"name": "s", "expectations": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_document_that_is_no_suite(text: str, what: str) -> None:
    with pytest.raises(SuiteError, match=what) as caught:
        parse_suite(text, source="s.json")
    assert caught.value.where == "s.json"
    assert caught.value.remedy


def test_a_number_that_overflows_to_infinity() -> None:
    text = '{"name": "s", "expectations": [{"type": "expect_column_values_to_be_in_set", '
    text += '"kwargs": {"column": "c", "value_set": [1e400]}}]}'
    with pytest.raises(SuiteError, match="value_set holds inf"):
        parse_suite(text, source="s.json")


def test_a_mistake_names_file_index_and_type() -> None:
    error = refused(NOT_NULL, between(min_value="x"))
    assert error.where == "s.json, expectations[1] expect_column_values_to_be_between"
    assert error.what == "min_value is 'x'."


# One expectation


@pytest.mark.parametrize(
    ("expectation", "what", "remedy"),
    [
        ("x", "an expectation is 'x'", "write"),
        ({**NOT_NULL, "severty": "warning"}, "unknown key 'severty'", "did you mean severity"),
        ({"kwargs": {}}, "type is None", "name an expectation type"),
        ({**NOT_NULL, "kwargs": []}, "kwargs is", "write an object"),
        ({**NOT_NULL, "meta": []}, "meta is", "write an object"),
        (
            one("expect_column_values_to_not_be_nul"),
            "no expectation type",
            "did you mean expect_column_values_to_not_be_null",
        ),
        (one("qwertyuiop"), "no expectation type", "docs/expectations.md"),
        (one("expect_multicolumn_values_to_be_unique"), "cannot be judged on Spark", "remove it"),
        (one("expect_column_pair_cramers_phi_value_to_be_less_than"), "cannot be judged on Spark", "remove it"),
        (one("expect_column_values_to_be_dateutil_parseable", column="c"), "cannot be judged", "regex"),
        (
            one("expect_column_values_to_match_like_pattern", column="c", like_pattern="a!b", escape="!"),
            "'!' stands before none of",
            "twice",
        ),
        (one("expect_column_type_to_be", column="c", type_="LongTyp"), "not a type of spark", "did you mean LongType"),
        (
            one("expect_column_values_to_be_unique", column="c", meta={"stream": "fail"}),
            "the stream does not learn of it",
            "remove meta.stream",
        ),
        (one("expect_table_row_count_to_equal_other_table", other_table_name="t"), "second table", "remove it"),
        (one("expect_column_values_to_not_be_null", colum="c"), "unknown kwarg 'colum'", "did you mean column"),
        (one("expect_column_values_to_not_be_null"), "kwarg 'column' is missing", "add it"),
        (one("expect_column_mean_to_be_between", column="c", minimum=1), "unknown kwarg 'minimum'", "its kwargs are"),
        (one("expect_column_values_to_not_be_null", column=3), "column is 3", "name of a column"),
        (one("expect_column_values_to_not_be_null", column="a.b"), "column is 'a.b'", "without dots"),
        (one("expect_column_values_to_not_be_null", column="c", mostly=1.5), "mostly is 1.5", "from 0 to 1"),
        (one("expect_column_values_to_not_be_null", column="c", mostly=True), "mostly is True", "from 0 to 1"),
        (one("expect_column_values_to_not_be_null", severity="fatal", column="c"), "severity is 'fatal'", "choose one"),
        (
            one("expect_column_values_to_not_be_null", severity="Critical", column="c"),
            "severity is",
            "did you mean critical",
        ),
        (
            one("expect_column_values_to_not_be_null", meta={"stream": "drop"}, column="c"),
            "meta.stream is 'drop'",
            "choose",
        ),
        (one("expect_column_values_to_not_be_null", meta={"stream": []}, column="c"), "meta.stream is", "choose"),
        (
            one("expect_column_values_to_not_be_null", meta={"rule_id": "a b"}, column="c"),
            "rule_id is 'a b'",
            "letters",
        ),
        (between(), "neither min_value nor max_value", "at least one"),
        (between(min_value=2, max_value=1), "min_value 2.0 is greater", "exchange"),
        (between(min_value=True), "min_value is True", "a number"),
        (between(min_value="12"), "min_value is '12'", "without quotes"),
        (between(min_value=[1]), "min_value is", "a number"),
        (between(min_value=10**400), "min_value is", "a number"),
        (between(min_value="2026-02-30"), "day is out of range", "exists"),
        (between(min_value="2026-01-01T00:00:00"), "no time zone", "2026-01-01T00:00:00Z"),
        (between(min_value=1, max_value="2026-01-01"), "different types", "two numbers"),
        (between(min_value="2026-01-01", max_value="2026-01-02T00:00:00Z"), "different types", "two numbers"),
        (between(min_value=1, strict_min="yes"), "strict_min is 'yes'", "true or false"),
        (between(min_value={"$PARAMETER": "low"}), "suite parameter", "the value itself"),
        (one("expect_column_value_lengths_to_be_between", column="c"), "neither", "at least one"),
        (one("expect_column_value_lengths_to_be_between", column="c", min_value=1.5), "min_value is 1.5", "whole"),
        (one("expect_column_value_lengths_to_be_between", column="c", min_value=-1), "min_value is -1", "whole"),
        (one("expect_column_value_lengths_to_be_between", column="c", min_value=3, max_value=2), "greater", "exchange"),
        (one("expect_column_value_lengths_to_equal", column="c", value="3"), "value is '3'", "whole"),
        (one("expect_column_values_to_be_in_set", column="c", value_set="ok"), "value_set is 'ok'", "list"),
        (one("expect_column_values_to_be_in_set", column="c", value_set=[]), "value_set is", "at least one"),
        (one("expect_column_values_to_be_in_set", column="c", value_set=[1, "a"]), "mixes", "one kind"),
        (one("expect_column_values_to_be_in_set", column="c", value_set=[1, True]), "mixes", "one kind"),
        (one("expect_column_values_to_be_in_set", column="c", value_set=[[1]]), "value_set holds", "only texts"),
        (one("expect_column_values_to_be_in_set", column="c", value_set=[2**63]), "beyond 64 bits", "remove"),
        (one("expect_column_values_to_match_regex", column="c", regex=1), "regular expression is 1", "a text"),
        (
            one("expect_column_values_to_match_regex_list", column="c", regex_list=["a", "("]),
            "cannot be compiled",
            "correct",
        ),
        (
            one("expect_column_values_to_match_regex_list", column="c", regex_list=["a"], match_on="al"),
            "match_on",
            "all",
        ),
        (
            one("expect_column_pair_values_to_be_equal", column_A="a", column_B="b", ignore_row_if="never"),
            "ignore",
            "neither",
        ),
        (
            one("expect_column_pair_values_to_be_in_set", column_A="a", column_B="b", value_pairs_set=[[1]]),
            "holds",
            "two",
        ),
        (
            one("expect_column_pair_values_to_be_in_set", column_A="a", column_B="b", value_pairs_set=[]),
            "is",
            "at least",
        ),
        (
            one(
                "expect_column_pair_values_to_be_in_set",
                column_A="a",
                column_B="b",
                value_pairs_set=[[1, 2]],
                row_condition="a > 1",
            ),
            "ignores row_condition",
            "remove it",
        ),
        (one("expect_multicolumn_sum_to_equal", column_list=["a", "b"], sum_total="x"), "sum_total is 'x'", "number"),
        (one("expect_multicolumn_sum_to_equal", column_list=["a", "b"], sum_total="2026-01-01"), "sum_total", "number"),
        (one("expect_multicolumn_values_to_be_equal", column_list=["a"]), "column_list is", "at least 2"),
        (one("expect_multicolumn_values_to_be_equal", column_list=["a", "a"]), "column_list is", "each once"),
        (one("expect_multicolumn_values_to_be_equal", column_list=["a", 1]), "column_list is 1", "name of a column"),
    ],
)
def test_mistake(expectation: Any, what: str, remedy: str) -> None:
    error = refused(expectation)
    assert what.lower() in error.what.lower()
    assert remedy.lower() in (error.remedy or "").lower()
    assert (error.where or "").startswith("s.json, expectations[0]")


@pytest.mark.parametrize("pattern", ["(", "[a", "a)", "*a", "(+a)", "a|?", "a\\", "a{3,2}", "(?P<n>a)", "(?P=n)"])
def test_bad_regex(pattern: str) -> None:
    error = refused(one("expect_column_values_to_match_regex", column="c", regex=pattern))
    assert repr(pattern) in error.what


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        r"^\d+\z",
        r"\p{L}+\P{Lu}",
        r"\Q(\E",
        r"(?<year>\d{4})-\k<year>",
        r"a(?i)b(?-i:c)",
        r"[\x{1F600}]\h\R",
        r"(?<!ab|c)d",
        r"a++b*+",
        r"\\",
        r"\(*",
        r"a{2}{3}",
        r"(?:a)?",
        r"(?=a)(?!b)(?>c)",
        r"[(*]",
        r"\\\z",
    ],
)
def test_java_regex_is_not_refused(pattern: str) -> None:
    suite = suite_of(one("expect_column_values_to_match_regex", column="c", regex=pattern))
    assert suite.expectations[0].check == Pattern("c", (pattern,), "any")


@pytest.mark.parametrize(
    ("condition", "what"),
    [
        ("", "empty"),
        (" ", "empty"),
        ("a = 'x", "open quote"),
        ("(a = 1", "open quote or bracket"),
        ("a < now()", "uses now"),
        ("a < CURRENT_TIMESTAMP", "uses CURRENT_TIMESTAMP"),
        ("rand() < 0.5", "uses rand"),
        ("a IN (SELECT 1)", "other rows"),
        ("row_number() OVER (ORDER BY a) = 1", "other rows"),
        (3, "row_condition is 3"),
        ({}, "has type None"),
        ({"type": "comparision"}, "has type 'comparision'"),
        (comparison(operator="="), "operator '='"),
        (comparison(parameter=None), "with null"),
        (comparison(parameter=[1]), "with [1]"),
        (comparison(parameter={"a": 1}), "with {'a': 1}"),
        (comparison(parameter="\x00"), "control character"),
        (comparison(column={"name": "a.b"}), "names the column"),
        (comparison(column="a"), "names the column"),
        (comparison(extra=1), "unknown key 'extra'"),
        (comparison(operator="IN", parameter=[]), "compares a IN"),
        (comparison(operator="IN", parameter="abc"), "compares a IN"),
        (comparison(operator="IN", parameter=[1, "a"]), "mixed"),
        (comparison(operator="IN", parameter=[True]), "mixed"),
        ({"type": "nullity", "column": {"name": "a"}}, "no is_null"),
        ({"type": "and", "conditions": []}, "no list"),
        ({"type": "and", "conditions": ["a > 1"]}, "holds 'a > 1'"),
        ({"type": "and", "conditions": [{"type": "or", "conditions": [comparison()]}]}, "or inside 'and'"),
        ({"type": "or", "conditions": [{"type": "or", "conditions": [comparison()]}]}, "or inside 'or'"),
        ({"type": "or", "conditions": [{"type": "pass_through", "pass_through_filter": "a"}]}, "SQL text inside"),
        ({"type": "pass_through", "pass_through_filter": ""}, "empty"),
        ({"type": "or", "conditions": [comparison()] * 101}, "101 terms"),
    ],
)
def test_bad_condition(condition: Any, what: str) -> None:
    assert what in refused(with_condition(condition)).what


def test_condition_parsers_that_do_not_run_on_spark() -> None:
    assert "condition_parser is 'pandas'" in refused(with_condition("a > 1", condition_parser="pandas")).what


@pytest.mark.parametrize(
    ("condition", "sql"),
    [
        ("a = 'now()' AND b > 1", "a = 'now()' AND b > 1"),
        (comparison(parameter="it's"), '`a` == "it\'s"'),
        (comparison(parameter=True), "`a` == True"),
        (comparison(operator="NOT_IN", parameter=["x", "y"]), "`a` NOT IN ('x', 'y')"),
        ({"type": "nullity", "column": {"name": "a"}, "is_null": False}, "`a` IS NOT NULL"),
        ({"type": "nullity", "column": {"name": "a"}, "is_null": True}, "`a` IS NULL"),
        ({"type": "pass_through", "pass_through_filter": "a > 1"}, "a > 1"),
        (
            {"type": "or", "conditions": [comparison(), {"type": "and", "conditions": [comparison(operator=">")]}]},
            "(`a` == 1 OR (`a` > 1))",
        ),
    ],
)
def test_condition_as_sql(condition: Any, sql: str) -> None:
    suite = suite_of(with_condition(condition, condition_parser="spark"))
    assert suite.expectations[0].condition is not None
    assert suite.expectations[0].condition.sql == sql


def test_bounds_are_read_as_great_expectations_reads_them() -> None:
    checks = [
        expectation.check
        for expectation in suite_of(
            between(min_value=2**53 + 1),
            one("expect_column_value_lengths_to_equal", column="c", value=3.0),
            one("expect_column_values_to_be_in_set", column="c", value_set=[1, None, 2.5]),
        ).expectations
    ]
    assert checks == [
        Range("c", 2.0**53, None, strict_low=False, strict_high=False),
        Length("c", 3, 3, strict_low=False, strict_high=False),
        Membership("c", (1, None, 2.5), inside=True),
    ]


# Streams, ids and the fingerprint


def test_severity_decides_the_stream_and_meta_overrides_it() -> None:
    suite = suite_of(
        one("expect_column_values_to_not_be_null", column="a"),
        one("expect_column_values_to_not_be_null", column="b", severity="warning"),
        one("expect_column_values_to_not_be_null", column="c", severity="info"),
        one("expect_column_values_to_not_be_null", column="d", severity="info", meta={"stream": "quarantine"}),
        one("expect_column_values_to_not_be_null", column="e", meta={"stream": "off", "owner": "team"}),
    )
    assert [expectation.stream for expectation in suite.expectations] == [
        "quarantine",
        "tag",
        "metric",
        "quarantine",
        "off",
    ]
    assert [expectation.severity for expectation in suite.expectations][:3] == ["critical", "warning", "info"]
    assert [expectation.columns for expectation in suite.in_stream()] == [("a",), ("b",), ("c",), ("d",)]
    assert [expectation.columns for expectation in suite.in_stream("tag")] == [("b",)]
    assert suite.report_only == ()


def test_what_no_row_can_answer_is_kept_for_the_report() -> None:
    suite = suite_of(
        NOT_NULL,
        one("expect_column_mean_to_be_between", column="c", min_value=1),
        one("expect_table_row_count_to_equal", value=3),
        one("expect_column_values_to_be_unique", column="c", meta={"stream": "metric"}),
    )
    assert [expectation.rule_id for expectation in suite.report_only] == ["c:values_to_be_unique"]
    assert [expectation.rule_id for expectation in suite.observed()] == [
        "c:mean_to_be_between",
        "table_row_count_to_equal",
    ]
    assert len(suite.in_stream()) == 1


@pytest.mark.parametrize("stream", ["quarantine", "tag"])
def test_asking_for_a_row_verdict_that_no_row_can_have(stream: str) -> None:
    error = refused(one("expect_column_mean_to_be_between", column="c", min_value=1, meta={"stream": stream}))
    assert "no single row can be judged" in error.what


def test_rule_ids_are_given_or_made_and_always_unique() -> None:
    suite = suite_of(
        between(min_value=1),
        between(max_value=9),
        one("expect_column_values_to_be_null", column="c", meta={"rule_id": "c:values_to_be_between"}),
        one("expect_column_pair_values_to_be_equal", column_A="a", column_B="b"),
    )
    assert [expectation.rule_id for expectation in suite.expectations] == [
        "c:values_to_be_between#2",
        "c:values_to_be_between#3",
        "c:values_to_be_between",
        "a,b:values_to_be_equal",
    ]


def test_two_equal_rule_ids() -> None:
    twice = {**NOT_NULL, "meta": {"rule_id": "r"}}
    error = refused(NOT_NULL, twice, twice)
    assert "'r' is also that of expectations[1]" in error.what
    assert (error.where or "").startswith("s.json, expectations[2]")


def test_fingerprint_is_of_what_decides_verdicts() -> None:
    base = between(min_value=1, meta={"rule_id": "a"})
    other = {**NOT_NULL, "meta": {"rule_id": "b"}}
    sha = suite_of(base, other).sha256
    assert len(sha) == 64
    same = [
        suite_of(other, base),
        suite_of({**base, "notes": "why", "meta": {"rule_id": "a", "owner": "team"}}, other),
        suite_of(between(min_value=1.0, strict_min=False, mostly=0.5, meta={"rule_id": "a"}), other),
        suite_of(base, other, one("expect_column_mean_to_be_between", column="c", min_value=1)),
        suite_of(base, other, one("expect_column_values_to_be_null", column="z", severity="info")),
    ]
    assert {suite.sha256 for suite in same} == {sha}
    different = [
        suite_of(base),
        suite_of(between(min_value=2, meta={"rule_id": "a"}), other),
        suite_of(between(min_value=1, strict_min=True, meta={"rule_id": "a"}), other),
        suite_of({**base, "severity": "warning"}, other),
        suite_of({**base, "severity": "warning", "meta": {"rule_id": "a", "stream": "quarantine"}}, other),
        suite_of({**base, "meta": {"rule_id": "z"}}, other),
        suite_of(between(min_value=1, row_condition="x > 1", meta={"rule_id": "a"}), other),
    ]
    assert len({sha, *(suite.sha256 for suite in different)}) == len(different) + 1


# Columns


@pytest.mark.parametrize(
    ("expectation", "what"),
    [
        (one("expect_column_values_to_not_be_null", column="nam"), "no column 'nam'"),
        (one("expect_column_mean_to_be_between", column="coun", min_value=1), "no column 'coun'"),
        (one("expect_column_values_to_not_be_null", column="name", row_condition=comparison()), "no column 'a'"),
        (one("expect_column_values_to_be_between", column="name", min_value=1), "name is a string"),
        (one("expect_column_values_to_be_between", column="at", min_value=1), "at is a timestamp"),
        (one("expect_column_values_to_be_between", column="count", max_value="2026-01-01"), "count is a long"),
        (one("expect_column_value_lengths_to_equal", column="count", value=1), "count is a long"),
        (one("expect_column_values_to_match_regex", column="flag", regex="a"), "flag is a boolean"),
        (one("expect_column_values_to_be_in_set", column="count", value_set=["1"]), "compared with '1'"),
        (one("expect_column_values_to_be_in_set", column="name", value_set=[1]), "compared with 1"),
        (one("expect_column_values_to_be_in_set", column="count", value_set=[True]), "compared with True"),
        (one("expect_column_values_to_be_in_set", column="day", value_set=["soon"]), "compared with 'soon'"),
        (one("expect_column_values_to_be_in_set", column="day", value_set=["2026-02-30"]), "compared with"),
        (one("expect_column_pair_values_to_be_equal", column_A="name", column_B="count"), "different kinds"),
        (one("expect_column_pair_values_a_to_be_greater_than_b", column_A="at", column_B="price"), "different kinds"),
        (
            one(
                "expect_column_pair_values_to_be_in_set",
                column_A="name",
                column_B="count",
                value_pairs_set=[["", "b"]],
            ),
            "compared with 'b'",
        ),
        (one("expect_multicolumn_sum_to_equal", column_list=["count", "name"], sum_total=1), "name is a string"),
        (one("expect_multicolumn_values_to_be_equal", column_list=["count", "flag"]), "different kinds"),
        (
            one(
                "expect_column_values_to_not_be_null",
                column="name",
                row_condition=comparison(column={"name": "count"}, parameter="x"),
            ),
            "count is a long and is compared with 'x'",
        ),
    ],
)
def test_columns_that_do_not_fit(expectation: dict[str, Any], what: str) -> None:
    suite = suite_of(NOT_NULL, expectation)
    with pytest.raises(SuiteError) as caught:
        check_columns(suite, {**TYPES, "user_id": "long"})
    assert what in caught.value.what
    assert (caught.value.where or "").startswith("s.json, expectations[1]")


def test_columns_that_fit() -> None:
    suite = suite_of(
        one("expect_column_values_to_be_between", column="count", min_value=1),
        one("expect_column_values_to_be_between", column="at", min_value="2026-01-01"),
        one("expect_column_values_to_be_in_set", column="at", value_set=["2026-01-01T00:00:00Z", None]),
        one("expect_column_values_to_be_in_set", column="flag", value_set=[True]),
        one("expect_column_pair_values_a_to_be_greater_than_b", column_A="at", column_B="day"),
        one("expect_multicolumn_sum_to_equal", column_list=["count", "price"], sum_total=1),
        one("expect_column_value_lengths_to_equal", column="name", value=1),
    )
    check_columns(suite, TYPES)
    check_columns(suite, list(TYPES))


def test_names_alone_are_checked_without_types() -> None:
    suite = suite_of(one("expect_column_values_to_be_between", column="name", min_value=1))
    check_columns(suite, ["name"])
    with pytest.raises(SuiteError, match="no column 'name'") as caught:
        check_columns(suite, ["nane"])
    assert caught.value.remedy == "did you mean nane?"


# The suite of the example pipeline


def test_loading_needs_neither_spark_nor_great_expectations() -> None:
    program = (
        "import sys; from pathlib import Path; from lakehouse.quality.suite import load_suite\n"
        f"load_suite(Path({str(FEATURE_EVENTS)!r}))\n"
        "print([name for name in ('pyspark', 'py4j', 'great_expectations') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_feature_events_fits_its_pipeline() -> None:
    import yaml

    raw = yaml.safe_load((ROOT / "conf" / "feature_events.yaml").read_text(encoding="utf-8"))
    fields = {name: EventField.model_validate(field).type for name, field in raw["source"]["fields"].items()}
    suite = load_suite(FEATURE_EVENTS)
    check_columns(suite, fields)
    assert {expectation.severity for expectation in suite.expectations} == {"critical", "warning"}
    assert suite.report_only == ()
    assert [expectation.rule_id for expectation in suite.observed()] == ["app_version_share"]


@pytest.mark.parametrize("name", ["feature_events", "card_payments"])
def test_a_shipped_suite_knows_what_its_load_sends(name: str) -> None:
    sets = {
        expectation.columns[0]: set(expectation.check.values)
        for expectation in load_suite(ROOT / "expectations" / f"{name}.json").expectations
        if isinstance(expectation.check, Membership)
    }
    load = generator(name)
    sent = {field: load.members(field) for field in load.description.fields}
    assert sets == {field: set(members) for field, members in sent.items() if members}


def test_great_expectations_loads_feature_events() -> None:
    document = json.loads(FEATURE_EVENTS.read_text(encoding="utf-8"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx

        loaded = gx.ExpectationSuite(**document)
    ours = load_suite(FEATURE_EVENTS)
    assert len(loaded.expectations) == len(document["expectations"]) == len(ours.expectations)
    assert [each.severity.value for each in loaded.expectations] == [each.severity for each in ours.expectations]
