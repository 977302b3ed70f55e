"""What a pipeline file may say. Frozen, strict, and free of Spark: loading a config never starts a JVM.

The descriptions end up in the JSON Schema that editors read and in docs/configuration.md.
"""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.json_schema import JsonSchemaValue

_DURATION = re.compile(r"([0-9]{1,15})\s*(ms|s|m|h|d)")
_LONGEST_MS = 36_500 * 86_400_000
"""A hundred years: beyond what anyone means, and well inside what a timedelta holds."""
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

Grain = Literal["1s", "1m", "1h", "1d"]
GRAINS: tuple[Grain, ...] = ("1s", "1m", "1h", "1d")
"""The finest first; each width divides the next."""
FieldType = Literal["string", "integer", "long", "double", "boolean", "timestamp", "date"]


def parse_duration(value: object) -> timedelta:
    """`250ms`, `1s`, `5m`, `6h`, `30d` as a timedelta; a timedelta passes through.

    Raises:
        ValueError: for anything else, and for more than a hundred years.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    milliseconds = int(match[1]) * _MILLISECONDS[match[2]] if match else None
    if milliseconds is None or milliseconds > _LONGEST_MS:
        raise PydanticCustomError(
            "duration",
            "{value} is not a duration; write a whole number and ms, s, m, h or d, such as 250ms or 5m",
            {"value": repr(value)},
        )
    return timedelta(milliseconds=milliseconds)


def format_duration(value: timedelta) -> str:
    """The shortest exact text that `parse_duration` reads back."""
    milliseconds = value // timedelta(milliseconds=1)
    for unit in ("d", "h", "m", "s"):
        if milliseconds and milliseconds % _MILLISECONDS[unit] == 0:
            return f"{milliseconds // _MILLISECONDS[unit]}{unit}"
    return f"{milliseconds}ms"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\s*[0-9]{1,15}\s*(ms|s|m|h|d)\s*$", "examples": ["250ms", "5m"]}),
]


def _option_text(value: object) -> object:
    """`session.timeout.ms: 30000` and `check.crcs: true` as Kafka spells them: its options are all text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Option = Annotated[
    SecretStr,
    BeforeValidator(_option_text),
    WithJsonSchema({"type": ["string", "number", "boolean"], "writeOnly": True}),
]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class Model(BaseModel):
    """Base of every config model: unknown keys are refused and nothing changes after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, hide_input_in_errors=True)


class EventField(Model):
    """One field of the event: `name: string`, or the long form with what it means."""

    type: FieldType = Field(description="type of the field, and of its column in silver")
    required: bool = Field(default=False, description="whether a record without it is quarantined")
    description: str = Field(default="", description="what the field means, for people")
    pii: bool = Field(default=False, description="whether it identifies a person")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:  # noqa: ANN401 - raw YAML
        return {"type": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Either form: the type's name alone, or the keys."""
        long_form = handler.resolve_ref_schema(handler(core_schema))
        short_form = {key: value for key, value in long_form["properties"]["type"].items() if key != "title"}
        return {"anyOf": [short_form, long_form]}


class Registry(Model):
    """A Confluent-compatible schema registry: each value names its schema there."""

    url: str = Field(pattern=r"^https?://\S+$", description="http(s)://HOST:PORT, and a path where it has one")
    auth: Annotated[SecretStr, WithJsonSchema({"type": "string", "writeOnly": True})] = Field(
        default=SecretStr(""), description="USER:PASSWORD; secret, and never printed"
    )


class Source(Model):
    """Where events come from: Kafka topics and the shape of one event."""

    servers: str = Field(min_length=1, description="bootstrap servers, host:port separated by commas")
    topic: str = Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$", description="the topic that holds the events")
    starting_offsets: Literal["earliest", "latest"] = Field(
        default="earliest",
        description="where the very first start begins; later starts go on where the tables end",
    )
    format: Literal["json", "avro", "protobuf"] = Field(
        default="json", description="how a record's value spells the event; all but json need a registry"
    )
    registry: Registry | None = Field(default=None, description="where the schemas of avro and protobuf are")
    message: str = Field(
        default="", description="of protobuf, the full name of the message that an event is; others are quarantined"
    )
    max_records_per_batch: int = Field(default=200_000, ge=1, description="upper bound of one micro-batch")
    options: dict[str, Option] = Field(
        default_factory=dict,
        description=(
            "Kafka client options by their own names, such as security.protocol or sasl.jaas.config; "
            "their values are secret and are never printed"
        ),
    )
    fields: dict[Name, EventField] = Field(min_length=1, description="the event's fields and their types")


