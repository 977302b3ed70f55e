"""One driver on this machine, from Spark's start to its end; or a second one, which stands by until the first ends.

A standby has everything behind it that makes a start slow: Python's imports, the JVM, Spark's context and workers. It
also rehearses, since much of a start is slow but once: it runs the very pipeline for some micro-batches of what comes
in, with tables in a folder that is thrown away, so that classes are loaded and code is compiled.
"""

from __future__ import annotations

from contextlib import suppress
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import TYPE_CHECKING

import typer

from lakehouse import logs, storage
from lakehouse import pipeline as flow
from lakehouse.errors import LakehouseError, SecondDriver
from lakehouse.lock import driver_of
from lakehouse.operate import operated
from lakehouse.runner import run
from lakehouse.session import ended_session, warm_up

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from lakehouse.config.models import Pipeline

_LOOK_EVERY_S = 0.05
_REHEARSED_BATCHES = 40
_LONGEST_REHEARSAL_S = 20.0
"""Where nothing comes in, there is nothing to rehearse with."""


def drive(
    path: Path,
    pipeline: Pipeline,
    stop: Event,
    *,
    cores: int | None = None,
    as_json: bool = False,
    standby: bool = False,
) -> None:
    """Run the pipeline in this process until `stop` is set or its trigger is done.

    Args:
        path: the pipeline's file, for the processes that go along.
        pipeline: as it was loaded.
        stop: ends it.
        cores: for Spark; all by default.
        as_json: how its output is written.
        standby: where another driver runs on this machine, wait for its end and take its place.

    Raises:
        SecondDriver: another driver of this pipeline runs, and nobody asked for a standby.
        LakehouseError: anything else that waiting for Kafka cannot mend.
    """
    logs.configure(pipeline, as_json=as_json)
    typer.echo("starting Spark", err=True)
    with ended_session(pipeline.name, cores=cores) as spark:
        warm_up(spark)
        while not standby or await_turn(spark, pipeline, stop):
            try:
                with operated(path, pipeline, as_json=as_json) as telemetry:
                    run(spark, pipeline, stop, telemetry, as_json=as_json)
            except SecondDriver:
                # Of two that stood by, one was quicker. A driver on another machine is no reason to wait here.
                if not standby or driver_of(storage.checkpoint_url(pipeline.root, pipeline.name)) is None:
                    raise
            else:
                return


def await_turn(spark: SparkSession, pipeline: Pipeline, stop: Event) -> bool:
    """Wait until no driver of the pipeline runs on this machine; False where `stop` was set before."""
    url = storage.checkpoint_url(pipeline.root, pipeline.name)
    if (running := driver_of(url)) is None:
        return not stop.is_set()
    rehearse(spark, pipeline, stop)
    typer.echo(f"{pipeline.name}: process {running} runs this pipeline; standing by", err=True)
    while driver_of(url) is not None:
        if stop.wait(_LOOK_EVERY_S):
            return False
    typer.echo(f"{pipeline.name}: process {running} has ended; taking its place", err=True)
    return not stop.is_set()


def rehearse(spark: SparkSession, pipeline: Pipeline, stop: Event) -> None:
    """Run the pipeline for some micro-batches of what comes in now, with tables that do not stay."""
    ended, batches = Event(), iter(range(_REHEARSED_BATCHES))

    def wait() -> None:
        stop.wait(_LONGEST_REHEARSAL_S)
        ended.set()

    def count(_: flow.Committed) -> None:
        if next(batches, None) is None:
            ended.set()

    Thread(target=wait, name="rehearsal", daemon=True).start()
    source = pipeline.source.model_copy(update={"starting_offsets": "latest"})
    with TemporaryDirectory(prefix="lakehouse-rehearsal-") as folder, suppress(LakehouseError):
        rehearsed = pipeline.model_copy(update={"root": folder, "source": source})
        flow.run(spark, rehearsed, ended, on_batch=count)
