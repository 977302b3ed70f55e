"""A line between two parts that a test can cut, slow down or leave half open: a TCP proxy on the loopback address."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_CHUNK = 65_536


class Line:
    """Passes every connection on to a target, as long as the test lets it.

    Attributes:
        port: where it listens.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._flows = threading.Event()
        self._flows.set()
        self._delay_s = 0.0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection with a reset and refuse new ones, as a host that is gone but whose network is not."""
        self._open.clear()
        self._end_all()

    def half_open(self) -> None:
        """Accept and keep connections, and let nothing through in either direction: no one is told anything."""
        self._flows.clear()

    def slow(self, delay_s: float) -> None:
        """Hold up every piece of data for so long, each way."""
        self._delay_s = delay_s

    def heal(self) -> None:
        """Let everything through again; what was held up while the line was half open is lost with its connection."""
        held = not self._flows.is_set()
        self._delay_s = 0.0
        if held:
            self._end_all()
        self._flows.set()
        self._open.set()

    def close(self) -> None:
        """Stop listening and end every connection."""
        self.cut()
        self._flows.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._open.is_set():
                _reset(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=10)
                server.settimeout(None)
            except OSError:
                _reset(client)
                continue
            with self._lock:
                self._pairs.append((client, server))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                self._flows.wait()
                if self._delay_s:
                    time.sleep(self._delay_s)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _end_all(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _reset(end)


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # With a linger of 0 the other side is told at once, by a reset.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def line_to(port: int) -> Iterator[Line]:
    """A healthy line to a port of the loopback address."""
    line = Line(port)
    try:
        yield line
    finally:
        line.close()
