"""The stage of a drill: broker, driver, alerts from outside, dashboard with a viewer, load, a receiver of alerts."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import psutil
import yaml
from streamlit.proto.BackMsg_pb2 import BackMsg
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from lakehouse import broker, kafka_admin, storage
from lakehouse.config.loader import load_pipeline
from lakehouse.drill.driver import SWITCH
from lakehouse.errors import LakehouseError
from lakehouse.processes import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lakehouse.config.models import Pipeline

GIB = 2**30
BALLAST_BYTES = 2 * GIB
_START_S = 180.0
_LOOK_S = 0.05

ALERTS: dict[str, dict[str, Any]] = {
    "broker_down": {"kind": "figure", "figure": "kafka_unreachable_seconds", "limit": 2, "severity": "critical"},
    "lag": {"kind": "lag", "limit": 10_000},
    "bad_suite": {"kind": "figure", "figure": "suite_change_share", "limit": 0.2, "window": "10s"},
    "poison": {"kind": "quarantine", "rule": "contract.json", "limit": 0.1, "window": "10s"},
    "maintenance": {"kind": "figure", "figure": "unmaintained_seconds", "limit": 10},
    "clocks": {"kind": "figure", "figure": "clock_ahead_seconds", "limit": 5, "window": "10s"},
    "slow_storage": {"kind": "figure", "figure": "commit_seconds", "limit": 0.8, "window": "5s"},
    "no_driver": {"kind": "figure", "figure": "silent_seconds", "limit": 8, "severity": "critical"},
    "dashboard": {"kind": "figure", "figure": "dashboard_behind_seconds", "limit": 5},
}
"""The alerts of the drill's pipeline, besides the one on the disk, whose limit depends on the disk."""


