"""Hypothesis strategies: rows of every kind of column, and row-level expectations over them.

Left out by construction, because Great Expectations itself fails on them, so there is nothing to agree with:
values of another kind than their column (Spark 4 stops at the first cast that fails), empty sets and lists,
`row_condition` beside pairs in a set (it is ignored for one part of the result and applied to another, which
makes a negative count), bounds that are not finite, and lone surrogates, which no UTF-8 text can hold.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from hypothesis import strategies as st

SCHEMA = (
    "id long, s1 string, s2 string, s3 string, i1 long, i2 long, i3 int, d1 double, d2 double, "
    "t1 timestamp, t2 timestamp, y1 date, y2 date, b1 boolean, b2 boolean"
)
KINDS = {
    "text": ("s1", "s2", "s3"),
    "integer": ("i1", "i2", "i3"),
    "double": ("d1", "d2"),
    "time": ("t1", "t2"),
    "day": ("y1", "y2"),
    "boolean": ("b1", "b2"),
}
NUMBERS = KINDS["integer"] + KINDS["double"]

_TEXTS = ["", "a", "ok", "ok\n", "OK", "a\nb", "\n", "\t", "é", "e\u0301", "日本", "𝒳"]
_TEXTS += ["it's", 'q"', "\\", "a\\nb", "0", "\x00", "\x1b[0m", "\u2028", "null", "aa", "bb", " ", "x" * 130]
_INTEGERS = [0, 1, -1, 2, 3, 5, 127, 2**31 - 1, -(2**31)]
_LONGS = [*_INTEGERS, 2**31, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**62]
_FINITE = [0.0, -0.0, 0.1, 0.2, 0.1 + 0.2, 1.0, 1.5, -1.5, 3.0, 2.0**53, 1e308, -1e308, 5e-324]
_DOUBLES = [*_FINITE, float("nan"), float("inf"), float("-inf")]
_TIMES = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC)]
_TIMES += [
    datetime(1969, 7, 20, tzinfo=UTC),
    datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
    datetime(2100, 1, 1, tzinfo=UTC),
]
_DAYS = [date(2026, 1, 1), date(2024, 2, 29), date(1969, 12, 31), date(2100, 1, 1)]
_PATTERNS = ["^ok$", r"^ok\z", "(?i)ok", ".", "^.$", "(?s)^.*$", r"\p{L}", "", "a|b", r"^\s*$"]
_PATTERNS += ["[^a]", r"(.)\1", "é", r"\Q\\E"]
_CONDITIONS = ["i1 > 0", "s1 = 'ok'", "d1 IS NOT NULL AND d1 < 1", "b1", "s1 LIKE '%\n%' OR b2", "i1 IS NULL"]

_text = st.sampled_from(_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_values: dict[str, st.SearchStrategy[Any]] = {
    "text": _text,
    "integer": st.sampled_from(_INTEGERS) | st.integers(-(2**31), 2**31 - 1),
    "long": st.sampled_from(_LONGS) | st.integers(-(2**63), 2**63 - 1),
    "double": st.sampled_from(_DOUBLES) | st.floats(),
    "time": st.sampled_from(_TIMES),
    "day": st.sampled_from(_DAYS),
    "boolean": st.booleans(),
}


def _cell(column: str) -> st.SearchStrategy[Any]:
    kind = next(kind for kind, columns in KINDS.items() if column in columns)
    return st.none() | _values["long" if column in ("i1", "i2") else kind]


rows = st.lists(
    st.tuples(*(_cell(field.split()[0]) for field in SCHEMA.split(", ")[1:])), min_size=16, max_size=30
).map(lambda drawn: [(number, *row) for number, row in enumerate(drawn)])
"""A frame's rows, in the order of `SCHEMA`."""


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.isoformat() if isinstance(value, date) else value


