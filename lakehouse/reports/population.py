"""The rows of a report: silver ∪ quarantine at pinned versions, within a range of Kafka's timestamps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from lakehouse import storage
from lakehouse.config.models import parse_duration
from lakehouse.errors import ConfigError
from lakehouse.formats.values import read_values
from lakehouse.quality.reasons import ERRORS, WARNINGS
from lakehouse.quality.verdicts import REASONS_DDL
from lakehouse.schemas import SPARSE_COLUMNS, silver_schema

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from lakehouse.config.models import Pipeline
    from lakehouse.quality.archive import Use

LAYER = "_layer"
"""`silver` or `quarantine`: the table that a row stands in."""
POSITION = ("_topic", "_partition", "_offset")


@dataclass(frozen=True)
class Span:
    """A range of Kafka timestamps, `start` inclusive, `end` exclusive, in UTC; None leaves a side open."""

    start: datetime | None = None
    end: datetime | None = None

    def __str__(self) -> str:
        if self.start is None and self.end is None:
            return "all records"
        return f"{_shown(self.start) if self.start else 'the beginning'} to {_shown(self.end) if self.end else 'now'}"

    def holds(self, timestamp: Column) -> Column:
        """Whether a timestamp lies in the range."""
        low = [] if self.start is None else [timestamp >= F.lit(self.start)]
        high = [] if self.end is None else [timestamp < F.lit(self.end)]
        return reduce(lambda one, other: one & other, [*low, *high], F.lit(True))


def parse_span(start: str | None, end: str | None, last: str | None, *, now: datetime) -> Span:
    """The range that `--from`, `--to` and `--last` name.

    Args:
        start: ISO time with a zone, or None.
        end: likewise.
        last: a duration such as `1h`, up to `now`, instead of both.
        now: UTC.

    Raises:
        ConfigError: a time or duration that cannot be read, or a range that is empty.
    """
    if last is not None:
        if start is not None or end is not None:
            raise ConfigError("--last names a whole range", remedy="give either --last, or --from and --to")
        try:
            return Span(now - parse_duration(last), now)
        except ValueError as error:
            raise ConfigError(f"--last is {last!r}", remedy="write a duration such as 15m, 1h or 7d") from error
    span = Span(_moment("--from", start), _moment("--to", end))
    if span.start is not None and span.end is not None and span.start >= span.end:
        raise ConfigError(f"the range {span} is empty", remedy="let --from be earlier than --to")
    return span


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError(f"{option} is {text!r}", remedy="write a time with its zone, such as 2026-01-31T12:00:00Z")
    return moment.astimezone(UTC)


@dataclass(frozen=True, eq=False)
class Population:
    """What a report looks at. Nothing is read before someone asks.

    Attributes:
        parsed: silver's rows and the quarantined rows that fit the contract: the fields, Kafka's position,
            `_ingested_at`, `_warnings`, `_errors` (empty in silver) and `_layer`.
        quarantine: quarantine's rows as they stand there.
        unparsed: those of them that do not fit the contract, which no suite judged.
        columns: silver's, in silver's order: what expectations about a table's columns mean.
    """

    parsed: DataFrame
    quarantine: DataFrame
    unparsed: DataFrame
    columns: tuple[str, ...]

    @property
    def rows(self) -> DataFrame:
        """`parsed` as the suite knows it: with silver's columns alone."""
        return self.parsed.select(*self.columns)


def read_population(spark: SparkSession, pipeline: Pipeline, versions: dict[str, int], span: Span) -> Population:
    """The pipeline's rows in `span`.

    Args:
        spark: a session that reads Delta.
        pipeline: whose tables.
        versions: `silver` and `quarantine` → version of the table; both have to end at the same batch.
        span: which records.
    """
    root = storage.resolve_root(pipeline.root)
    layers = {
        layer: spark.read.format("delta")
        .option("versionAsOf", version)
        .load(storage.spark_url(f"{root}/{layer}/{pipeline.name}"))
        .where(span.holds(F.col("_timestamp")))
        for layer, version in versions.items()
    }
    columns = tuple(silver_schema(pipeline.source.fields).names)
    read_again = read_values(layers["quarantine"], pipeline.source)
    no_reasons = F.array().cast(REASONS_DDL)
    silver = layers["silver"].select(*columns, no_reasons.alias(ERRORS), F.lit("silver").alias(LAYER))
    unset = {
        name: F.lit(None).cast(layers["silver"].schema[name].dataType) for name in columns if name in SPARSE_COLUMNS
    }
    added = {**unset, WARNINGS: no_reasons, LAYER: F.lit("quarantine")}
    refused = read_again.where("_fits").withColumns(added)
    return Population(
        parsed=silver.unionByName(refused.select(*columns, ERRORS, LAYER)),
        quarantine=layers["quarantine"],
        unparsed=read_again.where("NOT _fits").select(*layers["quarantine"].columns),
        columns=columns,
    )


def judged_by(uses: tuple[Use, ...], suite_sha256: str) -> Column:
    """Whether a row was judged by one suite: that of the replay that let it in, else that in force at its offset."""
    stretches = [_in_stretch(use) for use in uses if use.suite_sha256 == suite_sha256]
    by_offset = F.coalesce(reduce(or_, stretches, F.lit(False)), F.lit(False))
    return F.coalesce(F.col("_replayed_from.suite_sha256") == suite_sha256, by_offset)


def _in_stretch(use: Use) -> Column:
    start = _offset_map(use.start)
    begun = F.col("_offset") >= F.coalesce(start, F.lit(0)) if start is not None else F.lit(True)
    if use.end is None:
        return begun
    # A partition that the next suite does not know yet has all its records judged later.
    end = _offset_map(use.end)
    return begun & (F.col("_offset") < F.coalesce(end, F.lit(0))) if end is not None else F.lit(False)


def _offset_map(offsets: dict[str, dict[int, int]]) -> Column | None:
    """Per row, the offset that its topic and partition have in `offsets`; null where they have none."""
    cases = [(topic, partition, offset) for topic, of in offsets.items() for partition, offset in of.items()]
    if not cases:
        return None
    found = F.lit(None).cast("long")
    for topic, partition, offset in cases:
        found = F.when((F.col("_topic") == topic) & (F.col("_partition") == partition), F.lit(offset)).otherwise(found)
    return found


def _shown(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