class EventTime(Model):
    """Which field says when the event happened, and how far ahead of now it is believed."""

    column: Name = Field(description="the field of type timestamp that says when the event happened")
    max_future: Duration = Field(
        default=timedelta(minutes=5),
        description="an event further ahead of its arrival in Kafka than this is quarantined",
    )
    late_after: Duration = Field(
        default=timedelta(minutes=1),
        description="an event that reaches Kafka longer than this after it happened is counted as late",
    )


class Quality(Model):
    """The Great Expectations suite that judges each row."""

    suite: Path = Field(description="path of the suite, relative to this file")


class Tables(Model):
    """What is written beside silver, quarantine and gold."""

    bronze: bool = Field(default=False, description="also keep every raw record in bronze/NAME")
    rescue: bool = Field(
        default=True, description="keep fields that are not named here in silver's column _rescued_data, as JSON"
    )


class Evolution(Model):
    """What a start does where `source.fields` has changed since the tables were made."""

    additive: Literal["apply", "refuse"] = Field(
        default="apply",
        description=(
            "a new field, a wider type (integer to long or double), a field that is no longer required: "
            "change the tables, or refuse to start"
        ),
    )
    breaking: Literal["refuse", "quarantine"] = Field(
        default="refuse",
        description=(
            "any other change of a field: refuse to start, or go on by what the tables hold and "
            "quarantine the records that do not fit them"
        ),
    )


class Metric(Model):
    """Base of the rollup metrics; `name` is the column in the gold table."""

    name: Name = Field(description="column of the metric in the gold table")
    where: dict[Name, str | int | bool | list[str | int]] = Field(
        default_factory=dict,
        description="count only rows where each field equals the value, or one of the list",
    )


class CountMetric(Metric):
    """Number of rows (that meet `where`)."""

    type: Literal["count"] = Field(description="number of rows that meet `where`")


class NumberMetric(Metric):
    """Sum, smallest or largest value of a numeric field; null where no row had one."""

    type: Literal["sum", "min", "max"] = Field(description="sum, smallest or largest value of the column")
    column: Name = Field(description="a field of type integer, long or double")


class QuantilesMetric(Metric):
    """KLL sketch of a numeric field (DataSketches `kll_doubles_sketch`, as Spark's `kll_*_double`)."""

    type: Literal["quantiles"] = Field(description="KLL sketch, from which any quantile can be read")
    column: Name = Field(description="a field of type integer, long or double")
    k: int = Field(default=200, ge=8, le=65_535, description="accuracy: 200 keeps ranks within about 1.3 percent")


class DistinctMetric(Metric):
    """Distinct values of a string or integer field, by a sketch (as Spark's `hll_*` or `theta_*`) or a bitmap."""

    type: Literal["distinct"] = Field(description="what distinct values can be counted from")
    column: Name = Field(description="a field of type string, integer or long; for a bitmap of integer or long")
    sketch: Literal["hll", "theta", "bitmap"] = Field(
        default="hll",
        description=(
            "hll (DataSketches HLL_8); theta, eight times as large, for intersections and differences by other tools; "
            "bitmap, exact, for values from 0 to 32767: with any other the count is unknown"
        ),
    )
    lg_k: int = Field(
        default=12,
        ge=4,
        le=21,
        description="accuracy: 12 counts within about 3.3 percent, in at most 4 KiB a row; a bitmap takes none",
    )


class MomentsMetric(Metric):
    """Mean or sample variance of a numeric field's finite values, kept as their number, mean and squared deviations."""

    type: Literal["mean", "variance"] = Field(description="mean or sample variance of the column")
    column: Name = Field(description="a field of type integer, long or double")


class TopMetric(Metric):
    """Frequent-items sketch of a string field (DataSketches `frequent_strings_sketch`)."""

    type: Literal["top"] = Field(description="sketch, from which the most frequent values can be read")
    column: Name = Field(description="a field of type string")
    lg_k: int = Field(
        default=10, ge=3, le=16, description="accuracy: with 10 a count is off by at most 0.35 percent of all events"
    )


AnyMetric = Annotated[
    CountMetric | NumberMetric | QuantilesMetric | DistinctMetric | MomentsMetric | TopMetric,
    Field(discriminator="type"),
]


