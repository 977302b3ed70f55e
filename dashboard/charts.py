"""Answers as the messages that the page draws: plain numbers, rounded to what a pixel can show."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Any

import datasketches
import orjson

from lakehouse.serving.questions import REST, freshness_ms, freshness_state, label

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lakehouse.serving.questions import Answer, Question, Series
    from lakehouse.serving.snapshot import Shape, Snapshot

SPARK_POINTS = 60
"""A sparkline is some 180 pixels wide: more points than this only blur it."""
_SKETCHES = ("kll", "hll")
_UNITS = {
    "us": "µs", "ms": "ms", "s": "s", "bytes": "B", "kb": "kB", "mb": "MB",
    "eur": "€", "usd": "$", "gbp": "£", "celsius": "°C", "percent": "%", "watts": "W", "meters": "m",
}  # fmt: skip
_TIMES = ("µs", "ms", "s")
_FAILURE = re.compile(r"error|fail|declin|refus|reject|timeout|drop|lost")


def encode_board(snapshot: Snapshot, question: Question, found: Answer) -> bytes:
    """Tiles, charts and leaderboard as JSON. The same answer gives the same bytes, so nothing is redrawn."""
    drawn = orjson.dumps(_lines(found.series, snapshot.shape))
    return orjson.dumps(
        {
            "version": snapshot.version,
            "max_event_ms": _round(snapshot.max_event_ms, 0),
            "minutes": found.minutes,
            "period": f"vs previous {found.minutes} min",
            "events": found.now.events,
            "tiles": tiles(found, snapshot.shape),
            "specs": specs(snapshot.shape),
            "split": question.split,
            "rest": REST,
            "series_id": zlib.crc32(drawn),
            "series": orjson.Fragment(drawn),
            "leader": snapshot.shape.dimensions[0],
            "leaders": [
                {
                    "name": leader.name,
                    "rate": _round(leader.now.rate, 3),
                    "before": _round(leader.before.rate, 3),
                    "errors": _round(leader.now.errors, 5),
                    "p95": _round(leader.now.latency[1], 2),
                    "users": _round(leader.now.users, 0),
                    "change": leader.now.rate / leader.before.rate - 1 if leader.before.rate else None,
                }
                for leader in found.leaders
            ],
            "foot": footnote(snapshot.shape),
        }
    )


def _lines(series: Series, shape: Shape) -> dict[str, Any]:
    latency = series.latency if shape.latency is not None else ()
    return {
        "start": series.start,
        "step": series.step,
        "points": len(series.errors),
        "rates": series.rates,
        "latency": latency,
    }


def encode_waiting(snapshot: Snapshot, table: str, config: str) -> bytes:
    """The board before the first version: the table is being read, or does not exist yet and what to do."""
    if snapshot.loading is not None:
        title, text = "Reading the table", f"{snapshot.loading:.0%} of the files of gold/{table}"
    else:
        title = "Waiting for the first commit"
        text = (
            f"The table gold/{table} does not exist yet. It appears here by itself once the pipeline has"
            f" committed; start it with: lakehouse run {config}"
        )
    empty = {"version": -1, "events": 0, "max_event_ms": None}
    return orjson.dumps({**empty, "waiting": text, "title": title})


def encode_badge(snapshot: Snapshot, now_ms: float, *, paused: bool, problem: str | None) -> bytes:
    """Age of the newest event at this render; the page ages it on until the next one."""
    age = freshness_ms(snapshot, now_ms)
    return orjson.dumps(
        {
            "version": snapshot.version,
            "max_event_ms": _round(snapshot.max_event_ms, 0),
            "server_ms": round(now_ms),
            "age_ms": age,
            "state": freshness_state(age),
            "paused": paused,
            "problem": problem,
        }
    )


def tiles(found: Answer, shape: Shape) -> dict[str, dict[str, Any]]:
    """Value now, value in the window before, and a sparkline, for each tile that the rollup can fill."""
    now, before, series = found.now, found.before, found.series
    total = [sum(values) for values in zip(*(values for _, values in series.rates), strict=True)]
    made = {"rate": _tile(now.rate, before.rate, total or [0.0] * len(series.errors), 3)}
    made["rate"]["note"] = f"{now.events:,} events"
    if shape.errors is not None:
        made["errors"] = _tile(now.errors, before.errors, series.errors, 6)
    if shape.latency is not None:
        for index, name in enumerate(("p50", "p95", "p99")):
            made[name] = _tile(now.latency[index], before.latency[index], series.latency[index], 2)
    if shape.users is not None:
        made["users"] = _tile(now.users, before.users, series.users, 0)
    return made


def specs(shape: Shape) -> list[dict[str, Any]]:
    """The tiles that the rollup's metrics give: id, label, unit, kind of number, and which direction is better.

    Labels and units come from the metrics' names: `latency_ms_kll` is Latency in ms. A count that speaks of failure,
    and a time, are better when they fall; for others neither direction is.
    """
    found = [_spec("rate", "Events per second", "/s")]
    if shape.errors is not None:
        name, _ = words(shape.numbers[shape.errors][0])
        found.append(_spec("errors", name, "%", text="percent", good=-1 if _FAILURE.search(name.lower()) else 0))
    if shape.latency is not None:
        name, unit = words(shape.sketches[shape.latency][0])
        good = -1 if unit in _TIMES else 0
        found += [_spec(rank, f"{name} {rank}", unit, good=good) | {"of": name} for rank in ("p50", "p95", "p99")]
    if shape.users is not None:
        name, unit = words(shape.sketches[shape.users][0])
        found.append(_spec("users", f"Distinct {name.lower()}", unit, text="count"))
    return found


def words(metric: str) -> tuple[str, str]:
    """A metric's name for people, and its unit where the name ends with one."""
    parts = metric.split("_")
    if len(parts) > 1 and parts[-1] in _SKETCHES:
        parts.pop()
    unit = _UNITS[parts.pop()] if len(parts) > 1 and parts[-1] in _UNITS else ""
    return " ".join(parts).capitalize(), unit


def _spec(name: str, label: str, unit: str, *, text: str = "number", good: int = 0) -> dict[str, Any]:
    return {"id": name, "label": label, "unit": unit, "text": text, "good": good}


def footnote(shape: Shape) -> str:
    """How exact the figures are, from the sizes of the sketches."""
    text = ["Counts are exact."]
    if shape.latency is not None:
        k = shape.sketches[shape.latency][2]
        error = datasketches.kll_doubles_sketch.get_normalized_rank_error(k, False)
        name, _ = words(shape.sketches[shape.latency][0])
        text.append(f"{name} quantiles are within ±{error:.2%} of rank.")
    if shape.users is not None:
        error = datasketches.hll_union.get_rel_err(True, True, max(shape.sketches[shape.users][2], 7), 2)
        name, _ = words(shape.sketches[shape.users][0])
        text.append(f"Distinct {name.lower()} are within ±{abs(error):.1%} (95 %).")
    return " ".join([*text, "Times are UTC."])


def names(values: Iterable[Any]) -> list[str]:
    """A dimension's values as a filter offers them."""
    return [label(value) for value in values]


def _tile(now: float | None, before: float | None, spark: Iterable[float | None], digits: int) -> dict[str, Any]:
    points = list(spark)
    stride = -(-len(points) // SPARK_POINTS) or 1
    thinned = [_mean(points[index : index + stride]) for index in range(0, len(points), stride)]
    sparks = [_round(value, 5) for value in thinned]
    return {"now": _round(now, digits), "before": _round(before, digits), "spark": sparks}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits) if digits else round(value)
