"""Which rows failed: a few per rule, and what quarantine holds of them. All of it is bounded, whatever failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql import Window
from pyspark.sql import functions as F

from lakehouse.quality.messages import LONGEST_VALUE
from lakehouse.reports.population import POSITION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyspark.sql import Column, DataFrame

    from lakehouse.quality.rules import RowRule
    from lakehouse.reports.population import Population

SAMPLES = 20
"""Rows named for each rule: the newest by Kafka's timestamp."""
_LONGEST_VALUE = 2_000
"""Bytes of a refused record that a page shows."""

Position = tuple[str, int, int]
"""Topic, partition, offset."""


@dataclass(frozen=True)
class Sample:
    """One failing row.

    Attributes:
        position: where it stood in Kafka.
        values: column → value as text; None where it is missing.
    """

    position: Position
    values: dict[str, str | None]


@dataclass(frozen=True)
class Refused:
    """A record as quarantine holds it.

    Attributes:
        position: where it stood in Kafka.
        value: the first bytes of its value; None for a record without one.
        size: bytes of the whole value.
        reasons: its verdicts' messages.
    """

    position: Position
    value: bytes | None
    size: int
    reasons: tuple[str, ...]


def sample_rows(rows: DataFrame, rules: Sequence[RowRule]) -> dict[str, tuple[Sample, ...]]:
    """The newest failing rows of each rule, in one pass: each task keeps its newest before any are exchanged.

    Returns:
        Rule id → up to `SAMPLES` rows.
    """
    if not rules:
        return {}
    findings = [
        F.when(
            rule.unexpected,
            F.struct(
                F.lit(number).alias("rule"),
                F.array(*(_shortened(F.col(name).cast("string")) for name in rule.expectation.columns)).alias("shown"),
            ),
        )
        for number, rule in enumerate(rules)
    ]
    newest = Window.partitionBy("finding.rule").orderBy(F.desc("_timestamp"), *map(F.desc, POSITION))
    found = (
        rows.select(*POSITION, "_timestamp", F.explode(F.array_compact(F.array(*findings))).alias("finding"))
        .withColumn("rank", F.row_number().over(newest))
        .where(F.col("rank") <= SAMPLES)
        .select("finding.rule", "finding.shown", "rank", *POSITION)
        .collect()
    )
    samples: dict[str, list[Sample]] = {}
    for row in sorted(found, key=lambda row: (row["rule"], row["rank"])):
        expectation = rules[row["rule"]].expectation
        values = dict(zip(expectation.columns, row["shown"], strict=True))
        samples.setdefault(expectation.rule_id, []).append(Sample(_position(row), values))
    return {rule_id: tuple(of) for rule_id, of in samples.items()}


def refused_records(population: Population, positions: Iterable[Position]) -> tuple[Refused, ...]:
    """What quarantine holds at `positions` (nothing for rows of silver), and its newest rows that do not parse."""
    wanted = set(positions)
    offsets = sorted({offset for _, _, offset in wanted})
    newest_unparsed = population.unparsed.orderBy(F.desc("_timestamp"), *map(F.desc, POSITION)).limit(SAMPLES)
    shown: list[Column | str] = [
        *POSITION,
        F.substring("_value", 1, _LONGEST_VALUE).alias("value"),
        F.coalesce(F.octet_length("_value"), F.lit(0)).alias("size"),
        F.col("_errors.message").alias("reasons"),
    ]
    unparsed = [_refused(row) for row in newest_unparsed.select(*shown).collect()]
    # By offset alone, which is one literal per row; other partitions' rows at the same offsets are few.
    candidates = population.quarantine.where(F.col("_offset").isin(offsets)).select(*shown).collect() if offsets else []
    sampled = [refused for row in candidates if (refused := _refused(row)).position in wanted]
    known = {refused.position for refused in sampled}
    return (*sampled, *(refused for refused in unparsed if refused.position not in known))


def _position(row: Any) -> Position:  # noqa: ANN401 - Spark's Row
    topic, partition, offset = (row[name] for name in POSITION)
    return topic, partition, offset


def _refused(row: Any) -> Refused:  # noqa: ANN401
    value = None if row["value"] is None else bytes(row["value"])
    return Refused(_position(row), value, row["size"], tuple(row["reasons"] or ()))


def _shortened(value: Column) -> Column:
    """At most as many characters as a verdict keeps; an ellipsis at the end says that some were cut."""
    kept = F.concat(F.substring(value, 1, LONGEST_VALUE - 1), F.lit("…"))
    return F.when(F.length(F.substring(value, 1, LONGEST_VALUE + 1)) > LONGEST_VALUE, kept).otherwise(value)
