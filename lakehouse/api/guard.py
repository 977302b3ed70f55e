"""What every request meets first: which hosts and sizes are let in, and the headers that every response has."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders

from lakehouse.api.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
MOST_QUERY = 8_192
"""Bytes of a URL's question."""
MOST_PATH = 512
"""Bytes of a URL's path."""
_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}

log = logging.getLogger(__name__)


class Guard:
    """Lets in GET and HEAD without a body, of names that this server has, and lets out no traceback.

    The names keep a page that a browser has open from asking through a name of its own that it lets point here.

    Args:
        app: what is guarded.
        hosts: values of the Host header, without port, that are let in.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's own beginning and end; anything else is not answered."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refused = self._refuse(scope)
        if refused is not None:
            await refused.response()(scope, receive, guarded)
            return
        try:
            await self._app(scope, receive, guarded)
        except Exception:  # which the client was told of already, without its words
            log.exception("a request could not be answered")

    def _refuse(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        if _without_port(headers.get("host", "")) not in self._hosts:
            return Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this server is not asked by that name",
                "ask it by a name that it was started with (`--host`)",
            )
        if scope["method"] not in ("GET", "HEAD"):
            return Problem(
                HTTPStatus.METHOD_NOT_ALLOWED, "tables are only read here", "ask with GET", (("allow", "GET, HEAD"),)
            )
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            # The rest of the connection would be the body, which nobody is going to read.
            closing = (("connection", "close"),)
            detail, remedy = "a request has no body here", "put the question into the URL"
            return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, remedy, closing)
        if len(scope["query_string"]) > MOST_QUERY or len(scope.get("raw_path") or b"") > MOST_PATH:
            return Problem(
                HTTPStatus.REQUEST_URI_TOO_LONG,
                f"the question is longer than {MOST_QUERY} bytes, or its path than {MOST_PATH}",
                "name fewer values",
            )
        return None


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()
