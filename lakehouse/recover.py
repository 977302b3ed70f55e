"""Finds out what keeps a pipeline from starting, says what mends it and what is lost, and does it when told to.

The checks are the very ones of a start. Nothing is ever deleted: what has to go is moved to
`<root>/_set_aside/<time>/`, under the path it had. What is lost for good is recorded in every table's chain, by
a batch without records, so that `reconcile` can tell an acknowledged gap from a fault. Each step leaves a state
that the next call understands, so it may be killed anywhere and called again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse import kafka_admin, storage
from lakehouse.chain import Former, Gap, describe, leading
from lakehouse.errors import (
    CheckpointError,
    LakehouseError,
    OtherTopic,
    SourceError,
    TableDamaged,
    TableError,
    TableLost,
)
from lakehouse.sinks.delta_log import TableLog, find_cover, find_head, table_exists
from lakehouse.sinks.log_files import LogFiles
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.replays import Replays
from lakehouse.sinks.restores import Restores
from lakehouse.sinks.sink import Sink, latest_ingestion, table_problems
from lakehouse.storage import commit_path
from lakehouse.streaming.checkpoint import Checkpoint
from lakehouse.streaming.resume import expired, require_same_topic, require_topic, starting_offsets, truncated

if TYPE_CHECKING:
    from collections.abc import Container

    from lakehouse.chain import Batch, Offsets
    from lakehouse.config.models import Pipeline

SET_ASIDE = "_set_aside"
"""Folder under a root that takes what a recovery moves away."""
_REPLACEABLE = ("gold/", "bronze/")
"""Tables that can begin anew: silver and quarantine hold every record that they held."""

Kind = Literal[
    "set_log_files_aside",
    "set_replays_aside",
    "finish_batch",
    "rejoin_table",
    "set_checkpoint_aside",
    "acknowledge",
]


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        kind: which.
        reason: what was found.
        action: what is done about it.
        paths: what is moved aside, relative to the root, or to this machine's part of it.
        table: the table it is about, where it is about one.
    """

    kind: Kind
    reason: str
    action: str
    paths: tuple[str, ...] = ()
    table: str | None = None


@dataclass(frozen=True)
class Acknowledgement:
    """What the recovery commit records.

    Attributes:
        end: where the tables stand afterwards.
        origin: where the comparison of tables and topic begins afterwards.
        gaps: offsets that no table will ever hold.
        former: content that the topic has no longer; its mark is set when it is carried out.
    """

    end: Offsets
    origin: Offsets
    gaps: tuple[Gap, ...]
    former: tuple[Former, ...]


@dataclass(frozen=True)
class Plan:
    """What was found, what is to be done, and what comes of it.

    Attributes:
        pipeline: its name.
        steps: in the order in which they are done; none for a healthy pipeline.
        lost: what no step brings back, in words.
        next_offsets: where the next start goes on; None where the pipeline's file decides.
        acknowledgement: what is recorded in every table's chain; None where nothing is lost.
        topic_id: Kafka's id of the topic, where it is known.
    """

    pipeline: str
    steps: tuple[Step, ...] = ()
    lost: tuple[str, ...] = ()
    next_offsets: Offsets | None = None
    acknowledgement: Acknowledgement | None = field(default=None, repr=False)
    topic_id: str | None = None

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to do."""
        return not self.steps

    def __str__(self) -> str:
        goes_on = describe(self.next_offsets) if self.next_offsets else "the pipeline's own starting_offsets"
        if self.healthy:
            return f"{self.pipeline} needs no recovery; the next start goes on at {goes_on}"
        lines = [f"{self.pipeline} needs {len(self.steps)} step{'' if len(self.steps) == 1 else 's'}:"]
        for number, step in enumerate(self.steps, start=1):
            lines += [f"  {number}. found:  {step.reason}", f"     action: {step.action}"]
        lines += [f"  lost for good: {loss}" for loss in self.lost or ("nothing",)]
        return "\n".join([*lines, f"  the next start goes on at {goes_on}"])


def make_plan(pipeline: Pipeline) -> Plan:
    """Look at tables, checkpoint and topic; change nothing.

    Raises:
        SourceUnavailable: Kafka cannot be reached.
        LakehouseError: what was found is nothing that a recovery can mend; the message says who can.
    """
    one_pass = _one_pass(pipeline)
    if unfinished := Restores(one_pass.root, pipeline.name).pending():
        raise TableError(
            f"the restore of savepoint {unfinished.savepoint} was decided and is not in every table yet",
            where=f"pipeline {pipeline.name}",
            remedy="start the pipeline: it finishes the restore before anything else",
        )
    repairs, heads, broken = _tables(one_pass)
    last = leading(heads.values())
    if last is not None:
        for name, problem in table_problems(last, heads, one_pass.schemas):
            broken.setdefault(name, problem)
    for name, problem in broken.items():
        # Only a rollup or bronze can begin anew, and only where silver and quarantine are whole.
        if last is None or not name.startswith(_REPLACEABLE) or not isinstance(problem, TableDamaged | TableLost):
            raise problem
    rejoining = [_rejoin(one_pass.root, name, problem) for name, problem in broken.items()]
    finish = _finish(last, heads, broken) if last else []

    options = {name: secret.get_secret_value() for name, secret in pipeline.source.options.items()}
    state = kafka_admin.topic_state(pipeline.source.servers, pipeline.source.topic, options)
    acknowledge, acknowledgement, lost = _topic(last, pipeline.source.topic, state) if last else ([], None, ())
    checkpoint = _checkpoint(pipeline, last, moved_on=acknowledgement is not None)
    lost += tuple(f"what {step.table} held so far; silver keeps the rows it was made from" for step in rejoining)
    end = acknowledgement.end if acknowledgement else last.end if last else None
    return Plan(
        pipeline=pipeline.name,
        steps=(*repairs, *_replays(one_pass, last), *finish, *rejoining, *checkpoint, *acknowledge),
        lost=lost,
        next_offsets=end,
        acknowledgement=acknowledgement,
        topic_id=state.topic_id,
    )


def carry_out(pipeline: Pipeline, plan: Plan) -> None:
    """Do what `plan` says.

    Raises:
        LakehouseError: what was found meanwhile is something else than the plan was made for.
    """
    one_pass = _one_pass(pipeline)
    aside = f"{SET_ASIDE}/{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    for step in plan.steps:
        for path in step.paths:
            storage.move(_place_of(step, one_pass.root), path, f"{aside}/{path}")
    sink = Sink.open(
        one_pass, joining=[step.table for step in plan.steps if step.kind == "rejoin_table" and step.table]
    )
    try:
        if plan.acknowledgement is not None:
            _acknowledge(sink, one_pass.root, plan, plan.acknowledgement)
    finally:
        sink.close()


def _place_of(step: Step, root: str) -> str:
    """What a step's paths are relative to: the checkpoint is on this machine, also where the tables are not."""
    return storage.machine_root(root) if step.kind == "set_checkpoint_aside" else root


