"""What an observation means by a suite: per rule how many rows failed, per aggregate its value and whether it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.errors import QualityError
from lakehouse.quality.aggregates import OF_EVENTS

if TYPE_CHECKING:
    from lakehouse.quality.observe import Observation
    from lakehouse.quality.suite import Suite


@dataclass(frozen=True)
class Outcome:
    """One rule over some rows.

    Attributes:
        rule_id: of the suite, or of the contract.
        evaluated: rows that were judged.
        failed: rows that failed; None for an aggregate.
        value: of an aggregate; a list for quantiles.
        success: whether an aggregate lies inside its limits; None for a rule that judges rows.
        of_events: whether the value is one that some event has, as an extreme is; it belongs in no log.
    """

    rule_id: str
    evaluated: int
    failed: int | None = None
    value: Any = None
    success: bool | None = None
    of_events: bool = False


def outcomes(suite: Suite, observation: Observation) -> tuple[Outcome, ...]:
    """Every rule of the suite that the stream learns of, then the rules of the contract that refused rows."""
    failures = dict(observation.failures)
    found = [Outcome(one.rule_id, observation.rows, failed=failures.pop(one.rule_id, 0)) for one in suite.in_stream()]
    for one in suite.observed():
        if one.aggregate is not None:
            value, success = observation.measure(one.aggregate)
            of_events = one.aggregate.statistic in OF_EVENTS
            found.append(Outcome(one.rule_id, observation.rows, value=value, success=success, of_events=of_events))
    # What is left are the contract's own reasons: it judges every record, also those that do not fit.
    records = observation.records
    found += [Outcome(rule_id, records, failed=count) for rule_id, count in sorted(failures.items())]
    return tuple(found)


def stop_on_failure(suite: Suite, observation: Observation) -> None:
    """Refuse a batch that does not meet an expectation of the stream `fail`. Call it before the commit.

    Raises:
        QualityError: naming the expectation and, where rows failed it, the place of one.
    """
    for outcome in outcomes(suite, observation):
        expectation = next((one for one in suite.expectations if one.rule_id == outcome.rule_id), None)
        if expectation is None or expectation.stream != "fail":
            continue
        if outcome.failed:
            partition, offset = observation.first[outcome.rule_id]
            raise QualityError(
                f"{outcome.failed:,} of {outcome.evaluated:,} rows of the next batch fail {outcome.rule_id}"
                f" ({expectation.type}), one of them at partition {partition}, offset {offset}",
                where=f"{suite.source}, expectations[{expectation.index}]",
                remedy=_REMEDY,
            )
        if outcome.success is False:
            raise QualityError(
                f"the next batch does not meet {outcome.rule_id} ({expectation.type}): the value is {outcome.value}",
                where=f"{suite.source}, expectations[{expectation.index}]",
                remedy=_REMEDY,
            )


_REMEDY = (
    "nothing of the batch was committed; mend the source, or change the expectation or its meta.stream and start again:"
    " the pipeline goes on with this batch"
)
