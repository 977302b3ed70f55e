"""Kills a pipeline again and again while a producer goes on, then holds everything to account.

Broker, producer and victim are processes of their own; the witness is a thread of this one. One step is: start a
victim with its orders, let it die (or do to it what the step says, and kill it), start the next one at once.
"""

from __future__ import annotations

import os
import platform
import random
import signal
import socket
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import psutil
import yaml

from lakehouse import broker, kafka_admin, topic
from lakehouse.broker_settings import HOST
from lakehouse.config.loader import load_pipeline
from lakehouse.errors import LakehouseError
from lakehouse.processes import Child
from lakehouse.torture import points, sender
from lakehouse.torture.checks import Stored, check_all
from lakehouse.torture.ledger import Kind, Ledger, Outcome, sequence_of
from lakehouse.torture.report import Kill, TortureReport
from lakehouse.torture.schedule import FAULTS, Aside, Step, Trouble, digest, schedule
from lakehouse.torture.witness import Witness

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

    from lakehouse.config.models import Pipeline

PARTITIONS = 2
EXPECTED_CYCLE_S = 10.0
"""From kill to kill on two cores: from it the rate follows that spreads the events over the whole run."""
_BOUND_S = 90.0
"""Within which a victim has to come to its point, and a disturbed one has to be fresh again."""
_CATCH_UP_S = 300.0
_PAUSE_S = 14.0
"""Longer than the pipeline's Kafka clients wait for an answer (10 s, `lakehouse.sources.kafka`)."""
_DISK_FULL_S = 3.0
_LOOK_S = 0.01
_HOUR_MS = 3_600_000


@dataclass
class Plan:
    """What to do.

    Attributes:
        pipeline_file: the pipeline; it runs with bronze, in the run's folder, against the run's broker.
        kills: steps; every one ends with a SIGKILL of the pipeline's whole process tree.
        events: at least so many are sent.
        seed: of the schedule and the load.
        rate: events per second; None spreads the events over the steps.
        faults: names to choose from.
        mutants: errors to put into the pipeline's code.
    """

    pipeline_file: Path
    kills: int
    events: int
    seed: int
    rate: float | None = None
    faults: Sequence[str] = FAULTS
    mutants: Sequence[str] = ()

    @property
    def events_per_second(self) -> float:
        """The given rate, or the one that spreads the events over the steps."""
        return self.rate or max(200.0, self.events / (max(1, self.kills) * EXPECTED_CYCLE_S))


def torture(
    plan: Plan, *, folder: Path | None = None, say: Callable[[str], None] = lambda _: None, stop: threading.Event
) -> TortureReport:
    """Run the schedule of the seed and check everything.

    Args:
        plan: what to do.
        folder: where everything lies and stays; None for one that is removed at the end.
        say: hears a line per step.
        stop: ends the steps early; what was done by then is checked.

    Raises:
        LakehouseError: the broker, the producer or the harness itself failed: there is no verdict.
    """
    steps = schedule(plan.seed, plan.kills, plan.faults)
    say(f"seed {plan.seed}, schedule {digest(steps)}: {plan.kills} kills, {plan.events_per_second:,.0f} events/s")
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lakehouse-torture-")))
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            (folder / sender.ORDERS).unlink()
        run = _Run(plan, folder.resolve(), say, stop)
        with run.everything_started():
            return run.all(steps)


@dataclass
class _Victim:
    """One process of the pipeline, and what it has told."""

    child: Child
    hit: Path
    started_s: float
    committed: list[float] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @property
    def dead(self) -> bool:
        return self.child.process.poll() is not None

    @property
    def was_hit(self) -> bool:
        return self.hit.is_file()

    def hit_s(self) -> float:
        """When the point was reached, seconds since 1970; now, where the note was not finished."""
        try:
            return float(orjson.loads(self.hit.read_bytes())["time_ms"]) / 1_000
        except (OSError, orjson.JSONDecodeError):
            return time.time()


