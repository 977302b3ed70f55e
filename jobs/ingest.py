"""Ingest one pipeline's topic into its tables: spark-submit jobs/ingest.py conf/PIPELINE.yaml."""

from __future__ import annotations

import sys
from pathlib import Path

from lakehouse.cli import exit_on_error, stopping
from lakehouse.config.loader import load_pipeline
from lakehouse.operate import operated
from lakehouse.runner import run
from lakehouse.session import submitted_session


def main(path: str) -> None:
    """Run until SIGTERM, or until the topic is read where the pipeline's trigger is `available_now`."""
    with exit_on_error(), stopping() as stop:
        pipeline = load_pipeline(Path(path))
        with operated(Path(path), pipeline) as telemetry:
            run(submitted_session(pipeline.name), pipeline, stop, telemetry)


if __name__ == "__main__":
    main(sys.argv[1])
