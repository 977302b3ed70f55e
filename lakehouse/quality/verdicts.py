"""Judge rows: mark which rules each row fails, and say why.

Spark only sets a bit for each failing rule (`mark`), so a rule adds its own condition to the plan, once, whatever it
says. The words are made from the bits in Python, for the few rows that have one (`reasons`): the stream does so in its
one pass, and `judge` does both for rows at rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import functions as F
from pyspark.sql.types import (
    BooleanType,
    DataType,
    DateType,
    IntegralType,
    NumericType,
    StringType,
    TimestampType,
)

from lakehouse.errors import first_line
from lakehouse.quality.fitting import check_fit, check_known
from lakehouse.quality.mistakes import Mistake
from lakehouse.quality.reasons import BITS, COUNTED, ERRORS, WARNINGS, Reasons, word
from lakehouse.quality.suite import fail_at
from lakehouse.schemas import VERDICT_DDL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyspark.sql import Column, DataFrame

    from lakehouse.quality.rules import RowRule

REASONS_DDL = f"array<{VERDICT_DDL}>"
"""Type of `_errors` and `_warnings`."""


def mark(df: DataFrame, rules: Sequence[RowRule], *, skip: Column | None = None) -> DataFrame:
    """Add the words of `reasons.word`: for each row one bit per rule, set where the row fails it.

    Args:
        df: rows with every column that the rules read; streaming or not.
        rules: from `compile_rules`; their order is that of the bits.
        skip: where true, the row is not judged, as a record that could not be parsed.

    Raises:
        SuiteError: a rule that reads a column which is not there or is of another kind.
    """
    types = {field.name: _type_name(field.dataType) for field in df.schema.fields}
    for rule in rules:
        _check_rule(rule, types)
    words = [_word(rules[first : first + BITS], skip) for first in range(0, len(rules), BITS)]
    try:
        return df.select("*", *(bits.alias(word(number)) for number, bits in enumerate(words)))
    except AnalysisException:
        for rule in rules:
            _check_analysis(df, rule)
        raise


def is_refused(rules: Sequence[RowRule]) -> Column:
    """Whether a marked row fails a rule of the stream `quarantine`."""
    masks: dict[int, int] = {}
    for number, rule in enumerate(rules):
        if rule.expectation.stream == "quarantine":
            masks[number // BITS] = masks.get(number // BITS, 0) | 1 << number % BITS
    refused = F.lit(False)
    for number, mask in masks.items():
        refused = refused | (F.col(word(number)).bitwiseAND(_long(mask)) != 0)
    return refused


def judge(df: DataFrame, rules: Sequence[RowRule]) -> DataFrame:
    """Add `_errors` and `_warnings`, arrays of `schemas.VERDICT`: empty, never null, where all is well.

    Rules of the stream `quarantine` speak in `_errors`, those of `tag` in `_warnings`. Where the suite has rules of
    `metric` or `fail`, `_counted` is added: the ids of those that the row fails.

    Raises:
        SuiteError: as `mark`.
    """
    reasons = Reasons(tuple(rule.expectation for rule in rules), rules[0].suite_sha256 if rules else "")

    def explain(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from reasons.explain(pa.Table.from_batches([batch])).combine_chunks().to_batches()

    added = f"{ERRORS} {REASONS_DDL}, {WARNINGS} {REASONS_DDL}"
    if any(rule.expectation.stream in ("metric", "fail") for rule in rules):
        added += f", {COUNTED} array<string>"
    schema = df.sparkSession.createDataFrame([], added).schema
    return mark(df, rules).mapInArrow(explain, type(schema)([*df.schema.fields, *schema.fields]))


def _word(rules: Sequence[RowRule], skip: Column | None) -> Column:
    bits = [F.when(rule.unexpected, _long(1 << number)).otherwise(_long(0)) for number, rule in enumerate(rules)]
    word = _any_of(bits)
    return word if skip is None else F.when(F.coalesce(skip, F.lit(False)), _long(0)).otherwise(word)


def _any_of(bits: list[Column]) -> Column:
    """Their bitwise OR as a balanced tree: Spark walks and compiles it level by level, and a chain is deep."""
    if len(bits) == 1:
        return bits[0]
    half = len(bits) // 2
    return _any_of(bits[:half]).bitwiseOR(_any_of(bits[half:]))


def _long(value: int) -> Column:
    return F.expr(f"{value}L")


def _check_rule(rule: RowRule, types: Mapping[str, str]) -> None:
    expectation = rule.expectation
    terms = expectation.condition.terms if expectation.condition else ()
    try:
        check_known((*expectation.columns, *(column for column, _ in terms)), types)
        check_fit(expectation.check, terms, types)
    except Mistake as mistake:
        fail_at(rule.source, expectation.index, expectation.type, mistake)


def _check_analysis(df: DataFrame, rule: RowRule) -> None:
    try:
        df.select(rule.unexpected)
    except AnalysisException as error:
        reason = first_line(error)
        mistake = Mistake(f"Spark cannot judge rows by this: {reason}", "correct the kwargs or the row_condition")
        fail_at(rule.source, rule.expectation.index, rule.expectation.type, mistake)


def _type_name(spark_type: DataType) -> str:
    """The pipeline file's word for a Spark type; Spark's own for others, which then fit any check."""
    names = [name for kind, name in _TYPE_NAMES if isinstance(spark_type, kind)]
    return names[0] if names else spark_type.simpleString()


_TYPE_NAMES: tuple[tuple[type[DataType], str], ...] = (
    (StringType, "string"),
    (BooleanType, "boolean"),
    (IntegralType, "long"),
    (NumericType, "double"),
    (TimestampType, "timestamp"),
    (DateType, "date"),
)
