"""The fault drill without its pipeline: its file, its receiver, its verdict, and storage that a switch makes slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lakehouse.config.loader import load_pipeline
from lakehouse.drill import run as drilling
from lakehouse.drill import stage as staging
from lakehouse.drill.driver import SWITCH
from lakehouse.drill.report import BOUND_S, DrillReport, Trial
from lakehouse.drill.run import FAULTS, Fault
from lakehouse.drill.stage import Receiver, Stage
from lakehouse.errors import ConfigError, LakehouseError
from lakehouse.load.events import Generator
from tests.silver import SHIPPED


def stage(folder: Path) -> Stage:
    return Stage(SHIPPED.resolve(), folder, 10, threading.Event())


def tell(url: str, alert: str, status: str = "firing") -> None:
    body = json.dumps({"groupLabels": {"alertname": alert}, "status": status}).encode()
    urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=30).close()  # noqa: S310


def test_the_drills_pipeline_has_an_alert_for_each_fault(tmp_path: Path) -> None:
    path = stage(tmp_path)._write("localhost:1", "http://127.0.0.1:1/x")
    pipeline = load_pipeline(path)
    assert {fault.alert for fault in FAULTS.values()} == set(pipeline.alerts.rules)
    assert len(FAULTS) == 10
    assert Generator.beside(path, pipeline)
    assert pipeline.maintenance.background


def test_a_disk_that_is_too_full_for_the_drill_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging.storage, "room", lambda _: (2**30, 2**40))
    with pytest.raises(LakehouseError, match="4 GiB"):
        stage(tmp_path)._write("localhost:1", "http://127.0.0.1:1/x")


def test_the_receiver_knows_what_fires_and_since_when() -> None:
    receiver = Receiver()
    url = receiver.start()
    began_s = time.time()
    tell(url, "lag")
    tell(url, "disk")
    tell(url, "lag", "resolved")
    receiver.stop()
    assert receiver.firing() == {"disk"}
    assert receiver.since(began_s) == ["lag", "disk"]
    assert receiver.first("lag", began_s) is not None
    assert receiver.first("lag", time.time()) is None
    assert receiver.first("clocks", began_s) is None


def acted(told: dict[str, float], *, stop: bool = False) -> Any:
    """A stage on which each fault sets off alerts after so many seconds, with a clock of its own."""
    receiver = Receiver()

    def await_it(condition: Any, bound_s: float) -> bool:
        deadline = time.time() + bound_s
        while time.time() < deadline and not condition():
            clock[0] += 0.5
            receiver.told += [
                (clock[0], name, "firing") for name, after in told.items() if began[0] + after == clock[0]
            ]
        return bool(condition())

    clock, began = [1_000.0], [1_000.0]
    time.time = lambda: clock[0]  # type: ignore[assignment] # put back by the fixture
    return SimpleNamespace(receiver=receiver, await_it=await_it, clock=clock, stop=stop)


@pytest.fixture
def _own_clock() -> Any:
    real = time.time
    yield
    time.time = real


@pytest.mark.usefixtures("_own_clock")
@pytest.mark.parametrize(
    ("told", "told_s", "also", "ok"),
    [
        ({"right": 4.0}, 4.0, [], True),
        ({"other": 2.0, "right": BOUND_S}, BOUND_S, ["other"], True),
        ({"right": BOUND_S + 1}, BOUND_S + 1, [], False),
        ({"other": 3.0}, None, ["other"], False),
    ],
)
def test_a_fault_is_told_in_time_late_or_never(
    told: dict[str, float],
    told_s: float | None,
    also: list[str],
    ok: bool,  # noqa: FBT001
) -> None:
    played = acted(told)

    def heal(_: Any) -> None:
        played.receiver.told += [(time.time(), name, "resolved") for name in told]

    trial = drilling._trial(played, "it", Fault("right", "somehow", lambda _: 1_000.0, heal))
    assert (trial.told_s, trial.also, trial.ok) == (told_s, also, ok)


def test_the_report_says_what_was_told_and_what_was_not() -> None:
    trials = [
        Trial("healthy", "nothing"),
        Trial("lag", "a flood", "lag", 3.25, ["disk"], 2.0),
        Trial("slow", "a switch", "slow_storage", 21.0),
        Trial("gone", "a kill", "no_driver"),
    ]
    report = DrillReport(trials, 60.0, 300.0, {"cores": 2})
    assert not report.ok
    assert DrillReport(trials[:2], 1, 1, {}).ok
    assert not DrillReport([Trial("healthy", "nothing", also=["lag"])], 1, 1, {}).ok
    for part in ("no alert", "lag after 3.2 s (also disk)", "FAIL", "no_driver was never told"):
        assert part in str(report)
    assert "| lag | a flood | `lag` | 3.2 s | `disk` |" in report.to_markdown()
    assert "| gone | a kill | `no_driver` | – | – |" in report.to_markdown()


def test_an_unknown_fault_is_refused_before_anything_is_started() -> None:
    with pytest.raises(ConfigError, match="no fault earthquake"):
        drilling.drill(SHIPPED, faults=["earthquake"], stop=threading.Event())


def test_the_switch_makes_puts_slow_and_only_while_it_is_there(tmp_path: Path) -> None:
    program = (
        "import obstore, runpy, time, sys\n"
        "from obstore.store import MemoryStore\n"
        "def as_lakehouse(*_, **__):\n"
        "    began = time.monotonic(); obstore.put(MemoryStore(), 'x', b'x'); print(time.monotonic() - began)\n"
        "runpy.run_module = as_lakehouse\n"
        "from lakehouse.drill.driver import main\n"
        "main()\n"
    )
    switch = tmp_path / "slow"
    took = []
    for text in ("0.4", None):
        switch.unlink(missing_ok=True) if text is None else switch.write_text(text)
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, SWITCH: str(switch)},
            capture_output=True,
            text=True,
            check=True,
        )
        took.append(float(run.stdout))
    assert took[0] >= 0.4
    assert took[1] < took[0]
