"""Judge rows: add `_errors` and `_warnings`, the reasons against each row.

The path of a good row is a chain of booleans. Only where one of them is true are verdicts made: Spark picks
the failing rules, then joins each with its constant part (id, type, severity, text), which stands once in the
plan as a literal array. So a rule adds its own condition twice and one small struct to the plan, whatever it says.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

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

from lakehouse.quality.fitting import check_fit, check_known
from lakehouse.quality.messages import harmless, shortened, wording
from lakehouse.quality.mistakes import Mistake
from lakehouse.quality.observe import COUNTED
from lakehouse.quality.suite import fail_at
from lakehouse.schemas import VERDICT_DDL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import Column, DataFrame

    from lakehouse.quality.rules import RowRule

ERRORS = "_errors"
WARNINGS = "_warnings"
REASONS_DDL = f"array<{VERDICT_DDL}>"
"""Type of both columns."""

_CONSTANTS_DDL = (
    "array<struct<rule_id:string,type:string,columns:array<string>,severity:string,"
    "before:string,after:string,suite_sha256:string>>"
)


def judge(
    df: DataFrame,
    rules: Sequence[RowRule],
    *,
    prior_errors: Column | None = None,
    skip: Column | None = None,
) -> DataFrame:
    """Add `_errors` and `_warnings`, arrays of `lakehouse.schemas.VERDICT`: empty, never null, where all is well.

    Rules of the stream `quarantine` speak in `_errors`, those of `tag` in `_warnings`. Where the suite has rules of
    `metric` or `fail`, `_counted` is added: the ids of those that the row fails, null for none.

    Args:
        df: rows with every column that the rules read; streaming or not.
        rules: from `compile_rules`.
        prior_errors: reasons found before, as an array of verdicts (null: none); they come first in `_errors`.
        skip: where true, the row is not judged and only `prior_errors` stand, as for a record that could not
            be parsed.

    Raises:
        SuiteError: a rule that reads a column which is not there or is of another kind.
    """
    types = {field.name: _type_name(field.dataType) for field in df.schema.fields}
    for rule in rules:
        _check_rule(rule, types)
    prior = _no_reasons() if prior_errors is None else F.coalesce(prior_errors.cast(REASONS_DDL), _no_reasons())
    errors = _reasons([rule for rule in rules if rule.expectation.stream == "quarantine"], prior, skip)
    warnings = _reasons([rule for rule in rules if rule.expectation.stream == "tag"], _no_reasons(), skip)
    counted = _rule_ids([rule for rule in rules if rule.expectation.stream in ("metric", "fail")], skip)
    try:
        return df.select("*", errors.alias(ERRORS), warnings.alias(WARNINGS), *counted)
    except AnalysisException:
        for rule in rules:
            _check_analysis(df, rule)
        raise


def _no_reasons() -> Column:
    return F.array().cast(REASONS_DDL)


def _reasons(rules: list[RowRule], prior: Column, skip: Column | None) -> Column:
    """`prior` and one verdict for each failing rule."""
    if not rules:
        return prior
    failed = _any_of([rule.unexpected for rule in rules])
    if skip is not None:
        failed = ~F.coalesce(skip, F.lit(False)) & failed
    return F.when(failed, F.concat(prior, _verdicts(rules))).otherwise(prior)


def _rule_ids(rules: list[RowRule], skip: Column | None) -> list[Column]:
    """One column with the ids of the failing rules; none where there are no rules."""
    if not rules:
        return []
    failed = _any_of([rule.unexpected for rule in rules])
    if skip is not None:
        failed = ~F.coalesce(skip, F.lit(False)) & failed
    ids = [F.when(rule.unexpected, F.lit(rule.expectation.rule_id)) for rule in rules]
    return [F.when(failed, F.array_compact(F.array(*ids))).alias(COUNTED)]


def _any_of(columns: list[Column]) -> Column:
    """Their disjunction as a balanced tree: Spark walks and compiles it level by level, and a chain is deep."""
    if len(columns) == 1:
        return columns[0]
    half = len(columns) // 2
    return _any_of(columns[:half]) | _any_of(columns[half:])


def _verdicts(rules: list[RowRule]) -> Column:
    constants, findings = [], []
    for number, rule in enumerate(rules):
        words = wording(rule.expectation)
        is_constant = isinstance(words.after, str)
        constants.append(
            {
                "rule_id": rule.expectation.rule_id,
                "type": rule.expectation.type,
                "columns": rule.expectation.columns,
                "severity": rule.expectation.severity,
                "before": words.before,
                "after": words.after if is_constant else "",
                "suite_sha256": rule.suite_sha256,
            }
        )
        finding = F.struct(
            F.lit(number).alias("rule"),
            words.value.alias("value"),
            F.lit("" if is_constant else words.after).alias("detail"),
        )
        findings.append(F.when(rule.unexpected, finding))
    literal = F.from_json(F.lit(json.dumps(constants)), _CONSTANTS_DDL)  # the optimizer folds it to one literal
    # Joined in a step of its own: a literal that a plan names once is folded and copied once.
    joined = F.transform(
        F.array_compact(F.array(*findings)),
        lambda finding: F.struct(F.get(literal, finding["rule"]).alias("constant"), finding.alias("finding")),
    )
    return F.transform(joined, _verdict).cast(REASONS_DDL)


def _verdict(joined: Column) -> Column:
    constant, finding = joined["constant"], joined["finding"]
    value = shortened(finding["value"])
    message = F.concat(constant["before"], F.coalesce(value, F.lit("")), constant["after"], finding["detail"])
    return F.struct(
        constant["rule_id"].alias("rule_id"),
        constant["type"].alias("type"),
        constant["columns"].alias("columns"),
        constant["severity"].alias("severity"),
        harmless(message).alias("message"),
        harmless(value).alias("value"),
        constant["suite_sha256"].alias("suite_sha256"),
    )


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
        reason = str(error).strip().splitlines()[0]
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
