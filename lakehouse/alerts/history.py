"""The journal `_ops/NAME_alerts`: every change of an alert's state, and silences. An evaluator begins where it ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from lakehouse import storage
from lakehouse.alerts.finding import moment
from lakehouse.alerts.standings import Standing
from lakehouse.config.models import format_duration
from lakehouse.errors import ConfigError
from lakehouse.schemas import ALERTS_SCHEMA
from lakehouse.sinks.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta

    from lakehouse.config.models import Pipeline

SILENCE = "silence"
"""Instead of a state: the row silences its alert until `silenced_until`."""


def table_url(pipeline: Pipeline) -> str:
    """Where the journal lies."""
    return storage.layer_url(pipeline.root, "_ops", f"{pipeline.name}_alerts")


def journal(pipeline: Pipeline) -> Journal:
    """The journal, to append to."""
    return Journal(table_url(pipeline), ALERTS_SCHEMA, what="the change of an alert")


def silence(pipeline: Pipeline, name: str, lasting: timedelta, reason: str) -> datetime:
    """Tell nobody of an alert for a while; until when.

    Raises:
        ConfigError: the file has no such alert, the silence is too long, or it could not be written.
    """
    if name not in pipeline.alerts.rules:
        known = ", ".join(pipeline.alerts.rules) or "there are none"
        raise ConfigError(f"there is no alert {name}", where="alerts.rules", remedy=f"the alerts are: {known}")
    keep = pipeline.metrics.keep
    if lasting > keep:
        raise ConfigError(
            f"a silence of {format_duration(lasting)} outlasts its row, which is kept for {format_duration(keep)}",
            where="metrics.keep",
            remedy="take the alert out of the file, or be silent for a shorter time",
        )
    now_s = time.time()
    until = moment(now_s + lasting.total_seconds())
    alert = pipeline.alerts.rules[name]
    kept = journal(pipeline)
    made = {"time": moment(now_s), "alert": name, "kind": alert.kind, "severity": alert.severity, "state": SILENCE}
    kept.append(lambda: [made | {"summary": reason, "silenced_until": until}])
    kept.close()
    if kept.left_out:
        raise ConfigError("the silence could not be written", where=kept.url, remedy="see that the root can be written")
    return until


def read(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Every row that is kept, oldest first; none where there is no journal yet."""
    try:
        rows: list[dict[str, Any]] = DeltaTable(table_url(pipeline)).to_pyarrow_table().to_pylist()
    except TableNotFoundError:
        return []
    return sorted(rows, key=lambda found: found["time"])


def standings(rows: Iterable[Mapping[str, Any]]) -> dict[str, Standing]:
    """Alert → where its last row left it. One that fires has been told, unless it was silenced then."""
    found: dict[str, Standing] = {}
    for kept in rows:
        if kept["state"] == SILENCE:
            continue
        told_s = kept["time"].timestamp() if kept["state"] == "firing" and kept["silenced_until"] is None else None
        found[kept["alert"]] = Standing(kept["state"], kept["since"].timestamp(), told_s)
    return found


def silences(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Alert → until when it is silenced, seconds since 1970 UTC; of several silences the last one counts."""
    spoken = sorted((kept for kept in rows if kept["state"] == SILENCE), key=lambda kept: kept["time"])
    return {kept["alert"]: kept["silenced_until"].timestamp() for kept in spoken}
