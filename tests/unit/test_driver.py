"""Whose turn it is: one driver of a pipeline on a machine, and those that stand by for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lakehouse import driver, storage
from lakehouse.errors import LakehouseError, SecondDriver
from lakehouse.lock import driver_lock, driver_of
from tests.pipelines import small_pipeline


@contextmanager
def nothing(*_: object, **__: object) -> Iterator[None]:
    yield


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Everything around the turn is away; the pipeline's run is what the test says."""
    for name in ("ended_session", "operated"):
        monkeypatch.setattr(driver, name, nothing)
    monkeypatch.setattr(driver, "warm_up", lambda _: None)
    monkeypatch.setattr(driver, "rehearse", lambda *_: None)
    return lambda run: monkeypatch.setattr(driver, "run", run)


def test_without_standby_a_second_driver_is_refused(stage: Any, tmp_path: Path) -> None:
    def refused(*_: object, **__: object) -> None:
        raise SecondDriver("another driver runs")

    stage(refused)
    with pytest.raises(SecondDriver):
        driver.drive(tmp_path, small_pipeline(tmp_path), threading.Event())


def test_a_standby_runs_at_once_where_nobody_does(stage: Any, tmp_path: Path) -> None:
    runs: list[int] = []
    stage(lambda *_, **__: runs.append(1))
    driver.drive(tmp_path, small_pipeline(tmp_path), threading.Event(), standby=True)
    assert runs == [1]


def test_of_two_that_stand_by_the_slower_one_waits_again(stage: Any, tmp_path: Path) -> None:
    pipeline = small_pipeline(tmp_path)
    url = storage.checkpoint_url(pipeline.root, pipeline.name)
    quicker = driver_lock(url)
    attempts: list[str | None] = []

    def run(*_: object, **__: object) -> None:
        if not attempts:
            quicker.__enter__()
            attempts.append(driver_of(url))
            threading.Timer(0.2, quicker.__exit__, (None, None, None)).start()
            raise SecondDriver("the other one was quicker")
        attempts.append(driver_of(url))

    stage(run)
    driver.drive(tmp_path, pipeline, threading.Event(), standby=True)
    assert len(attempts) == 2
    assert attempts[0] is not None
    assert attempts[1] is None


def test_a_driver_elsewhere_is_no_reason_to_wait_here(stage: Any, tmp_path: Path) -> None:
    def overtaken(*_: object, **__: object) -> None:
        raise SecondDriver("a driver on another machine was quicker")

    stage(overtaken)
    with pytest.raises(SecondDriver):
        driver.drive(tmp_path, small_pipeline(tmp_path), threading.Event(), standby=True)


def test_a_standby_that_is_stopped_runs_nothing(stage: Any, tmp_path: Path) -> None:
    pipeline = small_pipeline(tmp_path)
    runs: list[int] = []
    stage(lambda *_, **__: runs.append(1))
    stop = threading.Event()
    with driver_lock(storage.checkpoint_url(pipeline.root, pipeline.name)):
        threading.Timer(0.2, stop.set).start()
        driver.drive(tmp_path, pipeline, stop, standby=True)
    assert runs == []


def test_a_rehearsal_ends_with_its_batches_or_the_stop_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = small_pipeline(tmp_path)
    roots: list[Path] = []

    def run(_: object, rehearsed: Any, ended: threading.Event, *, on_batch: Callable[[object], None]) -> None:
        roots.append(Path(rehearsed.root))
        assert roots[-1].is_dir()
        assert rehearsed.source.starting_offsets == "latest"
        batches = 0
        while not ended.wait(0.001):
            on_batch(None)
            batches += 1
        if len(roots) == 1:
            assert batches > driver._REHEARSED_BATCHES
        raise LakehouseError("a rehearsal may fail as it likes")

    monkeypatch.setattr(driver.flow, "run", run)
    spark: Any = None
    driver.rehearse(spark, pipeline, threading.Event())
    stopped = threading.Event()
    stopped.set()
    driver.rehearse(spark, pipeline, stopped)
    assert len(set(roots)) == 2
    assert str(tmp_path) not in {str(root) for root in roots}
    assert not any(root.exists() for root in roots)
