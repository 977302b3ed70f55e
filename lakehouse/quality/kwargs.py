"""An expectation's kwargs as a typed check, with Great Expectations' own defaults and coercions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Literal, TypeVar, get_args

from lakehouse.quality.catalogue import COMMON_KWARGS, ExpectationType
from lakehouse.quality.checks import (
    AllDifferent,
    AllEqual,
    Bound,
    Check,
    Greater,
    IgnoreList,
    IgnorePair,
    Length,
    Membership,
    PairEqual,
    PairMembership,
    Pattern,
    Presence,
    Range,
    Scalar,
    SumEquals,
)
from lakehouse.quality.mistakes import Mistake, did_you_mean
from lakehouse.quality.regex import check_regex
from lakehouse.quality.spark_types import KNOWN_TYPES

Kwargs = Mapping[str, object]
_T = TypeVar("_T", bound=str)

_INT64 = 2**63
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})")
_NAIVE_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?")
_PAIR = 2
_FEWEST_COLUMNS = 2  # Great Expectations refuses a shorter column_list


def check_names(kind: ExpectationType, kwargs: Kwargs) -> None:
    """Refuse kwargs that the type does not have, and the lack of those it needs.

    Raises:
        Mistake: an unknown kwarg, with the closest known one, or a missing kwarg.
    """
    known = (*kind.required, *kind.optional)
    for name in kwargs:
        if name not in known and name not in COMMON_KWARGS:
            raise Mistake(f"Unknown kwarg {name!r}", did_you_mean(name, known, f"its kwargs are {', '.join(known)}"))
    for name in kind.required:
        if kwargs.get(name) is None:
            raise Mistake(f"The kwarg {name!r} is missing", f"add it; this type needs {', '.join(kind.required)}")


def parse_mostly(kwargs: Kwargs) -> float:
    """`mostly`, which the report uses; the stream judges each row on its own.

    Raises:
        Mistake: it is not a number from 0 to 1.
    """
    value = kwargs.get("mostly", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Mistake(f"mostly is {value!r}", "give a number from 0 to 1")
    return float(value)


def check_schema_kwargs(name: str, kwargs: Kwargs) -> None:
    """Refuse types that Spark does not have.

    Raises:
        Mistake: an unknown type's name, with the closest known one, or a list that is none.
    """
    for key in ("type_list", "column_set", "column_list"):
        value = kwargs.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise Mistake(f"{key} is {value!r}", "give a list of names")
    types = [kwargs["type_"]] if "type_" in kwargs else kwargs.get("type_list") or []
    for kind in types if isinstance(types, list) else ():
        if kind not in KNOWN_TYPES:
            remedy = did_you_mean(str(kind), KNOWN_TYPES, f"{name} on Spark takes names such as StringType or LongType")
            raise Mistake(f"{kind!r} is not a type of Spark", remedy)


def parse_check(name: str, kwargs: Kwargs) -> Check:
    """The check that a row-level type and its kwargs describe. Call `check_names` first.

    Raises:
        Mistake: a kwarg has a wrong type or a value with which Great Expectations itself would fail.
    """
    for key, value in kwargs.items():
        if isinstance(value, Mapping) and "$PARAMETER" in value:
            raise Mistake(f"{key} is a suite parameter, whose value only a report knows", "write the value itself")
    return _PARSERS[name](kwargs)


def _presence(*, present: bool) -> Callable[[Kwargs], Check]:
    return lambda kwargs: Presence(_column(kwargs), present=present)


def _membership(*, inside: bool) -> Callable[[Kwargs], Check]:
    def parse(kwargs: Kwargs) -> Check:
        values = tuple(_scalars("value_set", _list(kwargs, "value_set")))
        return Membership(_column(kwargs), values, inside=inside)

    return parse


def _range(kwargs: Kwargs) -> Check:
    low, high = (_bound(name, kwargs.get(name)) for name in ("min_value", "max_value"))
    if low is None and high is None:
        raise Mistake("Neither min_value nor max_value is given", "give at least one")
    if low is not None and high is not None:
        if type(low) is not type(high):
            raise Mistake("min_value and max_value are of different types", "give two numbers, dates or times")
        if low > high:  # type: ignore[operator]  # both are of one type, as just checked
            raise Mistake(f"min_value {low} is greater than max_value {high}", "exchange them")
    return Range(_column(kwargs), low, high, _flag(kwargs, "strict_min"), _flag(kwargs, "strict_max"))


def _length(kwargs: Kwargs) -> Check:
    low, high = (_whole(name, kwargs.get(name)) for name in ("min_value", "max_value"))
    if low is None and high is None:
        raise Mistake("Neither min_value nor max_value is given", "give at least one")
    if low is not None and high is not None and low > high:
        raise Mistake(f"min_value {low} is greater than max_value {high}", "exchange them")
    return Length(_column(kwargs), low, high, _flag(kwargs, "strict_min"), _flag(kwargs, "strict_max"))


def _exact_length(kwargs: Kwargs) -> Check:
    value = _whole("value", kwargs["value"])
    return Length(_column(kwargs), value, value, strict_low=False, strict_high=False)


def _pattern(*, match: Literal["any", "none"]) -> Callable[[Kwargs], Check]:
    # "(?s).*", which matches every text, is Great Expectations' default where no regex is given.
    return lambda kwargs: Pattern(_column(kwargs), _regexes([kwargs.get("regex", "(?s).*")]), match)


def _any_pattern(kwargs: Kwargs) -> Check:
    match = _choice(kwargs, "match_on", "any", ("any", "all"))
    return Pattern(_column(kwargs), _regexes(_list(kwargs, "regex_list")), "all" if match == "all" else "any")


def _no_pattern(kwargs: Kwargs) -> Check:
    return Pattern(_column(kwargs), _regexes(_list(kwargs, "regex_list")), "none")


def _greater(kwargs: Kwargs) -> Check:
    a, b = _pair(kwargs)
    return Greater(a, b, _flag(kwargs, "or_equal"), _ignore_pair(kwargs))


def _pair_equal(kwargs: Kwargs) -> Check:
    return PairEqual(*_pair(kwargs), _ignore_pair(kwargs))


def _pair_membership(kwargs: Kwargs) -> Check:
    if kwargs.get("row_condition") is not None:
        raise Mistake(
            "Great Expectations ignores row_condition for this type, so stream and report would differ",
            "remove it, or say the same with expect_column_values_to_be_in_set and a row_condition",
        )
    pairs = _list(kwargs, "value_pairs_set")
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != _PAIR:
            raise Mistake(f"value_pairs_set holds {pair!r}", "each item is a list of two values")
    first = _scalars("value_pairs_set", [pair[0] for pair in pairs])  # type: ignore[index]  # lists, as checked
    second = _scalars("value_pairs_set", [pair[1] for pair in pairs])  # type: ignore[index]
    return PairMembership(*_pair(kwargs), tuple(zip(first, second, strict=True)), _ignore_pair(kwargs))


def _sum(kwargs: Kwargs) -> Check:
    total = _bound("sum_total", kwargs["sum_total"])
    if not isinstance(total, float):
        raise Mistake(f"sum_total is {kwargs['sum_total']!r}", "give a number")
    return SumEquals(_columns(kwargs), total, _ignore_list(kwargs))


def _all_equal(kwargs: Kwargs) -> Check:
    return AllEqual(_columns(kwargs), _ignore_list(kwargs))


def _all_different(kwargs: Kwargs) -> Check:
    return AllDifferent(_columns(kwargs), _ignore_list(kwargs))


_PARSERS: dict[str, Callable[[Kwargs], Check]] = {
    "expect_column_values_to_not_be_null": _presence(present=True),
    "expect_column_values_to_be_null": _presence(present=False),
    "expect_column_values_to_be_in_set": _membership(inside=True),
    "expect_column_values_to_not_be_in_set": _membership(inside=False),
    "expect_column_values_to_be_between": _range,
    "expect_column_value_lengths_to_be_between": _length,
    "expect_column_value_lengths_to_equal": _exact_length,
    "expect_column_values_to_match_regex": _pattern(match="any"),
    "expect_column_values_to_not_match_regex": _pattern(match="none"),
    "expect_column_values_to_match_regex_list": _any_pattern,
    "expect_column_values_to_not_match_regex_list": _no_pattern,
    "expect_column_pair_values_a_to_be_greater_than_b": _greater,
    "expect_column_pair_values_to_be_equal": _pair_equal,
    "expect_column_pair_values_to_be_in_set": _pair_membership,
    "expect_multicolumn_sum_to_equal": _sum,
    "expect_multicolumn_values_to_be_equal": _all_equal,
    "expect_select_column_values_to_be_unique_within_record": _all_different,
}


def _column(kwargs: Kwargs, name: str = "column") -> str:
    return _column_name(name, kwargs[name])


def _column_name(where: str, value: object) -> str:
    if not isinstance(value, str) or not value or re.search(r"[.`]", value):
        raise Mistake(f"{where} is {value!r}", "give the name of a column, without dots and backticks")
    return value


def _pair(kwargs: Kwargs) -> tuple[str, str]:
    return _column(kwargs, "column_A"), _column(kwargs, "column_B")


def _columns(kwargs: Kwargs) -> tuple[str, ...]:
    columns = tuple(_column_name("column_list", item) for item in _list(kwargs, "column_list"))
    if len(columns) < _FEWEST_COLUMNS or len(set(columns)) < len(columns):
        raise Mistake(f"column_list is {list(columns)}", f"list at least {_FEWEST_COLUMNS} columns, each once")
    return columns


def _list(kwargs: Kwargs, name: str) -> list[object]:
    value = kwargs[name]
    if not isinstance(value, list) or not value:
        raise Mistake(f"{name} is {value!r}", "give a list with at least one item")
    return value


def _scalars(name: str, values: list[object]) -> list[Scalar]:
    """Values of one kind (texts, numbers or booleans), nulls aside: Spark would cast a mixture and fail."""
    scalars: list[Scalar] = []
    for value in values:
        if value is not None and not isinstance(value, str | int | float):
            raise Mistake(f"{name} holds {value!r}", "list only texts, numbers or booleans")
        if isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise Mistake(f"{name} holds {value}, which is beyond 64 bits", "no Spark column can hold it; remove it")
        if isinstance(value, float) and not math.isfinite(value):
            raise Mistake(f"{name} holds {value}", "JSON knows no such number; remove it")
        scalars.append(value)
    if len({_kind(value) for value in scalars if value is not None}) > 1:
        raise Mistake(f"{name} mixes texts, numbers or booleans", "list values of one kind only")
    return scalars


def _kind(value: Scalar) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def _bound(name: str, value: object) -> Bound | None:
    """A bound as Great Expectations reads it: numbers as doubles, ISO texts as a date or an instant."""
    match value:
        case None:
            return None
        case bool():
            pass
        case int() | float():
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number):
                return number
        case str() if _DATE.fullmatch(value) or _INSTANT.fullmatch(value):
            try:
                return date.fromisoformat(value) if _DATE.fullmatch(value) else datetime.fromisoformat(value)
            except ValueError as error:
                raise Mistake(f"{name} is {value!r}: {error}", "give a date that exists") from error
        case str() if _NAIVE_INSTANT.fullmatch(value):
            raise Mistake(f"{name} is {value!r}, which has no time zone", f"write it in UTC, as {value}Z")
        case _:
            pass
    raise Mistake(
        f"{name} is {value!r}",
        "give a number without quotes, a date such as 2026-01-31, or 2026-01-31T12:00:00Z",
    )


def _whole(name: str, value: object) -> int | None:
    if value is None:
        return None
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or not 0 <= int(value) < 2**31:  # type: ignore[call-overload]
        raise Mistake(f"{name} is {value!r}", "give a whole number of characters")
    return int(value)  # type: ignore[call-overload,no-any-return]


def _flag(kwargs: Kwargs, name: str) -> bool:
    value = kwargs.get(name)
    if value is not None and not isinstance(value, bool):
        raise Mistake(f"{name} is {value!r}", "give true or false")
    return bool(value)


def _choice(kwargs: Kwargs, name: str, default: _T, choices: tuple[_T, ...]) -> _T:
    value = kwargs.get(name, default)
    for choice in choices:
        if value == choice:
            return choice
    raise Mistake(f"{name} is {value!r}", did_you_mean(str(value), choices, f"choose one of {', '.join(choices)}"))


def _ignore_pair(kwargs: Kwargs) -> IgnorePair:
    return _choice(kwargs, "ignore_row_if", "both_values_are_missing", get_args(IgnorePair))


def _ignore_list(kwargs: Kwargs) -> IgnoreList:
    return _choice(kwargs, "ignore_row_if", "all_values_are_missing", get_args(IgnoreList))


def _regexes(patterns: list[object]) -> tuple[str, ...]:
    checked: list[str] = []
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise Mistake(f"The regular expression is {pattern!r}", "give a text")
        check_regex(pattern)
        checked.append(pattern)
    return tuple(checked)