def _listed(kind: str, *, nulls: bool = True) -> st.SearchStrategy[list[Any]]:
    """Values as a suite's JSON can hold them."""
    pools: dict[str, st.SearchStrategy[Any]] = {
        **_values,
        "integer": st.sampled_from([*_LONGS, 1.5, 3.0]),
        "double": st.sampled_from([*_FINITE, 0, 1, 2**53 + 1]) | st.floats(allow_nan=False, allow_infinity=False),
    }
    value = pools[kind].map(_json)
    return st.lists(value | st.none() if nulls and kind != "day" else value, min_size=1, max_size=14).filter(
        lambda values: any(value is not None for value in values)
    )


@st.composite
def _condition(draw: st.DrawFn) -> dict[str, Any]:
    """No condition most of the time: each distinct one costs Great Expectations a Spark job of its own."""
    if draw(st.integers(0, 3)):
        return {}
    if draw(st.booleans()):
        parser = draw(st.sampled_from([{}, {"condition_parser": "spark"}]))
        return {"row_condition": draw(st.sampled_from(_CONDITIONS)), **parser}
    return {"row_condition": draw(_tree)}


def _comparison(column: str, parameters: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        lambda operator, parameter: {
            "type": "comparison",
            "column": {"name": column},
            "operator": operator,
            "parameter": parameter,
        },
        st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
        parameters,
    )


# Texts whose repr() holds \xNN are refused: Great Expectations puts the repr() into SQL, where it means another text.
_safe_text = st.sampled_from([text for text in _TEXTS if "\\x" not in repr(text)])
_leaf = (
    _comparison("s1", _safe_text)
    | _comparison("i1", st.sampled_from(_LONGS))
    | _comparison("d1", st.sampled_from(_FINITE))
    | _comparison("b1", st.booleans())
    | st.builds(
        lambda operator, values: {
            "type": "comparison",
            "column": {"name": "s2"},
            "operator": operator,
            "parameter": values,
        },
        st.sampled_from(["IN", "NOT_IN"]),
        st.lists(_safe_text, min_size=1, max_size=4),
    )
    | st.builds(
        lambda column, is_null: {"type": "nullity", "column": {"name": column}, "is_null": is_null},
        st.sampled_from(["s1", "i2", "t1"]),
        st.booleans(),
    )
)
_all_of = st.lists(_leaf, min_size=1, max_size=3).map(lambda parts: {"type": "and", "conditions": parts})
_any_of = st.lists(_leaf | _all_of, min_size=1, max_size=3).map(lambda parts: {"type": "or", "conditions": parts})
_tree = (
    _leaf
    | _all_of
    | _any_of
    | st.sampled_from(["i2 < 5", "s1 <> 'a'"]).map(lambda sql: {"type": "pass_through", "pass_through_filter": sql})
)

_any_column = st.sampled_from([column for columns in KINDS.values() for column in columns])


def _ignore(*words: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from([{}, *({"ignore_row_if": word} for word in words)])


_ignore_pair = _ignore("both_values_are_missing", "either_value_is_missing", "neither")
_ignore_list = _ignore("all_values_are_missing", "any_value_is_missing", "never")
_flags = st.fixed_dictionaries({}, optional={"strict_min": st.booleans(), "strict_max": st.booleans()})
_same_kind = st.sampled_from([*KINDS.values(), NUMBERS]).flatmap(
    lambda columns: st.lists(st.sampled_from(columns), min_size=2, max_size=3, unique=True)
)


@st.composite
def _set_of(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(list(KINDS)))
    column = draw(st.sampled_from(KINDS[kind]))
    return {"column": column, "value_set": draw(_listed("integer" if kind == "integer" else kind))}


@st.composite
def _bounds(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["integer", "double", "time", "day"]))
    low, high = sorted(draw(st.tuples(*(_listed(kind, nulls=False).map(lambda values: values[0]),) * 2)))
    ends = draw(st.sampled_from([{"min_value": low}, {"max_value": high}, {"min_value": low, "max_value": high}]))
    return {"column": draw(st.sampled_from(KINDS[kind])), **ends, **draw(_flags)}


