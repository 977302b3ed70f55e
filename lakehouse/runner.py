"""Runs a pipeline for as long as it should: waits for Kafka when it is away, and tells how it goes."""

from __future__ import annotations

import statistics
import time
from datetime import datetime
from typing import TYPE_CHECKING

import orjson
import typer

from lakehouse import pipeline as flow
from lakehouse.errors import SourceUnavailable
from lakehouse.streaming.query import retry_while_unavailable

if TYPE_CHECKING:
    import threading

    from pyspark.sql import SparkSession

    from lakehouse.chain import Batch
    from lakehouse.config.models import Pipeline
    from lakehouse.errors import StorageUnavailable
    from lakehouse.metrics.telemetry import Telemetry

_REPORT_EVERY_S = 5.0


def run(
    spark: SparkSession, pipeline: Pipeline, stop: threading.Event, telemetry: Telemetry, *, as_json: bool = False
) -> None:
    """Run the pipeline on `spark` until `stop` is set or its trigger is done.

    Raises:
        LakehouseError: anything that waiting for Kafka cannot mend.
    """
    say = JsonLines() if as_json else TextLines(pipeline)

    def committed(batch: flow.Committed) -> None:
        telemetry.committed(batch.batch, batch.outcomes, batch.late, batch.job_s, batch.commit_s)
        say.committed(batch)

    def waiting(error: SourceUnavailable | StorageUnavailable, wait_s: float) -> None:
        if isinstance(error, SourceUnavailable):
            telemetry.waiting()
        say.waiting(error, wait_s)

    def attempt() -> None:
        flow.run(spark, pipeline, stop, on_start=say.started, on_batch=committed)

    # A job that an orchestrator starts is tried again by it; one that runs for ever has to wait by itself.
    if pipeline.trigger.kind == "available_now":
        attempt()
    else:
        retry_while_unavailable(attempt, stop, on_wait=waiting)
    say.stopped()


def oldest_age_s(batch: Batch, now_s: float) -> float | None:
    """Seconds between now and the Kafka time of the batch's oldest valid record; None where it has none."""
    smallest = [
        orjson.loads(add["stats"])["minValues"].get("_timestamp") for add in batch.adds[f"silver/{batch.pipeline}"]
    ]
    known = [datetime.fromisoformat(moment).timestamp() for moment in smallest if moment]
    return now_s - min(known) if known else None


class TextLines:
    """A line every few seconds for people: rate, quarantine, batch time, age of the oldest event at commit."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._since = time.monotonic()
        self._batches: list[tuple[flow.Committed, float | None]] = []

    def started(self) -> None:
        """The query runs."""
        typer.echo(f"{self._pipeline.name}: reading {self._pipeline.source.topic} at {self._pipeline.source.servers}")

    def committed(self, batch: flow.Committed) -> None:
        """Count the batch; print a line when it is time."""
        self._batches.append((batch, oldest_age_s(batch.batch, time.time())))
        elapsed = time.monotonic() - self._since
        if elapsed >= _REPORT_EVERY_S:
            typer.echo(f"{time.strftime('%H:%M:%S')}  {self._line(elapsed)}")
            self._since, self._batches = time.monotonic(), []

    def _line(self, elapsed_s: float) -> str:
        name = self._pipeline.name
        rows = [batch.batch.rows() for batch, _ in self._batches]
        silver = sum(added[f"silver/{name}"] for added in rows)
        refused = sum(added[f"quarantine/{name}"] for added in rows)
        took_ms = 1_000 * statistics.median(batch.job_s + batch.commit_s for batch, _ in self._batches)
        ages_ms = [1_000 * age for _, age in self._batches if age is not None]
        age = f", oldest event {statistics.median(ages_ms):.0f} ms old at its commit" if ages_ms else ""
        share = refused / max(1, silver + refused)
        return f"{(silver + refused) / elapsed_s:,.0f} events/s, {share:.1%} quarantined, batch {took_ms:.0f} ms{age}"

    def waiting(self, error: SourceUnavailable | StorageUnavailable, wait_s: float) -> None:
        """Kafka is away, or the tables' store."""
        typer.echo(f"{time.strftime('%H:%M:%S')}  {error.what}; trying again in {wait_s:.0f} s", err=True)

    def stopped(self) -> None:
        """The query has ended in order."""
        typer.echo(f"{self._pipeline.name}: stopped; every batch that was begun is whole")


class JsonLines:
    """One JSON object per event, for scripts."""

    def started(self) -> None:
        """The query runs."""
        self._print(event="started")

    def committed(self, batch: flow.Committed) -> None:
        """A batch is in every table."""
        self._print(
            event="batch",
            batch_id=batch.batch.batch_id,
            rows=batch.batch.rows(),
            failed={one.rule_id: one.failed for one in batch.outcomes if one.failed},
            observed={
                one.rule_id: one.value for one in batch.outcomes if one.success is not None and not one.of_events
            },
            unmet=[one.rule_id for one in batch.outcomes if one.success is False],
            job_ms=round(1_000 * batch.job_s, 1),
            commit_ms=round(1_000 * batch.commit_s, 1),
            oldest_ms=None if (age := oldest_age_s(batch.batch, time.time())) is None else round(1_000 * age, 1),
        )

    def waiting(self, error: SourceUnavailable | StorageUnavailable, wait_s: float) -> None:
        """Kafka is away, or the tables' store."""
        self._print(event="waiting", reason=error.what, retry_in_s=wait_s)

    def stopped(self) -> None:
        """The query has ended in order."""
        self._print(event="stopped")

    def _print(self, **values: object) -> None:
        typer.echo(orjson.dumps({"time_ms": time.time_ns() // 1_000_000, **values}).decode())
