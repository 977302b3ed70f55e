"""Whatever order the steps come in, and wherever a crash hits them, the tables hold exactly what was appended."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
from deltalake import DeltaTable
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lakehouse.maintenance import cleanup
from lakehouse.maintenance.run import Maintainer
from lakehouse.retirement import retired_before
from tests.maintained import GOLD, SILVER, START_S, Stream, age
from tests.property import examples

TABLES = (SILVER, GOLD)
GRAINS = ("1s", "1m", "1h")


class CrashError(BaseException):
    """The process was killed. Not an Exception: nothing may catch it."""


@contextmanager
def crash_after(operations: int | None) -> Iterator[None]:
    """Let so many puts and deletes happen, and kill the process at the next one: before it, or just after it."""
    originals: dict[str, Callable[..., Any]] = {"put": obstore.put, "delete": obstore.delete}
    left = [operations]

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if left[0] is None:
                return originals[name](*arguments, **options)
            if left[0] <= 0:
                raise CrashError
            left[0] -= 1
            return originals[name](*arguments, **options)

        return call

    # A checkpoint is two files: the Parquet file, then the hint that names it.
    write = cleanup.write_checkpoint

    def checkpoint(view: Any) -> int:
        hint = Path(view.url) / "_delta_log" / "_last_checkpoint"
        before = hint.read_bytes() if hint.exists() else None
        if left[0] is not None and left[0] <= 0:
            raise CrashError
        version = write(view)
        if left[0] is not None and left[0] == 1:
            hint.unlink()  # the file may have another name: see _copy
            if before is not None:
                hint.write_bytes(before)
            raise CrashError
        if left[0] is not None:
            left[0] -= 2
        return version

    obstore.put, obstore.delete = wrapped("put"), wrapped("delete")
    cleanup.write_checkpoint = checkpoint
    try:
        yield
    finally:
        obstore.put, obstore.delete = originals["put"], originals["delete"]
        cleanup.write_checkpoint = write


STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([1, 5, 12])),
    st.tuples(st.just("late"), st.sampled_from([1, 5, 12])),
    st.tuples(st.just("maintain"), st.just(0)),
    st.tuples(st.just("age and maintain"), st.just(0)),
    st.tuples(st.just("restart"), st.just(0)),
)
CRASHES = st.one_of(st.none(), st.integers(0, 60))


@settings(
    max_examples=examples(10), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.lists(st.tuples(STEPS, CRASHES), min_size=2, max_size=7))
def test_the_tables_hold_exactly_what_was_appended(steps: list[tuple[tuple[str, int], int | None]]) -> None:
    root = Path(tempfile.mkdtemp(prefix="lakehouse-maintained-"))
    stream = Stream(root, grains=GRAINS)
    try:
        _perform(stream, "late", 12)
        for (step, count), crash in steps:
            try:
                with crash_after(crash):
                    _perform(stream, step, count)
                event(f"{step} to its end")
            except CrashError:
                event(f"crash in {step}")
                stream.sink.close()
                stream.open()
            _require_exact(stream)
    finally:
        stream.sink.close()
        shutil.rmtree(root)


def test_a_pass_may_be_killed_at_every_single_operation(tmp_path: Path) -> None:
    """A pass with every kind of step, killed after 0, 1, 2 … puts and deletes, and then run to its end."""
    made = Stream(tmp_path / "made", grains=GRAINS)
    for turn in range(2):
        _perform(made, "late", 10)
        if turn == 0:
            _perform(made, "maintain", 0)
    (made.path(SILVER) / "part-orphan.parquet").write_bytes(b"x")
    age(made.root, 3_600)
    _perform(made, "send", 1)
    made.sink.close()
    operations, crashed = 0, True
    while crashed:
        root = tmp_path / str(operations)
        _copy(made.root, root)
        stream = Stream(root, grains=GRAINS)
        crashed = False
        try:
            with crash_after(operations):
                _perform(stream, "maintain", 0)
        except CrashError:
            crashed = True
        _require_exact(stream)
        if operations % 8 == 0:
            _perform(stream, "maintain", 0)
            _perform(stream, "send", 1)
            _require_exact(stream)
        stream.sink.close()
        shutil.rmtree(root)
        operations += 1
    assert operations > 50


def _copy(made: Path, root: Path) -> None:
    """The tables again, with the times of their files. No file is ever written to: a link is as good as a copy."""
    shutil.copytree(made, root, copy_function=os.link)


def _perform(stream: Stream, step: str, count: int) -> None:
    match step:
        case "send" | "late":
            for number in range(count):
                stream.send(4, at_s=START_S + number % 3, late=2 if step == "late" else 0)
        case "maintain" | "age and maintain":
            if step != "maintain":
                age(stream.root, 3_600)
            # As if an hour had passed since the last file was written: everything is old enough for every step.
            reports = Maintainer(stream.pipeline, clock=lambda: time.time() + 3_600).maintain()
            assert not [report.error for report in reports if report.error]
        case "restart":
            stream.sink.close()
            stream.open()


def _require_exact(stream: Stream) -> None:
    """Silver holds each record once and as it was; gold is the same aggregate; the next start finds the head."""
    again = Stream(stream.root, grains=GRAINS)
    again.sink.close()
    assert again.sent == stream.sent
    silver = stream.silver()
    offsets = list(range(stream.sent // 2))
    assert silver["_offset"].to_pylist() == offsets * 2
    numbers = pa.array([2 * offset + partition for partition in (0, 1) for offset in offsets], pa.int64())
    assert silver["id"].to_pylist() == [f"e{number}" for number in numbers.to_pylist()]
    assert stream.gold() == stream.expected_gold(silver=silver)
    for grain in GRAINS[1:]:
        assert stream.history(grain) == stream.expected_gold(grain, silver)


def test_a_retirement_may_be_killed_at_every_single_operation(tmp_path: Path) -> None:
    """Rows that a rule lets go leave whole or not at all, and the coarser grains keep every event."""
    rules = [{"rows": "silver", "keep": "30m"}, {"rows": "1s", "keep": "10m"}]
    made = Stream(tmp_path / "made", grains=GRAINS, retention=rules)
    for number in range(6):
        made.send(4, at_s=START_S + 600 * number, late=1)
    made.sink.close()
    now_s, operations, crashed, outcomes = START_S + 3_600, 0, True, set()
    while crashed:
        root = tmp_path / str(operations)
        _copy(made.root, root)
        stream = Stream(root, grains=GRAINS, retention=rules)
        crashed = False
        try:
            with crash_after(operations):
                Maintainer(stream.pipeline, clock=lambda: now_s).maintain()
        except CrashError:
            crashed = True
        outcomes.add((retired_before(DeltaTable(str(stream.path(SILVER)))), stream.silver().num_rows))
        assert sum(row[0] for row in stream.history("1h").values()) == stream.sent
        stream.maintain(now_s)
        assert sum(row[0] for row in stream.history("1h").values()) == stream.sent
        stream.sink.close()
        stream.open()
        assert stream.sent == 24
        stream.sink.close()
        shutil.rmtree(root)
        operations += 1
    assert operations > 8
    assert outcomes == {(None, 24), (int((START_S + 1_800) * 1e6), 11)}
