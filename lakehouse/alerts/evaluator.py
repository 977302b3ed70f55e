"""Evaluates a pipeline's alerts: read the tables, see what holds, remember, tell. No JVM.

One evaluator works at a time on a machine: others stand by, and take over when it ends. So the child of `lakehouse run`
and a `lakehouse alerts` that watches from outside tell each alert once, and the second still tells when the first is
gone.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from deltalake.exceptions import DeltaError
from obstore.exceptions import BaseError

from lakehouse import storage
from lakehouse.alerts import history
from lakehouse.alerts.channels import outboxes
from lakehouse.alerts.conditions import Facts, levels, page, read, windows
from lakehouse.alerts.figures import LONGEST_S, Figures, JournalTail
from lakehouse.alerts.finding import Finding
from lakehouse.alerts.standings import Standing, advance, tell
from lakehouse.config.models import AbsenceAlert, BurnRateAlert, FreshnessAlert, ThresholdAlert
from lakehouse.errors import LakehouseError
from lakehouse.lock import alert_lock
from lakehouse.serving.beacon import Behind
from lakehouse.serving.follower import Follower
from lakehouse.serving.snapshot import Shape

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from lakehouse.config.models import AnyAlert, Pipeline

logger = logging.getLogger(__name__)

_STANDBY_S = 2.0

OfRollup = ThresholdAlert | AbsenceAlert | FreshnessAlert | BurnRateAlert
"""The alerts that look at a rollup's table."""


