"""A driver that stands by beside another one: it rehearses without a trace, and its turn comes when the other dies."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import pytest

from lakehouse import driver
from lakehouse import pipeline as flow
from tests.integration.stack import Stack, kill, until


def test_a_standby_rehearses_waits_and_goes_on_where_the_first_died(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(driver, "_REHEARSED_BATCHES", 2)
    silver = stack.root / "silver" / "feature_events" / "_delta_log"
    rehearsed: list[Path] = []
    stop, loaded = threading.Event(), threading.Event()
    run = flow.run

    def noted(*arguments: object, **callbacks: object) -> None:
        run(*arguments, **callbacks)  # type: ignore[arg-type]
        rehearsed.extend(scratch.glob("*/silver/feature_events/_delta_log/*1.json"))

    def load() -> None:
        seed = 2
        while not loaded.is_set():
            stack.send(50, seed=seed)
            seed += 1

    stack.send(200, seed=1)
    first = stack.start_process(stack.file(tmp_path))
    sender = threading.Thread(target=load)
    second = threading.Thread(target=driver.await_turn, args=(stack.spark, stack.pipeline("processing_time"), stop))
    try:
        until(silver.is_dir, "the first driver's first batch")
        sender.start()
        monkeypatch.setattr(flow, "run", noted)
        second.start()
        said = ""
        while "standing by" not in said:
            said += capsys.readouterr().err
            assert second.is_alive(), said
        monkeypatch.setattr(flow, "run", run)
        assert f"process {first.pid} runs" in said
        assert rehearsed, "nothing was rehearsed"
        assert not list(scratch.iterdir())
        assert first.poll() is None
        kill(first)
        second.join(30)
        assert not second.is_alive()
        assert "taking its place" in capsys.readouterr().err
    finally:
        if first.poll() is None:
            kill(first)
        loaded.set()
        stop.set()
        for thread in (sender, second):
            if thread.ident is not None:
                thread.join(30)
    stack.catch_up()
    proof = stack.reconcile()
    assert proof.ok, proof
    assert proof.records > 200
