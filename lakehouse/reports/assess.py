"""A suite over a population: what Great Expectations finds, whether the stream agrees, and which rows failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakehouse.quality.rules import compile_rules
from lakehouse.reports.agreement import Agreement, count_recorded, count_rows
from lakehouse.reports.at_rest import AtRest
from lakehouse.reports.population import judged_by
from lakehouse.reports.samples import refused_records, sample_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from great_expectations.core import ExpectationSuiteValidationResult

    from lakehouse.quality.archive import Use
    from lakehouse.quality.suite import Suite
    from lakehouse.reports.agreement import Rows
    from lakehouse.reports.at_rest import Finding
    from lakehouse.reports.population import Population
    from lakehouse.reports.samples import Refused, Sample


@dataclass(frozen=True)
class Assessment:
    """What was found.

    Attributes:
        rows: that were read.
        findings: one per expectation, in the suite's order.
        agreements: one per rule that the stream judges by.
        samples: rule id → some failing rows.
        refused: records of quarantine that samples name, and some that do not parse.
        result: Great Expectations' own, in the suite's order.
    """

    rows: Rows
    findings: tuple[Finding, ...]
    agreements: tuple[Agreement, ...]
    samples: Mapping[str, tuple[Sample, ...]]
    refused: tuple[Refused, ...]
    result: ExpectationSuiteValidationResult

    @property
    def failed(self) -> tuple[Finding, ...]:
        """Findings by which a report fails."""
        return tuple(finding for finding in self.findings if finding.critical)

    @property
    def disagreements(self) -> tuple[Agreement, ...]:
        """Rules by which stream and report count differently."""
        return tuple(agreement for agreement in self.agreements if not agreement.ok)


def assess(population: Population, suite: Suite, uses: tuple[Use, ...]) -> Assessment:
    """Judge every row of the population by the suite.

    Args:
        population: what is judged.
        suite: by what.
        uses: which suite judged which rows when they came.

    Raises:
        SuiteError: an expectation that Spark or Great Expectations cannot load.
    """
    rules = compile_rules(suite)
    compiled = {rule.expectation.rule_id for rule in rules}
    at_rest = AtRest(suite)
    findings, result = at_rest.judge(population.rows)
    unexpected = {finding.expectation.rule_id: finding.unexpected for finding in findings}
    failing = {rule_id for rule_id, count in unexpected.items() if count}
    samples = sample_rows(population.rows, [rule for rule in rules if rule.expectation.rule_id in failing])
    samples |= at_rest.sample(population.rows, failing - compiled)

    judged = judged_by(uses, suite.sha256)
    rows, counts = count_rows(population, rules, judged)
    recorded = count_recorded(population, suite.sha256, judged)
    agreements = tuple(
        Agreement(rule_id, unexpected[rule_id], recounted, due, None if due is None else recorded.get(rule_id, 0))
        for rule_id, (recounted, due) in counts.items()
    )
    refused = refused_records(population, [sample.position for of in samples.values() for sample in of])
    return Assessment(rows, findings, agreements, samples, refused, result)
