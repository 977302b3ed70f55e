"""The alerts of a pipeline as the pages show them: which fire, which are over, what to do. Shared by all sessions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from deltalake.exceptions import DeltaError
from obstore.exceptions import BaseError

from dashboard import panels, wording
from dashboard.held import Held
from dashboard.panels import marked
from lakehouse.alerts import history
from lakehouse.alerts.conditions import page
from lakehouse.alerts.figures import JournalTail
from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dashboard.panels import Cell, Mood, Panel
    from lakehouse.config.models import Pipeline

LOOK_S = 2.0
RECENT_S = 24 * 3_600.0
"""An alert that has ended is shown for so long."""
_COLUMNS = ["time", "alert", "severity", "state", "since", "value", "limit", "summary", "runbook", "silenced_until"]

State = Literal["firing", "pending", "resolved", "quiet"]
_ORDER: dict[State, int] = {"firing": 0, "pending": 1, "resolved": 2, "quiet": 3}
_GRAVITY = {"critical": 0, "warning": 1, "info": 2}
_MOODS: dict[State, Mood] = {"firing": "bad", "pending": "warn", "resolved": "good", "quiet": ""}


@dataclass(frozen=True, slots=True)
class Alarm:
    """Where an alert of the pipeline's file stands.

    Attributes:
        name, kind, severity: as in the file.
        state: resolved where it fired within the last day and does not any more; quiet where neither.
        since_s: when it entered the state, seconds since 1970 UTC; 0 where it never left it.
        summary: what was compared, when its state changed last.
        runbook: a path or a URL.
        silenced_s: until when nobody is told, seconds since 1970 UTC; None where people are.
    """

    name: str
    kind: str
    severity: str
    state: State
    since_s: float
    summary: str
    runbook: str
    silenced_s: float | None


class Alarms:
    """The journal of a pipeline's alerts, read as it grows."""

    def __init__(self, pipeline: Pipeline, *, clock: Callable[[], float] = time.time) -> None:
        self._pipeline, self._clock = pipeline, clock
        self._tail = JournalTail(
            history.table_url(pipeline), _COLUMNS, keep_s=pipeline.metrics.keep.total_seconds(), clock=clock
        )
        self._last: dict[str, dict[str, Any]] = {}
        self._ended: dict[str, float] = {}
        """Alert → when it last ceased to fire."""
        self._silenced: dict[str, float] = {}
        self._problem = ""
        self._held = Held(self._look, LOOK_S)

    def all(self) -> tuple[Alarm, ...]:
        """Every alert of the file, the gravest first."""
        return self._held.get()

    def told(self) -> dict[str, Any]:
        """For the badge on every page."""
        shown = [one for one in self.all() if one.state != "quiet"]
        return {
            "rules": len(self._pipeline.alerts.rules),
            "problem": self._problem,
            "alerts": [
                {
                    "name": one.name,
                    "severity": one.severity,
                    "state": one.state,
                    "since_ms": round(one.since_s * 1_000),
                    "summary": one.summary,
                    "runbook": one.runbook,
                    "silenced": one.silenced_s is not None,
                }
                for one in shown
            ],
        }

    def panel(self, now_ms: float) -> Panel:
        """The table on the Pipeline page."""
        rows: list[list[Cell]] = []
        for one in self.all():
            since = wording.NONE if not one.since_s else f"{wording.span(max(0.0, now_ms - one.since_s * 1_000))} ago"
            state = f"{one.state}, silenced" if one.silenced_s else one.state
            rows.append([one.name, one.severity, marked(state, _MOODS[one.state]), since, one.summary, one.runbook])
        return panels.table(
            "alerts",
            "Alerts",
            ("alert", "severity", "state", "since", "what was compared", "runbook"),
            rows,
            caption=self._problem or f"evaluated every {self._pipeline.alerts.every.total_seconds():g} s",
            empty="The pipeline's file declares no alerts: add them under alerts.rules.",
        )

    def _look(self) -> tuple[Alarm, ...]:
        if not self._pipeline.alerts.rules:
            return ()
        try:
            rows, anew = self._tail.step()
            self._problem = ""
        except (LakehouseError, DeltaError, BaseError, OSError) as error:
            self._problem = f"the alerts' journal cannot be read: {type(error).__name__}"
            rows, anew = [], False
        if anew:
            self._last, self._ended, self._silenced = {}, {}, {}
        for row in sorted(rows, key=lambda row: row["time"]):
            self._take(row)
        now = self._clock()
        found = [self._alarm(name, now) for name in self._pipeline.alerts.rules]
        return tuple(sorted(found, key=lambda one: (_ORDER[one.state], _GRAVITY[one.severity], -one.since_s)))

    def _take(self, row: dict[str, Any]) -> None:
        name, at_s = row["alert"], row["time"].timestamp()
        if row["state"] == history.SILENCE:
            self._silenced[name] = row["silenced_until"].timestamp()
            return
        before = self._last.get(name)
        if before is not None and before["state"] == "firing" and row["state"] != "firing":
            self._ended[name] = at_s
        self._last[name] = row

    def _alarm(self, name: str, now: float) -> Alarm:
        rule = self._pipeline.alerts.rules[name]
        last = self._last.get(name)
        state: State = "quiet"
        since = 0.0
        if last is not None and last["state"] in ("firing", "pending"):
            state, since = last["state"], last["since"].timestamp()
        elif now - self._ended.get(name, -RECENT_S) < RECENT_S:
            state, since = "resolved", self._ended[name]
        elif last is not None:
            since = last["time"].timestamp()
        silenced = self._silenced.get(name, 0.0)
        runbook = f"{self._pipeline.alerts.runbooks.rstrip('/')}/{page(rule)}.md"
        return Alarm(
            name=name,
            kind=rule.kind,
            severity=rule.severity,
            state=state,
            since_s=since,
            summary="" if last is None else last["summary"],
            runbook=runbook if last is None else last["runbook"],
            silenced_s=silenced if silenced > now else None,
        )
