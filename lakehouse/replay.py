"""The way back: rows of quarantine, repaired where asked, judged anew by the stream's own code, and moved exactly once.

    quarantine ─► choose ─► repair ─► judge ─► one pass ─┬─► silver, gold   accepted rows, with their lineage
                                                         └─► quarantine     refused again: one more attempt

Judging writes files that no log names yet. A preview deletes them; a replay makes them part of the tables by a plan
(`sinks.replays`), which is safe to kill at any instruction and to repeat.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pyarrow as pa

from lakehouse import quarantine, storage
from lakehouse.errors import TableError
from lakehouse.pipeline import judged_rows
from lakehouse.quality.archive import Archive
from lakehouse.quality.reasons import Reasons
from lakehouse.quality.suite import load_suite
from lakehouse.schemas import LINEAGE, quarantine_schema
from lakehouse.serving.grid import render_grid
from lakehouse.sinks.alter import settled
from lakehouse.sinks.delta_log import find_head, require_columns
from lakehouse.sinks.onepass import RESULT_DDL, OnePass
from lakehouse.sinks.replays import OUTCOMES, Plan, Replays, open_table, positions, read_parquet
from lakehouse.sinks.sink import collect_files
from lakehouse.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyspark.sql import SparkSession

    from lakehouse.chain import Add
    from lakehouse.config.models import Pipeline
    from lakehouse.quality.suite import Suite
    from lakehouse.quarantine import Choice
    from lakehouse.repair import Repair
    from lakehouse.sinks.replays import Position
    from lakehouse.sinks.sink import Answer

Reason = dict[str, Any]
"""One verdict in the shape of `schemas.VERDICT`."""
_START_ONCE = "start the pipeline once with this version and this file, then replay"
State = Literal["previewed", "replayed", "already replayed", "nothing to replay"]


class Judge(Protocol):
    """Judges records as the stream does."""

    def __call__(self, records: pa.Table, one_pass: OnePass, /) -> Iterable[Answer]:
        """Kafka's columns and `_replayed_from` in, the answers of `one_pass` out."""


@dataclass(frozen=True)
class RuleOutcome:
    """Rows that were in quarantine by one rule: how many are accepted now, and how many refused again."""

    rule_id: str
    accepted: int
    refused: int


@dataclass(frozen=True)
class Refusal:
    """A rule that refuses rows now: how many, and one of its messages."""

    rule_id: str
    rows: int
    sample: str


@dataclass(frozen=True)
class Replay:
    """What a replay did, or would do.

    Attributes:
        pipeline: its name.
        replay_id: how the replay is called, in lineage and in attempts.
        state: `previewed`: nothing was changed; `already replayed`: a replay of this id was decided before.
        accepted: rows that go to silver and the rollups; refused: rows that stay in quarantine.
        rules: by the rules for which the rows were in quarantine; a row with several counts at each.
        refusals: by the rules that refuse rows now.
        seconds: how long it took.
    """

    pipeline: str
    replay_id: str
    state: State
    accepted: int = 0
    refused: int = 0
    rules: list[RuleOutcome] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.state == "nothing to replay":
            return "no such row in quarantine"
        blocks = []
        if self.rules:
            lines = [[rule.rule_id, f"{rule.accepted:,}", f"{rule.refused:,}"] for rule in self.rules]
            blocks.append(render_grid(["quarantined by", "accepted", "refused"], lines, right=[False, True, True]))
        if self.refusals:
            lines = [[refusal.rule_id, f"{refusal.rows:,}", refusal.sample] for refusal in self.refusals]
            blocks.append(render_grid(["refused by", "rows", "for example"], lines, right=[False, True, False]))
        would = "would be " if self.state == "previewed" else ""
        total = f"{self.accepted:,} rows {would}accepted, {self.refused:,} {would}refused ({self.seconds:.1f} s)"
        advice = {
            "previewed": "nothing was changed; --yes replays",
            "already replayed": f"replay {self.replay_id} was done before; nothing was done again",
        }
        return "\n".join(["\n\n".join([*blocks, total]), advice.get(self.state, f"replay {self.replay_id}")])


@dataclass(frozen=True)
class _Judged:
    """Rows, what became of each, and the files that bring the accepted ones into silver and gold."""

    rows: pa.Table
    outcomes: dict[Position, list[Reason] | None]
    adds: dict[str, list[Add]]

    @property
    def refused(self) -> int:
        return sum(errors is not None for errors in self.outcomes.values())

    def outcomes_table(self) -> pa.Table:
        """The outcomes in the shape of `replays.OUTCOMES`."""
        rows = [
            {**row, "errors": self.outcomes[position]}
            for row, position in zip(
                self.rows.select(OUTCOMES.names[:-1]).to_pylist(), positions(self.rows), strict=True
            )
        ]
        return pa.Table.from_pylist(rows, schema=OUTCOMES)


