"""Measures how many people can look at the Live page at once: real WebSocket sessions in Streamlit's own protocol.

Each viewer opens `/_stcore/stream`, asks for the page as a browser does, and then sends a rerun of the board's fragment
at the interval that the server tells. A refresh lasts from the sending of that message to the end of the run, when
all of its messages have arrived. The dashboard is started here, on tables that something writes meanwhile:

    LAKEHOUSE_ROOT=/tmp/root lakehouse demo --rate 10000 --no-browser &      # the running pipeline
    LAKEHOUSE_ROOT=/tmp/root python -m benchmarks.viewers --viewers 1 10 50 100 --json viewers.json
    python -m benchmarks.viewers --hot-table 2000                            # without a pipeline: a writer of its own

Memory is the server's resident set; per viewer it is what came on top of the page's first viewer. With several viewers
of which some ask differently (`--questions 4`), the server has as many boards to make.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent
FOLLOWER = "hot-table-follower"
QUESTIONS = ("range=5m", "range=1m", "range=15m", "range=60m", "range=5m&split=region", "range=5m&split=none")
WARM_UP_S = 8.0
"""Between the last viewer's arrival and the first refresh that counts: full runs, and the first boards."""
ARRIVALS_S = 0.05
_FINISHED = ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY


@dataclass
class Viewer:
    """One session: it refreshes like a browser, by a timer per fragment."""

    url: str
    query: str
    refreshes: list[tuple[float, float]] = field(default_factory=list)
    """(when it was asked for, seconds until it was there), by the monotonic clock."""
    received: int = 0
    interval_s: float = 0.0
    full_runs: int = 0
    failures: int = 0
    _page: str = ""
    _timers: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _asked: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Look at the page until `stop` is set."""
        async with websockets.connect(self.url, subprotocols=["streamlit"], max_size=None, open_timeout=60) as socket:
            await self._send(socket)
            reading = asyncio.create_task(self._read(socket))
            await stop.wait()
            for timer in self._timers.values():
                timer.cancel()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def _send(self, socket: websockets.ClientConnection, fragment: str = "") -> None:
        message = BackMsg()
        state = message.rerun_script
        state.query_string = self.query
        state.page_script_hash = self._page
        if fragment:
            state.fragment_id, state.is_auto_rerun = fragment, True
        await socket.send(message.SerializeToString())

    async def _read(self, socket: websockets.ClientConnection) -> None:
        async for raw in socket:
            self.received += len(raw)
            message = ForwardMsg.FromString(raw)
            match message.WhichOneof("type"):
                case "new_session":
                    self._page = message.new_session.page_script_hash
                    if not message.metadata.run.fragment_ids:
                        self.full_runs += 1
                        self._forget()
                case "auto_rerun":
                    told = message.auto_rerun
                    self.interval_s = round(told.interval, 3)
                    # As the browser does: a fragment has one timer, which a new interval replaces.
                    if (old := self._timers.pop(told.fragment_id, None)) is not None:
                        old.cancel()
                    timer = asyncio.create_task(self._tick(socket, told.fragment_id, told.interval))
                    self._timers[told.fragment_id] = timer
                case "script_finished" if message.script_finished == _FINISHED and self._asked is not None:
                    self.refreshes.append((self._asked, time.monotonic() - self._asked))
                    self._asked = None
                case "script_finished" if message.script_finished == ForwardMsg.FINISHED_WITH_COMPILE_ERROR:
                    self.failures += 1

    def _forget(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers = {}
        self._asked = None

    async def _tick(self, socket: websockets.ClientConnection, fragment: str, interval: float) -> None:
        due = time.monotonic()
        while True:
            due += interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            # A refresh that has not come back stays the one that is waited for, however often it is asked again.
            self._asked = self._asked or time.monotonic()
            await self._send(socket, fragment)


@dataclass(frozen=True)
class Step:
    """What was measured with so many viewers."""

    viewers: int
    seconds: float
    refreshes: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    interval_s: float
    kib_per_refresh: float
    server_cpu: float
    server_mib: float
    mib_per_viewer: float | None
    followers: int
    full_runs: int
    failures: int
    load: float


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank, ms to 0.1; NaN without values."""
    ranked = sorted(values)
    return round(1_000 * ranked[math.ceil(len(ranked) * share) - 1], 1) if ranked else math.nan


async def look(url: str, wanted: argparse.Namespace, viewers: int, server: Server) -> list[Viewer]:
    """So many viewers for `--seconds`; those of them that are returned hold only refreshes of that time."""
    stop = asyncio.Event()
    sessions, tasks = [], []
    for number in range(viewers):
        question = QUESTIONS[number % wanted.questions]
        viewer = Viewer(url, f"{question}&refresh={wanted.refresh}")
        sessions.append(viewer)
        tasks.append(asyncio.create_task(viewer.run(stop)))
        await asyncio.sleep(ARRIVALS_S)
    await asyncio.sleep(WARM_UP_S)
    for viewer in sessions:
        viewer.refreshes, viewer.received, viewer.full_runs = [], 0, 0
    server.begin()
    await asyncio.sleep(wanted.seconds)
    server.end()
    stop.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    for error in done:
        if isinstance(error, BaseException):
            raise error
    return sessions


class Server:
    """The dashboard's process, and what it says of itself."""

    def __init__(self, process: subprocess.Popen[bytes], notes: Path) -> None:
        self._process, self._notes = psutil.Process(process.pid), notes
        self.cpu = self.seconds = 0.0
        self._began = (0.0, 0.0)

    def begin(self) -> None:
        """Begin to count."""
        self._began = (time.monotonic(), self._cpu_s())

    def end(self) -> None:
        """End it."""
        self.seconds = time.monotonic() - self._began[0]
        self.cpu = (self._cpu_s() - self._began[1]) / self.seconds

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    @property
    def mib(self) -> float:
        """Resident memory."""
        return float(self._process.memory_info().rss) / 2**20

    @property
    def followers(self) -> int:
        """Threads that follow a hot table."""
        return int(self._notes.read_text() or 0)


