"""docs/configuration.md, made from the models so that it cannot fall behind them.

`python -m lakehouse.config.reference` writes it; a test keeps the two alike.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretStr

from lakehouse.config import interpolation
from lakehouse.config.checks import DIMENSION_TYPES, DISTINCT_TYPES, GOLD_COLUMNS, NUMBER_TYPES
from lakehouse.config.models import (
    AbsenceAlert,
    Alerts,
    AvailableNow,
    BurnRateAlert,
    BurnWindow,
    ConsoleReceiver,
    CountMetric,
    DistinctMetric,
    EventField,
    EventTime,
    Evolution,
    FigureAlert,
    FileReceiver,
    FreshnessAlert,
    HeatmapPanel,
    HttpReceiver,
    KafkaChannel,
    LagAlert,
    LeaderboardPanel,
    Lineage,
    LivePage,
    Maintenance,
    Metrics,
    Model,
    NumberMetric,
    PageFigure,
    Pipeline,
    ProcessingTime,
    Quality,
    QuantilesMetric,
    QuarantineAlert,
    Registry,
    RetentionRule,
    Rollup,
    SeriesPanel,
    SlackChannel,
    Source,
    Tables,
    ThresholdAlert,
    WebhookChannel,
    format_duration,
)

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

REFERENCE_FILE = Path("docs/configuration.md")
"""Relative to the project's folder."""

_SECTIONS: tuple[tuple[str, type[Model]], ...] = (
    ("The file", Pipeline),
    ("source", Source),
    ("source.fields.NAME", EventField),
    ("source.registry", Registry),
    ("event_time", EventTime),
    ("quality", Quality),
    ("tables", Tables),
    ("evolution", Evolution),
    ("rollups.NAME", Rollup),
    ("rollups.NAME.metrics: count", CountMetric),
    ("rollups.NAME.metrics: sum, min, max", NumberMetric),
    ("rollups.NAME.metrics: quantiles", QuantilesMetric),
    ("rollups.NAME.metrics: distinct", DistinctMetric),
    ("retention", RetentionRule),
    ("trigger: processing_time", ProcessingTime),
    ("trigger: available_now", AvailableNow),
    ("maintenance", Maintenance),
    ("metrics", Metrics),
    ("alerts", Alerts),
    ("alerts.rules.NAME: threshold", ThresholdAlert),
    ("alerts.rules.NAME: absence", AbsenceAlert),
    ("alerts.rules.NAME: freshness", FreshnessAlert),
    ("alerts.rules.NAME: lag", LagAlert),
    ("alerts.rules.NAME: quarantine", QuarantineAlert),
    ("alerts.rules.NAME: burn_rate", BurnRateAlert),
    ("alerts.rules.NAME.windows", BurnWindow),
    ("alerts.rules.NAME: figure", FigureAlert),
    ("alerts.notify.NAME: webhook", WebhookChannel),
    ("alerts.notify.NAME: slack", SlackChannel),
    ("alerts.notify.NAME: kafka", KafkaChannel),
    ("lineage", Lineage),
    ("lineage.to: http", HttpReceiver),
    ("lineage.to: file", FileReceiver),
    ("lineage.to: kafka", KafkaChannel),
    ("lineage.to: console", ConsoleReceiver),
    ("dashboard.ROLLUP", LivePage),
    ("dashboard.ROLLUP.tiles", PageFigure),
    ("dashboard.ROLLUP.panels: series", SeriesPanel),
    ("dashboard.ROLLUP.panels: heatmap", HeatmapPanel),
    ("dashboard.ROLLUP.panels: leaderboard", LeaderboardPanel),
)
_PLAIN = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    timedelta: "duration",
    Path: "path",
    SecretStr: "text",
}


def render(example: str) -> str:
    """The whole page; `example` is the text of a pipeline file to show."""
    return "\n".join([_HEAD, f"```yaml\n{example.strip()}\n```\n", _RULES, *(_section(*part) for part in _SECTIONS)])


def _section(title: str, model: type[Model]) -> str:
    rows = [_row(name, field) for name, field in model.model_fields.items()]
    about = (model.__doc__ or "").strip().split("\n\n")[0]
    return "\n".join(
        [f"## {title}", "", about, "", "| key | value | default | meaning |", "|---|---|---|---|", *rows, ""]
    )


def _row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else _default(field)
    return f"| `{name}` | {_type(field.annotation)}{_bounds(field)} | {default} | {field.description} |"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    match value:
        case timedelta():
            return f"`{format_duration(value)}`"
        case BaseModel():
            flow = yaml.safe_dump(value.model_dump(mode="json"), default_flow_style=True, sort_keys=False)
            return f"`{flow.strip()}`"
        case bool():
            return f"`{str(value).lower()}`"
        case None | "" | [] | {}:
            return "empty"
        case list():
            return f"`[{', '.join(map(_item, value))}]`"
        case _:
            return f"`{value}`"


def _item(value: str | BaseModel) -> str:
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value.model_dump(mode="json"), default_flow_style=True, sort_keys=False).strip()


def _bounds(field: FieldInfo) -> str:
    bounds = {type(rule).__name__: rule for rule in field.metadata}
    low, high = getattr(bounds.get("Ge"), "ge", None), getattr(bounds.get("Le"), "le", None)
    if low is None:
        return ""
    return f", {low} to {high}" if high is not None else f", at least {low}"


def _type(kind: Any) -> str:  # noqa: ANN401 - an annotation
    if get_origin(kind) is Annotated:
        kind = kind.__origin__
    if kind in _PLAIN:
        return _PLAIN[kind]
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if get_origin(kind) is list:
        return f"list of: {_type(arguments[0])}"
    if get_origin(kind) is dict:
        return f"name → {_type(arguments[1])}"
    if arguments:
        return " or ".join(dict.fromkeys(_type(member) for member in arguments if member is not type(None)))
    return "keys, see below"


_HEAD = """# The pipeline file

One YAML file describes one pipeline. Editors that know JSON Schema complete and check it by
`conf/pipeline.schema.json`; `lakehouse validate FILE` finds every mistake with its line and remedy.

This page is made from the models: `python -m lakehouse.config.reference`.
"""
_RULES = f"""## Rules for the whole file

- Unknown keys, wrong types, duplicate keys and names that do not exist are errors, all told at once.
- Scalars follow YAML 1.2: only `true` and `false` are booleans (`NO` is text), and a date is text.
- A *duration* is a whole number and `ms`, `s`, `m`, `h` or `d`: `250ms`, `5m`.
- Names are made of lowercase letters, digits and `_`, begin with a letter, and have at most 63 characters.
- `root` is relative to the working directory, every other path to the file.
- Dimensions have the type {", ".join(DIMENSION_TYPES)}; sums, extremes and quantiles are taken of
  {", ".join(NUMBER_TYPES)}; distinct values are counted of {", ".join(DISTINCT_TYPES)}.
- No dimension or metric is called {", ".join(f"`{column}`" for column in GOLD_COLUMNS)}:
  every rollup has these.

### Environment and secrets

{(interpolation.__doc__ or "").split(chr(10), 2)[2].strip()}

`${{file:…}}` may stand only under `source.options` and as a `url` or `token` below `alerts.notify` and `lineage.to`,
whose values are never printed. Keys are not replaced.
"""


if __name__ == "__main__":
    REFERENCE_FILE.write_text(render(Path("conf/feature_events.yaml").read_text(encoding="utf-8")), encoding="utf-8")