def replay(
    pipeline: Pipeline,
    choice: Choice,
    judge: Judge,
    *,
    suite_sha256: str,
    suite: Suite | None = None,
    repair: Repair | None = None,
    replay_id: str | None = None,
    commit: bool = False,
) -> Replay:
    """Judge the chosen rows of quarantine anew and, where `commit` is set, move the accepted ones to silver and gold.

    A replay that an earlier process left half done is finished first, also by a preview.

    Args:
        pipeline: whose quarantine.
        choice: which rows.
        judge: `SparkJudge`, or another one over the same one pass.
        suite_sha256: fingerprint of the suite that `judge` uses.
        suite: that suite. It is kept in the root before the replay is decided, so that `recheck` finds it also where
            no batch was ever judged by it.
        repair: applied to each value before it is judged; the raw bytes stay in the lineage.
        replay_id: a replay of this id is done at most once, ever; a new one by default.
        commit: False for a preview.

    Raises:
        TableError: a table is missing, damaged, or without the columns of replays.
        SchemaChanged: the event's fields have changed in a way that the pipeline's file refuses.
        SuiteError: the suite does not fit the event's fields.
    """
    began = time.perf_counter()
    replay_id = replay_id or f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    root = storage.resolve_root(pipeline.root)
    on_tables = settled(root, pipeline)
    pipeline = on_tables.pipeline
    replays = Replays(root, pipeline)
    while True:
        number = replays.finish()
        if done := next((plan for plan in replays.plans() if plan.id == replay_id), None):
            return Replay(pipeline.name, replay_id, "already replayed", done.accepted, done.refused)
        token = str(uuid.uuid4())
        one_pass = replace(_staged_pass(pipeline, replays.stage(token)), held=on_tables.held)
        one_pass = replace(one_pass, not_before=_mark(root, one_pass))
        chosen = [*quarantine.read(pipeline, choice)]
        if not chosen:
            return Replay(pipeline.name, replay_id, "nothing to replay", seconds=time.perf_counter() - began)
        judged = _judge(_one_per_position(pa.concat_tables(chosen)), one_pass, judge, replay_id, suite_sha256, repair)
        found = _summary(pipeline.name, replay_id, judged)
        plan = Plan(
            number=number + 1,
            id=replay_id,
            token=token,
            at=datetime.now(UTC).isoformat(),
            suite_sha256=suite_sha256,
            repair=repair.name if repair else None,
            repair_sha256=repair.sha256 if repair else None,
            accepted=found.accepted,
            refused=found.refused,
            adds=judged.adds,
        )
        if commit and suite is not None:
            Archive(root).keep(suite)
        if commit and replays.decide(plan, judged.outcomes_table()):
            replays.finish()
            return replace(found, state="replayed", seconds=time.perf_counter() - began)
        replays.discard(token)
        if not commit:
            return replace(found, seconds=time.perf_counter() - began)
        # Another replay was decided first. Its rows are no longer in quarantine, so choose and judge anew.


def _staged_pass(pipeline: Pipeline, stage: str) -> OnePass:
    """The pipeline's one pass, writing under `stage`; without bronze, which holds every record already."""
    tables = pipeline.tables.model_copy(update={"bronze": False})
    without_bronze = pipeline.model_copy(update={"tables": tables})
    return OnePass(stage, without_bronze, storage.storage_environment())


class SparkJudge:
    """Judges by the code of the stream, as one Spark job over the records.

    Args:
        session: makes the session when there is something to judge.
        suite: the suite as it is now.
    """

    def __init__(self, session: Callable[[], SparkSession], suite: Suite) -> None:
        self._session = session
        self._suite = suite

    @classmethod
    def of(cls, session: Callable[[], SparkSession], pipeline: Pipeline) -> tuple[SparkJudge, Suite]:
        """The judge by the pipeline's own suite, and that suite."""
        suite = load_suite(pipeline.quality.suite)
        return cls(session, suite), suite

    def __call__(self, records: pa.Table, one_pass: OnePass, /) -> Iterable[Answer]:
        """The answers of `one_pass` over `records`."""
        frame = self._session().createDataFrame(records)
        one_pass = replace(one_pass, reasons=Reasons.by(self._suite))
        return judged_rows(frame, one_pass.pipeline, self._suite).mapInArrow(one_pass, RESULT_DDL).collect()


