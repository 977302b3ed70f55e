"""S3 for tests: a server of this project whose faults a test chooses, and a real one where its program is found.

The former runs in the test's process, or in one of its own where a client would hold Python's lock while it waits for
it, as delta-rs does in some calls. It speaks the part of S3's protocol that object stores use, keeps objects in memory,
decides each conditional put under a lock, and can lose an answer after it has done what was asked, or ignore the
condition.

The real one is Versity's S3 gateway over a folder (`make s3-server` builds it from its Go module).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET, ACCESS_KEY, SECRET_KEY = "lake", "test-access", "canary-s3-secret-key"
PROGRAM = "versitygw"
_PAGE = 1_000
_TIMEOUT_S = 30.0


@dataclass
class Objects:
    """What the server holds, and how it behaves.

    Attributes:
        bodies: key → (content, when it was put, seconds since 1970).
        conditional: whether `If-None-Match: *` is honoured, as S3 does.
        lose: called with method and key after the work is done; True closes the connection without an answer.
        requests: method → how many came.
    """

    bodies: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    conditional: bool = True
    lose: Callable[[str, str], bool] = lambda _method, _key: False
    requests: Counter[str] = field(default_factory=Counter)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, key: str, body: bytes, *, only_new: bool) -> bool:
        with self.lock:
            if only_new and self.conditional and key in self.bodies:
                return False
            self.bodies[key] = body, time.time()
            return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: Objects

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # a client that was killed, or that a proxy has cut off
            self.close_connection = True

    def do_GET(self) -> None:
        key, query = self._begin()
        if key is None:
            return
        if not key:
            self._list(query)
            return
        found = self.objects.bodies.get(key)
        if found is None:
            self._error(404, "NoSuchKey")
            return
        body, put_at = found
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        status, extra = 200, {}
        if match and (match[1] or match[2]):
            start = int(match[1]) if match[1] else max(0, len(body) - int(match[2]))
            end = min(int(match[2]) + 1 if match[1] and match[2] else len(body), len(body))
            extra = {"Content-Range": f"bytes {start}-{end - 1}/{len(body)}"}
            status, body = 206, body[start:end]
        self._answer(status, body, **_described(found[0], put_at), **extra)

    do_HEAD = do_GET  # noqa: N815 - the base class calls it so

    def do_PUT(self) -> None:
        key, query = self._begin()
        if key is None:
            return
        body = self._body()
        if not key:
            self._answer(200)
        elif "uploadId" in query:
            self.objects.uploads[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, ETag=_etag(body))
        elif source := self.headers.get("x-amz-copy-source"):
            body = self.objects.bodies[unquote(source).removeprefix(f"/{BUCKET}/").removeprefix(f"{BUCKET}/")][0]
            self.objects.put(key, body, only_new=False)
            xml = f"<CopyObjectResult><ETag>{_etag(body)}</ETag></CopyObjectResult>"
            self._answer(200, xml.encode())
        elif self.objects.put(key, body, only_new=self.headers.get("If-None-Match") == "*"):
            if self.objects.lose("PUT", key):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._answer(200, ETag=_etag(body))
        else:
            self._error(412, "PreconditionFailed")

    def do_POST(self) -> None:
        key, query = self._begin()
        if key is None:
            return
        body = self._body()
        if "delete" in query:
            keys = [_unescape(found) for found in re.findall(r"<Key>(.*?)</Key>", body.decode())]
            for found in keys:
                self.objects.bodies.pop(found, None)
            gone = "".join(f"<Deleted><Key>{escape(found)}</Key></Deleted>" for found in keys)
            self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())
        elif "uploads" in query:
            upload = f"upload-{len(self.objects.uploads)}"
            self.objects.uploads[upload] = {}
            xml = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            self._answer(200, xml.encode())
        else:
            whole = b"".join(part for _, part in sorted(self.objects.uploads.pop(query["uploadId"]).items()))
            self.objects.put(key, whole, only_new=False)
            xml = f"<CompleteMultipartUploadResult><ETag>{_etag(whole)}</ETag></CompleteMultipartUploadResult>"
            self._answer(200, xml.encode())

    def do_DELETE(self) -> None:
        key, _ = self._begin()
        if key is not None:
            self.objects.bodies.pop(key, None)
            self._answer(204)

    def _begin(self) -> tuple[str | None, dict[str, str]]:
        """The key, empty for the bucket itself and None where the request was refused; and the query."""
        self.objects.requests[self.command] += 1
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if f"Credential={ACCESS_KEY}/" not in self.headers.get("Authorization", ""):
            self._body()
            self._error(403, "InvalidAccessKeyId")
            return None, query
        if bucket != BUCKET:
            self._body()
            self._error(404, "NoSuchBucket")
            return None, query
        return key, query

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after", "")
        keys = sorted(key for key in list(self.objects.bodies) if key.startswith(prefix) and key > after)
        contents, folders, last = "", dict[str, None](), ""
        for last in keys[:_PAGE]:
            rest = last.removeprefix(prefix)
            if delimiter and delimiter in rest:
                folders[prefix + rest.partition(delimiter)[0] + delimiter] = None
                continue
            body, put_at = self.objects.bodies[last]
            when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(put_at))
            contents += (
                f"<Contents><Key>{escape(last)}</Key><LastModified>{when}</LastModified>"
                f"<ETag>{_etag(body)}</ETag><Size>{len(body)}</Size></Contents>"
            )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        more = len(keys) > _PAGE
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        truncated = str(more).lower()
        xml = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{token}{contents}{common}</ListBucketResult>"
        self._answer(200, xml.encode())

    def _error(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.pop("size", None) or str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


def _described(body: bytes, put_at: float) -> dict[str, str]:
    return {"ETag": _etag(body), "Last_Modified": formatdate(put_at, usegmt=True)}


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _unescape(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def in_process() -> Iterator[tuple[str, Objects]]:
    """The server of this module; yields its URL and what it holds."""
    objects = Objects()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"objects": objects}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", objects
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def apart() -> Iterator[str]:
    """The server of this module in a process of its own; yields its URL."""
    command = [sys.executable, "-m", "tests.s3_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.communicate(timeout=_TIMEOUT_S)


def program() -> str | None:
    """Path of the real server, where `make s3-server` or someone else has installed it."""
    beside = Path(sys.executable).with_name(PROGRAM)
    return str(beside) if beside.is_file() else shutil.which(os.environ.get("LAKEHOUSE_S3_SERVER", PROGRAM))


@contextmanager
def gateway(folder: Path) -> Iterator[str]:
    """The real server over `folder`; yields its URL."""
    executable = program()
    assert executable is not None, "the caller has looked for it"
    buckets, meta = folder / "buckets", folder / "meta"
    (buckets / BUCKET).mkdir(parents=True)
    meta.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    command = [
        executable,
        "--port",
        f"127.0.0.1:{port}",
        "-q",
        "posix",
        "--sidecar",
        str(meta),
        str(buckets),
    ]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _TIMEOUT_S
        while not _listens(port):
            assert process.poll() is None, "the gateway ended at its start"
            assert time.monotonic() < deadline, "the gateway does not serve"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(_TIMEOUT_S)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def environment(url: str) -> dict[str, str]:
    """The AWS_* variables of a client of the server at `url`."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


if __name__ == "__main__":
    with in_process() as (served, _):
        sys.stdout.write(f"{served}\n")
        sys.stdout.flush()
        sys.stdin.read()  # until the test closes it, or is gone
