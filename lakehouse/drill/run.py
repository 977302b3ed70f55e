"""Does each fault to the stage, waits for its alert, takes the fault back, and waits until all is quiet again."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Producer

from lakehouse.drill.report import BOUND_S, DrillReport, Trial
from lakehouse.drill.stage import Stage
from lakehouse.errors import ConfigError, LakehouseError
from lakehouse.load.events import Generator
from lakehouse.load.plan import Load, blocks

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from lakehouse.processes import Child

_HEALTHY_S = 20.0
"""Of the control, in which no alert may be told."""
_GIVE_UP_S = 4 * BOUND_S
"""An alert that is late is waited for, so that the report can say how late it was."""
_QUIET_S = 180.0
"""Within which everything has to be over once a fault is taken back."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        alert: that has to be told.
        done: how, in words.
        inject: does it; returns when it began, seconds since 1970.
        heal: takes it back.
    """

    alert: str
    done: str
    inject: Callable[[Stage], float]
    heal: Callable[[Stage], object]


def drill(
    shipped: Path,
    *,
    faults: Sequence[str] = (),
    rate: float = 300.0,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    stop: threading.Event,
) -> DrillReport:
    """Run the control and every fault.

    Args:
        shipped: the pipeline's file.
        faults: names, in their order; all where it is empty.
        rate: events per second.
        folder: where everything lies and stays; None for one that is removed at the end.
        say: hears a line per fault.
        stop: ends the drill early.

    Raises:
        ConfigError: there is no such fault.
        LakehouseError: a part of the stage failed by itself: there is no verdict.
    """
    if unknown := [name for name in faults if name not in FAULTS]:
        raise ConfigError(f"there is no fault {unknown[0]}", remedy=f"the faults are: {', '.join(FAULTS)}")
    chosen = {name: FAULTS[name] for name in faults or FAULTS}
    began = time.monotonic()
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lakehouse-drill-")))
        folder.mkdir(parents=True, exist_ok=True)
        stage = Stage(shipped, folder.resolve(), rate, stop)
        say("starting broker, driver, alerts from outside, dashboard and load")
        stack.enter_context(stage.up(dashboard="dashboard_behind" in chosen))
        trials = [_control(stage, stop)]
        say(str(DrillReport(trials, 0, rate, {})))
        for name, fault in chosen.items():
            if stop.is_set():
                break
            trial = _trial(stage, name, fault)
            trials.append(trial)
            say(str(DrillReport([trial], 0, rate, {})))
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    return DrillReport(trials, round(time.monotonic() - began, 1), rate, machine)


def _control(stage: Stage, stop: threading.Event) -> Trial:
    """Everything has begun and is quiet; then nobody may be told anything."""
    trial = Trial("healthy", "nothing is done for 20 s")
    if not _quiet(stage):
        raise LakehouseError(
            f"the alerts {', '.join(sorted(stage.receiver.firing()))} fire before anything was done",
            where=str(stage.folder / "logs"),
            remedy="run the drill on a machine with less other work",
        )
    began_s = time.time()
    stop.wait(_HEALTHY_S)
    trial.also = stage.receiver.since(began_s)
    return trial


def _trial(stage: Stage, name: str, fault: Fault) -> Trial:
    trial = Trial(name, fault.done, fault.alert)
    began_s = fault.inject(stage)
    stage.await_it(lambda: stage.receiver.first(fault.alert, began_s) is not None, _GIVE_UP_S)
    told = stage.receiver.first(fault.alert, began_s)
    trial.told_s = None if told is None else round(told - began_s, 2)
    healed_s = time.time()
    trial.also = [alert for alert in stage.receiver.since(began_s) if alert != fault.alert]
    fault.heal(stage)
    trial.over_s = round(time.time() - healed_s, 1) if _quiet(stage) else None
    return trial


def _quiet(stage: Stage) -> bool:
    """Wait until no alert fires, and none has begun to for some seconds."""

    def is_quiet() -> bool:
        last_s = max((at for at, _, _ in list(stage.receiver.told)), default=0.0)
        return not stage.receiver.firing() and time.time() - max(last_s, began_s) > _SETTLED_S

    began_s = time.time()
    return stage.await_it(is_quiet, _QUIET_S)


_SETTLED_S = 5.0


def _now(do: Callable[[Stage], object]) -> Callable[[Stage], float]:
    """A fault that begins when it is done."""

    def inject(stage: Stage) -> float:
        began_s = time.time()
        do(stage)
        return began_s

    return inject


class _Beside:
    """A load beside the usual one, from the fault to its end."""

    def __init__(self, rate: float, bad_share: float, seconds: float | None = None) -> None:
        self._rate, self._bad_share, self._seconds = rate, bad_share, seconds
        self._child: Child | None = None

    def begin(self, stage: Stage) -> None:
        self._child = stage.produce("flood", self._rate, bad_share=self._bad_share, seconds=self._seconds)

    def end(self, _: Stage) -> None:
        if self._child is not None:
            self._child.stop()


def _send_ahead(stage: Stage) -> None:
    """Two seconds of events whose producer's clock is a minute ahead; the broker is told the true time."""
    source = stage.pipeline.source
    events = Generator.beside(stage.file, stage.pipeline)
    load = Load(events, rate=200, seconds=2, seed=7_919, bad_share=0, late_share=0, shape="flat")
    events.prepare(load.seed)
    producer = Producer({"bootstrap.servers": source.servers})
    for block in blocks(load, round((time.time() + timedelta(minutes=1).total_seconds()) * 1_000)):
        for value, key in zip(block.values, block.keys, strict=True):
            producer.produce(source.topic, value, key)
    producer.flush(10)


_LAG, _POISON = _Beside(20_000, 0.0, seconds=4), _Beside(400, 1.0)

FAULTS: dict[str, Fault] = {
    "broker_down": Fault("broker_down", "SIGKILL to the broker", _now(Stage.kill_broker), Stage.start_broker),
    "lag": Fault("lag", "20,000 events/s for 4 s into batches of 2,000", _now(_LAG.begin), _LAG.end),
    "bad_suite": Fault(
        "bad_suite",
        "the driver starts with a suite that refuses everything; from its first batch",
        lambda stage: stage.deploy(bad=True),
        lambda stage: stage.deploy(bad=False),
    ),
    "poison_flood": Fault("poison", "400 spoiled records/s beside the load", _now(_POISON.begin), _POISON.end),
    "disk_nearly_full": Fault("disk", "a file of 2 GiB beside the tables", _now(Stage.fill_disk), Stage.end_faults),
    "stuck_maintenance": Fault(
        "maintenance",
        "SIGSTOP to the child that maintains",
        _now(lambda stage: stage.maintenance().suspend()),
        lambda stage: stage.maintenance().resume(),
    ),
    "clock_skew": Fault(
        "clocks", "400 events of a producer whose clock is a minute ahead", _now(_send_ahead), lambda _: None
    ),
    "slow_storage": Fault(
        "slow_storage",
        "each object that the driver puts takes 1 s longer",
        _now(lambda stage: stage.slow_storage(1.0)),
        Stage.end_faults,
    ),
    "killed_driver": Fault(
        "no_driver", "SIGKILL to the driver and all below it", _now(Stage.kill_driver), Stage.start_driver
    ),
    "dashboard_behind": Fault(
        "dashboard",
        "SIGSTOP to the dashboard",
        _now(lambda stage: stage.dashboard_process().suspend()),
        lambda stage: stage.dashboard_process().resume(),
    ),
}
"""Each fault by its name, in the order in which they are done."""
