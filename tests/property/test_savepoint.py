"""Whatever is done, wherever a crash hits it: a restore brings back the rows of then, and the stream goes on once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lakehouse import savepoints, storage
from lakehouse.sinks.restores import Restores
from lakehouse.sinks.savepoints import Savepoints
from tests.maintained import SILVER, Stream, contents
from tests.property import examples
from tests.property.test_maintenance import GRAINS, CrashError, _perform, crash_after

STEPS = st.one_of(
    st.tuples(st.sampled_from(["send", "late"]), st.sampled_from([1, 5])),
    st.tuples(st.sampled_from(["maintain", "age and maintain", "restart"]), st.just(0)),
    st.tuples(st.just("save"), st.just(0)),
    st.tuples(st.just("restore"), st.integers(0, 3)),
)
CRASHES = st.one_of(st.none(), st.integers(0, 25))


class Room:
    """A pipeline, and what its savepoints have to bring back."""

    def __init__(self, root: Path) -> None:
        self.stream = Stream(root, grains=GRAINS)
        self.then: dict[str, tuple[int, pa.Table]] = {}

    def do(self, step: str, count: int) -> None:
        if step == "save":
            name = f"s{len(self.then)}"
            # Before it is made: what a crash leaves is a whole savepoint or none.
            self.then[name] = self.stream.sent, self.stream.silver()
            savepoints.create(self.stream.pipeline, name)
        elif step == "restore":
            if names := [one.name for one in self.saved()]:
                self.restore(names[count % len(names)])
        else:
            _perform(self.stream, step, count)

    def saved(self) -> list[savepoints.Savepoint]:
        return Savepoints(str(self.stream.root), "clicks").saved()

    def restore(self, name: str) -> None:
        self.stream.sink.close()
        savepoints.restore(self.stream.pipeline, name)
        self.stream.open()
        sent, rows = self.then[name]
        assert self.stream.sent == sent
        assert self.stream.silver().equals(rows)

    def restart(self) -> None:
        """As after a crash: a restore that was decided is finished by the start."""
        self.stream.sink.close()
        pending = Restores(str(self.stream.root), "clicks").pending()
        self.stream.open()
        if pending is not None:
            event("a start finished a restore")
            assert self.stream.sent == self.then[pending.savepoint][0]

    def require_exact(self) -> None:
        stream = self.stream
        rows = stream.silver()
        places = list(zip(rows["_partition"].to_pylist(), rows["_offset"].to_pylist(), strict=True))
        assert places == sorted((number % 2, number // 2) for number in range(stream.sent))
        assert stream.gold() == stream.expected_gold()
        for grain in GRAINS[1:]:
            assert stream.history(grain) == stream.expected_gold(grain), grain


@settings(
    max_examples=examples(6), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.lists(st.tuples(STEPS, CRASHES), min_size=2, max_size=7))
def test_a_restore_brings_back_what_was_and_loses_and_doubles_nothing(
    steps: list[tuple[tuple[str, int], int | None]],
) -> None:
    root = Path(tempfile.mkdtemp(prefix="lakehouse-saved-"))
    room = Room(root / "old")
    try:
        room.do("late", 5)
        for (step, count), crash in steps:
            try:
                with crash_after(crash):
                    room.do(step, count)
                event(f"{step} to its end")
            except CrashError:
                event(f"crash in {step}")
                room.restart()
            room.require_exact()
        for saved in room.saved():
            room.restore(saved.name)
            room.require_exact()
            fork(room, saved.name, root / saved.name)
    finally:
        room.stream.sink.close()
        shutil.rmtree(root)


def fork(room: Room, name: str, root: Path) -> None:
    """A fork is the savepoint's rows in tables of its own, and goes on by itself."""
    into = room.stream.pipeline.model_copy(update={"root": str(root)})
    for crash in (3, 9, None):
        try:
            with crash_after(crash):
                savepoints.fork(room.stream.pipeline, name, into)
        except CrashError:
            event("crash in fork")
    forked = Room.__new__(Room)
    forked.stream = Stream(root, grains=GRAINS)
    assert forked.stream.sent == room.then[name][0]
    assert contents(root / SILVER).num_rows == forked.stream.sent
    forked.require_exact()
    forked.do("send", 1)
    forked.do("maintain", 0)
    forked.require_exact()
    forked.stream.sink.close()
    assert storage.resolve_root(into.root) != storage.resolve_root(room.stream.pipeline.root)
