"""A small schema registry for tests: the few calls of Confluent's API that readers and the load make, in this process.

It keeps whatever it is given and checks no compatibility. Protobuf it takes as a serialised descriptor, as Confluent's
own clients send it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_VERSIONS = re.compile(r"/subjects/([^/]+)/versions(?:/(\d+))?")
_ID = re.compile(r"/schemas/ids/(\d+)")


@dataclass
class StandIn:
    """What it holds, and what it was asked.

    Attributes:
        schemas: id → what it answers.
        subjects: subject → ids of its versions.
        asked: paths of the requests so far.
        away: while it is set, every answer is HTTP 503.
    """

    url: str = ""
    schemas: dict[int, dict[str, Any]] = field(default_factory=dict)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    away: bool = False

    def add(self, subject: str, schema: dict[str, Any]) -> int:
        """The id of a schema under the subject; the same schema has one id."""
        number = next((known for known, held in self.schemas.items() if held == schema), len(self.schemas) + 1)
        self.schemas[number] = schema
        versions = self.subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return number

    def answer(self, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        """(HTTP status, JSON) of a request."""
        self.asked.append(path)
        if self.away:
            return 503, {"error_code": 50302, "message": "no leader"}
        path = path.split("?", maxsplit=1)[0]
        if path == "/subjects":
            return 200, list(self.subjects)
        if found := _ID.fullmatch(path):
            schema = self.schemas.get(int(found[1]))
            return (200, schema) if schema else (404, {"error_code": 40403, "message": "Schema not found"})
        if (found := _VERSIONS.fullmatch(path)) and body is not None:
            return 200, {"id": self.add(found[1], body)}
        if found and found[2]:
            number = self.subjects[found[1]][int(found[2]) - 1]
            return 200, {"subject": found[1], "id": number, **self.schemas[number]}
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}


@contextmanager
def serving() -> Iterator[StandIn]:
    """The registry on a free port of this machine."""
    held = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*held.answer(self.path, None))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._send(*held.answer(self.path, json.loads(body)))

        def _send(self, status: int, answer: Any) -> None:
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
