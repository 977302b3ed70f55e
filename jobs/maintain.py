"""One maintenance pass over a pipeline's tables: python or spark-submit jobs/maintain.py conf/PIPELINE.yaml."""

from __future__ import annotations

import sys
from pathlib import Path

from lakehouse.cli import exit_on_error, stopping
from lakehouse.config.loader import load_pipeline
from lakehouse.maintenance.run import Maintainer


def main(path: str) -> None:
    """Maintain every table once; exit 1 where one could not be. Needs no JVM and no Kafka."""
    with exit_on_error(), stopping() as stop:
        reports = Maintainer(load_pipeline(Path(path)), stop=stop).maintain()
        print(*reports, sep="\n")
        if any(report.error for report in reports):
            raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1])