def _mark(root: str, one_pass: OnePass) -> int:
    """Every row of the replay has to be ingested after this, µs since 1970 UTC, as those of the next batch.

    Raises:
        TableError: the tables are not those of the pipeline's file, or lack the columns of replays.
    """
    schemas = one_pass.schemas
    mark = 0
    for name, schema in schemas.items():
        try:
            table = open_table(root, name)
            require_columns(table.schema(), schema, name)
        except TableError as error:
            raise TableError(error.what, where=error.where, remedy=_START_ONCE) from error
        head = find_head(open_store(f"{root}/{name}"), name, table.version())
        if head is None:
            continue
        mark = max(mark, head.past.mark)
        unknown = sorted(other for other in head.adds if other.startswith("gold/") and other not in schemas)
        if unknown:
            # The rows would be in silver and never in these.
            raise TableError(
                f"the pipeline's last batch went into tables that this file does not have: {', '.join(unknown)}",
                where=f"table {name}",
                remedy=f"replay with the file that the pipeline runs with; or {_START_ONCE}, after its next batch",
            )
    return mark


def _one_per_position(rows: pa.Table) -> pa.Table:
    """The rows, with the first one of each position: a topic made anew has two; the other waits for the next replay."""
    first = {position: number for number, position in reversed([*enumerate(positions(rows))])}
    return rows if len(first) == rows.num_rows else rows.take(sorted(first.values()))


def _judge(
    rows: pa.Table, one_pass: OnePass, judge: Judge, replay_id: str, suite_sha256: str, repair: Repair | None
) -> _Judged:
    mended = [_mend(value, repair) for value in rows["_value"].to_pylist()]
    sound = pa.array([not isinstance(value, dict) for value in mended], pa.bool_())
    outcomes: dict[Position, list[Reason] | None] = {
        position: [value] if isinstance(value, dict) else None
        for position, value in zip(positions(rows), mended, strict=True)
    }
    lineage = _lineage(rows, replay_id, suite_sha256, repair).filter(sound)
    values = pa.array([value for value in mended if not isinstance(value, dict)], pa.binary())
    kept = rows.filter(sound)
    records = pa.table(
        {
            "key": kept["_key"],
            "value": values,
            "headers": kept["_headers"],
            "topic": kept["_topic"],
            "partition": kept["_partition"],
            "offset": kept["_offset"],
            "timestamp": kept["_timestamp"],
            "_replayed_from": lineage,
        }
    )
    files = collect_files(one_pass, judge(records, one_pass) if records.num_rows else (), None)
    # What the one pass refused is told by the files that it wrote for quarantine, where the rows stand already.
    refused = files.pop(one_pass.quarantine)
    store = open_store(f"{one_pass.root}/{one_pass.quarantine}")
    for add in refused:
        again = read_parquet(store, add["path"])
        outcomes |= dict(zip(positions(again), again["_errors"].to_pylist(), strict=True))
    return _Judged(rows, outcomes, files)


def _mend(value: bytes | None, repair: Repair | None) -> bytes | Reason | None:
    # A tombstone has no value to repair.
    return value if repair is None or value is None else repair.apply(value)


def _lineage(rows: pa.Table, replay_id: str, suite_sha256: str, repair: Repair | None) -> pa.Array:
    """`schemas.LINEAGE` of each row: what replays it, and all that quarantine knows of it."""
    count = rows.num_rows
    of_replay = {
        "replay_id": replay_id,
        "suite_sha256": suite_sha256,
        "repair": repair.name if repair else None,
        "repair_sha256": repair.sha256 if repair else None,
    }
    of_row = {
        "key": "_key",
        "value": "_value",
        "headers": "_headers",
        "errors": "_errors",
        "quarantined_at": "_ingested_at",
        "attempts": "_attempts",
    }
    rows = rows.cast(quarantine_schema())
    columns = [
        pa.repeat(pa.scalar(of_replay[part.name], part.type), count)
        if part.name in of_replay
        else rows[of_row[part.name]].combine_chunks()
        for part in LINEAGE
    ]
    return pa.StructArray.from_arrays(columns, fields=list(LINEAGE))


def _summary(pipeline: str, replay_id: str, judged: _Judged) -> Replay:
    accepted: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    refusing: Counter[str] = Counter()
    samples: dict[str, str] = {}
    for position, before in zip(positions(judged.rows), judged.rows["_errors"].to_pylist(), strict=True):
        errors = judged.outcomes[position]
        (accepted if errors is None else refused).update({error["rule_id"] for error in before or ()})
        for error in errors or ():
            samples.setdefault(error["rule_id"], error["message"])
        refusing.update({error["rule_id"] for error in errors or ()})
    rules = sorted(accepted.keys() | refused.keys(), key=lambda rule: (-accepted[rule] - refused[rule], rule))
    return Replay(
        pipeline,
        replay_id,
        "previewed",
        len(judged.outcomes) - judged.refused,
        judged.refused,
        [RuleOutcome(rule, accepted[rule], refused[rule]) for rule in rules],
        [Refusal(rule, rows, samples[rule]) for rule, rows in refusing.most_common()],
    )
