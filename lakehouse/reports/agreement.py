"""Whether stream and report agree: three counts of the same rows, by three different means.

* `unexpected`: what Great Expectations counted over all rows of the report;
* `recounted`: what the stream's own compiled rules count over the same rows;
* `recorded`: the verdicts that the stream wrote into `_errors` and `_warnings`, of rows that the report's suite judged.

The first two have to be equal; the third has to equal the compiled rules' count over the rows that this suite judged
and whose table keeps such verdicts. (Silver keeps warnings; quarantine keeps errors. A row that another suite judged
has no verdict of this one.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from lakehouse.quality.reasons import ERRORS, WARNINGS
from lakehouse.reports.population import LAYER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import Column

    from lakehouse.quality.rules import RowRule
    from lakehouse.reports.population import Population


@dataclass(frozen=True)
class Rows:
    """How many rows the report found.

    Attributes:
        silver: rows of silver in the range.
        parsed: quarantined rows that fit the contract.
        unparsed: quarantined rows that do not: reason → rows.
        same_suite: rows of the first two that the report's suite judged when they came.
    """

    silver: int
    parsed: int
    unparsed: dict[str, int]
    same_suite: int

    @property
    def judged(self) -> int:
        """Rows that Great Expectations was given."""
        return self.silver + self.parsed

    @property
    def total(self) -> int:
        """All rows of both tables in the range."""
        return self.judged + sum(self.unparsed.values())


@dataclass(frozen=True)
class Agreement:
    """The three counts of one rule.

    Attributes:
        rule_id: the rule.
        unexpected: by Great Expectations; None where it could not judge.
        recounted: by the compiled rule, over the same rows.
        due: by the compiled rule, over rows of the same suite in the table that keeps the verdict; None for a rule
            whose failures no row records.
        recorded: verdicts in those rows; None likewise.
    """

    rule_id: str
    unexpected: int | None
    recounted: int
    due: int | None
    recorded: int | None

    @property
    def ok(self) -> bool:
        """Whether all counts agree."""
        return self.unexpected == self.recounted and self.due == self.recorded


def count_rows(
    population: Population, rules: Sequence[RowRule], judged_by_suite: Column
) -> tuple[Rows, dict[str, tuple[int, int | None]]]:
    """Count rows, and per rule the rows that fail it, in one Spark job beside that for the unparsed rows.

    Returns:
        The rows, and rule id → (`recounted`, `due`) of `Agreement`.
    """
    frame = population.parsed.withColumn("_same_suite", judged_by_suite)
    counts = [
        F.count_if(F.col(LAYER) == "silver"),
        F.count_if(F.col(LAYER) == "quarantine"),
        F.count_if("_same_suite"),
    ]
    for rule in rules:
        due = F.count_if(rule.unexpected & F.col("_same_suite") & _keeps(rule))
        counts += [F.count_if(rule.unexpected), due]
    [row] = frame.agg(*(count.alias(f"c{number}") for number, count in enumerate(counts))).collect()
    silver, parsed, same_suite, *per_rule = row
    reasons = population.unparsed.select(
        F.coalesce(F.get("_errors", F.lit(0))["rule_id"], F.lit("unknown")).alias("reason")
    )
    unparsed = {found["reason"]: found["count"] for found in reasons.groupBy("reason").count().collect()}
    failing = {
        rule.expectation.rule_id: (per_rule[2 * number], per_rule[2 * number + 1] if _is_recorded(rule) else None)
        for number, rule in enumerate(rules)
    }
    return Rows(silver, parsed, dict(sorted(unparsed.items())), same_suite), failing


def count_recorded(population: Population, suite_sha256: str, judged_by_suite: Column) -> dict[str, int]:
    """Rule id → verdicts of one suite in the rows that it is known to have judged."""
    verdicts = population.parsed.where(judged_by_suite).select(F.explode(F.concat(ERRORS, WARNINGS)).alias("verdict"))
    by_rule = verdicts.where(F.col("verdict.suite_sha256") == suite_sha256).groupBy("verdict.rule_id").count()
    return {row["rule_id"]: row["count"] for row in by_rule.collect()}


def _is_recorded(rule: RowRule) -> bool:
    return rule.expectation.stream in ("quarantine", "tag")


def _keeps(rule: RowRule) -> Column:
    """Whether the row's table keeps verdicts of this rule."""
    return F.lit(True) if rule.expectation.stream == "quarantine" else F.col(LAYER) == "silver"
