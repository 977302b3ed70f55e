"""A claim about rules is never wrong: every claim is held against generated rows, judged by plain Python."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, date, datetime
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.quality.checks import (
    AllDifferent,
    AllEqual,
    Check,
    Greater,
    Length,
    Membership,
    PairEqual,
    Pattern,
    Presence,
    Range,
)
from lakehouse.quality.lint import lint
from lakehouse.quality.logic import always_fails, conflict, fails_each, implies, never_fails
from lakehouse.quality.suite import parse_suite
from tests.judges import fails
from tests.property import examples

BIG = 2**53
NUMBERS: list[Any] = [-1, 0, 1, 2, 5, BIG, BIG + 1, 0.5, -0.0, 1.0, 1e300]
DOUBLES = [*map(float, NUMBERS), float("nan"), float("inf"), float("-inf"), 0.25, 3.0]
LONGS = [-2, -1, 0, 1, 2, 3, 5, BIG, BIG + 1, 2**63 - 1]
TEXTS = ["", "ok", "error", "ab", "abc", "x1", "1", "01", "é", "2026-01-01", "true", "a b", "zz\n"]
PATTERNS = ["", ".*", "a", r"\Aok\z", "b", "[0-9]", "a|b", "(?i)OK", "x(1)"]
DAYS = [date(2026, 1, day) for day in (1, 2, 3)]
MOMENTS = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in (0, 6, 12)]


@st.composite
def ranges(draw: st.DrawFn, bounds: list[Any]) -> Check:
    low, high = draw(st.sampled_from([None, *bounds])), draw(st.sampled_from([None, *bounds]))
    if low is None and high is None:
        low = bounds[0]
    if low is not None and high is not None and low > high:
        low, high = high, low
    return Range("x", low, high, draw(st.booleans()), draw(st.booleans()))


@st.composite
def lengths(draw: st.DrawFn) -> Check:
    low, high = sorted((draw(st.integers(0, 4)), draw(st.integers(0, 4))))
    low_or_not, high_or_not = draw(st.sampled_from([(low, high), (low, None), (None, high)]))
    return Length("x", low_or_not, high_or_not, draw(st.booleans()), draw(st.booleans()))


def members(values: list[Any]) -> st.SearchStrategy[Check]:
    chosen = st.lists(st.sampled_from([*values, *values, None]), min_size=1, max_size=4, unique_by=repr).map(tuple)
    return st.builds(Membership, st.just("x"), chosen, st.booleans())


PRESENCE = st.builds(Presence, st.just("x"), st.booleans())
PATTERN = (
    st.builds(
        Pattern,
        st.just("x"),
        st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2).map(tuple),
        st.sampled_from(["all", "none"]),
    )
    | st.builds(Pattern, st.just("x"), st.sampled_from(PATTERNS).map(lambda one: (one,)), st.just("any"))
    | st.builds(
        Pattern,
        st.just("x"),
        # Python takes a flag at the beginning only.
        st.tuples(st.sampled_from(PATTERNS), st.sampled_from([one for one in PATTERNS if "(?" not in one])),
        st.just("any"),
    )
)
FLOATS = [float(one) for one in NUMBERS]
OF_ONE: dict[str, tuple[st.SearchStrategy[Check], list[Any]]] = {
    "double": (PRESENCE | ranges(FLOATS) | members(NUMBERS), [None, *DOUBLES]),
    "long": (PRESENCE | ranges(FLOATS) | members([one for one in NUMBERS if one != 1e300]), [None, *LONGS]),
    "text": (PRESENCE | lengths() | PATTERN | members(TEXTS), [None, *TEXTS]),
    "day": (PRESENCE | ranges(DAYS), [None, *DAYS]),
    "moment": (PRESENCE | ranges(MOMENTS), [None, *MOMENTS]),
}
_PAIR_IGNORE = st.sampled_from(["both_values_are_missing", "either_value_is_missing", "neither"])
_LIST_IGNORE = st.sampled_from(["all_values_are_missing", "any_value_is_missing", "never"])
_ORDERED = st.sampled_from([("x", "y"), ("y", "x")])
_LISTED = st.sampled_from([("x", "y"), ("y", "x"), ("x", "y", "z")])
PAIRS: st.SearchStrategy[Check] = (
    st.builds(lambda of, equal, ignore: Greater(*of, equal, ignore), _ORDERED, st.booleans(), _PAIR_IGNORE)
    | st.builds(lambda of, ignore: PairEqual(*of, ignore), _ORDERED, _PAIR_IGNORE)
    | st.builds(AllEqual, _LISTED, _LIST_IGNORE)
    | st.builds(AllDifferent, _LISTED, _LIST_IGNORE)
    | PRESENCE
)


def held_against(a: Check, b: Check, rows: list[dict[str, Any]]) -> Counter[str]:
    """Hold every claim about the two against the rows; which claims there were."""
    claims: Counter[str] = Counter()
    with_values = [row for row in rows if None not in row.values()]
    if implies(b, a):
        claims["implies"] += 1
        assert not [row for row in rows if fails(a, row) and not fails(b, row)]
    if conflict(a, b):
        claims["conflict"] += 1
        both_presence = isinstance(a, Presence) and isinstance(b, Presence)
        assert all(fails(a, row) or fails(b, row) for row in (rows if both_presence else with_values))
    if never_fails(a):
        claims["never"] += 1
        assert not any(fails(a, row) for row in rows)
    if always_fails(a):
        claims["always"] += 1
        assert all(fails(a, row) for row in with_values)
    return claims


@pytest.mark.parametrize("kind", OF_ONE)
def test_claims_about_one_column_hold_for_every_value(kind: str) -> None:
    checks, values = OF_ONE[kind]
    claims: Counter[str] = Counter()

    @settings(max_examples=examples(500), deadline=None)
    @given(checks, checks)
    def hold(a: Check, b: Check) -> None:
        claims.update(held_against(a, b, [{"x": value} for value in values]))

    hold()
    assert claims["implies"] > 5
    assert claims["conflict"] > 5


def test_claims_about_two_columns_hold_for_every_row() -> None:
    values = [None, 0, 1, 2, 0.0, float("nan")]
    rows = [{"x": x, "y": y, "z": z} for x in values for y in values for z in (None, 0, 5)]
    claims: Counter[str] = Counter()

    @settings(max_examples=examples(500), deadline=None)
    @given(PAIRS, PAIRS)
    def hold(a: Check, b: Check) -> None:
        claims.update(held_against(a, b, rows))

    hold()
    assert claims["implies"] > 5
    assert claims["conflict"] > 5


@pytest.mark.parametrize("kind", ["double", "long", "text"])
def test_a_value_said_to_fail_fails(kind: str) -> None:
    checks, values = OF_ONE[kind]

    @settings(max_examples=examples(300), deadline=None)
    @given(checks, st.lists(st.sampled_from(values), min_size=1, max_size=3))
    def hold(check: Check, only: list[Any]) -> None:
        if fails_each(check, "x", only):
            assert all(fails(check, {"x": value}) for value in only)

    hold()


TYPES = {
    "range": (
        "values_to_be_between",
        [{"min_value": low, "max_value": high} for low, high in ((0, 1), (1, 2), (3, 9))],
    ),
    "set": ("values_to_be_in_set", [{"value_set": values} for values in ([0], [1, 2], [0, 1, 2, 4])]),
    "not": ("values_to_not_be_in_set", [{"value_set": values} for values in ([0], [0, 7], [1, 2])]),
    "there": ("values_to_not_be_null", [{}]),
    "gone": ("values_to_be_null", [{}]),
}
CONDITIONS: list[dict[str, Any] | None] = [
    None,
    {"type": "nullity", "column": {"name": "y"}, "is_null": True},
    {"type": "comparison", "column": {"name": "y"}, "operator": "==", "parameter": 1},
]


@st.composite
def items(draw: st.DrawFn) -> dict[str, Any]:
    name, kwargs = TYPES[draw(st.sampled_from(sorted(TYPES)))]
    condition = draw(st.sampled_from(CONDITIONS))
    given_kwargs = {"column": draw(st.sampled_from(["x", "y"])), **draw(st.sampled_from(kwargs))}
    return {
        "type": f"expect_column_{name}",
        "kwargs": given_kwargs | ({"row_condition": condition, "condition_parser": "spark"} if condition else {}),
        "severity": draw(st.sampled_from(["critical", "warning", "info"])),
    }


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(items(), min_size=2, max_size=4))
def test_a_rule_that_is_said_to_add_nothing_adds_nothing(rules: list[dict[str, Any]]) -> None:
    suite = parse_suite(json.dumps({"name": "made", "expectations": rules}), source="made.json")
    values = [None, 0, 1, 2, 3, 4, 7, 9]
    rows = [{"x": x, "y": y} for x in values for y in values]

    def applies(index: int, row: dict[str, Any]) -> bool:
        condition = rules[index]["kwargs"].get("row_condition")
        if condition is None:
            return True
        return row["y"] is None if condition["type"] == "nullity" else row["y"] == 1

    def broken(index: int, row: dict[str, Any]) -> bool:
        check = suite.expectations[index].check
        assert check is not None
        return applies(index, row) and fails(check, row)

    for finding in lint(suite).findings:
        first, *second = finding.places
        match finding.kind:
            case "duplicate":
                assert all(broken(first, row) == broken(second[0], row) for row in rows)
            case "redundant":
                assert not [row for row in rows if broken(first, row) and not broken(second[0], row)]
            case "unreachable" if second:
                kept = suite.expectations[second[0]]
                assert kept.stream == "quarantine"
                assert not [row for row in rows if broken(first, row) and not broken(second[0], row)]
            case "contradictory" if second:
                columns = {*suite.expectations[first].columns, *suite.expectations[second[0]].columns}
                presence = all(isinstance(suite.expectations[one].check, Presence) for one in finding.places)
                concerned = [
                    row
                    for row in rows
                    if all(applies(one, row) for one in finding.places)
                    and (presence or all(row[column] is not None for column in columns))
                ]
                assert all(any(broken(one, row) for one in finding.places) for row in concerned)


def test_claims_do_not_depend_on_the_order_of_two_rules() -> None:
    pool: list[Check] = [
        Range("x", 0.0, 1.0, strict_low=False, strict_high=True),
        Range("x", 1.0, 2.0, strict_low=False, strict_high=False),
        Membership("x", (5, 6), inside=True),
        Presence("x", present=False),
    ]
    assert all(conflict(a, b) == conflict(b, a) for a, b in permutations(pool, 2))
    assert conflict(pool[0], pool[1])