class _Run:
    """The processes of one run, and the steps done to them."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None], stop: threading.Event) -> None:
        self.plan, self.folder, self._say, self._stop = plan, folder, say, stop
        self.kills: list[Kill] = []
        self._killed_at: list[float] = []
        self.endings: list[str] = []
        self._began = time.monotonic()
        self._number = 0

    @contextmanager
    def everything_started(self) -> Iterator[None]:
        """Broker, topic, producer and witness; all ended afterwards, and no victim is left."""
        with ExitStack() as stack:
            self._broker_folder = self.folder / "_broker"
            served = broker.start(self._broker_folder, port=_port())
            self._port = served.port
            stack.callback(broker.stop, self._broker_folder)
            self.pipeline_file = _write_pipeline(self.plan.pipeline_file, self.folder, served.bootstrap)
            self.pipeline: Pipeline = load_pipeline(self.pipeline_file, dict(os.environ))
            kafka_admin.create_topic(served.bootstrap, self.pipeline.source.topic, PARTITIONS)
            layers = [f"{layer}/{self.pipeline.name}" for layer in ("silver", "quarantine", "bronze")]
            self.tables = [*layers, *(f"gold/{name}" for name, _, _ in self.pipeline.rollup_tables())]
            self.hot = self.tables[-1]
            self.witness = Witness(self.pipeline.root, self.tables)
            self.witness.start()
            stack.callback(self.witness.finish)
            self._sender = Child.start(
                "producer",
                ["-m", "lakehouse.torture.sender", served.bootstrap, str(self.plan.pipeline_file), str(self.folder),
                 str(self.plan.events_per_second), str(self.plan.seed)],
                environment=os.environ,
                log=self.folder / "producer.log",
            )  # fmt: skip
            stack.callback(self._sender.stop)
            self._victims: list[_Victim] = []
            stack.callback(lambda: [self._end(victim) for victim in self._victims if not victim.dead])
            yield

    def all(self, steps: list[Step]) -> TortureReport:
        """Every step, then the catching up and the checks."""
        began = time.monotonic()
        for step in steps:
            if self._stop.is_set():
                break
            self._step(step)
            self.witness.look_back(last=20)
            self._sender.require_running()
        steps_s = time.monotonic() - began
        records = self._settle()
        ledger = Ledger.read(self.folder / sender.LEDGER)
        self.witness.finish()
        for kill, killed, following in zip(
            self.kills, self._killed_at, [*self._killed_at[1:], float("inf")], strict=True
        ):
            fresh = self.witness.fresh_after(self.hot, killed)
            kill.fresh_s = round(fresh - killed, 2) if fresh is not None and fresh < following else None
        self._say("comparing")
        checks = check_all(self.pipeline, records, ledger, self.witness)
        return TortureReport(
            seed=self.plan.seed,
            schedule=digest(steps),
            kills=self.kills,
            checks=checks,
            figures={
                "records in the topic": len(records),
                "acknowledged": len(ledger.of(Outcome.ACKED)),
                "unknown outcome": len(ledger.of(Outcome.INFO)),
                "aborted": len(ledger.of(Outcome.ABORTED)),
                "sent twice": ledger.count(Kind.DUPLICATE),
                "batches": len([each for each in self.witness.versions[self.hot] if each.batch]),
                "versions seen": sum(map(len, self.witness.versions.values())),
                "orphan files": self._orphans(),
            },
            endings=self.endings,
            steps_s=round(steps_s, 1),
            seconds=round(time.monotonic() - self._began, 1),
            machine={
                "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                "system": platform.platform(),
                "python": platform.python_version(),
            },
        )

    # --- one step ---

    def _step(self, step: Step) -> None:
        kill = Kill(step.fault, aside=step.aside)
        victim = self._start(step)
        if step.aside is not None:
            self._ask_sender(step.aside, step.size)
        if step.fault in points.POINTS:
            killed_s = self._await_hit(victim, kill)
        elif step.fault == Trouble.VICTIM_KILL:
            self._await(lambda: time.time() - victim.started_s >= step.delay_s or victim.dead, _BOUND_S)
            killed_s = self._end(victim)
        else:
            if self._await_fresh(victim, time.time()):
                self._disturb(step, victim, kill)
            else:
                kill.outcome, kill.note = "missed", "the victim was not fresh within the bound"
            killed_s = self._end(victim)
        self.kills.append(kill)
        self._killed_at.append(killed_s)
        self._judge_ending(victim, expected=step.fault == Trouble.DISK_FULL)
        took_s = time.time() - victim.started_s
        beside = f", {step.aside}" if step.aside else ""
        self._say(f"{step.number + 1:>4}/{self.plan.kills}  {step.fault:<16} {kill.outcome:<7} {took_s:5.1f} s{beside}")

    def _start(self, step: Step | None) -> _Victim:
        self._number += 1
        hit = self.folder / "hits" / f"{self._number}.json"
        hit.parent.mkdir(exist_ok=True)
        armed = step is not None and step.fault in points.POINTS
        orders = points.Orders(
            point=step.fault if step and armed else None,
            nth=step.nth if step else 1,
            subset=step.subset if step else 0,
            mutants=tuple(self.plan.mutants),
            hit=str(hit),
        )
        victim = _Victim(child=None, hit=hit, started_s=time.time())  # type: ignore[arg-type] # set on the next line

        def hear(line: str) -> None:
            if '"event":"batch"' in line:
                victim.committed.append(time.time())
            elif not line.startswith("{"):
                victim.messages.append(line)

        victim.child = Child.start(
            "pipeline",
            ["-m", "lakehouse.torture.victim", "run", str(self.pipeline_file), "--json"],
            environment={**os.environ, points.VARIABLE: orders.to_json()},
            log=self.folder / "victims" / f"{self._number}.log",
            on_line=hear,
        )
        self._victims = [each for each in self._victims if not each.dead] + [victim]
        return victim

    def _await_hit(self, victim: _Victim, kill: Kill) -> float:
        self._await(lambda: victim.was_hit or victim.dead, _BOUND_S)
        if victim.was_hit:
            killed_s = victim.hit_s()
            self._end(victim)
            return killed_s
        kill.outcome = "missed"
        kill.note = "it ended before" if victim.dead else f"not reached within {_BOUND_S:.0f} s, or the run was stopped"
        return self._end(victim)

    def _disturb(self, step: Step, victim: _Victim, kill: Kill) -> None:
        """What is neither a point nor a plain kill; returns when the victim has overcome it, or has ended."""
        match Trouble(step.fault):
            case Trouble.BROKER_KILL:
                self._kill_broker()
            case Trouble.BROKER_PAUSE:
                with _paused([psutil.Process(self._broker_pid())]):
                    time.sleep(_PAUSE_S)
            case Trouble.VICTIM_PAUSE:
                with _paused(victim.child.tree()):
                    time.sleep(_PAUSE_S)
            case Trouble.DISK_FULL:
                if sys.platform != "linux":
                    kill.outcome, kill.note = "skipped", "limits of running processes can be set on Linux only"
                    return
                with _disk_full(victim, step.bytes_left):
                    self._await(lambda: victim.dead, _DISK_FULL_S)
            case Trouble.VICTIM_KILL:
                return
        over_s = time.time()
        if not self._await_fresh(victim, over_s) and not victim.dead and not self._stop.is_set():
            self.endings.append(f"{step.fault}: not fresh again within {_BOUND_S:.0f} s (victim {self._number})")

    def _await_fresh(self, victim: _Victim, since_s: float) -> bool:
        self._await(lambda: victim.dead or self.witness.fresh_after(self.hot, since_s) is not None, _BOUND_S)
        return self.witness.fresh_after(self.hot, since_s) is not None

    def _end(self, victim: _Victim) -> float:
        """SIGKILL to the whole tree; returns when nothing of it is left, with the moment of the kill."""
        killed_s = time.time()
        tree = points.end_tree(victim.child.process.pid)
        victim.child.wait(10)
        psutil.wait_procs(tree, timeout=10)
        return killed_s

    def _judge_ending(self, victim: _Victim, *, expected: bool) -> None:
        """A victim that ended by itself has given up; on a full disk that is its right."""
        code = victim.child.process.returncode
        if code is None or code == -signal.SIGKILL or expected:
            return
        self.endings.append(f"victim {self._number}, exit code {code}: {' / '.join(victim.messages[-6:])[:600]}")

    def _kill_broker(self) -> None:
        psutil.wait_procs(points.end_tree(self._broker_pid()), timeout=10)
        broker.start(self._broker_folder, port=self._port)

    def _broker_pid(self) -> int:
        running = broker.status(self._broker_folder)
        if running is None:
            raise LakehouseError("the broker of the run has ended", where=str(self._broker_folder))
        return running.pid

    def _ask_sender(self, aside: Aside, size: int) -> None:
        orders: dict[Aside, dict[str, Any]] = {
            Aside.DUPLICATES: {"do": "duplicates"},
            Aside.TRANSACTION_COMMIT: {"do": "transaction", "end": "commit"},
            Aside.TRANSACTION_ABORT: {"do": "transaction", "end": "abort"},
            Aside.TRANSACTION_HANG: {"do": "transaction", "end": "hang"},
            Aside.CLOCK_BACK: {"do": "clock", "by_ms": -7 * _HOUR_MS},
            Aside.CLOCK_AHEAD: {"do": "clock", "by_ms": 4 * _HOUR_MS // 60},
            Aside.CLOCK_TOO_FAR_AHEAD: {"do": "clock", "by_ms": 7 * _HOUR_MS},
        }
        with (self.folder / sender.ORDERS).open("ab") as file:
            file.write(orjson.dumps(orders[aside] | {"size": size}) + b"\n")

    # --- the end ---

    def _settle(self) -> list[Stored]:
        """Let the events be sent and the pipeline catch up; then everything stands still. The whole topic."""
        self._say("letting it catch up")
        victim = self._start(None)
        while self._sent() < self.plan.events and not self._stop.is_set() and not victim.dead:
            time.sleep(0.2)
        self._sender.stop(timeout_s=120)
        # A transaction left open holds back its readers until the broker has aborted it.
        deadline = time.monotonic() + _CATCH_UP_S
        while time.monotonic() < deadline and not victim.dead and not self._caught_up():
            time.sleep(0.2)
        if victim.dead:
            self._judge_ending(victim, expected=False)
        elif time.monotonic() >= deadline:
            self.endings.append(f"it did not catch up within {_CATCH_UP_S:.0f} s")
        victim.child.stop()
        return list(self._records())

    def _sent(self) -> int:
        self._sender.require_running()
        try:
            return int(orjson.loads((self.folder / sender.PROGRESS).read_bytes())["sent"])
        except FileNotFoundError:
            return 0

    def _caught_up(self) -> bool:
        source = self.pipeline.source
        ends = kafka_admin.offsets(source.servers, source.topic, committed=True)
        all_ends = kafka_admin.offsets(source.servers, source.topic, committed=False)
        if ends != all_ends:
            return False
        for versions in self.witness.versions.values():
            batch = next((each.batch for each in reversed(versions) if each.batch), None)
            reached = batch.end.get(source.topic, {}) if batch else {}
            if any(reached.get(partition, 0) < end for partition, (_, end) in ends.items()):
                return False
        return True

    def _records(self) -> Iterator[Stored]:
        source = self.pipeline.source
        ends = {partition: end for partition, (_, end) in kafka_admin.offsets(source.servers, source.topic).items()}
        for partition in sorted(ends):
            for message in topic.read_messages(source.servers, source.topic, {}, {partition: ends[partition]}):
                yield Stored(partition, int(message.offset() or 0), message.value(), sequence_of(message))

    def _orphans(self) -> int:
        """Files of attempts that died: they cost space, not correctness."""
        named = {
            f"{name}/{path}" for name, known in self.witness.versions.items() for each in known for path in each.added
        }
        root = Path(self.pipeline.root)
        return sum(
            f"{name}/{path.name}" not in named for name in self.tables for path in (root / name).glob("*.parquet")
        )

    def _await(self, condition: Callable[[], bool], bound_s: float) -> bool:
        deadline = time.monotonic() + bound_s
        while not condition():
            if time.monotonic() > deadline or self._stop.is_set():
                return False
            time.sleep(_LOOK_S)
        return True


def _port() -> int:
    """A free port below those that systems lend to clients: one of those may be lent while the broker is down."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise LakehouseError(f"no port from 20000 to 29999 is free at {HOST}")


