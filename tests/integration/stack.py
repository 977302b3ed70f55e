"""The pipeline on a real broker, for tests: one place to make a pipeline, feed it, run it and hold it to account."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from deltalake import DeltaTable

from lakehouse import pipeline as flow
from lakehouse.config.loader import load_pipeline
from lakehouse.load.plan import Load
from lakehouse.load.producer import LoadReport, produce
from lakehouse.reconcile import Reconciliation, reconcile
from tests.loads import FEATURE_EVENTS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakehouse.config.models import Pipeline

CONFIG = Path(__file__).parent.parent.parent / "conf" / "feature_events.yaml"


@dataclass
class Stack:
    """One topic and one root. Everything a test does to them is a method."""

    spark: SparkSession
    bootstrap: str
    topic: str
    root: Path
    changes: dict[str, object] = field(default_factory=dict)

    def pipeline(self, trigger: str = "available_now") -> Pipeline:
        """The shipped pipeline over this topic and root."""
        environment = {**os.environ, "LAKEHOUSE_ROOT": str(self.root), "KAFKA_BOOTSTRAP": self.bootstrap}
        shipped = load_pipeline(CONFIG, environment)
        raw = shipped.model_dump(mode="json")
        raw["source"] |= {"topic": self.topic, "options": {}}
        raw["trigger"] = {"kind": trigger}
        return type(shipped).model_validate(raw | self.changes)

    @property
    def checkpoint(self) -> Path:
        """Folder of Spark's checkpoint."""
        return self.root / "_checkpoints" / "feature_events"

    def send(self, count: int, *, seed: int = 1, bad_share: float = 0.02) -> LoadReport:
        """Put `count` events into the topic, at once."""
        load = Load(
            FEATURE_EVENTS,
            rate=2_000,
            count=count,
            seed=seed,
            bad_share=bad_share,
            shape="flat",
            partitions=2,
            keep_ledger=True,
        )
        return produce(load, self.bootstrap, self.topic, start_at=datetime.now(UTC) - timedelta(seconds=count / 2_000))

    def catch_up(self) -> list[flow.Committed]:
        """Run until the topic is read; the batches that were committed."""
        batches: list[flow.Committed] = []
        flow.run(self.spark, self.pipeline(), threading.Event(), on_batch=batches.append)
        return batches

    def reconcile(self) -> Reconciliation:
        """Topic against tables."""
        return reconcile(self.pipeline())

    def rows(self, layer: str) -> list[dict[str, object]]:
        """Every row of a layer's table."""
        return DeltaTable(str(self.root / layer / "feature_events")).to_pyarrow_table().to_pylist()  # type: ignore[no-any-return]

    def file(self, folder: Path) -> Path:
        """The shipped pipeline's file over this topic."""
        raw = yaml.safe_load(CONFIG.read_text())
        raw["source"]["topic"] = self.topic
        raw["quality"]["suite"] = str(CONFIG.parent.parent / "expectations" / "feature_events.json")
        written = folder / "pipeline.yaml"
        written.write_text(yaml.safe_dump(raw))
        return written

    def start_process(self, pipeline_file: Path) -> subprocess.Popen[bytes]:
        """`lakehouse run` as users start it, in a process group of its own."""
        environment = {**os.environ, "LAKEHOUSE_ROOT": str(self.root), "KAFKA_BOOTSTRAP": self.bootstrap}
        with (self.root / "run.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "lakehouse", "run", str(pipeline_file), "--json"],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the process and everything it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Wait for something that happens elsewhere; fail by name if it does not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(0.02)