@st.composite
def _lengths(draw: st.DrawFn) -> dict[str, Any]:
    low, high = sorted(draw(st.tuples(st.integers(0, 7), st.integers(0, 131))))
    ends = draw(st.sampled_from([{"min_value": low}, {"max_value": high}, {"min_value": low, "max_value": high}]))
    return {"column": draw(st.sampled_from(KINDS["text"])), **ends, **draw(_flags)}


@st.composite
def _pairs(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["text", "integer", "double", "boolean"]))
    first, second = draw(st.permutations(KINDS[kind]))[:2]
    value = _listed(kind, nulls=False).map(lambda values: values[0]) | st.none()
    pairs = draw(st.lists(st.lists(value, min_size=2, max_size=2), min_size=1, max_size=6))
    return {"column_A": first, "column_B": second, "value_pairs_set": pairs, **draw(_ignore_pair)}


_text_column = st.sampled_from(KINDS["text"]).map(lambda column: {"column": column})
_pattern = st.sampled_from(_PATTERNS)
_patterns = st.lists(_pattern, min_size=1, max_size=3)
_two = _same_kind.map(lambda columns: {"column_A": columns[0], "column_B": columns[1]})
_several = _same_kind.map(lambda columns: {"column_list": columns})


def _together(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda drawn: {key: value for part in drawn for key, value in part.items()})


def _joined(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts, _condition()).map(
        lambda drawn: {key: value for part in drawn for key, value in part.items()}
    )


