"""What goes along with a running pipeline: its figures and maintenance."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from lakehouse import logs
from lakehouse.maintenance.background import maintained
from lakehouse.metrics.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lakehouse.config.models import Pipeline


@contextmanager
def operated(path: Path, pipeline: Pipeline, *, as_json: bool = False) -> Iterator[Telemetry]:
    """Gather the pipeline's figures, maintain its tables and keep its secrets out of the logs while the body runs.

    Raises:
        ConfigError: the Prometheus endpoint cannot be opened.
    """
    logs.configure(pipeline, as_json=as_json)
    with closing(Telemetry.open(pipeline)) as telemetry, maintained(path, pipeline, telemetry.maintained):
        yield telemetry
