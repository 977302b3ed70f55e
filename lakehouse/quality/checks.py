"""What a row-level expectation checks, as typed values: the form between a suite's JSON and Spark columns.

Field values are already coerced the way Great Expectations' own models coerce them (bounds become
doubles, ISO texts become dates or instants), because the coerced value decides the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, TypeAlias

Scalar: TypeAlias = str | int | float | bool | None
Bound: TypeAlias = float | date | datetime
IgnorePair: TypeAlias = Literal["both_values_are_missing", "either_value_is_missing", "neither"]
IgnoreList: TypeAlias = Literal["all_values_are_missing", "any_value_is_missing", "never"]


@dataclass(frozen=True)
class Presence:
    """The value is there (`present`), or is missing."""

    column: str
    present: bool


@dataclass(frozen=True)
class Membership:
    """The value is one of `values` (`inside`), or none of them."""

    column: str
    values: tuple[Scalar, ...]
    inside: bool


@dataclass(frozen=True)
class Range:
    """`low <= value <= high`; a strict side leaves out the bound itself; None leaves a side open."""

    column: str
    low: Bound | None
    high: Bound | None
    strict_low: bool
    strict_high: bool


@dataclass(frozen=True)
class Length:
    """The same as `Range` for the number of characters."""

    column: str
    low: int | None
    high: int | None
    strict_low: bool
    strict_high: bool


@dataclass(frozen=True)
class Pattern:
    """Java regular expressions, searched anywhere in the text: any, all or none of them match."""

    column: str
    patterns: tuple[str, ...]
    match: Literal["any", "all", "none"]


@dataclass(frozen=True)
class Greater:
    """`a > b`, or `a >= b` where `or_equal`."""

    a: str
    b: str
    or_equal: bool
    ignore: IgnorePair


@dataclass(frozen=True)
class PairEqual:
    """`a` and `b` are equal; two missing values are equal too."""

    a: str
    b: str
    ignore: IgnorePair


@dataclass(frozen=True)
class PairMembership:
    """(`a`, `b`) is one of `pairs`; a missing value equals only a null in a pair."""

    a: str
    b: str
    pairs: tuple[tuple[Scalar, Scalar], ...]
    ignore: IgnorePair


@dataclass(frozen=True)
class SumEquals:
    """The values add up to `total`, where a missing one counts as 0."""

    columns: tuple[str, ...]
    total: float
    ignore: IgnoreList


@dataclass(frozen=True)
class AllEqual:
    """Every column holds the same value as the first."""

    columns: tuple[str, ...]
    ignore: IgnoreList


@dataclass(frozen=True)
class AllDifferent:
    """No two columns hold the same value; two missing values are the same."""

    columns: tuple[str, ...]
    ignore: IgnoreList


Check: TypeAlias = (
    Presence
    | Membership
    | Range
    | Length
    | Pattern
    | Greater
    | PairEqual
    | PairMembership
    | SumEquals
    | AllEqual
    | AllDifferent
)


def columns_of(check: Check) -> tuple[str, ...]:
    """The columns that a check reads, in the suite's order."""
    match check:
        case Greater() | PairEqual() | PairMembership():
            return (check.a, check.b)
        case SumEquals() | AllEqual() | AllDifferent():
            return check.columns
        case _:
            return (check.column,)
