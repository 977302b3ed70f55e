"""Everything together on one machine: a broker, a load, the pipeline and the dashboard, started and ended in order."""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
import webbrowser
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import typer

from lakehouse import broker, embedded, kafka_admin, storage
from lakehouse.config.loader import load_pipeline
from lakehouse.errors import LakehouseError
from lakehouse.processes import Child

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lakehouse.config.models import Pipeline

_PARTITIONS = 2
"""Of the demo's topic: a task per partition, which two cores run at once."""
_DASHBOARD_PORT = 8501
_START_TIMEOUT_S = 180.0
_CATCH_UP_S = 30.0
_REPORT_EVERY_S = 5.0
_CHECK_EVERY_S = 0.5


@dataclass
class Figures:
    """What the pipeline has told about its batches since the last line, and since the beginning."""

    started: threading.Event = field(default_factory=threading.Event)
    batches: list[dict[str, Any]] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hear(self, line: str) -> None:
        """Take in one line of `lakehouse run --json`."""
        if not line.startswith("{"):
            return
        event = orjson.loads(line)
        if event["event"] == "started":
            self.started.set()
        elif event["event"] == "waiting":
            typer.echo(f"{time.strftime('%H:%M:%S')}  {event['reason']}; trying again in {event['retry_in_s']:.0f} s")
        elif event["event"] == "batch":
            with self._lock:
                self.batches.append(event)
                for table, rows in event["rows"].items():
                    self.totals[table] = self.totals.get(table, 0) + rows

    def line(self, elapsed_s: float) -> str:
        """One line about the batches since the last call."""
        with self._lock:
            batches, self.batches = self.batches, []
        if not batches:
            return "no new batch"
        silver, refused = (
            sum(rows for batch in batches for table, rows in batch["rows"].items() if table.startswith(layer))
            for layer in ("silver/", "quarantine/")
        )
        ages = [batch["oldest_ms"] for batch in batches if batch["oldest_ms"] is not None]
        age = f", oldest event {statistics.median(ages):.0f} ms old at its commit" if ages else ""
        return (
            f"{(silver + refused) / elapsed_s:>7,.0f} events/s   {refused / max(1, silver + refused):.1%} quarantined"
            f"   {len(batches) / elapsed_s:.1f} commits/s{age}"
        )


def run_demo(
    path: Path, *, rate: float, seconds: float | None, seed: int, browser: bool, stop: threading.Event
) -> None:
    """Start everything, report until `stop` is set or `seconds` are over, then end it in order.

    Raises:
        LakehouseError: a part ended by itself; its last lines are in the message.
    """
    environment = dict(os.environ)
    path = path.resolve()
    root = storage.resolve_root(environment.get("LAKEHOUSE_ROOT", "./data"))
    environment["LAKEHOUSE_ROOT"] = root
    logs = (Path("./data") if "://" in root else Path(root)) / "_logs"
    with ExitStack() as stack:
        if embedded.VARIABLE not in environment:
            _say("starting Kafka")
            served = broker.start(embedded.broker_folder(environment))
            stack.callback(broker.stop, embedded.broker_folder(environment))
            environment[embedded.VARIABLE] = served.bootstrap
        pipeline = load_pipeline(path, environment)
        kafka_admin.create_topic(pipeline.source.servers, pipeline.source.topic, _PARTITIONS)
        figures = Figures()

        _say(f"Kafka serves at {pipeline.source.servers}; starting the pipeline and the dashboard")
        runner = Child.start(
            "pipeline",
            ["-m", "lakehouse", "run", str(path), "--json"],
            environment=environment,
            log=logs / "pipeline.log",
            on_line=figures.hear,
        )
        stack.callback(runner.stop)
        port = _free_port(_DASHBOARD_PORT)
        dashboard = _start_dashboard(path, port, environment, logs)
        stack.callback(dashboard.stop)
        _await_start(figures, runner, stop)
        load = Child.start(
            "load",
            [
                "-m",
                "lakehouse",
                "produce",
                "--pipeline",
                str(path),
                "--rate",
                str(rate),
                "--seed",
                str(seed),
                "--json",
            ],
            environment=environment,
            log=logs / "load.log",
        )
        stack.callback(load.stop)

        url = f"http://127.0.0.1:{port}"
        _say(f"dashboard: {url}   (Ctrl-C ends everything)")
        if browser:
            webbrowser.open(url)
        _report(figures, [runner, dashboard, load], seconds, stop)

        _say("ending: load, pipeline, dashboard, Kafka")
        load.stop()
        sent = _last_json(load.log)
        _await_catch_up(pipeline, figures, sent)
    _summarise(path, pipeline, figures, sent)


def _say(text: str) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')}  {text}")


def _start_dashboard(path: Path, port: int, environment: Mapping[str, str], logs: Path) -> Child:
    app = find_spec("dashboard.serve")
    if app is None or app.origin is None:
        raise LakehouseError("the dashboard is not installed", remedy="install the project with `make setup`")
    options = ["--server.port", str(port), "--server.headless", "true"]
    return Child.start(
        "dashboard",
        ["-m", "streamlit", "run", app.origin, *options, "--", str(path)],
        environment=environment,
        log=logs / "dashboard.log",
        # Streamlit reads its theme and its settings from the folder that it is started in.
        folder=Path(app.origin).parent.parent,
    )


def _await_start(figures: Figures, runner: Child, stop: threading.Event) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not figures.started.wait(0.2):
        runner.require_running()
        if stop.is_set():
            return
        if time.monotonic() > deadline:
            raise LakehouseError("the pipeline did not start in time", where=str(runner.log), remedy="see its log")


def _report(figures: Figures, children: list[Child], seconds: float | None, stop: threading.Event) -> None:
    began = since = time.monotonic()
    while not stop.wait(_CHECK_EVERY_S):
        for child in children:
            child.require_running()
        now = time.monotonic()
        if now - since >= _REPORT_EVERY_S:
            _say(figures.line(now - since))
            since = now
        if seconds is not None and now - began >= seconds:
            return


def _await_catch_up(pipeline: Pipeline, figures: Figures, sent: dict[str, Any]) -> None:
    """Give the pipeline the time to take what was sent; what it does not take now, its next start will."""
    deadline = time.monotonic() + _CATCH_UP_S
    while time.monotonic() < deadline:
        taken = sum(rows for table, rows in figures.totals.items() if not table.startswith(("gold/", "bronze/")))
        if taken >= sent.get("acked", 0):
            return
        time.sleep(0.2)
    _say(f"{pipeline.name} has not caught up; its next start goes on where the tables end")


def _last_json(log: Path) -> dict[str, Any]:
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    found: dict[str, Any] = orjson.loads(lines[-1]) if lines else {}
    return found


def _summarise(path: Path, pipeline: Pipeline, figures: Figures, sent: dict[str, Any]) -> None:
    typer.echo(f"\nsent to Kafka     {sent.get('acked', 0):>10,}")
    for table, rows in sorted(figures.totals.items()):
        typer.echo(f"{table:<40} {rows:>10,} rows")
    typer.echo(f"tables are under  {storage.resolve_root(pipeline.root)}")
    typer.echo(f"prove it with     lakehouse reconcile {path}")


def _free_port(wanted: int) -> int:
    """`wanted`, or any free port of this machine where it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise LakehouseError("this machine has no free port", remedy="close a program that listens on one")