class Evaluator:
    """The alerts of one pipeline.

    Args:
        pipeline: whose alerts.
        clock: seconds since 1970 UTC.
        on_news: called at each evaluation with the findings that changed or have to be told, where there are any.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        clock: Callable[[], float] = time.time,
        on_news: Callable[[list[Finding]], None] = lambda _: None,
    ) -> None:
        self._pipeline, self._clock, self._on_news = pipeline, clock, on_news
        self._followers = _followers(pipeline, clock)
        self._figures = Figures(pipeline.name)
        ops_url = storage.layer_url(pipeline.root, "_ops", pipeline.name)
        self._ops = JournalTail(ops_url, list(Figures.COLUMNS), keep_s=LONGEST_S, clock=clock)
        columns = ["time", "alert", "state", "silenced_until"]
        self._spoken = JournalTail(history.table_url(pipeline), columns, keep_s=clock(), clock=clock)
        self._silenced: dict[str, float] = {}
        self._standings = history.standings(history.read(pipeline))
        self._unreadable: set[str] = set()
        asked = [alert for alert in pipeline.alerts.rules.values() if alert.kind == "figure"]
        self._asks_disk = any(alert.figure == "disk_free_bytes" for alert in asked)
        asks_dashboard = any(alert.figure == "dashboard_behind_seconds" for alert in asked)
        self._dashboard = Behind(pipeline.metrics.dashboard, clock) if asks_dashboard else None

    def step(self) -> list[Finding]:
        """One evaluation: every alert of the file, in its order."""
        facts = self._facts(self._clock())
        findings = [self._evaluate(name, alert, facts) for name, alert in self._pipeline.alerts.rules.items()]
        news = [found for found in findings if found.changed or found.told]
        if news:
            self._on_news(news)
        return findings

    def _evaluate(self, name: str, alert: AnyAlert, facts: Facts) -> Finding:
        now_s, settings = facts.now_s, self._pipeline.alerts
        reading = read(alert, facts)
        before = self._standings.get(name, Standing())
        silenced = self._silenced.get(name, 0.0) > now_s
        standing, told = tell(
            advance(before, reading, alert.hold_for, now_s),
            now_s,
            silenced=silenced,
            repeat_every=settings.repeat_every,
        )
        self._standings[name] = standing
        return Finding(
            pipeline=self._pipeline.name,
            name=name,
            alert=alert,
            standing=standing,
            reading=reading,
            runbook=f"{settings.runbooks.rstrip('/')}/{page(alert)}.md",
            at_s=now_s,
            silenced_until_s=self._silenced[name] if silenced else None,
            changed=standing.state != before.state,
            told=told,
        )

    def _facts(self, now_s: float) -> Facts:
        readable = frozenset(name for name, follower in self._followers.items() if self._reads(name, follower.step))
        self._reads("_ops", lambda: self._take_figures(now_s))
        self._reads("silences", self._take_silences)
        snapshots = {name: follower.snapshot for name, follower in self._followers.items()}
        return Facts(
            now_s,
            snapshots,
            readable,
            self._figures,
            room=storage.room(self._pipeline.root) if self._asks_disk else None,
            dashboard_behind_s=self._dashboard.seconds() if self._dashboard else None,
        )

    def _take_figures(self, now_s: float) -> None:
        rows, anew = self._ops.step()
        if anew:
            self._figures.clear()
        self._figures.take(rows, now_s)

    def _take_silences(self) -> None:
        rows, anew = self._spoken.step()
        if anew:
            self._silenced = {}
        self._silenced |= history.silences(rows)

    def _reads(self, what: str, step: Callable[[], object]) -> bool:
        """Whether it could be read; a problem is said once, until it is over."""
        try:
            step()
        except (LakehouseError, DeltaError, BaseError, OSError, ValueError) as error:
            if what not in self._unreadable:
                logger.warning("alerts cannot read %s: %s", what, error)
            self._unreadable.add(what)
            return False
        self._unreadable.discard(what)
        return True


def _followers(pipeline: Pipeline, clock: Callable[[], float]) -> dict[str, Follower]:
    """Rollup → a follower that keeps no more of its table than the alerts ask for."""
    asking: dict[str, list[OfRollup]] = {}
    for alert in pipeline.alerts.rules.values():
        if isinstance(alert, OfRollup):
            asking.setdefault(alert.rollup, []).append(alert)
    return {name: _follower(pipeline, name, alerts, clock) for name, alerts in asking.items()}


def _follower(pipeline: Pipeline, name: str, alerts: list[OfRollup], clock: Callable[[], float]) -> Follower:
    rollup = pipeline.rollups[name]
    shape = Shape.of(rollup, pipeline.source.fields)
    dimensions = {key for alert in alerts if not isinstance(alert, FreshnessAlert) for key in alert.where}
    metrics = {alert.metric for alert in alerts if isinstance(alert, ThresholdAlert)}
    slim = replace(
        shape,
        # At least one: cells need a key.
        dimensions=tuple(key for key in shape.dimensions if key in dimensions) or shape.dimensions[:1],
        sketches=tuple(sketch for sketch in shape.sketches if sketch[0] in metrics),
    )
    table = next(table for table, _, of in pipeline.rollup_tables() if of is rollup)
    spans = [span for alert in alerts for span in windows(alert)]
    return Follower(storage.layer_url(pipeline.root, "gold", table), slim, levels=levels(spans), clock=clock)


@contextmanager
def evaluating(pipeline: Pipeline, *, alone: bool = True) -> Iterator[Evaluator]:
    """An evaluator that keeps and tells its news; where it is not `alone` it only looks.

    At the end what still waits for a receiver is tried once more.
    """
    if not alone:
        yield Evaluator(pipeline)
        return
    boxes = outboxes(pipeline)
    with closing(history.journal(pipeline)) as journal:

        def on_news(news: list[Finding]) -> None:
            journal.append(lambda: [found.to_row() for found in news])
            for box in boxes:
                for found in news:
                    box.put(found)

        for box in boxes:
            box.start()
        try:
            yield Evaluator(pipeline, on_news=on_news)
        finally:
            for box in boxes:
                box.close()


def once(pipeline: Pipeline) -> list[Finding]:
    """One evaluation, remembered and told; while another evaluator works, only looked at."""
    with (
        alert_lock(storage.machine_root(pipeline.root), pipeline.name) as alone,
        evaluating(pipeline, alone=alone) as evaluator,
    ):
        return evaluator.step()


def follow(
    pipeline: Pipeline,
    stop: threading.Event,
    on_findings: Callable[[list[Finding]], None],
    *,
    on_standby: Callable[[], None] = lambda: None,
) -> None:
    """Evaluate again and again until `stop` is set; stand by while another process on this machine does.

    Args:
        pipeline: whose alerts.
        stop: looked at between two evaluations.
        on_findings: called after each evaluation: with all findings at first, then with those whose state has changed.
        on_standby: called once where another evaluator works.
    """
    said = False
    while not stop.is_set():
        with alert_lock(storage.machine_root(pipeline.root), pipeline.name) as alone:
            if alone:
                _evaluate_until(stop, pipeline, on_findings)
                return
        if not said:
            on_standby()
        said = True
        stop.wait(_STANDBY_S)


def _evaluate_until(stop: threading.Event, pipeline: Pipeline, on_findings: Callable[[list[Finding]], None]) -> None:
    every_s, first = pipeline.alerts.every.total_seconds(), True
    with evaluating(pipeline) as evaluator:
        while not stop.is_set():
            began = time.monotonic()
            findings = evaluator.step()
            on_findings([found for found in findings if first or found.changed])
            first = False
            stop.wait(max(0.0, every_s - (time.monotonic() - began)))