def is_live(metric: AnyMetric) -> bool:
    """Whether the live page and alerts, which hold the last hours in memory, have the metric."""
    if metric.type == "distinct":
        return metric.sketch == "hll"
    return metric.type in ("count", "sum", "min", "max", "quantiles")


class Ratio(Model):
    """A quotient of two metrics, made when it is asked for; null where the second is 0."""

    of: Name = Field(description="a metric, or `events`")
    over: Name = Field(description="the metric that it is divided by, or `events`")


class Rollup(Model):
    """Partial aggregates per window and dimensions, in the manner of Druid's roll-up at ingestion."""

    dimensions: list[Name] = Field(
        min_length=1, description="fields to group by, of type string, integer, long, boolean or date"
    )
    grains: list[Grain] = Field(
        default=["1s"],
        min_length=1,
        description=(
            "widths of the windows, one gold table each: the stream writes 1s, which comes first; "
            "maintenance derives each other one from the one before it"
        ),
    )
    metrics: list[AnyMetric] = Field(default_factory=list, description="besides `events`, which every rollup has")
    ratios: dict[Name, Ratio] = Field(
        default_factory=dict, description="name → quotient of two metrics; takes no column"
    )


class DerivedTable(NamedTuple):
    """A rollup table that is derived from the table of the next finer grain."""

    name: str
    source: str
    grain: Grain
    rollup: Rollup


class ProcessingTime(Model):
    """Run for ever; a new micro-batch starts `interval` after the one before it (0ms: at once)."""

    kind: Literal["processing_time"] = Field(default="processing_time", description="run for ever")
    interval: Duration = Field(
        default=timedelta(0), description="from one micro-batch's start to the next; 0ms: at once"
    )


class AvailableNow(Model):
    """Take what is in the topic now, in as many micro-batches as that needs, then stop."""

    kind: Literal["available_now"] = Field(description="take what is in the topic now, then stop")


Trigger = Annotated[ProcessingTime | AvailableNow, Field(discriminator="kind")]


class Maintenance(Model):
    """How the tables are kept small while they are written."""

    background: bool = Field(
        default=True, description="whether `lakehouse run` maintains its tables beside the stream, at low priority"
    )
    every: Duration = Field(default=timedelta(seconds=10), description="from one pass over the tables to the next")
    min_age: Duration = Field(
        default=timedelta(seconds=10), description="files that the stream wrote more recently are left alone"
    )
    target_file_mib: int = Field(
        default=128,
        ge=1,
        le=1_024,
        description="size up to which files are merged; a rewrite holds at most three times as much in memory",
    )
    checkpoint_every: int = Field(
        default=250, ge=10, le=100_000, description="commits from one checkpoint of a table's log to the next"
    )
    retention: Duration = Field(
        default=timedelta(hours=1),
        description=(
            "how long an old version can still be read: its commits, and files that were replaced since; at least 5m"
        ),
    )


class RetentionRule(Model):
    """How long rows of one kind stay; the first rule that fits a table counts, and without one all of them stay."""

    rows: Literal["silver", "quarantine", "bronze", "1s", "1m", "1h", "1d"] = Field(
        description="which rows: a layer, or a grain of the rollups"
    )
    rollup: Name | None = Field(default=None, description="of which rollup; of all by default")
    keep: Duration | Literal["forever"] = Field(
        description=(
            "for how long: counted from Kafka's timestamp, in rollups from the window's beginning; the rows of a grain "
            "leave only once the next coarser grain holds them"
        )
    )


class Metrics(Model):
    """Where a running pipeline's figures can be read: a Prometheus endpoint, and the table `_ops/NAME`."""

    port: int = Field(
        default=0, ge=0, le=65_535, description="port of the Prometheus endpoint; with 0 no port is opened"
    )
    address: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="address that the endpoint listens on; the default is reached from this machine alone",
    )
    dashboard: str = Field(
        default="",
        description=(
            "host:port at which a dashboard's process tells how far it is behind, and where alerts ask; "
            "empty: it opens no port"
        ),
    )
    keep: Duration = Field(
        default=timedelta(days=7),
        description="how long the rows of `_ops/NAME`, its alerts and `_quality/NAME_observed` are kept at least",
    )


