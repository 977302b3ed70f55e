"""Maintenance beside a pipeline: it comes back when it dies, ends with its parent, and never stops it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from lakehouse.maintenance import background
from lakehouse.maintenance.background import Background, maintained
from tests.maintained import START_S, Stream
from tests.pipelines import small_pipeline

SLEEPER = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline, waiting = time.monotonic() + timeout_s, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        waiting.wait(0.01)


def test_a_child_that_dies_is_started_again_and_ends_with_stop() -> None:
    child = Background(SLEEPER, first_wait_s=0.01)
    child.start()
    until(lambda: child.child is not None)
    first = child.child
    assert first is not None
    first.kill()
    until(lambda: child.child is not first)
    child.stop()
    assert not child.is_alive()
    assert child.child is not None
    assert child.child.poll() is not None


def test_a_child_that_cannot_start_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    child = Background(["/nowhere/at/all"], first_wait_s=0.01)
    child.start()
    until(lambda: "maintenance ended and starts again" in caplog.text)
    child.stop()
    assert not child.is_alive()


def test_what_a_child_says_before_it_ends_is_told(caplog: pytest.LogCaptureFixture) -> None:
    child = Background([sys.executable, "-c", "raise SystemExit('the disk is full')"], first_wait_s=0.01)
    child.start()
    until(lambda: "starts again" in caplog.text)
    child.stop()
    assert "the disk is full" in caplog.text


@pytest.mark.parametrize("changes", [{"maintenance": {"background": False}}, {"trigger": {"kind": "available_now"}}])
def test_no_child_where_none_is_wanted(
    changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "Background", None)
    with maintained(tmp_path / "p.yaml", small_pipeline(tmp_path, **changes)):
        pass


def pipeline_file(tmp_path: Path) -> Path:
    raw = small_pipeline(tmp_path / "data").model_dump(mode="json")
    suite = tmp_path / "suite.json"
    suite.write_text(json.dumps({"name": "s", "expectations": []}))
    raw["quality"]["suite"] = str(suite)
    raw["source"].pop("options")
    raw["maintenance"] |= {"every": "1s", "min_age": "0ms"}
    path = tmp_path / "clicks.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def test_the_command_maintains_at_low_priority_and_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    stream = Stream(tmp_path / "data")
    for number in range(12):
        stream.send(4, at_s=START_S + number)
    path = pipeline_file(tmp_path)
    parent_code = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from lakehouse.config.loader import load_pipeline\n"
        "from lakehouse.maintenance.background import maintained\n"
        "path = Path(sys.argv[1])\n"
        "with maintained(path, load_pipeline(path, {})):\n"
        "    threading.Event().wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_code, str(path)])
    try:
        until(lambda: psutil.Process(parent.pid).children())
        (child,) = psutil.Process(parent.pid).children()
        until(lambda: stream.live("silver/clicks") == 1)
        assert child.nice() == 19
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        assert not psutil.wait_procs([child], timeout=10)[1]
    finally:
        parent.kill()
        parent.wait()
    assert stream.silver().num_rows == 48


def test_the_command_reports_plans_and_refuses(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from lakehouse.cli import app, duration
    from lakehouse.errors import ConfigError

    stream = Stream(tmp_path / "data")
    for number in range(12):
        stream.send(4, at_s=START_S + number)
    path = str(pipeline_file(tmp_path))
    plan = CliRunner().invoke(app, ["maintain", path, "--dry-run", "--json"])
    assert plan.exit_code == 0
    planned = {report["table"]: report for report in map(json.loads, plan.stdout.splitlines())}
    assert planned["silver/clicks"]["rewrites"] == 1
    assert stream.live("silver/clicks") == 24
    done = CliRunner().invoke(app, ["maintain", path])
    assert done.exit_code == 0
    assert "silver/clicks: 24 → 1 files" in done.stdout
    assert stream.live("silver/clicks") == 1
    for wrong in ("0s", "soon"):
        with pytest.raises(ConfigError, match="time to wait"):
            duration(wrong)


def test_the_job_maintains_without_a_jvm(tmp_path: Path) -> None:
    stream = Stream(tmp_path / "data")
    for number in range(12):
        stream.send(4, at_s=START_S + number)
    job = Path(__file__).parents[2] / "jobs" / "maintain.py"
    done = subprocess.run(
        [sys.executable, str(job), str(pipeline_file(tmp_path))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "gold/clicks_by_page_1s: 12 → 1 files" in done.stdout
