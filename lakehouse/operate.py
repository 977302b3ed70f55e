"""What goes along with a running pipeline: its figures, maintenance, alerts and lineage."""

from __future__ import annotations

import json
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from lakehouse import logs
from lakehouse.lineage.tracer import Tracer
from lakehouse.maintenance.background import Background, maintained
from lakehouse.metrics.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lakehouse.config.models import Pipeline


@contextmanager
def operated(path: Path, pipeline: Pipeline, *, as_json: bool = False) -> Iterator[Telemetry]:
    """Gather the pipeline's figures, maintain its tables and evaluate its alerts while the body runs.

    From then on its secrets are in no log.

    Raises:
        ConfigError: the Prometheus endpoint cannot be opened.
    """
    logs.configure(pipeline, as_json=as_json)
    with (
        closing(Telemetry.open(pipeline)) as telemetry,
        maintained(path, pipeline, telemetry.maintained),
        alerted(path, pipeline, telemetry),
        traced(pipeline, telemetry),
    ):
        yield telemetry


@contextmanager
def traced(pipeline: Pipeline, telemetry: Telemetry) -> Iterator[None]:
    """Send OpenLineage events of the run that the body is, where the pipeline's file names a receiver."""
    if pipeline.lineage.to is None:
        yield
        return
    tracer = Tracer(pipeline, pipeline.lineage.to)
    telemetry.tell(tracer.committed)
    with tracer.running():
        yield


@contextmanager
def alerted(path: Path, pipeline: Pipeline, telemetry: Telemetry) -> Iterator[None]:
    """Evaluate the pipeline's alerts in a child process, where its file has any and it runs for long."""
    if not pipeline.alerts.rules or pipeline.trigger.kind == "available_now":
        yield
        return

    def take(line: str) -> None:
        found = json.loads(line)
        telemetry.alert(found["alert"], found["severity"], firing=found["state"] == "firing")

    command = [sys.executable, "-m", "lakehouse", "alerts", str(path), "--attached", "--json"]
    child = Background(command, name="alerts", on_line=take)
    child.start()
    try:
        yield
    finally:
        child.stop()