def _acknowledge(sink: Sink, root: str, plan: Plan, new: Acknowledgement) -> None:
    head = sink.head
    assert head is not None, "only a pipeline with a batch has something to acknowledge"  # noqa: S101 - `make_plan`
    mark = latest_ingestion(root, head) if new.former else 0
    past = sink.past
    topic = next(iter(new.end))
    batch = sink.next_batch(
        query_id=f"recovery-{new.gaps[0].acknowledged_ms if new.gaps else new.former[0].acknowledged_ms}",
        batch_id=0,
        # New partitions whose beginning is gone join here, at 0.
        start=head.end | {topic: dict.fromkeys(new.end[topic], 0) | head.end[topic]},
        end=new.end,
        suite_sha256=head.suite_sha256,
        topic_ids={topic: plan.topic_id} if plan.topic_id else head.topic_ids,
    )
    former = tuple(replace(one, mark=mark) for one in new.former)
    past = replace(past, gaps=past.gaps + new.gaps, former=past.former + former)
    sink.write(replace(batch, origin=new.origin, past=past), [])


def _one_pass(pipeline: Pipeline) -> OnePass:
    return OnePass(storage.resolve_root(pipeline.root), pipeline, storage.storage_environment())


def _tables(
    one_pass: OnePass,
) -> tuple[list[Step], dict[str, Batch | None], dict[str, LakehouseError]]:
    """(files of logs to set aside, each table's last batch without them, what is wrong with the other tables)."""
    repairs: list[Step] = []
    heads: dict[str, Batch | None] = {}
    broken: dict[str, LakehouseError] = {}
    for name in one_pass.schemas:
        try:
            log = TableLog.find(f"{one_pass.root}/{name}", name)
        except LakehouseError as error:
            steps, head = _repairs(f"{one_pass.root}/{name}", name)
            if not steps:
                broken[name] = error
                continue
            repairs += steps
            heads[name] = head
        else:
            if log is not None:
                heads[name] = log.head
    for table in one_pass.pipeline.derived_tables():
        repairs += _derived_repairs(f"{one_pass.root}/gold/{table.name}", f"gold/{table.name}")
    return repairs, heads, broken


def _derived_repairs(url: str, name: str) -> list[Step]:
    """What of a derived table's log can go, where it cannot be read: maintenance derives again what that held."""
    if not table_exists(url):
        return []
    try:
        find_cover(storage.open_store(url), name, DeltaTable(url).version())
    except (LakehouseError, DeltaError, OSError):
        return _repairs(url, name)[0]
    return []


