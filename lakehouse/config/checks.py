"""What has to fit together across a pipeline file. Pure: no file, no network, no JVM."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, NamedTuple

from lakehouse.config.models import (
    GRAINS,
    FigureAlert,
    FreshnessAlert,
    LagAlert,
    QuarantineAlert,
    format_duration,
    is_live,
)
from lakehouse.config.problems import choose

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lakehouse.config.models import AnyAlert, AnyMetric, PageFigure, Pipeline, Rollup, ThresholdAlert, Where
    from lakehouse.config.problems import KeyPath

GOLD_COLUMNS = ("window_start", "events", "min_event_time", "max_event_time", "_batch_id")
"""Columns that every rollup has, so that no dimension or metric may have these names."""
DIMENSION_TYPES = ("string", "integer", "long", "boolean", "date")
NUMBER_TYPES = ("integer", "long", "double")
DISTINCT_TYPES = ("string", "integer", "long")
_LEAST_THETA, _MOST_THETA = 5, 16
"""lg_k of a theta sketch: the library's least, and half a MiB a row."""
_RANGE = {"integer": 2**31, "long": 2**63}
"""Smallest absolute value that no longer fits a positive number of the type."""

SAFE_RETENTION = timedelta(minutes=5)
"""A reader that opened a version must be able to finish reading it, and a slow task to see its files committed."""
_SHORTEST_PASS = timedelta(seconds=1)
SHORTEST_KEEP = timedelta(minutes=10)
"""Rows younger than this are still on their way: derived, merged, and looked at by dashboards."""

_LONGEST_WINDOW = timedelta(days=3)
_LONGEST_QUARANTINE = timedelta(hours=6)
"""What an evaluation of alerts keeps in memory."""
_HTTP = re.compile(r"https?://[^\s/]+(?:/\S*)?")

_SERVER = re.compile(r"(?:[A-Za-z_]+://)?(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\],]+):(?P<port>[0-9]{1,5})")
_LAST_PORT = 65_535
_OWN_OPTIONS = {
    "bootstrap.servers": "set source.servers",
    "subscribe": "set source.topic",
    "auto.offset.reset": "set source.starting_offsets",
    "enable.auto.commit": "remove it: offsets live in the tables' commits",
    "isolation.level": "remove it: only committed records are read",
    "key.deserializer": "remove it: keys are taken as bytes",
    "value.deserializer": "remove it: source.format says how values are read",
    "interceptor.classes": "remove it: Spark does not allow it",
}
"""Kafka options that the pipeline sets itself → what to do instead."""


class Finding(NamedTuple):
    """Something that does not fit; `at_key` where the key rather than its value is to blame."""

    path: KeyPath
    what: str
    remedy: str
    at_key: bool = False


def check(pipeline: Pipeline) -> list[Finding]:
    """Everything that does not fit together in a pipeline whose every value is fine by itself."""
    findings = [*_root(pipeline), *_source(pipeline), *_event_time(pipeline), *_maintenance(pipeline)]
    findings += [*_retention(pipeline), *_metrics(pipeline), *_lineage(pipeline)]
    for name, rollup in pipeline.rollups.items():
        path: KeyPath = ("rollups", name)
        findings += _dimensions(pipeline, rollup, path)
        findings += _repeated(rollup.grains, (*path, "grains"), "the grain")
        findings += _grains(rollup, (*path, "grains"))
        findings += _metric_names(rollup, (*path, "metrics"))
        for index, metric in enumerate(rollup.metrics):
            findings += _metric(pipeline, metric, (*path, "metrics", index))
        findings += _ratios(rollup, (*path, "ratios"))
    return [*findings, *_alerts(pipeline), *_dashboard(pipeline)]


def _root(pipeline: Pipeline) -> Iterator[Finding]:
    root = pipeline.root
    if "://" in root and not root.startswith("s3://"):
        yield Finding(("root",), f"root has the scheme {root.split('://')[0]}", "write a folder or an s3:// URL")
    if root.startswith("s3://") and not root.removeprefix("s3://").split("/")[0]:
        yield Finding(("root",), "root names no bucket", "write s3://BUCKET/PREFIX")


