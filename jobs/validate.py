"""Report on a pipeline's rows by Great Expectations: spark-submit jobs/validate.py conf/PIPELINE.yaml.

Exit codes: 0 passed, 1 a critical expectation failed or stream and report differ, 2 wrong config.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from lakehouse.cli import exit_on_error
from lakehouse.config.loader import load_pipeline
from lakehouse.reports.population import parse_span
from lakehouse.reports.run import run_report
from lakehouse.session import submitted_session


def main() -> None:
    """Judge the rows of a range; a repetition under the same run id writes its results once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pipeline", type=Path)
    for option in ("--from", "--to", "--last", "--run-id"):
        parser.add_argument(option)
    given = vars(parser.parse_args())
    with exit_on_error():
        pipeline = load_pipeline(given["pipeline"])
        span = parse_span(given["from"], given["to"], given["last"], now=datetime.now(UTC))
        spark = submitted_session(f"quality-{pipeline.name}", reads_delta=True)
        report = run_report(spark, pipeline, span, run_id=given["run_id"])
        print(report)
        sys.exit(0 if report.ok else 1)


if __name__ == "__main__":
    main()
