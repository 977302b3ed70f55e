"""Asks an ASGI application without a server: one request is one call."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


async def request(
    app: Any, target: str | bytes, *, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""
) -> Reply:
    """One request, as a server hands it on; the target is what stands in the request's first line."""
    raw = target.encode() if isinstance(target, str) else target
    path, _, question = raw.partition(b"?")
    named = {"host": "localhost:8600"} | (headers or {})
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": question,
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8600),
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = sent[0]
    told = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Reply(start["status"], told, b"".join(message.get("body", b"") for message in sent[1:]))


def get(app: Any, target: str | bytes, **more: Any) -> Reply:
    """`request`, waited for."""
    return asyncio.run(request(app, target, **more))
