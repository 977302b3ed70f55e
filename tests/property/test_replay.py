"""Replays beside a running pipeline and maintenance, all killed at any file operation: every record once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import obstore
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.maintenance import choose
from lakehouse.maintenance.run import Maintainer
from lakehouse.quarantine import Choice
from lakehouse.repair import Repair
from lakehouse.replay import Replay, replay
from lakehouse.rollups.compare import compare_rollup
from lakehouse.sinks import sink as sinks
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.replays import Replays, last_replay
from lakehouse.sinks.sink import Sink
from tests.pipelines import small_pipeline
from tests.property import examples
from tests.replays import KINDS, PlainJudge, append, close_brace, value_of

SILVER, QUARANTINE, GOLD = "silver/clicks", "quarantine/clicks", "gold/clicks_by_page_1s"
REPAIR = Repair("fix.py:close_brace", "abc", close_brace)  # type: ignore[arg-type]


class Killed(BaseException):
    """SIGKILL, at a file operation."""


class Serial:
    """An executor in the caller's thread, so that operations have one order."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments))
        except BaseException as error:  # noqa: BLE001 - as an executor's thread does
            future.set_exception(error)
        return future

    def shutdown(self, *, wait: bool) -> None: ...


@dataclass
class Disk:
    """Counts the file operations of the process that runs now, and lets something happen at some of them."""

    at: int | None = None
    before: Callable[[], None] | None = None
    dies: str | None = None
    done: int = 0
    dead: bool = False
    ended_after: int = 0
    real: dict[str, Callable[..., Any]] = field(default_factory=dict)

    @contextmanager
    def process(self, *, at: int | None, before: Callable[[], None] | None, dies: str | None) -> Iterator[None]:
        """One process's life: at operation `at` it is overtaken by `before`, and killed before or after it."""
        outer = (self.at, self.before, self.dies, self.done, self.dead)
        self.at, self.before, self.dies, self.done, self.dead = at, before, dies, 0, False
        try:
            with suppress(Killed):
                yield
        finally:
            self.ended_after = self.done
            self.at, self.before, self.dies, self.done, self.dead = outer

    def operate(self, name: str, *arguments: Any, **options: Any) -> Any:
        if name == "get" and not arguments[1].startswith("_replays"):
            return self.real[name](*arguments, **options)
        if self.dead:
            raise Killed
        self.done += 1
        here = self.done == self.at
        if here and self.before:
            self.before()
        if here and self.dies == "before":
            self.dead = True
            raise Killed
        answer = self.real[name](*arguments, **options)
        if here and self.dies == "after":
            self.dead = True
            raise Killed
        return answer


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    for name in ("get", "put", "delete"):
        disk.real[name] = getattr(obstore, name)
        monkeypatch.setattr(obstore, name, lambda *a, name=name, **o: disk.operate(name, *a, **o))
    monkeypatch.setattr(sinks, "ThreadPoolExecutor", Serial)
    monkeypatch.setattr(choose, "FAN_IN", 2)
    return disk


@dataclass(frozen=True)
class Step:
    """What one process does, and what happens to it."""

    kind: str
    kinds: tuple[str, ...] = ("slow", "torn")
    limit: int | None = None
    rule: str | None = None
    repaired: bool = True
    strict: bool = False
    replay_id: str | None = None
    at: int | None = None
    dies: str | None = None
    beside: tuple[Step, ...] = ()


def steps(depth: int = 1) -> st.SearchStrategy[Step]:
    beside = st.lists(steps(depth - 1), max_size=2).map(tuple) if depth else st.just(())
    return st.builds(
        Step,
        kind=st.sampled_from(["append", "append", "replay", "replay", "replay", "compact", "maintain"]),
        kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5).map(tuple),
        limit=st.none() | st.integers(1, 3),
        rule=st.sampled_from([None, None, "slow", "contract.json"]),
        repaired=st.booleans(),
        strict=st.booleans(),
        replay_id=st.sampled_from([None, None, "mine"]),
        at=st.none() | st.integers(1, 16),
        dies=st.sampled_from([None, "before", "after"]),
        beside=beside,
    )