def _source(pipeline: Pipeline) -> Iterator[Finding]:
    source = pipeline.source
    if source.format != "json" and source.registry is None:
        what = f"the format {source.format} needs a schema registry"
        yield Finding(("source", "format"), what, "set source.registry.url, or write json")
    if source.format == "json" and source.registry is not None:
        yield Finding(("source", "registry"), "values in JSON name no schema", "set source.format, or delete the key")
    if source.message and source.format != "protobuf":
        yield Finding(("source", "message"), "only values in Protobuf hold messages", "delete the key")
    for server in pipeline.source.servers.split(","):
        match = _SERVER.fullmatch(server.strip())
        if match is None or not 0 < int(match["port"]) <= _LAST_PORT:
            yield Finding(
                ("source", "servers"),
                f"{server.strip()!r} is not the address of a Kafka server",
                "write host:port, several separated by commas, such as localhost:9092",
            )
    for name in pipeline.source.options:
        plain = name.removeprefix("kafka.")
        if plain in _OWN_OPTIONS:
            yield Finding(
                ("source", "options", name),
                f"the pipeline sets {plain} itself",
                _OWN_OPTIONS[plain],
                at_key=True,
            )
        elif plain != name:
            yield Finding(("source", "options", name), f"{name} is not Kafka's own name", f"write {plain}", at_key=True)


def _event_time(pipeline: Pipeline) -> Iterator[Finding]:
    yield from _field(
        pipeline, pipeline.event_time.column, ("event_time", "column"), ("timestamp",), "the time of an event"
    )


def _maintenance(pipeline: Pipeline) -> Iterator[Finding]:
    maintenance = pipeline.maintenance
    places: tuple[tuple[KeyPath, timedelta, timedelta], ...] = (
        (("maintenance", "retention"), maintenance.retention, SAFE_RETENTION),
        (("maintenance", "every"), maintenance.every, _SHORTEST_PASS),
        # Alerts look back so far.
        (("metrics", "keep"), pipeline.metrics.keep, _LONGEST_QUARANTINE),
    )
    for path, value, least in places:
        key = path[-1]
        if value < least:
            yield Finding(
                path,
                f"{key} is {format_duration(value)}, and less than {format_duration(least)} is not safe",
                f"write {format_duration(least)} or more",
            )


def _retention(pipeline: Pipeline) -> Iterator[Finding]:
    for index, rule in enumerate(pipeline.retention):
        path: KeyPath = ("retention", index)
        meant = [rollup for name, rollup in pipeline.rollups.items() if rule.rollup in (None, name)]
        if rule.rollup is not None and rule.rows not in GRAINS:
            yield Finding((*path, "rollup"), f"{rule.rows} is no grain of a rollup", "leave `rollup` out")
        elif rule.rollup is not None and rule.rollup not in pipeline.rollups:
            remedy = choose(rule.rollup, pipeline.rollups, "the rollups are")
            yield Finding((*path, "rollup"), f"there is no rollup {rule.rollup}", remedy)
        elif rule.rows in GRAINS and not any(rule.rows in rollup.grains for rollup in meant):
            remedy = "add the grain, or take the rule away"
            yield Finding((*path, "rows"), f"no rollup has the grain {rule.rows}", remedy)
        elif rule.rows == "bronze" and not pipeline.tables.bronze:
            yield Finding((*path, "rows"), "the pipeline keeps no bronze", "set tables.bronze, or take the rule away")
        if rule.keep != "forever" and rule.keep < SHORTEST_KEEP:
            least = format_duration(SHORTEST_KEEP)
            what = f"keep is {format_duration(rule.keep)}, and rows stay for {least} at least"
            yield Finding((*path, "keep"), what, f"write {least} or more")
        before = pipeline.retention[:index]
        if any(other.rows == rule.rows and other.rollup in (None, rule.rollup) for other in before):
            yield Finding(path, "an earlier rule fits every table that this one fits", "move it up, or take it away")


def _field(pipeline: Pipeline, name: str, path: KeyPath, types: tuple[str, ...], purpose: str) -> Iterator[Finding]:
    """Nothing where the field exists with one of the types."""
    fields = pipeline.source.fields
    if name not in fields:
        yield Finding(path, f"there is no field {name}", choose(name, fields, "the fields are"))
    elif fields[name].type not in types:
        fitting = [other for other, field in fields.items() if field.type in types]
        remedy = f"choose a field of type {_either(types)}"
        yield Finding(
            path,
            f"{name} has the type {fields[name].type}, which cannot be {purpose}",
            f"{remedy}: {', '.join(fitting)}" if fitting else f"{remedy}; there is none yet",
        )


