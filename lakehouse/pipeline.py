"""The whole flow of a record, top to bottom. Read this first.

    Kafka ─► position ─► parse ─► judge ─► one pass ─┬─► silver      valid rows, with their warnings
                                                     ├─► quarantine  refused rows: raw bytes and every reason
                                                     ├─► bronze      every raw record (optional)
                                                     └─► gold        partial aggregates of the valid rows

Each micro-batch is one Spark job. Its tasks write Parquet files and return their names and partial aggregates;
the driver then commits every table, each commit carrying the range of offsets it covers. A commit is accepted
only where that range begins where the table's last one ended (`chain`), so nothing is lost and nothing
comes in twice, whatever dies when. docs/architecture.md says what a crash at each step leaves behind.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from lakehouse import storage
from lakehouse.formats.values import read_values, without_spare_bytes
from lakehouse.guard import TopicGuard
from lakehouse.lock import driver_lock
from lakehouse.quality.archive import Archive
from lakehouse.quality.observe import Wanted
from lakehouse.quality.reasons import Reasons
from lakehouse.quality.rules import compile_rules
from lakehouse.quality.schema_rules import require_schema
from lakehouse.quality.suite import load_suite
from lakehouse.quality.verdicts import is_refused, mark
from lakehouse.schemas import RAW, silver_schema
from lakehouse.sinks.alter import settled
from lakehouse.sinks.observed import Watch
from lakehouse.sinks.onepass import RESULT_DDL, OnePass
from lakehouse.sinks.sink import Sink
from lakehouse.sources import kafka
from lakehouse.streaming import query as streaming
from lakehouse.streaming.checkpoint import Checkpoint
from lakehouse.streaming.prepared import Prepared
from lakehouse.streaming.resume import starting_offsets
from lakehouse.transforms.parse import position, with_timeliness

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from pyspark.sql import DataFrame, SparkSession

    from lakehouse.chain import Batch
    from lakehouse.config.models import Pipeline
    from lakehouse.quality.suite import Suite
    from lakehouse.quality.watch import Outcome


@dataclass(frozen=True)
class Committed:
    """What one micro-batch brought into the tables.

    Attributes:
        batch: as it was committed.
        job_s: seconds that the Spark job took.
        commit_s: seconds that writing the partial aggregates and committing every table took.
        outcomes: how many rows failed each rule, and the suite's aggregates over the batch.
        late: valid events that reached Kafka long after they happened.
    """

    batch: Batch
    job_s: float
    commit_s: float
    outcomes: tuple[Outcome, ...] = ()
    late: int = 0


def judged_rows(records: DataFrame, pipeline: Pipeline, suite: Suite) -> DataFrame:
    """Kafka records → the event's fields, the raw record, and the verdict on it.

    Returns:
        The fields, `_topic` … `_headers`, `_fits`, `_timely`, a bit for each rule that the row fails, and `_refused`:
        whether it belongs into quarantine. Why is said by the one pass, in words.
    """
    event_time = pipeline.event_time
    rules = compile_rules(suite)
    rows = (
        records.transform(position)
        .transform(read_values, pipeline.source)
        .transform(with_timeliness, event_time=event_time.column, max_future=event_time.max_future)
        .transform(mark, rules, skip=~F.col("_fits"))
        .withColumn("_refused", ~F.col("_fits") | ~F.col("_timely") | is_refused(rules))
    )
    if pipeline.tables.bronze:
        return rows
    # Of JSON, the task finds by its bytes whether a value holds more than its fields.
    wanted = {"_value"} if pipeline.tables.rescue and pipeline.source.format == "json" else set()
    return rows.transform(without_spare_bytes, dict(RAW).keys() - wanted)


def run(
    spark: SparkSession,
    pipeline: Pipeline,
    stop: threading.Event,
    *,
    on_start: Callable[[], None] = lambda: None,
    on_batch: Callable[[Committed], None] = lambda _: None,
) -> None:
    """Run the pipeline until `stop` is set, or until it has caught up where its trigger is `available_now`.

    Raises:
        SourceUnavailable, StorageUnavailable: Kafka or the store is away; a later call goes on without loss.
        SecondDriver: another driver of this pipeline runs.
        LakehouseError: anything else that needs a person.
    """
    suite = load_suite(pipeline.quality.suite)
    checkpoint = Checkpoint(storage.checkpoint_url(pipeline.root, pipeline.name))
    root = storage.resolve_root(pipeline.root)
    pipeline, held = settled(root, pipeline)
    require_schema(suite, silver_schema(pipeline.source.fields))
    one_pass = OnePass(root, pipeline, storage.storage_environment(), Reasons.by(suite), Wanted.by(suite), held)

    with (
        storage.explaining(root),
        driver_lock(checkpoint.url),
        closing(Sink.open(one_pass)) as sink,
        closing(Watch(root, pipeline.name, suite)) as watch,
    ):
        archive = Archive.of(root, suite, sink.head)
        guard = TopicGuard(pipeline.source, sink.head)
        starting = starting_offsets(sink.head, checkpoint)
        records = kafka.read_stream(spark, pipeline.source, guard.partitions, starting)
        one_pass = replace(one_pass, not_before=sink.past.mark)
        judged = Prepared(lambda rows: judged_rows(rows, pipeline, suite).mapInArrow(one_pass, RESULT_DDL), records)

        def write_batch(records: DataFrame, batch_id: int) -> None:
            """One micro-batch: run its job, commit its tables. A batch that every table has is not run again."""
            start, end = checkpoint.range_of(batch_id)
            if sink.holds(start, end):
                return
            began = time.perf_counter()
            answers = judged(records).collect()
            ran = time.perf_counter()
            observation = watch.look(answers)
            batch = sink.next_batch(checkpoint.running_query_id, batch_id, start, end, suite.sha256, guard.topic_ids)
            whole = sink.write(batch, answers)
            committed = time.perf_counter()
            archive.note(whole)
            on_batch(Committed(whole, ran - began, committed - ran, watch.record(observation), observation.late))

        handler = streaming.Handler(storage.explaining(root)(write_batch), stop)
        running = streaming.start(records, handler, checkpoint.url, name=pipeline.name, trigger=pipeline.trigger)
        on_start()
        with guard.explaining(lambda: sink.head):
            streaming.await_end(running, handler, stop, watch=guard.watch)
