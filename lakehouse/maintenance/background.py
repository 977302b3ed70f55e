"""Maintenance beside a running pipeline: a child process of low priority that can neither stop it nor outlive it.

The child's standard input is a pipe that only the parent holds. When the parent ends, however it ends, the pipe
closes, and the child ends at once: every step of a pass may be killed at any instruction.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lakehouse.config.models import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lakehouse.config.models import Pipeline

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
"""Waits before a child that ended is started again; each doubles the one before."""
_STEADY_S = 120.0
"""A child that ran for so long had started well: the waits begin anew."""
_STOP_TIMEOUT_S = 10.0
_NICENESS = 19
"""The lowest priority: maintenance takes what the stream leaves."""
_AUTOGROUP = Path("/proc/self/autogroup")
"""Linux's priority of this process's session (sched(7)). Where it shares the processor out among sessions first, a
process's own niceness counts only against those of its session, and a child with one of its own would get half."""


@contextmanager
def maintained(
    path: Path, pipeline: Pipeline, on_report: Callable[[dict[str, Any]], None] = lambda _: None
) -> Iterator[None]:
    """Maintain the pipeline's tables while the body runs, where its file asks for that and it runs for long.

    `on_report` is called with the JSON of each `TableReport`, by another thread.
    """
    if not pipeline.maintenance.background or pipeline.trigger.kind == "available_now":
        yield
        return
    every = format_duration(pipeline.maintenance.every)
    command = [sys.executable, "-m", "lakehouse", "maintain", str(path), "--every", every, "--attached", "--json"]
    child = Background(command, on_line=lambda line: on_report(json.loads(line)))
    child.start()
    try:
        yield
    finally:
        child.stop()


class Background(threading.Thread):
    """Keeps one child process running until `stop`; never raises.

    Args:
        command: of the child.
        name: how the log calls it.
        on_line: called with each line of its standard output; what it raises is said in the log.
        first_wait_s: before a child that ended is started again, the first time.
    """

    def __init__(
        self,
        command: list[str],
        *,
        name: str = "maintenance",
        on_line: Callable[[str], None] = lambda _: None,
        first_wait_s: float = _FIRST_WAIT_S,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._command = command
        self._on_line = on_line
        self._first_wait_s = first_wait_s
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.child: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Start the child, and start it again whenever it has ended."""
        wait_s = self._first_wait_s
        while not self._stopping.is_set():
            began = time.monotonic()
            said = self._run_once()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > _STEADY_S:
                wait_s = self._first_wait_s
            logger.warning("%s ended and starts again in %.0f s: %s", self.name, wait_s, said)
            self._stopping.wait(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def stop(self) -> None:
        """Ask the child to end between two steps; kill it where that takes long."""
        with self._lock:
            self._stopping.set()
            child = self.child
        if child is not None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_STOP_TIMEOUT_S)
            child.kill()
        self.join(_STOP_TIMEOUT_S)

    def _run_once(self) -> str:
        """Run the child to its end; the last line that it said."""
        with self._lock:
            if self._stopping.is_set():
                return ""
            try:
                child = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    # The terminal's Ctrl-C reaches the parent alone, which then ends its child in order.
                    start_new_session=True,
                )
            except OSError as error:
                return str(error)
            self.child = child
        last = ""
        with child:
            reader = threading.Thread(target=self._read, args=(child.stdout,), name=f"{self.name}-output", daemon=True)
            reader.start()
            for line in child.stderr or ():
                last = line.strip() or last
                logger.warning("%s: %s", self.name, line.rstrip())
            reader.join()
        return last or f"exit code {child.returncode}"

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            try:
                self._on_line(line)
            except Exception as error:  # noqa: BLE001 - the child would stand still once nobody reads what it says
                logger.warning("%s said what cannot be read: %s", self.name, error)


def attach(stream: IO[bytes]) -> None:
    """Lower this process's priority, and end it when `stream` closes: its parent is gone."""
    with suppress(OSError):
        os.nice(_NICENESS)
    if os.getsid(0) == os.getpid() and _AUTOGROUP.exists():
        with suppress(OSError):
            _AUTOGROUP.write_text(str(_NICENESS))

    def watch() -> None:
        # Past the stream's buffer, whose lock this thread would hold for ever: at its end Python aborts over that.
        while os.read(stream.fileno(), 1):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="parent", daemon=True).start()
