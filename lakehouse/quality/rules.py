r"""Row-level expectations as Spark columns, true for exactly the rows that Great Expectations counts as unexpected.

Each expression is the one that Great Expectations' Spark engine builds (1.24, `expectations/metrics`), with two
additions that do not change its counts: its filters (`row_condition`, `ignore_row_if`) become guards on the row,
and a null verdict, which it counts as expected, becomes false. A property test holds both together.

What follows from that, and surprises:

* a missing value passes every check but those of presence, pairs and several columns;
* NaN is larger than every number, so it passes a minimum and fails a maximum;
* a regular expression is searched anywhere in the text, and `$` also matches before a final newline (`\z` does not);
* a null in the set of `be_in_set` makes every value pass, since SQL's IN is then null instead of false;
* numbers are compared with bounds as doubles, so integers beyond 2^53 are compared after rounding.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, assert_never

from pyspark.errors import IllegalArgumentException, ParseException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lakehouse.errors import first_line
from lakehouse.quality.checks import (
    AllDifferent,
    AllEqual,
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
    SumEquals,
)
from lakehouse.quality.mistakes import Mistake
from lakehouse.quality.suite import Expectation, Suite, fail_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import Column


@dataclass(frozen=True, eq=False)
class RowRule:
    """One expectation, ready to judge rows.

    Attributes:
        expectation: what it came from: rule id, type, columns, severity, stream.
        unexpected: boolean, never null: whether the row fails.
        suite_sha256: fingerprint of its suite.
        source: the suite's file, for messages.
    """

    expectation: Expectation
    unexpected: Column
    suite_sha256: str
    source: str


def compile_rules(suite: Suite) -> tuple[RowRule, ...]:
    """Compile every expectation that judges rows: those of the streams `quarantine`, `tag` and `metric`.

    Needs an active Spark session, since only Java can say whether a regular expression is sound and only Spark
    can parse its SQL.

    Raises:
        SuiteError: a regular expression that Java, or a row condition that Spark, cannot read.
    """
    return tuple(_compile(expectation, suite) for expectation in suite.in_stream())


def count_unexpected(rules: Sequence[RowRule]) -> list[Column]:
    """How many rows fail each rule: aggregates named by rule id, for `DataFrame.observe` or `agg`."""
    return [F.count_if(rule.unexpected).alias(rule.expectation.rule_id) for rule in rules]


def _compile(expectation: Expectation, suite: Suite) -> RowRule:
    if expectation.check is None:
        message = f"{expectation.rule_id} cannot be judged per row"  # in_stream() never returns such a one
        raise AssertionError(message)
    try:
        if isinstance(expectation.check, Pattern):
            _compile_in_java(expectation.check)
        unexpected = unexpected_column(expectation.check)
        if expectation.condition is not None:
            unexpected = F.when(_parsed(expectation.condition.sql), unexpected)
    except Mistake as mistake:
        fail_at(suite.source, expectation.index, expectation.type, mistake)
    return RowRule(expectation, F.coalesce(unexpected, F.lit(False)), suite.sha256, suite.source)


def unexpected_column(check: Check) -> Column:  # noqa: C901, PLR0911 - one short case for each check
    """Whether a row fails `check`; null stands for "does not fail"."""
    match check:
        case Presence():
            column = F.col(check.column)
            return column.isNull() if check.present else column.isNotNull()
        case Membership():
            return _outside(check) if check.inside else _inside(check)
        case Range():
            column = F.col(check.column)
            return column.isNotNull() & ~_within(column, check)
        case Length():
            column = F.col(check.column)
            return column.isNotNull() & ~_within(F.length(column), check)
        case Pattern():
            column = F.col(check.column)
            return column.isNotNull() & ~_matches(column, check)
        case Greater():
            a, b = F.col(check.a), F.col(check.b)
            greater = (a >= b) | a.eqNullSafe(b) if check.or_equal else a > b
            return _kept_pair(check.a, check.b, check.ignore, ~greater)
        case PairEqual():
            equal = F.col(check.a).eqNullSafe(F.col(check.b))
            return _kept_pair(check.a, check.b, check.ignore, ~equal)
        case PairMembership():
            a, b = F.col(check.a), F.col(check.b)
            members = [a.eqNullSafe(F.lit(x)) & b.eqNullSafe(F.lit(y)) for x, y in check.pairs]
            return _kept_pair(check.a, check.b, check.ignore, ~reduce(operator.or_, members))
        case SumEquals():
            return _kept_list(check.columns, check.ignore, ~(_total(check.columns) == F.lit(check.total)))
        case AllEqual():
            first = F.col(check.columns[0])
            equals = [first.eqNullSafe(F.col(name)) for name in check.columns[1:]]
            return _kept_list(check.columns, check.ignore, ~reduce(operator.and_, equals, F.lit(True)))
        case AllDifferent():
            names = check.columns
            same = [F.col(x).eqNullSafe(F.col(y)) for i, x in enumerate(names) for y in names[i + 1 :]]
            return _kept_list(names, check.ignore, reduce(operator.or_, same))
    assert_never(check)


def _outside(check: Membership) -> Column:
    """Not one of the values. IN with a null is never false, so then no row fails.

    That is said here, and not left to SQL: for more than ten values Spark's interpreter, to which it falls back
    where generated code does not compile, answers false instead of null for NaN. In Great Expectations the
    optimizer removes the comparison first.
    """
    column = F.col(check.column)
    return F.lit(False) if None in check.values else column.isNotNull() & ~column.isin(list(check.values))


def _inside(check: Membership) -> Column:
    column = F.col(check.column)
    return column.isNotNull() & column.isin([value for value in check.values if value is not None])


def _within(value: Column, bounds: Range | Length) -> Column:
    sides = []
    if bounds.low is not None:
        sides.append(value > F.lit(bounds.low) if bounds.strict_low else value >= F.lit(bounds.low))
    if bounds.high is not None:
        sides.append(value < F.lit(bounds.high) if bounds.strict_high else value <= F.lit(bounds.high))
    return reduce(operator.and_, sides)


def _matches(column: Column, check: Pattern) -> Column:
    match check.match:
        case "any":
            # One joined pattern, as Great Expectations builds it: flags and group numbers run on across the bars.
            return column.rlike("|".join(check.patterns))
        case "all":
            return reduce(operator.and_, [column.rlike(pattern) for pattern in check.patterns])
        case "none":
            return reduce(operator.and_, [~column.rlike(pattern) for pattern in check.patterns])


def _total(columns: tuple[str, ...]) -> Column:
    """Row-wise sum that cannot overflow: adding a decimal zero makes integers decimals and leaves doubles doubles."""
    zero = F.lit(0).cast("decimal(20,0)")
    return reduce(operator.add, [F.coalesce(F.col(name), F.lit(0)) + zero for name in columns])


def _kept_pair(a: str, b: str, ignore: IgnorePair, unexpected: Column) -> Column:
    match ignore:
        case "both_values_are_missing":
            return (F.col(a).isNotNull() | F.col(b).isNotNull()) & unexpected
        case "either_value_is_missing":
            return F.col(a).isNotNull() & F.col(b).isNotNull() & unexpected
        case "neither":
            return unexpected


def _kept_list(columns: tuple[str, ...], ignore: IgnoreList, unexpected: Column) -> Column:
    present = [F.col(name).isNotNull() for name in columns]
    match ignore:
        case "all_values_are_missing":
            return reduce(operator.or_, present) & unexpected
        case "any_value_is_missing":
            return reduce(operator.and_, present) & unexpected
        case "never":
            return unexpected


def _parsed(sql: str) -> Column:
    try:
        SparkSession.active()._jsparkSession.sessionState().sqlParser().parseExpression(sql)  # noqa: SLF001 - F.expr parses late
    except ParseException as error:
        reason = first_line(error)
        raise Mistake(f"Spark cannot read row_condition {sql!r}: {reason}", "correct the SQL") from error
    return F.expr(sql)


def _compile_in_java(check: Pattern) -> None:
    java = SparkSession.active().sparkContext._gateway.jvm.java  # type: ignore[union-attr]  # noqa: SLF001 - Java's own compiler
    joined = ["|".join(check.patterns)] if check.match == "any" else []
    for pattern in (*check.patterns, *joined):
        try:
            java.util.regex.Pattern.compile(pattern)
        except IllegalArgumentException as error:
            raise Mistake(
                f"The regular expression {pattern!r} cannot be compiled: {first_line(error)}",
                "correct it; in JSON each backslash is written twice",
            ) from error