def _either(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _dimensions(pipeline: Pipeline, rollup: Rollup, path: KeyPath) -> Iterator[Finding]:
    yield from _repeated(rollup.dimensions, (*path, "dimensions"), "the dimension")
    for index, name in enumerate(rollup.dimensions):
        here = (*path, "dimensions", index)
        if name in GOLD_COLUMNS:
            yield Finding(here, f"{name} is a column that every rollup has itself", "rename the field, or leave it out")
        else:
            yield from _field(pipeline, name, here, DIMENSION_TYPES, "a dimension")


def _repeated(values: Sequence[str], path: KeyPath, kind: str) -> Iterator[Finding]:
    for index, value in enumerate(values):
        if value in values[:index]:
            yield Finding((*path, index), f"{kind} {value} stands here twice", "keep one")


def _grains(rollup: Rollup, path: KeyPath) -> Iterator[Finding]:
    wanted = [grain for grain in GRAINS if grain in rollup.grains or grain == GRAINS[0]]
    if list(dict.fromkeys(rollup.grains)) != wanted:
        yield Finding(
            path,
            "the grains do not go from 1s, which the stream writes, to coarser ones",
            f"write [{', '.join(wanted)}]",
        )


def _metric_names(rollup: Rollup, path: KeyPath) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, metric in enumerate(rollup.metrics):
        here = (*path, index, "name")
        if metric.name in GOLD_COLUMNS:
            yield Finding(here, f"{metric.name} is a column that every rollup has itself", "choose another name")
        elif metric.name in rollup.dimensions:
            yield Finding(here, f"{metric.name} is the name of a dimension already", "choose another name")
        elif metric.name in seen:
            yield Finding(here, f"two metrics have the name {metric.name}", "choose another name")
        seen.add(metric.name)


def _metric(pipeline: Pipeline, metric: AnyMetric, path: KeyPath) -> Iterator[Finding]:
    if metric.type == "distinct":
        types = DISTINCT_TYPES[1:] if metric.sketch == "bitmap" else DISTINCT_TYPES
        yield from _field(pipeline, metric.column, (*path, "column"), types, "counted by its distinct values")
        if metric.sketch == "theta" and not _LEAST_THETA <= metric.lg_k <= _MOST_THETA:
            here = (*path, "lg_k")
            yield Finding(
                here, f"a theta sketch has no lg_k of {metric.lg_k}", f"write {_LEAST_THETA} to {_MOST_THETA}"
            )
    elif metric.type == "top":
        yield from _field(pipeline, metric.column, (*path, "column"), ("string",), "counted by its values")
    elif metric.type != "count":
        yield from _field(pipeline, metric.column, (*path, "column"), NUMBER_TYPES, f"the input of {metric.type}")
    for name, wanted in metric.where.items():
        yield from _condition(pipeline, name, wanted, (*path, "where", name))


def _ratios(rollup: Rollup, path: KeyPath) -> Iterator[Finding]:
    kinds = {"events": "count"} | {metric.name: metric.type for metric in rollup.metrics}
    numbers = [name for name, kind in kinds.items() if kind not in ("quantiles", "top")]
    for name, ratio in rollup.ratios.items():
        if name in kinds or name in rollup.dimensions or name in GOLD_COLUMNS:
            what = f"{name} is the name of a column already"
            yield Finding((*path, name), what, "choose another name", at_key=True)
        for key, metric in (("of", ratio.of), ("over", ratio.over)):
            if metric not in numbers:
                remedy = choose(metric, numbers, "the metrics that are numbers are")
                yield Finding((*path, name, key), f"the rollup has no number {metric}", remedy)


def _condition(pipeline: Pipeline, name: str, wanted: str | int | list[str | int], path: KeyPath) -> Iterator[Finding]:
    fields = pipeline.source.fields
    if name not in fields:
        yield Finding(path, f"there is no field {name}", choose(name, fields, "the fields are"), at_key=True)
        return
    kind = fields[name].type
    if kind == "timestamp":
        yield Finding(path, f"{name} is a timestamp, which is not compared here", "compare another field", at_key=True)
        return
    if wanted == []:
        yield Finding(path, f"the list of values of {name} is empty, so no row would count", "list a value")
    is_list = isinstance(wanted, list)
    for index, value in enumerate(wanted if isinstance(wanted, list) else [wanted]):
        if not _fits(value, kind):
            yield Finding(
                (*path, index) if is_list else path,
                f"{name} has the type {kind}, but is compared with {_spell(value)}",
                _REWRITE[kind],
            )


def _alerts(pipeline: Pipeline) -> Iterator[Finding]:
    alerts = pipeline.alerts
    if alerts.every < _SHORTEST_PASS:
        yield Finding(("alerts", "every"), f"every is {format_duration(alerts.every)}", "write 1s or more")
    for name, alert in alerts.rules.items():
        path: KeyPath = ("alerts", "rules", name)
        if isinstance(alert, QuarantineAlert | FigureAlert):
            yield from _window(alert.window, _LONGEST_QUARANTINE, (*path, "window"))
        if isinstance(alert, FigureAlert):
            yield from _figure(pipeline, alert, (*path, "figure"))
        if isinstance(alert, LagAlert | QuarantineAlert | FigureAlert):
            continue
        rollup = pipeline.rollups.get(alert.rollup)
        if rollup is None:
            remedy = choose(alert.rollup, pipeline.rollups, "the rollups are")
            yield Finding((*path, "rollup"), f"there is no rollup {alert.rollup}", remedy)
            continue
        if not isinstance(alert, FreshnessAlert):
            yield from _alert_dimensions(pipeline, alert.where, rollup, (*path, "where"))
        yield from _alert(alert, rollup, path)
    for name, channel in alerts.notify.items():
        # The address is secret: nothing of it is told.
        if channel.kind != "kafka" and not _HTTP.fullmatch(channel.url.get_secret_value()):
            yield Finding(("alerts", "notify", name, "url"), "this is no http(s) URL", "write https://HOST/PATH")


def _figure(pipeline: Pipeline, alert: FigureAlert, path: KeyPath) -> Iterator[Finding]:
    """What a figure needs to be known at all: an alert that can never fire is a mistake."""
    if alert.figure == "disk_free_bytes" and pipeline.root.startswith("s3://"):
        yield Finding(path, "the root is an object store, which has no end", "delete the alert")
    if alert.figure == "dashboard_behind_seconds" and not pipeline.metrics.dashboard:
        yield Finding(
            path, "nobody says where a dashboard can be asked", "set metrics.dashboard, such as localhost:9465"
        )
    if alert.figure == "unmaintained_seconds" and not pipeline.maintenance.background:
        yield Finding(path, "the driver does not maintain the tables, so it cannot tell", "set maintenance.background")


def _lineage(pipeline: Pipeline) -> Iterator[Finding]:
    lineage = pipeline.lineage
    if lineage.every < _SHORTEST_PASS:
        yield Finding(("lineage", "every"), f"every is {format_duration(lineage.every)}", "write 1s or more")
    if lineage.to is not None and lineage.to.kind == "http" and not _HTTP.fullmatch(lineage.to.url.get_secret_value()):
        yield Finding(("lineage", "to", "url"), "this is no http(s) URL", "write https://HOST/PATH")


def _metrics(pipeline: Pipeline) -> Iterator[Finding]:
    address = pipeline.metrics.dashboard
    match = _SERVER.fullmatch(address)
    if address and (match is None or "://" in address or not 0 < int(match["port"]) <= _LAST_PORT):
        yield Finding(("metrics", "dashboard"), f"{address!r} is no address", "write host:port, such as localhost:9465")


def _alert(alert: AnyAlert, rollup: Rollup, path: KeyPath) -> Iterator[Finding]:
    kinds = {metric.name: metric.type for metric in rollup.metrics}
    match alert.kind:
        case "threshold":
            yield from _window(alert.window, _LONGEST_WINDOW, (*path, "window"))
            yield from _threshold(alert, rollup, path)
        case "absence":
            yield from _window(alert.window, _LONGEST_WINDOW, (*path, "window"))
        case "burn_rate":
            counts = [name for name, kind in kinds.items() if kind == "count"]
            if alert.errors not in counts:
                remedy = choose(alert.errors, counts, "the metrics of type count are")
                yield Finding((*path, "errors"), f"the rollup has no metric {alert.errors} of type count", remedy)
            if not 0 < alert.objective < 1:
                yield Finding((*path, "objective"), "an objective of 0 or 1 has no budget", "write such as 0.999")
            for index, pair in enumerate(alert.windows):
                yield from _window(pair.long, _LONGEST_WINDOW, (*path, "windows", index, "long"))
                if pair.short >= pair.long:
                    here = (*path, "windows", index, "short")
                    yield Finding(here, "the short window is not shorter than the long one", "write a shorter time")
        case _:
            pass


def _threshold(alert: ThresholdAlert, rollup: Rollup, path: KeyPath) -> Iterator[Finding]:
    kinds = {"events": "count"} | {metric.name: metric.type for metric in rollup.metrics}
    live = ["events", *(metric.name for metric in rollup.metrics if is_live(metric))]
    if alert.metric not in kinds:
        remedy = choose(alert.metric, kinds, "the metrics are")
        yield Finding((*path, "metric"), f"the rollup has no metric {alert.metric}", remedy)
    elif alert.metric not in live:
        what = f"alerts do not look at metrics such as {alert.metric}"
        yield Finding((*path, "metric"), what, f"name one of {', '.join(live)}")
    elif alert.per != "window" and kinds[alert.metric] not in ("count", "sum"):
        yield Finding((*path, "per"), f"{alert.metric} is no count and no sum", "delete the key")


def _window(window: timedelta, longest: timedelta, path: KeyPath) -> Iterator[Finding]:
    if not _SHORTEST_PASS <= window <= longest:
        yield Finding(
            path,
            f"the window is {format_duration(window)}",
            f"write a time between {format_duration(_SHORTEST_PASS)} and {format_duration(longest)}",
        )


def _alert_dimensions(pipeline: Pipeline, where: Where, rollup: Rollup, path: KeyPath) -> Iterator[Finding]:
    for name, wanted in where.items():
        if name not in rollup.dimensions:
            remedy = choose(name, rollup.dimensions, "its dimensions are")
            yield Finding((*path, name), f"the rollup has no dimension {name}", remedy, at_key=True)
        else:
            yield from _condition(pipeline, name, wanted, (*path, name))


def _dashboard(pipeline: Pipeline) -> Iterator[Finding]:
    for name, page in pipeline.dashboard.items():
        path: KeyPath = ("dashboard", name)
        rollup = pipeline.rollups.get(name)
        if rollup is None:
            remedy = choose(name, pipeline.rollups, "the rollups are")
            yield Finding(path, f"there is no rollup {name}", remedy, at_key=True)
            continue
        yield from _figures(page.tiles, rollup, (*path, "tiles"))
        for index, panel in enumerate(page.panels):
            here = (*path, "panels", index)
            if panel.kind == "heatmap":
                kinds = [metric.name for metric in rollup.metrics if metric.type == "quantiles"]
                if panel.metric not in kinds:
                    what = f"the rollup has no metric {panel.metric} of type quantiles"
                    remedy = choose(panel.metric, kinds, "these are") if kinds else "add one, or take the panel away"
                    yield Finding((*here, "metric"), what, remedy)
                continue
            yield from _figures(panel.figures, rollup, (*here, "figures"))
            if panel.kind == "leaderboard" and panel.dimension not in rollup.dimensions:
                remedy = choose(panel.dimension, rollup.dimensions, "its dimensions are")
                yield Finding((*here, "dimension"), f"the rollup has no dimension {panel.dimension}", remedy)


def _figures(figures: Sequence[PageFigure], rollup: Rollup, path: KeyPath) -> Iterator[Finding]:
    kinds = {"events": "count", **{metric.name: metric.type for metric in rollup.metrics if is_live(metric)}}
    seen: list[tuple[object, ...]] = []
    for index, figure in enumerate(figures):
        here = (*path, index)
        kind = kinds.get(figure.metric)
        if kind is None:
            remedy = choose(figure.metric, kinds, "the metrics are")
            place = here if figure.model_fields_set == {"metric"} else (*here, "metric")
            held = any(metric.name == figure.metric for metric in rollup.metrics)
            what = f"{figure.metric} is of a kind that the Live page does not hold" if held else ""
            yield Finding(place, what or f"the rollup has no metric {figure.metric}", remedy)
            continue
        if figure.per is not None and kind not in ("count", "sum"):
            yield Finding((*here, "per"), f"{figure.metric} is no count and no sum", "delete the key")
        if figure.quantile is not None and kind != "quantiles":
            yield Finding((*here, "quantile"), f"{figure.metric} has no quantiles", "delete the key")
        same = (figure.metric, figure.per, figure.quantile)
        if same in seen:
            yield Finding(here, f"the figure {figure.metric} stands here twice", "keep one")
        seen.append(same)


_REWRITE = {
    "string": "put the value in quotes",
    "integer": "write a whole number between -2147483648 and 2147483647, without quotes",
    "long": "write a whole number of at most 64 bits, without quotes",
    "double": "write a whole number, without quotes",
    "boolean": "write true or false, without quotes or brackets",
    "date": 'write a date in quotes, such as "2026-01-31"',
}


def _fits(value: str | int, kind: str) -> bool:
    if isinstance(value, str):
        return kind == "string" or (kind == "date" and _is_date(value))
    if isinstance(value, bool):
        return kind == "boolean"
    limit = _RANGE.get(kind)
    return kind in NUMBER_TYPES and (limit is None or -limit <= value < limit)


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _spell(value: str | int) -> str:
    if isinstance(value, str):
        return f'the text "{value}"'
    return str(value).lower() if isinstance(value, bool) else f"the number {value}"