def _repairs(url: str, name: str) -> tuple[list[Step], Batch | None]:
    """What of a log can go, and the last batch beneath it; no step where that does not mend the table."""
    store = storage.open_store(url)
    files = LogFiles.scan(store, name)
    steps: list[Step] = []
    redundant = files.redundant()
    if redundant:
        reason = "; ".join(f"{path} {what}" for path, what in redundant)
        action = "move it aside: the commits themselves hold everything it says"
        paths = tuple(f"{name}/{path}" for path, _ in redundant)
        steps.append(Step("set_log_files_aside", f"{name}: {reason}", action, paths, name))
    version = files.newest
    problem = files.problems.get(version)
    if version > 0 and problem:
        reason = f"{name}, version {version}: {problem}"
        action = (
            "move the commit aside: its batch is finished from the other tables, or read from Kafka again; a replay of"
            " quarantine is finished from its plan; a derivation is made again"
        )
        steps.append(Step("set_log_files_aside", reason, action, (f"{name}/{commit_path(version)}",), name))
        version -= 1
    try:
        return steps, find_head(store, name, version)
    except LakehouseError:
        return [], None


def _replays(one_pass: OnePass, last: Batch | None) -> list[Step]:
    try:
        if last is None:
            Replays(one_pass.root, one_pass.pipeline).require_none()
    except TableLost as error:
        action = "move them aside: the tables begin anew, without any replay"
        return [Step("set_replays_aside", error.what, action, paths=(f"_replays/{one_pass.pipeline.name}",))]
    return []


def _finish(last: Batch, heads: dict[str, Batch | None], broken: Container[str]) -> list[Step]:
    behind = [
        name
        for name, head in heads.items()
        if name not in broken and name in last.adds and (head is None or not head.covers_same(last))
    ]
    if not behind:
        return []
    return [
        Step(
            "finish_batch",
            f"batch {last.batch_id} of query {last.query_id} has not reached {', '.join(behind)}",
            "finish it there with the files of its first attempt (a start does the same)",
        )
    ]


def _rejoin(root: str, name: str, problem: LakehouseError) -> Step:
    exists = storage.find_store(f"{root}/{name}") is not None
    return Step(
        "rejoin_table",
        f"{name}: {problem.what}",
        f"{'move it aside and ' if exists else ''}let a new table join from the next batch on",
        paths=(name,) if exists else (),
        table=name,
    )


def _checkpoint(pipeline: Pipeline, last: Batch | None, *, moved_on: bool) -> list[Step]:
    checkpoint = Checkpoint(storage.checkpoint_url(pipeline.root, pipeline.name))
    try:
        starting_offsets(last, checkpoint)
    except CheckpointError as error:
        reason = error.what
    else:
        if not moved_on or not checkpoint.exists():
            return []
        reason = "the checkpoint ends where the tables ended before this recovery"
    return [
        Step(
            "set_checkpoint_aside",
            reason,
            "move the checkpoint aside: the next start goes on where the tables end",
            paths=(f"_checkpoints/{pipeline.name}",),
        )
    ]


def _topic(
    last: Batch, topic: str, state: kafka_admin.TopicState
) -> tuple[list[Step], Acknowledgement | None, tuple[str, ...]]:
    """What became of the topic, as a step and what it records; nothing where the tables can go on."""
    try:
        require_topic(last, topic, state.topic_id, state.offsets)
    except OtherTopic:
        raise
    except SourceError as error:
        reason = error.what
    else:
        return [], None, ()
    now_ms = time.time_ns() // 1_000_000
    held = last.end[topic]
    anew = _is_anew(last, topic, state)
    cut = (
        dict.fromkeys(held, 0)
        if anew
        else {partition: at for partition, (at, _) in truncated(held, state.offsets).items()}
    )
    stands = {} if anew else held
    gaps = tuple(
        Gap(topic, partition, start, end, "expired before it was read", now_ms)
        for partition, (start, end) in expired(stands, state.offsets).items()
    )
    ends = {
        partition: max(earliest, min(stands.get(partition, 0), latest))
        for partition, (earliest, latest) in state.offsets.items()
    }
    former = Former(
        topic=topic,
        topic_id=last.topic_ids.get(topic),
        cut=cut,
        end=held,
        mark=0,
        reason="the topic was made anew" if anew else "the topic lost its end",
        acknowledged_ms=now_ms,
    )
    acknowledgement = Acknowledgement(
        end={topic: ends},
        origin={topic: ends} if anew else last.origin,
        gaps=gaps,
        former=(former,) if cut else (),
    )
    lost = [f"{gap.topic} partition {gap.partition}, offsets {gap.start}–{gap.end}: {gap.reason}" for gap in gaps]
    if anew:
        lost.append(f"whatever the former topic held beyond {describe({topic: held})}; how much is unknown")
    action = f"record in every table's chain that the pipeline goes on at {describe(acknowledgement.end)}"
    if cut:
        action += "; the rows taken from the former content stay, and are told apart from now on"
    return [Step("acknowledge", reason, action)], acknowledgement, tuple(lost)


def _is_anew(last: Batch, topic: str, state: kafka_admin.TopicState) -> bool:
    try:
        require_same_topic(topic, last.topic_ids.get(topic), state.topic_id)
    except SourceError:
        return True
    return False