def _write_pipeline(shipped: Path, folder: Path, bootstrap: str) -> Path:
    """The pipeline's file with bronze, over the run's own broker and folder."""
    raw = yaml.safe_load(shipped.read_text())
    raw["root"] = str(folder / "root")
    raw["source"] |= {"servers": bootstrap, "options": {}, "starting_offsets": "earliest"}
    raw["tables"] = {**raw.get("tables", {}), "bronze": True}
    raw["maintenance"] = {"every": "1s", "min_age": "1s", "checkpoint_every": 10, "target_file_mib": 8}
    raw["quality"]["suite"] = str((shipped.parent / raw["quality"]["suite"]).resolve())
    raw["trigger"] = {"kind": "processing_time", "interval": "0ms"}
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@contextmanager
def _paused(tree: list[psutil.Process]) -> Iterator[None]:
    """SIGSTOP to all, SIGCONT at the end."""
    _each(tree, lambda process: process.suspend())
    try:
        yield
    finally:
        _each(reversed(tree), lambda process: process.resume())


@contextmanager
def _disk_full(victim: _Victim, bytes_left: int) -> Iterator[None]:
    """No file of the victim may grow beyond `bytes_left`: its writes fail, as on a full disk, after a part.

    A limit on file sizes needs no root and no file system of its own, and leaves pipes and sockets alone.
    """
    import resource  # noqa: PLC0415 - absent on Windows

    def limit(process: psutil.Process, size: int) -> None:
        _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)  # type: ignore[attr-defined,unused-ignore]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, most))  # type: ignore[attr-defined,unused-ignore]

    _each(victim.child.tree(), lambda process: limit(process, bytes_left))
    try:
        yield
    finally:
        _each(victim.child.tree(), lambda process: limit(process, resource.RLIM_INFINITY))


def _each(tree: Any, do: Callable[[psutil.Process], object]) -> None:  # noqa: ANN401 - any iterable of processes
    for process in tree:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            do(process)