Where = dict[Name, str | int | bool | list[str | int]]
"""Dimension → the value that counts, or a list of them."""
SecretUrl = Annotated[SecretStr, WithJsonSchema({"type": "string", "writeOnly": True})]
_WHERE = "only events whose dimension equals the value, or one of the list"
_ROLLUP = "name of the rollup whose table is looked at"


class Alert(Model):
    """Base of the alerts."""

    severity: Literal["critical", "warning", "info"] = Field(default="warning", description="how grave it is")
    hold_for: Duration = Field(
        default=timedelta(0),
        description="how long the condition has to hold before the alert fires; until then it pends",
    )


class ThresholdAlert(Alert):
    """A metric of a rollup lies above or below a limit."""

    kind: Literal["threshold"] = Field(description="a metric of a rollup lies above or below a limit")
    rollup: Name = Field(description=_ROLLUP)
    metric: Name = Field(default="events", description="a metric of the rollup, or `events`")
    per: Literal["window", "second", "event"] = Field(
        default="window", description="what events, counts and sums are divided by: nothing, seconds or events"
    )
    quantile: float = Field(default=0.99, ge=0, le=1, description="which one, of a metric of type quantiles")
    when: Literal["above", "below"] = Field(default="above", description="on which side of the limit it fires")
    limit: float = Field(description="a number in the unit of the metric")
    window: Duration = Field(default=timedelta(minutes=1), description="how much time up to now is looked at")
    where: Where = Field(default_factory=dict, description=_WHERE)


class AbsenceAlert(Alert):
    """No event came."""

    kind: Literal["absence"] = Field(description="no event came")
    rollup: Name = Field(description=_ROLLUP)
    window: Duration = Field(default=timedelta(minutes=1), description="how much time up to now is looked at")
    where: Where = Field(default_factory=dict, description=_WHERE)


class FreshnessAlert(Alert):
    """The newest event in the tables is old."""

    kind: Literal["freshness"] = Field(description="the newest event in the tables is old")
    rollup: Name = Field(description=_ROLLUP)
    limit: Duration = Field(description="age above which it fires")


class LagAlert(Alert):
    """Kafka holds records that the tables do not."""

    kind: Literal["lag"] = Field(description="Kafka holds records that the tables do not")
    limit: int = Field(ge=0, description="records above which it fires, over all partitions")


class QuarantineAlert(Alert):
    """Too large a share of the records goes to quarantine, or fails one rule."""

    kind: Literal["quarantine"] = Field(description="too large a share of the records is refused, or fails a rule")
    rule: str = Field(default="", description="count the records that fail this rule; without it, those in quarantine")
    limit: float = Field(ge=0, le=1, description="share of the records above which it fires, 0 to 1")
    window: Duration = Field(default=timedelta(minutes=5), description="how much time up to now is looked at")
    least_records: int = Field(default=100, ge=1, description="with fewer records in the window it does not fire")


class BurnWindow(Model):
    """A pair of windows, both of which have to burn the error budget faster than `factor`."""

    long: Duration = Field(description="says that it matters")
    short: Duration = Field(description="says that it goes on")
    factor: float = Field(ge=0, description="burn rate above which it fires; at 1 the budget lasts exactly its period")


class BurnRateAlert(Alert):
    """Failures use up the error budget of an objective too fast, over several windows."""

    kind: Literal["burn_rate"] = Field(description="failures use up the error budget of an objective too fast")
    rollup: Name = Field(description=_ROLLUP)
    errors: Name = Field(description="the rollup's metric of type count that counts failures")
    objective: float = Field(ge=0, le=1, description="share of events that must not fail, such as 0.999")
    windows: list[BurnWindow] = Field(
        default=[
            BurnWindow(long=timedelta(hours=1), short=timedelta(minutes=5), factor=14.4),
            BurnWindow(long=timedelta(hours=6), short=timedelta(minutes=30), factor=6),
        ],
        min_length=1,
        description="pairs of windows, any of which is enough",
    )
    where: Where = Field(default_factory=dict, description=_WHERE)


FigureName = Literal[
    "kafka_unreachable_seconds",
    "silent_seconds",
    "unmaintained_seconds",
    "commit_seconds",
    "clock_ahead_seconds",
    "late_share",
    "suite_change_share",
    "disk_free_bytes",
    "dashboard_behind_seconds",
]


