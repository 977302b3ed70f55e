"""Sends a run's OpenLineage events beside the hot path: one thread, a short queue, and nobody who waits for it."""

from __future__ import annotations

import logging
import sys
import threading
import time
import uuid
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import orjson
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse import storage
from lakehouse.alerts.channels import KafkaTopic, post
from lakehouse.errors import DeliveryError, LakehouseError, QualityError
from lakehouse.lineage.events import Done, EventType, event
from lakehouse.logs import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lakehouse.config.models import Pipeline, Receiver
    from lakehouse.metrics.record import Committed

logger = logging.getLogger(__name__)

Send: TypeAlias = "Callable[[bytes], None]"
WAITING = 100
"""Events that may wait for a receiver that is away; older ones are left out."""
RETRY_S = 5.0
"""From one attempt to the next while the receiver is away."""
_END_S = 15.0
"""How long the end of a run waits for its last events to be taken."""


class Tracer:
    """The events of one run.

    Args:
        pipeline: whose run.
        receiver: where they are sent.
        send: in place of the receiver's own way.
        clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        receiver: Receiver,
        *,
        send: Send | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.run_id = str(uuid.uuid4())
        self.left_out = 0
        self._pipeline, self._clock = pipeline, clock
        self._root = storage.resolve_root(pipeline.root)
        self._send = send or sender(receiver, pipeline)
        self._every_s = pipeline.lineage.every.total_seconds()
        self._changed = threading.Condition()
        self._done = Done()
        self._last: tuple[EventType, str | None] | None = None
        self._thread = threading.Thread(target=self._run, name="lineage", daemon=True)

    def committed(self, committed: Committed) -> None:
        """A micro-batch is in every table."""
        with self._changed:
            self._done.add(committed)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The run that the body is: START at its beginning, COMPLETE or FAIL at its end. Raises what the body does."""
        self._thread.start()
        try:
            yield
        except BaseException as error:
            # That of an expectation which stops the pipeline may hold a value of an event.
            what = type(error).__name__
            if isinstance(error, LakehouseError) and not isinstance(error, QualityError):
                what += f": {error.what}"
            self._end("COMPLETE" if isinstance(error, KeyboardInterrupt) else "FAIL", redact(what))
            raise
        self._end("COMPLETE", None)

    def _end(self, kind: EventType, error: str | None) -> None:
        with self._changed:
            self._last = kind, None if kind == "COMPLETE" else error
            self._changed.notify()
        self._thread.join(_END_S)

    def _run(self) -> None:
        try:
            self._trace()
        except Exception as error:  # noqa: BLE001 - lineage must not stop anything
            logger.warning("lineage has ended: %s: %s", type(error).__name__, error)

    def _trace(self) -> None:
        """Make the events when they are due and send them in their order; what cannot be sent is tried again."""
        waiting: deque[bytes] = deque([self._made("START")])
        due_s, ended = time.monotonic() + self._every_s, False
        while True:
            sent = self._sent(waiting)
            if ended:
                self.left_out += len(waiting)
                break
            pause_s = due_s - time.monotonic() if sent else min(RETRY_S, due_s - time.monotonic())
            with self._changed:
                if self._last is None:
                    self._changed.wait(max(0.0, pause_s))
                last = self._last
            if last is not None:
                waiting.append(self._made(*last))
                ended = True
            elif time.monotonic() >= due_s:
                due_s = time.monotonic() + self._every_s
                waiting.append(self._made("RUNNING"))
            while len(waiting) > WAITING:
                waiting.popleft()
                self.left_out += 1
        if self.left_out:
            logger.warning("%s events of lineage were left out: the receiver did not take them", self.left_out)

    def _sent(self, waiting: deque[bytes]) -> bool:
        """Whether all of them were; of one that the receiver refused nothing is said but that it was."""
        while waiting:
            try:
                self._send(waiting[0])
            except Exception as error:  # noqa: BLE001 - lineage must not stop anything
                what = error.what if isinstance(error, DeliveryError) else type(error).__name__
                logger.info("an event of lineage waits: %s", what)
                return False
            waiting.popleft()
        return True

    def _made(self, kind: EventType, error: str | None = None) -> bytes:
        with self._changed:
            done, self._done = self._done, Done()
        found = event(
            kind,
            self._pipeline,
            self._root,
            self.run_id,
            done,
            at_s=self._clock(),
            versions=self._versions(done),
            error=error,
        )
        return redact(orjson.dumps(found).decode()).encode()

    def _versions(self, done: Done) -> dict[str, int]:
        """The tables' versions now, as any reader sees them: at the end of what is told, or a little later."""
        found: dict[str, int] = {}
        for table in done.rows:
            try:
                found[table] = DeltaTable(f"{self._root}/{table}").version()
            except (DeltaError, OSError) as error:
                logger.info("the version of %s is left out of lineage: %s", table, type(error).__name__)
        return found


def sender(receiver: Receiver, pipeline: Pipeline) -> Send:
    """What sends one event to the receiver; it may raise anything."""
    match receiver.kind:
        case "http":
            url, token = receiver.url.get_secret_value(), receiver.token.get_secret_value()
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            return lambda body: post(url, body, headers)
        case "kafka":
            topic = KafkaTopic(receiver.topic, pipeline.source)
            key = f"{pipeline.lineage.namespace}/{pipeline.name}".encode()
            return lambda body: topic.send(key, body)
        case "file":
            path = receiver.path.expanduser()
            return lambda body: _append(path, body)
        case "console":
            return _print


def _append(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(body + b"\n")


def _print(body: bytes) -> None:
    sys.stderr.write(body.decode() + "\n")
