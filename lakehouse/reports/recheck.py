"""Judge rows again, each by the suite that let it in: every recorded verdict has to come out the same.

That is the suite in force at a row's offset or, for a row that a replay brought back, the suite of that replay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from lakehouse import storage
from lakehouse.quality.archive import Archive
from lakehouse.quality.reasons import ERRORS, WARNINGS
from lakehouse.quality.rules import compile_rules
from lakehouse.quality.verdicts import judge
from lakehouse.reports.population import LAYER, POSITION, judged_by, read_population
from lakehouse.sinks.aligned import aligned
from lakehouse.sinks.replays import Replays

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from lakehouse.config.models import Pipeline
    from lakehouse.quality.suite import Suite
    from lakehouse.reports.population import Span

_SHOWN = 10


@dataclass(frozen=True)
class Judged:
    """The rows of one suite.

    Attributes:
        suite: its name.
        suite_sha256: its fingerprint.
        rows: rows that it judged and that were judged again.
        verdicts: reasons that they carry.
        differing: rows whose reasons came out otherwise.
        first: the first of them, as [topic, partition, offset].
    """

    suite: str
    suite_sha256: str
    rows: int
    verdicts: int
    differing: int
    first: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Recheck:
    """Every verdict, judged again.

    Attributes:
        pipeline: its name.
        versions: `silver`, `quarantine` → version that was read.
        judged: one per suite that was ever in use, by the stream or by a replay.
        unknown: rows that came before the root remembered its suites.
    """

    pipeline: str
    versions: dict[str, int]
    judged: tuple[Judged, ...]
    unknown: int

    @property
    def ok(self) -> bool:
        """Whether every verdict came out the same."""
        return not any(one.differing for one in self.judged)

    def __str__(self) -> str:
        lines = [f"{self.pipeline}: " + ", ".join(f"{layer} version {of}" for layer, of in self.versions.items())]
        for one in self.judged:
            first = f"; first: {list(one.first)}" if one.differing else ""
            lines.append(
                f"{one.suite} {one.suite_sha256[:12]}: {one.rows:,} rows, {one.verdicts:,} verdicts,"
                f" {one.differing:,} rows differ{first}"
            )
        if self.unknown:
            lines.append(f"{self.unknown:,} rows came before the root kept its suites, and were not judged again")
        lines.append("every verdict came out the same" if self.ok else "VERDICTS DIFFER")
        return "\n".join(lines)


def recheck(spark: SparkSession, pipeline: Pipeline, span: Span) -> Recheck:
    """Judge the pipeline's rows again, each by its own suite.

    Args:
        spark: a session that reads Delta.
        pipeline: whose tables.
        span: which records, by Kafka's timestamp.

    Raises:
        SuiteError: a suite is no longer in the root.
        ReconcileError, TableError: the tables cannot be read at versions of one batch.
    """
    root = storage.resolve_root(pipeline.root)
    replays = Replays(root, pipeline)
    tables, _ = aligned(root, [f"{layer}/{pipeline.name}" for layer in ("silver", "quarantine")], replays)
    versions = {name.partition("/")[0]: table.version() for name, table in tables.items()}
    population = read_population(spark, pipeline, versions, span)
    archive = Archive(root)
    uses = archive.uses(pipeline.name)
    replayed_by = (plan.suite_sha256 for plan in replays.plans() if plan.accepted)
    fingerprints = list(dict.fromkeys([*(use.suite_sha256 for use in uses), *replayed_by]))
    judged = tuple(
        judge_again(population.parsed.where(judged_by(uses, sha256)), archive.load(sha256)) for sha256 in fingerprints
    )
    unknown = population.parsed.count() - sum(one.rows for one in judged)
    return Recheck(pipeline.name, versions, judged, unknown)


def judge_again(rows: DataFrame, suite: Suite) -> Judged:
    """Judge rows by the suite that judged them before.

    Args:
        rows: as `Population.parsed`.
        suite: in whose words the verdicts are.
    """
    recorded = rows.withColumnsRenamed({ERRORS: "_recorded_errors", WARNINGS: "_recorded_warnings"})
    again = judge(recorded, compile_rules(suite))
    # Each table keeps one kind: a refused row's warnings are not kept, and a row of silver has no errors.
    in_silver = F.col(LAYER) == "silver"
    of_suite = F.filter("_recorded_errors", lambda reason: reason["suite_sha256"].isNotNull())
    same = of_suite.eqNullSafe(F.col(ERRORS)) & (~in_silver | F.col("_recorded_warnings").eqNullSafe(F.col(WARNINGS)))
    compared = again.select(
        *POSITION, (~same).alias("_differs"), (F.size(of_suite) + F.size("_recorded_warnings")).alias("_verdicts")
    )
    [counts] = compared.agg(
        F.count("*").alias("rows"), _sum("_verdicts").alias("verdicts"), F.count_if("_differs").alias("differing")
    ).collect()
    first = compared.where("_differs").orderBy(*POSITION).limit(_SHOWN).collect() if counts["differing"] else []
    return Judged(
        suite=suite.name,
        suite_sha256=suite.sha256,
        rows=counts["rows"],
        verdicts=counts["verdicts"],
        differing=counts["differing"],
        first=tuple((row["_topic"], row["_partition"], row["_offset"]) for row in first),
    )


def _sum(column: str) -> Column:
    return F.coalesce(F.sum(column), F.lit(0))