@dataclass
class Receiver:
    """A webhook that remembers what it was told: (seconds since 1970, alert, `firing` or `resolved`)."""

    told: list[tuple[float, str, str]] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None

    def start(self) -> str:
        """Listen; the address."""
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.append((time.time(), body["groupLabels"]["alertname"], body["status"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:  # noqa: ANN401 - the library's signature
                """Nothing: the drill has lines of its own."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}/alerts"

    def stop(self) -> None:
        """Listen no more."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def firing(self) -> set[str]:
        """Alerts whose last word was that they fire."""
        last = {alert: status for _, alert, status in list(self.told)}
        return {alert for alert, status in last.items() if status == "firing"}

    def first(self, alert: str, since_s: float) -> float | None:
        """When the alert was first told to fire since then."""
        return next(
            (at for at, name, said in list(self.told) if name == alert and said == "firing" and at > since_s), None
        )

    def since(self, since_s: float) -> list[str]:
        """Alerts told to fire since then, each once, in their order."""
        return list(dict.fromkeys(name for at, name, said in list(self.told) if said == "firing" and at > since_s))


class Stage:
    """Everything that a drill runs, and what can be done to it.

    Args:
        shipped: the pipeline's file to run, over the drill's own broker and folder.
        folder: where everything lies.
        rate: events per second.
        stop: ends every wait.
    """

    def __init__(self, shipped: Path, folder: Path, rate: float, stop: threading.Event) -> None:
        self._shipped, self.folder, self.rate, self._stop = shipped, folder, rate, stop
        self.receiver = Receiver()
        self._switch = folder / "slow"
        self._ballast = folder / "root" / "ballast"
        self.driver: Child | None = None
        self._runs = 0

    @contextmanager
    def up(self, *, dashboard: bool = True) -> Iterator[None]:
        """All of it started, and ended in order."""
        with ExitStack() as stack:
            hook = self.receiver.start()
            stack.callback(self.receiver.stop)
            served = broker.start(self.folder / "broker", port=broker.free_port())
            stack.callback(broker.stop, self.folder / "broker")
            self._broker = served
            self.file = self._write(served.bootstrap, hook)
            self.pipeline: Pipeline = load_pipeline(self.file, dict(os.environ))
            kafka_admin.create_topic(served.bootstrap, self.pipeline.source.topic, 2)
            stack.callback(self._end_driver)
            self.start_driver()
            # From outside, on standby: it takes over when the driver's own evaluation is gone with it.
            watch = self._child("watch", ["-m", "lakehouse", "alerts", str(self.file), "--json"])
            stack.callback(watch.stop)
            if dashboard:
                stack.enter_context(self._dashboard())
            stack.callback(self.produce("load", self.rate, bad_share=0.01).stop)
            stack.callback(self.end_faults)
            yield

    def _write(self, bootstrap: str, hook: str) -> Path:
        raw = yaml.safe_load(self._shipped.read_text())
        root = self.folder / "root"
        root.mkdir(parents=True, exist_ok=True)
        self._suite = self.folder / "suite.json"
        self._good_suite = (self._shipped.parent / raw["quality"]["suite"]).read_bytes()
        self._suite.write_bytes(self._good_suite)
        room = storage.room(str(root))
        if room is None or room[0] < 2 * BALLAST_BYTES:
            raise LakehouseError(
                f"the drill needs {2 * BALLAST_BYTES / GIB:.0f} GiB of room for a moment",
                where=str(root),
                remedy="name another folder by --folder, or leave out the fault disk_nearly_full",
            )
        disk = {"kind": "figure", "figure": "disk_free_bytes", "when": "below", "limit": room[0] - BALLAST_BYTES // 2}
        raw["root"] = str(root)
        raw["source"] |= {"servers": bootstrap, "options": {}, "max_records_per_batch": 2_000}
        raw["quality"]["suite"] = str(self._suite)
        raw["trigger"] = {"kind": "processing_time", "interval": "500ms"}
        raw["maintenance"] = {"every": "1s", "min_age": "1s", "target_file_mib": 8}
        raw["metrics"] = {"dashboard": f"127.0.0.1:{broker.free_port()}"}
        raw["alerts"] = {
            "every": "1s",
            "rules": ALERTS | {"disk": disk},
            "notify": {"receiver": {"kind": "webhook", "url": hook}},
        }
        path = self.folder / "pipeline.yaml"
        path.write_text(yaml.safe_dump(raw))
        loads = self.folder / "loads"
        loads.mkdir(exist_ok=True)
        shutil.copyfile(self._shipped.parent / "loads" / self._shipped.name, loads / path.name)
        return path

    def _child(
        self,
        name: str,
        arguments: list[str],
        on_line: Callable[[str], None] = lambda _: None,
        folder: Path | None = None,
    ) -> Child:
        self._runs += 1
        log = self.folder / "logs" / f"{self._runs:02}-{name}.log"
        environment = {**os.environ, SWITCH: str(self._switch)}
        return Child.start(name, arguments, environment=environment, log=log, on_line=on_line, folder=folder)

    def start_driver(self) -> float:
        """Start the driver; returns once it has committed a batch, with the time of that (seconds since 1970)."""
        first: list[float] = []

        def hear(line: str) -> None:
            if '"event":"batch"' in line and not first:
                first.append(time.time())

        self.driver = self._child("driver", ["-m", "lakehouse.drill.driver", "run", str(self.file), "--json"], hear)
        if not self._runs_load():
            self.produce("first", 100, seconds=1)
        self.await_it(lambda: bool(first), _START_S)
        self.driver.require_running()
        if not first:
            raise LakehouseError(
                "the driver committed no batch in time", where=str(self.driver.log), remedy="see its log"
            )
        return first[0]

    def _runs_load(self) -> bool:
        return hasattr(self, "_load")

    @contextmanager
    def _dashboard(self) -> Iterator[None]:
        """The dashboard, with one viewer, so that it follows the tables."""
        app = find_spec("dashboard.app")
        if app is None or app.origin is None:
            raise LakehouseError("the dashboard is not installed", remedy="install the project with `make setup`")
        port = broker.free_port()
        options = ["--server.port", str(port), "--server.headless", "true"]
        command = ["-m", "streamlit", "run", app.origin, *options, "--", str(self.file)]
        self.dashboard = self._child("dashboard", command, folder=Path(app.origin).parent.parent)
        ended = threading.Event()
        viewer = threading.Thread(target=self._view, args=(port, ended), daemon=True)
        viewer.start()
        try:
            yield
        finally:
            ended.set()
            self.dashboard.stop()
            viewer.join(10)

    def _view(self, port: int, ended: threading.Event) -> None:
        """What a browser does as far as the server knows: open the socket, ask for the page, and listen."""
        request = BackMsg()
        request.rerun_script.query_string = ""
        while not ended.is_set():
            try:
                with connect(f"ws://127.0.0.1:{port}/_stcore/stream", max_size=None) as socket:
                    socket.send(request.SerializeToString())
                    while not ended.is_set():
                        with suppress(TimeoutError):
                            socket.recv(timeout=0.5)
            except (OSError, WebSocketException):
                ended.wait(0.5)

    def produce(self, name: str, rate: float, *, bad_share: float = 0.0, seconds: float | None = None) -> Child:
        """A load of its own seed, beside the others."""
        if name == "load":
            self._load = True
        lasting = [] if seconds is None else ["--seconds", str(seconds)]
        shape = ["--shape", "flat", "--late-share", "0", "--seed", str(self._runs + 1)]
        command = ["-m", "lakehouse", "produce", "--pipeline", str(self.file), "--rate", str(rate)]
        return self._child(name, [*command, "--bad-share", str(bad_share), *shape, *lasting])

    def await_it(self, condition: Callable[[], bool], bound_s: float) -> bool:
        """Whether it came true within the bound."""
        deadline = time.monotonic() + bound_s
        while not condition():
            if time.monotonic() > deadline or self._stop.is_set():
                return False
            if self.driver is not None and self.driver.process.poll() not in (None, -signal.SIGKILL, 0):
                self.driver.require_running()
            time.sleep(_LOOK_S)
        return True

    # --- what is done to it ---

    def kill_broker(self) -> None:
        """SIGKILL to the broker."""
        running = broker.status(self.folder / "broker")
        if running is not None:
            _kill(psutil.Process(running.pid))

    def start_broker(self) -> None:
        """The same broker again, at its port."""
        broker.start(self.folder / "broker", port=self._broker.port)

    def deploy(self, *, bad: bool) -> float:
        """Stop the driver, change the suite, start the driver; the time of the first batch that it judges."""
        suite = orjson.loads(self._good_suite)
        if bad:
            rule = {"column": self._text_field(), "value_set": ["a value that nothing has"]}
            suite["expectations"].append(
                {"type": "expect_column_values_to_be_in_set", "kwargs": rule, "severity": "critical",
                 "meta": {"rule_id": "bad_deploy"}}
            )  # fmt: skip
        self._end_driver()
        self._suite.write_bytes(orjson.dumps(suite))
        return self.start_driver()

    def _end_driver(self) -> None:
        if self.driver is not None:
            self.driver.stop()

    def _text_field(self) -> str:
        return next(name for name, field in self.pipeline.source.fields.items() if field.type == "string")

    def fill_disk(self) -> None:
        """A file that takes the room without writing it."""
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)

    def maintenance(self) -> psutil.Process:
        """The driver's child that maintains the tables."""
        if self.driver is not None:
            for process in self.driver.tree():
                with suppress(psutil.Error):
                    if "maintain" in process.cmdline():
                        return process
        raise LakehouseError("the driver has no child that maintains the tables", where=str(self.folder / "logs"))

    def dashboard_process(self) -> psutil.Process:
        """The dashboard's process."""
        return psutil.Process(self.dashboard.process.pid)

    def slow_storage(self, seconds: float) -> None:
        """From now on every object that the driver puts takes so much longer."""
        self._switch.write_text(str(seconds))

    def kill_driver(self) -> None:
        """SIGKILL to the driver and everything that it started."""
        if self.driver is not None:
            tree = self.driver.tree()
            for process in tree:
                _kill(process)
            psutil.wait_procs(tree, timeout=10)

    def end_faults(self) -> None:
        """Take back what would outlive the drill."""
        self._switch.unlink(missing_ok=True)
        self._ballast.unlink(missing_ok=True)


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()