class FigureAlert(Alert):
    """A figure of the pipeline itself lies above or below a limit."""

    kind: Literal["figure"] = Field(description="a figure of the pipeline itself lies above or below a limit")
    figure: FigureName = Field(description="which one; docs/operations.md says what each measures")
    when: Literal["above", "below"] = Field(default="above", description="on which side of the limit it fires")
    limit: float = Field(description="a number in the unit that the figure's name ends with")
    window: Duration = Field(
        default=timedelta(minutes=1), description="how much time up to now a mean or a share is taken over"
    )


AnyAlert = Annotated[
    ThresholdAlert | AbsenceAlert | FreshnessAlert | LagAlert | QuarantineAlert | BurnRateAlert | FigureAlert,
    Field(discriminator="kind"),
]


class WebhookChannel(Model):
    """POST of JSON in the form of Alertmanager's webhooks."""

    kind: Literal["webhook"] = Field(description="POST of JSON in the form of Alertmanager's webhooks")
    url: SecretUrl = Field(description="http or https; secret, and never printed")


class SlackChannel(Model):
    """POST of JSON in the form of Slack's incoming webhooks, which other chats understand as well."""

    kind: Literal["slack"] = Field(description="POST of JSON in the form of Slack's incoming webhooks")
    url: SecretUrl = Field(description="http or https; secret, and never printed")


class KafkaChannel(Model):
    """A record in a topic of the source's cluster, keyed by the alert's name."""

    kind: Literal["kafka"] = Field(description="a record in a topic of the source's cluster")
    topic: str = Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$", description="the topic, which has to be there")


AnyChannel = Annotated[WebhookChannel | SlackChannel | KafkaChannel, Field(discriminator="kind")]


class Alerts(Model):
    """What a person has to be told, and how."""

    every: Duration = Field(default=timedelta(seconds=5), description="from one evaluation to the next")
    repeat_every: Duration = Field(
        default=timedelta(hours=4), description="an alert that still fires is sent again after so long; 0ms: never"
    )
    runbooks: str = Field(
        default="docs/runbooks", min_length=1, description="folder or URL of the runbooks that notifications link to"
    )
    rules: dict[Name, AnyAlert] = Field(default_factory=dict, description="name → alert")
    notify: dict[Name, AnyChannel] = Field(default_factory=dict, description="name → where every alert is sent")


class HttpReceiver(Model):
    """POST of each event, as Marquez, DataHub and others take it."""

    kind: Literal["http"] = Field(description="POST of each event")
    url: SecretUrl = Field(description="http or https, with its path, such as …/api/v1/lineage; secret, never printed")
    token: SecretStr = Field(
        default=SecretStr(""), description="sent as `Authorization: Bearer`; secret, never printed; none by default"
    )


class FileReceiver(Model):
    """A line for each event at the end of a file."""

    kind: Literal["file"] = Field(description="a line for each event at the end of a file")
    path: Path = Field(description="the file, made where it is missing")


class ConsoleReceiver(Model):
    """A line for each event on standard error."""

    kind: Literal["console"] = Field(description="a line for each event on standard error")


Receiver = Annotated[HttpReceiver | FileReceiver | KafkaChannel | ConsoleReceiver, Field(discriminator="kind")]


class Lineage(Model):
    """OpenLineage events about the running pipeline."""

    to: Receiver | None = Field(default=None, description="where they are sent; without it there are none")
    namespace: str = Field(default="lakehouse", min_length=1, description="namespace of the job")
    every: Duration = Field(default=timedelta(minutes=1), description="from one RUNNING event to the next; 1s at least")


