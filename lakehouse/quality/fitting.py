"""Whether a check fits the declared types of its columns.

Spark 4 compares a text with a number by casting the text, and stops the whole query at the first text that
is not a number (ANSI). Great Expectations fails likewise. So a misfit is found before the first row.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, assert_never

from lakehouse.quality.checks import (
    AllDifferent,
    AllEqual,
    Check,
    Greater,
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

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_KIND_OF_TYPE = {
    "string": "text",
    "integer": "number",
    "long": "number",
    "double": "number",
    "boolean": "boolean",
    "timestamp": "time",
    "date": "time",
}
_ISO_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?)?")


def check_known(needed: Iterable[str], columns: Collection[str]) -> None:
    """Refuse a column that no row has.

    Raises:
        Mistake: naming the column, and the one that was meant.
    """
    for column in needed:
        if column not in columns:
            remedy = did_you_mean(column, columns, f"the columns are {', '.join(columns)}")
            raise Mistake(f"There is no column {column!r}", remedy)


def check_fit(check: Check | None, terms: tuple[tuple[str, tuple[Scalar, ...]], ...], types: Mapping[str, str]) -> None:
    """Refuse a check or a condition that its columns' types cannot meet.

    Args:
        check: the check; None is fine.
        terms: (column, values it is compared with) of the row condition.
        types: column -> type, as in a pipeline file; a type that is not known there fits anything.

    Raises:
        Mistake: naming the column, its type and what it is compared with.
    """
    for column, values in terms:
        _values_fit(column, values, types)
    if check is not None:
        _check_fits(check, types)


def _check_fits(check: Check, types: Mapping[str, str]) -> None:
    match check:
        case Presence():
            pass
        case Membership():
            _values_fit(check.column, check.values, types)
        case Range():
            wanted = "number" if isinstance(check.low if check.low is not None else check.high, float) else "time"
            _must_be(check.column, wanted, types)
        case Length() | Pattern():
            _must_be(check.column, "text", types)
        case Greater() | PairEqual():
            _same_kind((check.a, check.b), types)
        case PairMembership():
            _values_fit(check.a, tuple(pair[0] for pair in check.pairs), types)
            _values_fit(check.b, tuple(pair[1] for pair in check.pairs), types)
        case SumEquals():
            for column in check.columns:
                _must_be(column, "number", types)
        case AllEqual() | AllDifferent():
            _same_kind(check.columns, types)
        case _:
            assert_never(check)


def _kind_of(column: str, types: Mapping[str, str]) -> str | None:
    return _KIND_OF_TYPE.get(types[column])


def _must_be(column: str, wanted: str, types: Mapping[str, str]) -> None:
    if _kind_of(column, types) not in (None, wanted):
        raise Mistake(
            f"{column} is a {types[column]}, but this needs a {wanted}",
            "choose another column or another type of check",
        )


def _same_kind(columns: tuple[str, ...], types: Mapping[str, str]) -> None:
    kinds = {_kind_of(column, types) for column in columns} - {None}
    if len(kinds) > 1:
        listed = ", ".join(f"{column} ({types[column]})" for column in columns)
        raise Mistake(f"Columns of different kinds cannot be compared: {listed}", "compare columns of one kind")


def _values_fit(column: str, values: tuple[Scalar, ...], types: Mapping[str, str]) -> None:
    kind = _kind_of(column, types)
    for value in values:
        if kind is not None and value is not None and not _fits(value, kind):
            raise Mistake(
                f"{column} is a {types[column]} and is compared with {value!r}",
                "write values of the column's own type; times as 2026-01-31T12:00:00Z",
            )


def _fits(value: Scalar, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, str):
        return kind == "text" or (kind == "time" and _is_time(value))
    return kind == "number"


def _is_time(text: str) -> bool:
    if not _ISO_TIME.fullmatch(text):
        return False
    try:
        date.fromisoformat(text[:10])
    except ValueError:
        return False
    return True