class World:
    """A root, a pipeline that runs, and everyone else who works on its tables."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self.root, self.disk = root, disk
        self.pipeline = small_pipeline(root, maintenance={"min_age": "0ms", "checkpoint_every": 10})
        self.one_pass = OnePass(str(root), self.pipeline, {})
        self.sink = Sink.open(self.one_pass)
        self.kinds: dict[int, str] = {}
        self.busy: set[str] = set()

    def run(self, step: Step) -> None:
        def beside() -> None:
            for other in step.beside:
                self.run(other)

        if step.kind in self.busy and step.kind == "append":
            return  # one driver per pipeline
        self.busy.add(step.kind)
        finished = False
        with self.disk.process(at=step.at, before=beside, dies=step.dies):
            getattr(self, step.kind)(step)
            finished = True
        self.busy.discard(step.kind)
        if step.kind == "append" and not finished:
            self.sink = Sink.open(self.one_pass)

    def append(self, step: Step) -> None:
        first = self.sink.end["clicks"][0] if self.sink.end else 0
        kinds = [self.kinds.setdefault(first + number, kind) for number, kind in enumerate(step.kinds)]
        append(self.sink, self.pipeline, kinds)

    def replay(self, step: Step) -> None:
        found = self.replayed(step)
        assert found.state in ("replayed", "already replayed", "nothing to replay", "previewed")

    def replayed(self, step: Step) -> Replay:
        return replay(
            self.pipeline,
            Choice(rules=frozenset([step.rule] if step.rule else []), limit=step.limit),
            PlainJudge(strict=step.strict),
            suite_sha256="strict" if step.strict else "lax",
            repair=REPAIR if step.repaired else None,
            replay_id=step.replay_id,
            commit=step.limit != 3,
        )

    def compact(self, _: Step) -> None:
        for name in (SILVER, QUARANTINE, GOLD):
            DeltaTable(str(self.root / name)).optimize.compact()

    def maintain(self, _: Step) -> None:
        for report in Maintainer(self.pipeline).maintain():
            assert report.error is None, report.error

    def rows(self, name: str) -> list[dict[str, Any]]:
        return DeltaTable(str(self.root / name)).to_pyarrow_dataset().to_table().to_pylist()  # type: ignore[no-any-return]

    def hold_to_account(self) -> None:
        self.sink = Sink.open(self.one_pass)
        end = self.sink.end["clicks"][0] if self.sink.end else 0
        silver, quarantine = self.rows(SILVER), self.rows(QUARANTINE)
        assert sorted(row["_offset"] for row in silver + quarantine) == list(range(end))
        tables = [DeltaTable(str(self.root / name)) for name in (SILVER, QUARANTINE, GOLD)]
        difference = compare_rollup(
            tables[0].to_pyarrow_dataset(),
            tables[2].to_pyarrow_dataset(),
            self.pipeline.rollups["by_page"],
            "1s",
            event_time="at",
        )
        assert difference.ok, difference.first

        plans = Replays(str(self.root), self.pipeline).plans()
        assert {last_replay(table) for table in tables} == {len(plans)}
        assert max(Counter(plan.id for plan in plans).values(), default=1) == 1
        refused: dict[int, list[str]] = {}
        accepted: dict[int, str] = {}
        for plan in plans:
            for (_, _, offset, _), errors in Replays(str(self.root), self.pipeline).outcomes(plan).items():
                assert offset not in accepted
                if errors is None:
                    accepted[offset] = plan.id
                else:
                    refused.setdefault(offset, []).append(plan.id)
        for row in silver:
            offset, lineage = row["_offset"], row["_replayed_from"]
            kind = self.kinds[offset]
            assert kind != "hopeless"
            assert (lineage is None) == (kind == "good")
            if lineage:
                assert lineage["replay_id"] == accepted.pop(offset)
                assert lineage["value"] == value_of(kind, offset)
                assert (lineage["key"], lineage["headers"]) == (b"k", [{"key": "h", "value": b"\x01"}])
                assert lineage["errors"]
                assert lineage["quarantined_at"] < row["_ingested_at"]
                assert [attempt["replay_id"] for attempt in lineage["attempts"] or []] == refused.pop(offset, [])
        assert accepted == {}
        for row in quarantine:
            offset = row["_offset"]
            assert row["_value"] == value_of(self.kinds[offset], offset)
            assert [attempt["replay_id"] for attempt in row["_attempts"] or []] == refused.pop(offset, [])
            assert all(attempt["errors"] for attempt in row["_attempts"] or [])
        assert refused == {}


BESIDE = {
    "nobody": (),
    "the sink": (Step("append"),),
    "compaction": (Step("compact"),),
    "maintenance": (Step("maintain"),),
    "another replay": (Step("replay", rule="slow"), Step("append"), Step("compact")),
    "the same replay": (Step("replay", replay_id="mine"),),
}


@pytest.mark.parametrize("beside", BESIDE)
def test_a_replay_overtaken_and_killed_at_each_of_its_file_operations(disk: Disk, beside: str, tmp_path: Path) -> None:
    kinds = ("good", "slow", "hopeless", "torn")
    made = World(tmp_path, disk)
    for _ in range(2):
        made.append(Step("append", kinds=kinds))
    # Death before an operation is death after the one ahead of it; the test below has both. With nobody beside, nothing
    # but death happens.
    for dies in (None, "after") if BESIDE[beside] else ("after",):
        for at in count(1):
            step = Step("replay", replay_id="mine", at=at, dies=dies, beside=BESIDE[beside])
            with tempfile.TemporaryDirectory() as folder:
                # No file is ever written to twice: a link is as good as a copy.
                shutil.copytree(tmp_path, folder, copy_function=os.link, dirs_exist_ok=True)
                world = World(Path(folder), disk)
                world.kinds.update(enumerate(2 * kinds))
                world.run(step)
                operations = disk.ended_after
                if beside == "nobody":
                    world.hold_to_account()  # by the pipeline's own start alone
                world.run(Step("append"))
                world.run(Step("replay"))
                world.run(Step("replay", replay_id="mine"))
                world.hold_to_account()
                assert {row["_offset"] for row in world.rows(SILVER)} >= {0, 1, 3, 4, 5, 7}
            if operations < at:
                break


@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps(), min_size=2, max_size=8))
def test_every_record_once_whatever_dies_when(disk: Disk, course: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), disk)
        append(world.sink, world.pipeline, ["good", "slow", "torn", "hopeless", "torn"])
        world.kinds.update(enumerate(["good", "slow", "torn", "hopeless", "torn"]))
        for step in course:
            world.run(step)
        world.hold_to_account()