def step(url: str, wanted: argparse.Namespace, viewers: int, server: Server, alone_mib: float | None) -> Step:
    """Measure with so many viewers."""
    sessions = asyncio.run(look(url, wanted, viewers, server))
    took = [seconds for viewer in sessions for _, seconds in viewer.refreshes]
    mib = server.mib
    return Step(
        viewers=viewers,
        seconds=round(server.seconds, 1),
        refreshes=len(took),
        per_second=round(len(took) / server.seconds, 1),
        p50_ms=percentile(took, 0.5),
        p95_ms=percentile(took, 0.95),
        p99_ms=percentile(took, 0.99),
        interval_s=max(viewer.interval_s for viewer in sessions),
        kib_per_refresh=round(sum(viewer.received for viewer in sessions) / 1024 / max(1, len(took)), 1),
        server_cpu=round(server.cpu, 2),
        server_mib=round(mib, 1),
        mib_per_viewer=None if alone_mib is None else round((mib - alone_mib) / (viewers - 1), 2),
        followers=server.followers,
        full_runs=sum(viewer.full_runs for viewer in sessions),
        failures=sum(viewer.failures for viewer in sessions),
        load=round(os.getloadavg()[0], 1),
    )


def serve(port: int, config: str, notes: Path) -> None:
    """The dashboard, as `streamlit run` starts it, with a note of how many threads follow a table."""
    from streamlit.web import cli  # noqa: PLC0415 - only the child needs the server

    def note() -> None:
        while True:
            found = sum(thread.name == FOLLOWER for thread in threading.enumerate())
            notes.write_text(str(found))
            time.sleep(1)

    threading.Thread(target=note, daemon=True).start()
    sys.argv = ["streamlit", "run", "dashboard/app.py", "--server.port", str(port), "--", config]
    cli.main()


def start(stack: ExitStack, wanted: argparse.Namespace) -> tuple[str, Server]:
    """Start the dashboard, and the writer where there is no pipeline; its host and port, and its process.

    Args:
        stack: ends both.
        wanted: `config`, and `hot_table`, the writer's rate or None.
    """
    folder = Path(tempfile.mkdtemp(prefix="viewers-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH", "")]))
    if wanted.hot_table is not None:
        environment["LAKEHOUSE_ROOT"] = str(folder / "data")
        table = folder / "data" / "gold" / "feature_events_by_feature_1s"
        words = [str(table), "--rate", str(wanted.hot_table), "--backfill", "700"]
        _start(stack, ["-m", "tests.hot_table", *words], environment, folder / "writer.log")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    notes = folder / "followers"
    notes.write_text("0")
    words = ["--serve", str(port), "--config", wanted.config, "--notes", str(notes)]
    process = _start(stack, ["-m", "benchmarks.viewers", *words], environment, folder / "dashboard.log")
    url = f"http://127.0.0.1:{port}/_stcore/health"
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return f"127.0.0.1:{port}", Server(process, notes)
        except OSError:
            time.sleep(0.2)
    sys.exit(f"the dashboard did not start:\n{(folder / 'dashboard.log').read_text()}")


def _start(stack: ExitStack, words: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    out = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT
    )

    def end() -> None:
        process.terminate()
        process.wait(30)

    stack.callback(end)
    return process


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, nargs="+", default=[1, 10, 50, 100])
    parser.add_argument("--seconds", type=float, default=30, help="of each step, after its warm-up")
    parser.add_argument("--refresh", default="500ms", choices=["250ms", "500ms", "1s", "5s"])
    parser.add_argument("--questions", type=int, default=1, choices=range(1, len(QUESTIONS) + 1))
    parser.add_argument("--config", default="conf/feature_events.yaml")
    parser.add_argument("--hot-table", type=float, metavar="RATE", help="write the table here, events a second")
    parser.add_argument("--json", type=Path, help="write the settings and every step here")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--notes", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main() -> int:
    """Measure step by step, print a table; 1 where a page failed."""
    wanted = arguments()
    if wanted.serve is not None:
        serve(wanted.serve, wanted.config, wanted.notes)
        return 0
    steps: list[Step] = []
    print("viewers  refresh/s   p50    p95    p99 ms  every s  CPU  MiB  MiB/viewer  followers  load")
    with ExitStack() as stack:
        place, server = start(stack, wanted)
        url = f"ws://{place}/_stcore/stream"
        for viewers in wanted.viewers:
            alone = steps[0].server_mib if steps and steps[0].viewers == 1 and viewers > 1 else None
            found = step(url, wanted, viewers, server, alone)
            steps.append(found)
            each = "–" if found.mib_per_viewer is None else f"{found.mib_per_viewer:.2f}"
            print(
                f"{found.viewers:>7}  {found.per_second:>9}  {found.p50_ms:>5} {found.p95_ms:>6} {found.p99_ms:>8}"
                f"  {found.interval_s:>7}  {found.server_cpu:.2f}  {found.server_mib:.0f}  {each:>10}"
                f"  {found.followers:>9}  {found.load:>4}",
                flush=True,
            )
    if wanted.json:
        settings: dict[str, Any] = {name: str(value) for name, value in vars(wanted).items() if value is not None}
        wanted.json.write_text(json.dumps({"settings": settings, "steps": [asdict(one) for one in steps]}, indent=2))
    return 1 if any(one.failures for one in steps) else 0


if __name__ == "__main__":
    sys.exit(main())
