"""The API as a server of its own: one process, one port, loopback unless another address is named."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import uvicorn

from lakehouse.api.app import Limits, application
from lakehouse.api.guard import LOOPBACK
from lakehouse.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from lakehouse.config.models import Pipeline

MOST_CONNECTIONS = 256
_REQUEST_HEAD = 16_384
"""Bytes of a request's line and headers."""
_GOODBYE_S = 3
"""How long answers that are being sent may take once the server stops."""


def serve(
    pipeline: Pipeline,
    stop: threading.Event,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    hosts: Collection[str] = (),
    limits: Limits | None = None,
    on_start: Callable[[str], None] = lambda _: None,
) -> None:
    """Answer until `stop` is set.

    Args:
        pipeline: whose rollups are asked.
        stop: ends the server.
        address: that it listens on.
        port: there; any free one where it is 0.
        hosts: names by which it may be asked, beside those of loopback.
        limits: what it takes upon itself.
        on_start: called with its URL once it listens.

    Raises:
        ConfigError: it cannot listen there.
    """
    listening = _listen(address, port)
    shown = f"[{address}]" if ":" in address else address
    app = application(pipeline, hosts={*LOOPBACK, *hosts}, limits=limits)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=_REQUEST_HEAD,
        timeout_graceful_shutdown=_GOODBYE_S,
    )
    server = uvicorn.Server(config)
    # In a thread of its own the server leaves signals to this process, which has one way of ending.
    thread = threading.Thread(target=server.run, args=([listening],), name="api")
    thread.start()
    try:
        on_start(f"http://{shown}:{listening.getsockname()[1]}")
        while thread.is_alive() and not stop.wait(0.2):
            pass
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen(MOST_CONNECTIONS)  # from here on clients wait instead of being refused
    except (OSError, OverflowError) as error:
        made.close()
        raise ConfigError(
            f"the API cannot listen on {address}:{port}: {error}",
            remedy="stop what listens there, or choose another `--port` or `--address`",
        ) from error
    return made