class PageFigure(Model):
    """One number of a rollup, over a range of time: a metric's name alone, or the keys."""

    metric: Name = Field(description="a metric of the rollup, or `events`")
    per: Literal["second", "event", "range"] | None = Field(
        default=None,
        description=(
            "what events, counts and sums are divided by: seconds, events, or nothing; "
            "by default events for a count with a condition, otherwise seconds"
        ),
    )
    quantile: float | None = Field(
        default=None, ge=0, le=1, description="which one, of a metric of type quantiles; 0.95 by default"
    )
    label: str = Field(default="", max_length=60, description="what it is called; by default as the metric is")
    good: Literal["up", "down", "neither"] | None = Field(
        default=None, description="which change is an improvement; by default told by the metric's name and unit"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:  # noqa: ANN401 - raw YAML
        return {"metric": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Either form: the metric's name alone, or the keys."""
        long_form = handler.resolve_ref_schema(handler(core_schema))
        short_form = {key: value for key, value in long_form["properties"]["metric"].items() if key != "title"}
        return {"anyOf": [short_form, long_form]}


class Panel(Model):
    """Base of the panels below the tiles."""

    title: str = Field(default="", max_length=60, description="by default told by its metrics")


class SeriesPanel(Panel):
    """Figures over time."""

    kind: Literal["series"] = Field(description="figures over time")
    figures: list[PageFigure] = Field(
        min_length=1,
        max_length=7,
        description=(
            "one of events, counts or sums per second is stacked by the dimension that the viewer splits by; "
            "anything else is a line each"
        ),
    )


class HeatmapPanel(Panel):
    """Over time, which values of a metric of type quantiles were how frequent, with p50, p95 and p99."""

    kind: Literal["heatmap"] = Field(description="which values of a metric of type quantiles were how frequent")
    metric: Name = Field(description="a metric of type quantiles")


class LeaderboardPanel(Panel):
    """The values of a dimension, ranked."""

    kind: Literal["leaderboard"] = Field(description="the values of a dimension, ranked")
    dimension: Name = Field(description="a dimension of the rollup")
    figures: list[PageFigure] = Field(
        default_factory=list,
        max_length=7,
        description="its columns, the first of which ranks; by default events per second and what the tiles show",
    )


AnyPanel = Annotated[SeriesPanel | HeatmapPanel | LeaderboardPanel, Field(discriminator="kind")]


class LivePage(Model):
    """What the Live page of a rollup shows; what is left out is made from the rollup's metrics."""

    tiles: list[PageFigure] = Field(default_factory=list, max_length=12, description="the figures at its top")
    panels: list[AnyPanel] = Field(default_factory=list, max_length=12, description="what is below them, in order")


class Pipeline(Model):
    """One pipeline: one stream of events and every table made from it."""

    name: Name = Field(description="name of the pipeline, of its silver and quarantine tables and its checkpoint")
    root: str = Field(default="./data", min_length=1, description="folder or s3:// URL that holds the tables")
    source: Source = Field(description="where events come from, and what one holds")
    event_time: EventTime = Field(description="when an event happened")
    quality: Quality = Field(description="what makes a row valid")
    tables: Tables = Field(default=Tables(), description="what is written beside silver, quarantine and gold")
    evolution: Evolution = Field(
        default=Evolution(), description="what happens to the tables when the event's fields change"
    )
    rollups: dict[Name, Rollup] = Field(
        default_factory=dict, description="name → rollup; its table is gold/PIPELINE_ROLLUP_GRAIN"
    )
    trigger: Trigger = Field(default=ProcessingTime(), description="when a micro-batch starts")
    maintenance: Maintenance = Field(default=Maintenance(), description="how the tables are kept small")
    retention: list[RetentionRule] = Field(
        default_factory=list, description="rules by which old rows leave, the first that fits a table counts"
    )
    metrics: Metrics = Field(default=Metrics(), description="where its figures can be read")
    alerts: Alerts = Field(default=Alerts(), description="what a person has to be told, and how")
    lineage: Lineage = Field(default=Lineage(), description="OpenLineage events about it")
    dashboard: dict[Name, LivePage] = Field(
        default_factory=dict,
        description="name of a rollup → what its Live page shows; made from its metrics by default",
    )

    def keep(self, rows: str, rollup: str | None = None) -> timedelta | None:
        """How long a table keeps its rows; None for ever.

        Args:
            rows: a layer, or a grain.
            rollup: name of the rollup, of a grain.
        """
        for rule in self.retention:
            if rule.rows == rows and rule.rollup in (None, rollup):
                return None if rule.keep == "forever" else rule.keep
        return None

    def rollup_tables(self) -> Iterator[tuple[str, str, Rollup]]:
        """Each rollup table that the stream writes, as (name, grain, rollup): (`events_by_feature_1s`, `1s`, …)."""
        for rollup_name, rollup in self.rollups.items():
            yield f"{self.name}_{rollup_name}_{rollup.grains[0]}", rollup.grains[0], rollup

    def derived_tables(self) -> Iterator[DerivedTable]:
        """Each rollup table that maintenance derives, finer ones before coarser ones."""
        for rollup_name, rollup in self.rollups.items():
            for finer, grain in pairwise(rollup.grains):
                table = f"{self.name}_{rollup_name}"
                yield DerivedTable(f"{table}_{grain}", f"{table}_{finer}", grain, rollup)