def _named(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return values.map(lambda value: {name: value})


_totals = st.sampled_from([0, 1, 3, 0.3, 2**53, 2**64, 1.8446744073709552e19, -1.5])
# `!` is the escape character, and stands before nothing but what it may escape.
_like = st.lists(
    st.sampled_from(["%", "_", "!%", "!_", "!!", "a", "ok", "\n", "é", "𝒳", "\\", ".", "^", "$", "(", "[", "#", " "]),
    max_size=5,
).map("".join)
like_patterns = st.lists(st.tuples(_like, st.just("!")), min_size=1, max_size=6)
"""(pattern, escape character)."""


def _likes(name: str, patterns: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({name: patterns, "escape": st.just("!")})


KWARGS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "expect_column_values_to_not_be_null": _joined(_named("column", _any_column)),
    "expect_column_values_to_be_null": _joined(_named("column", _any_column)),
    "expect_column_values_to_be_in_set": _joined(_set_of()),
    "expect_column_values_to_not_be_in_set": _joined(_set_of()),
    "expect_column_values_to_be_between": _joined(_bounds()),
    "expect_column_value_lengths_to_be_between": _joined(_lengths()),
    "expect_column_value_lengths_to_equal": _joined(_text_column, _named("value", st.integers(0, 6))),
    "expect_column_values_to_match_regex": _joined(_text_column, _named("regex", _pattern) | st.just({})),
    "expect_column_values_to_not_match_regex": _joined(_text_column, _named("regex", _pattern)),
    "expect_column_values_to_match_regex_list": _joined(
        _text_column,
        _named("regex_list", _patterns),
        st.sampled_from([{}, {"match_on": "any"}, {"match_on": "all"}]),
    ),
    "expect_column_values_to_not_match_regex_list": _joined(_text_column, _named("regex_list", _patterns)),
    "expect_column_values_to_match_like_pattern": _joined(_text_column, _likes("like_pattern", _like)),
    "expect_column_values_to_not_match_like_pattern": _joined(_text_column, _likes("like_pattern", _like)),
    "expect_column_values_to_match_like_pattern_list": _joined(
        _text_column,
        _likes("like_pattern_list", st.lists(_like, min_size=1, max_size=3)),
        st.sampled_from([{}, {"match_on": "any"}, {"match_on": "all"}]),
    ),
    "expect_column_values_to_not_match_like_pattern_list": _joined(
        _text_column, _likes("like_pattern_list", st.lists(_like, min_size=1, max_size=3))
    ),
    "expect_column_pair_values_a_to_be_greater_than_b": _joined(
        _two, st.fixed_dictionaries({}, optional={"or_equal": st.booleans()}), _ignore_pair
    ),
    "expect_column_pair_values_to_be_equal": _joined(_two, _ignore_pair),
    "expect_column_pair_values_to_be_in_set": _pairs(),
    "expect_multicolumn_sum_to_equal": _joined(
        _named("column_list", st.lists(st.sampled_from(NUMBERS), min_size=2, max_size=4, unique=True)),
        _named("sum_total", _totals),
        _ignore_list,
    ),
    "expect_multicolumn_values_to_be_equal": _joined(_several, _ignore_list),
    "expect_select_column_values_to_be_unique_within_record": _joined(_several, _ignore_list),
}
"""Type -> strategy of its kwargs, for every row-level type."""


@st.composite
def documents(draw: st.DrawFn, each: int) -> dict[str, Any]:
    """A suite with `each` expectations of every row-level type, in the form of its JSON file."""
    names = [name for name in KWARGS for _ in range(each)]
    return {
        "name": "generated",
        "expectations": [
            {"type": name, "kwargs": draw(KWARGS[name]), "meta": {"rule_id": f"{number}:{name}"[:128]}}
            for number, name in enumerate(names)
        ],
    }


def _limits(*, count: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    bound = st.integers(0, 40) if count else st.sampled_from([-10, 0, 0.5, 1, 3, 1e6])
    both = st.tuples(bound, bound).map(sorted).map(lambda pair: {"min_value": pair[0], "max_value": pair[1]})
    strict = st.fixed_dictionaries({}, optional={"strict_min": st.booleans(), "strict_max": st.booleans()})
    one = bound.map(lambda value: {"min_value": value}) | bound.map(lambda value: {"max_value": value})
    return _together(one | both, strict)


# Sums of doubles near the limits depend on the order of the rows, and 64-bit integers overflow in the package itself.
_modest = st.sampled_from(["i3"]).map(lambda column: {"column": column})
_number = st.sampled_from(NUMBERS).map(lambda column: {"column": column})
_any = st.sampled_from([column for columns in KINDS.values() for column in columns if column not in ("d1", "d2")]).map(
    lambda column: {"column": column}
)

AGGREGATES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "expect_table_row_count_to_be_between": _limits(count=True),
    "expect_table_row_count_to_equal": st.integers(15, 31).map(lambda value: {"value": value}),
    "expect_column_max_to_be_between": _together(_number, _limits()),
    "expect_column_min_to_be_between": _together(_number, _limits()),
    "expect_column_mean_to_be_between": _together(_modest, _limits()),
    "expect_column_median_to_be_between": _together(_modest, _limits()),
    "expect_column_stdev_to_be_between": _together(_modest, _limits()),
    "expect_column_sum_to_be_between": _together(_modest, _limits()),
    "expect_column_quantile_values_to_be_between": _together(
        _modest,
        st.just(
            {
                "quantile_ranges": {
                    "quantiles": [0.0, 0.3, 0.5, 1.0],
                    "value_ranges": [[None, 5], [0, 1], [0, 9], [1, None]],
                }
            }
        ),
    ),
    "expect_column_unique_value_count_to_be_between": _together(_any, _limits(count=True)),
    "expect_column_proportion_of_unique_values_to_be_between": _together(_any, _limits()),
    "expect_column_proportion_of_non_null_values_to_be_between": _together(_any, _limits()),
}
"""Type -> strategy of its kwargs, for every type that the stream observes."""


@st.composite
def aggregate_documents(draw: st.DrawFn) -> dict[str, Any]:
    """A suite with one expectation of every observed type."""
    return {
        "name": "generated",
        "expectations": [
            {"type": name, "kwargs": draw(kwargs), "meta": {"rule_id": f"{number}:{name}"[:128]}}
            for number, (name, kwargs) in enumerate(AGGREGATES.items())
        ],
    }
