"""Child processes that end with their parent's work: started together, stopped in order, measured as trees."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Self

import psutil

from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_STOP_TIMEOUT_S = 30.0
_LAST_LINES = 12


@dataclass
class Child:
    """One child process, whose output goes line by line to a function and whole to a log file.

    It has a session of its own, so that the terminal's Ctrl-C reaches only the parent, which then stops its
    children in order.
    """

    name: str
    process: subprocess.Popen[str]
    log: Path
    _reader: threading.Thread | None = field(default=None, repr=False)

    @classmethod
    def start(
        cls,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        folder: Path | None = None,
        on_line: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """Start `python ARGUMENTS` in `folder` (where None: in this process's own)."""
        log.parent.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        child = cls(name, process, log)
        child._reader = threading.Thread(target=child._read, args=(process.stdout, on_line), daemon=True)
        child._reader.start()
        return child

    def _read(self, stream: IO[str], on_line: Callable[[str], None]) -> None:
        with stream, self.log.open("w") as kept:
            for line in stream:
                kept.write(line)
                kept.flush()
                on_line(line.rstrip("\n"))

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Exit code, or None where it still runs after `timeout_s`."""
        with suppress(subprocess.TimeoutExpired):
            code = self.process.wait(timeout_s)
            if self._reader:
                self._reader.join(timeout=5)
            return code
        return None

    def require_running(self) -> None:
        """Raise LakehouseError with the last lines of its log where it has ended."""
        if self.process.poll() is not None:
            raise self.ended()

    def ended(self) -> LakehouseError:
        """Says that it has ended too early: its exit code and the last lines of its log."""
        code = self.wait(1)
        last = "\n".join(self.log.read_text().splitlines()[-_LAST_LINES:])
        return LakehouseError(f"the {self.name} ended with exit code {code}:\n{last}", where=str(self.log))

    def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """End it and everything it started: asked first, killed after `timeout_s`."""
        tree = self.tree()
        if self.process.poll() is None:
            self.process.terminate()
            if self.wait(timeout_s) is None:
                self.process.kill()
                self.process.wait()
        for survivor in psutil.wait_procs(tree, timeout=5)[1]:
            with suppress(psutil.NoSuchProcess):
                survivor.kill()

    def tree(self) -> list[psutil.Process]:
        """The process and its descendants, as they are now."""
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        return []


@dataclass
class Usage:
    """What one process tree used.

    Attributes:
        peak_rss_mb: largest resident memory of the tree, MiB; pages shared by forked workers count in each.
        last_rss_mb: resident memory at the last look, MiB.
        cpu_s: CPU seconds of the processes that were still alive at the last look.
    """

    peak_rss_mb: float = 0.0
    last_rss_mb: float = 0.0
    cpu_s: float = 0.0

    def look(self, tree: list[psutil.Process]) -> None:
        """Take one measurement."""
        rss, cpu = 0, 0.0
        for process in tree:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied), process.oneshot():
                rss += process.memory_info().rss
                times = process.cpu_times()
                cpu += times.user + times.system
        if rss:
            self.last_rss_mb = round(rss / 2**20, 1)
            self.peak_rss_mb = max(self.peak_rss_mb, self.last_rss_mb)
            self.cpu_s = round(max(self.cpu_s, cpu), 2)
