"""What a verdict says: the sentence and the value, for every check; harmless to show whatever came in."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from lakehouse.quality.messages import LONGEST_VALUE, sentence
from lakehouse.quality.suite import parse_suite


def said(kind: str, kwargs: dict[str, Any], row: dict[str, Any]) -> tuple[str, str | None]:
    document = {"name": "s", "expectations": [{"type": f"expect_{kind}", "kwargs": kwargs}]}
    [expectation] = parse_suite(json.dumps(document), source="s.json").expectations
    return sentence(expectation, {"s": None, "n": None, "m": None, "t": None} | row)


@pytest.mark.parametrize(
    ("kind", "kwargs", "row", "message"),
    [
        ("column_values_to_be_null", {"column": "s"}, {"s": "x"}, "s is x, but must be missing"),
        (
            "column_values_to_be_in_set",
            {"column": "s", "value_set": ["ok", "error"]},
            {"s": ""},
            "s is '', not one of ok, error",
        ),
        ("column_values_to_be_in_set", {"column": "n", "value_set": [1, 2.5]}, {"n": 3}, "n is 3, not one of 1, 2.5"),
        (
            "column_values_to_be_in_set",
            {"column": "n", "value_set": list(range(10))},
            {"n": 11},
            "n is 11, not one of 0, 1, 2, 3, 4, 5, 6, 7 or 2 more",
        ),
        (
            "column_values_to_not_be_in_set",
            {"column": "s", "value_set": ["x"]},
            {"s": "x"},
            "s is 'x', which is not allowed",
        ),
        ("column_values_to_be_between", {"column": "n", "max_value": 1.5}, {"n": 2}, "n is 2, above the maximum 1.5"),
        (
            "column_values_to_be_between",
            {"column": "n", "min_value": 0, "max_value": 5},
            {"n": -1},
            "n is -1, below the minimum 0",
        ),
        (
            "column_values_to_be_between",
            {"column": "n", "min_value": 0, "max_value": 5},
            {"n": 6},
            "n is 6, above the maximum 5",
        ),
        (
            "column_values_to_be_between",
            {"column": "n", "min_value": 0, "max_value": 5, "strict_min": True, "strict_max": True},
            {"n": 0},
            "n is 0, not above 0",
        ),
        (
            "column_values_to_be_between",
            {"column": "n", "min_value": 0, "max_value": 5, "strict_min": True, "strict_max": True},
            {"n": 5},
            "n is 5, not below 5",
        ),
        (
            "column_values_to_be_between",
            {"column": "t", "min_value": "2026-01-01T00:00:00Z"},
            {"t": datetime(2025, 1, 1, tzinfo=UTC)},
            "t is 2025-01-01 00:00:00, below the minimum 2026-01-01T00:00:00+00:00",
        ),
        (
            "column_value_lengths_to_equal",
            {"column": "s", "value": 3},
            {"s": "ab"},
            "s is 'ab', with 2 characters, instead of 3",
        ),
        (
            "column_value_lengths_to_be_between",
            {"column": "s", "min_value": 3, "max_value": 9},
            {"s": "ab"},
            "s is 'ab', with 2 characters, outside 3 to 9",
        ),
        (
            "column_value_lengths_to_be_between",
            {"column": "s", "min_value": 3},
            {"s": ""},
            "s is '', with 0 characters, fewer than 3",
        ),
        (
            "column_value_lengths_to_be_between",
            {"column": "s", "max_value": 3, "strict_max": True},
            {"s": "abc"},
            "s is 'abc', with 3 characters, more than 2",
        ),
        (
            "column_values_to_match_regex",
            {"column": "s", "regex": "^a$"},
            {"s": "b"},
            "s is 'b', which does not match the pattern ^a$",
        ),
        (
            "column_values_to_not_match_regex",
            {"column": "s", "regex": "b"},
            {"s": "b"},
            "s is 'b', which matches the pattern b",
        ),
        (
            "column_values_to_match_regex_list",
            {"column": "s", "regex_list": ["a", "c"]},
            {"s": "b"},
            "s is 'b', which matches none of the patterns a, c",
        ),
        (
            "column_values_to_match_regex_list",
            {"column": "s", "regex_list": ["a", "c"], "match_on": "all"},
            {"s": "a"},
            "s is 'a', which does not match all of the patterns a, c",
        ),
        (
            "column_values_to_not_match_regex_list",
            {"column": "s", "regex_list": ["a", "c"]},
            {"s": "a"},
            "s is 'a', which matches one of the patterns a, c",
        ),
        (
            "column_pair_values_a_to_be_greater_than_b",
            {"column_A": "n", "column_B": "m"},
            {"n": 1, "m": 2},
            "n=1, m=2: n is not greater than m",
        ),
        (
            "column_pair_values_a_to_be_greater_than_b",
            {"column_A": "n", "column_B": "m", "or_equal": True},
            {"n": 1, "m": 2},
            "n=1, m=2: n is less than m",
        ),
        ("column_pair_values_to_be_equal", {"column_A": "n", "column_B": "m"}, {"n": 1}, "n=1, m=null: n and m differ"),
        (
            "column_pair_values_to_be_in_set",
            {"column_A": "n", "column_B": "m", "value_pairs_set": [[1, 1]]},
            {"n": 1, "m": 2},
            "n=1, m=2: n and m do not go together",
        ),
        (
            "multicolumn_sum_to_equal",
            {"column_list": ["n", "m"], "sum_total": 4},
            {"n": 1, "m": 2},
            "n=1, m=2: the sum is not 4",
        ),
        (
            "multicolumn_values_to_be_equal",
            {"column_list": ["n", "m"]},
            {"n": 1, "m": 2},
            "n=1, m=2: the values differ",
        ),
        (
            "select_column_values_to_be_unique_within_record",
            {"column_list": ["n", "m"]},
            {"n": 1, "m": 1},
            "n=1, m=1: a value stands twice",
        ),
        (
            "column_values_to_not_be_null",
            {"column": "s", "row_condition": "n = 1"},
            {"n": 1},
            "s is missing, where n = 1",
        ),
        (
            "column_value_lengths_to_equal",
            {"column": "s", "value": 3, "row_condition": "n = 1"},
            {"s": "ab", "n": 1},
            "s is 'ab', with 2 characters, instead of 3, where n = 1",
        ),
    ],
)
def test_message(kind: str, kwargs: dict[str, Any], row: dict[str, Any], message: str) -> None:
    assert said(kind, kwargs, row)[0] == message


def test_a_value_is_shown_as_text() -> None:
    kind, kwargs = "column_values_to_be_null", {"column": "s"}
    values = [(True, "true"), (1.5, "1.5"), (float("nan"), "nan"), (date(2026, 1, 2), "2026-01-02"), (None, None)]
    assert [said(kind, kwargs, {"s": value})[1] for value, _ in values] == [text for _, text in values]


def test_a_time_is_compared_with_a_bound_of_either_kind() -> None:
    bounds = {"column": "t", "min_value": "2026-01-01", "max_value": "2026-02-01"}
    early, late = datetime(2025, 12, 31, 23, tzinfo=UTC), datetime(2026, 2, 1, 1, tzinfo=UTC)
    assert "below the minimum 2026-01-01" in said("column_values_to_be_between", bounds, {"t": early})[0]
    assert "above the maximum 2026-02-01" in said("column_values_to_be_between", bounds, {"t": late})[0]


def test_a_hostile_value_is_cut_and_shown() -> None:
    values = ["\x1b[2J\r\n\x00\u202e\u2028\x85", "a" * LONGEST_VALUE, "b" * (LONGEST_VALUE + 1), "𝒳" * 1_000_000]
    found = [said("column_values_to_be_in_set", {"column": "s", "value_set": ["ok"]}, {"s": value}) for value in values]
    assert [shown for _, shown in found] == [
        "␛[2J␍␊␀\ufffd\ufffd\ufffd",
        "a" * LONGEST_VALUE,
        "b" * (LONGEST_VALUE - 1) + "…",
        "𝒳" * (LONGEST_VALUE - 1) + "…",
    ]
    assert found[0][0] == f"s is '{found[0][1]}', not one of ok"
    assert all(len(message) < 2 * LONGEST_VALUE for message, _ in found)


def test_a_suite_cannot_smuggle_control_characters_into_messages() -> None:
    message, _ = said("column_values_to_be_in_set", {"column": "s", "value_set": ["a\nb\x1b"]}, {"s": "x"})
    assert message == "s is 'x', not one of a␊b␛"
