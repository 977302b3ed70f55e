"""Where alerts are told: webhooks, chats in Slack's format, a Kafka topic; each tried again, none waited for."""

from __future__ import annotations

import hashlib
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
from confluent_kafka import KafkaException, Producer

from lakehouse.alerts.finding import moment
from lakehouse.errors import DeliveryError
from lakehouse.kafka_admin import SILENT
from lakehouse.kafka_options import librdkafka_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lakehouse.alerts.finding import Finding
    from lakehouse.config.models import AnyChannel, Pipeline, Source

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
"""Within which a receiver has to answer."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""Waits before a notification is tried again; each doubles the one before."""
ATTEMPTS = 12
"""Tries before it is left out: about eight minutes."""
WAITING = 1_000
"""Notifications that may wait for a receiver that is away."""


Send: TypeAlias = Callable[["Finding"], None]


def as_webhook(found: Finding, receiver: str) -> dict[str, Any]:
    """In the form of Alertmanager's webhooks, version 4."""
    labels = {
        "alertname": found.name,
        "pipeline": found.pipeline,
        "kind": found.alert.kind,
        "severity": found.alert.severity,
    }
    annotations = {"summary": found.reading.summary, "runbook_url": found.runbook}
    value = {} if found.reading.value is None else {"value": f"{found.reading.value:.6g}"}
    alert = {
        "status": found.told,
        "labels": labels,
        "annotations": annotations | value,
        "startsAt" if found.told == "firing" else "endsAt": moment(found.standing.since_s).isoformat(),
        "generatorURL": "",
        "fingerprint": hashlib.sha256(f"{found.pipeline}/{found.name}".encode()).hexdigest()[:16],
    }
    return {
        "version": "4",
        "groupKey": f"{found.pipeline}/{found.name}",
        "truncatedAlerts": 0,
        "status": found.told,
        "receiver": receiver,
        "groupLabels": {"alertname": found.name},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [alert],
    }


def as_slack(found: Finding) -> dict[str, Any]:
    """In the form of Slack's incoming webhooks."""
    mark = ":rotating_light:" if found.told == "firing" else ":white_check_mark:"
    head = f"{mark} *{found.name}* of {found.pipeline} is {found.told} ({found.alert.severity})"
    text = f"{head}\n{found.reading.summary}\nRunbook: {found.runbook}"
    return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}


def sender(name: str, channel: AnyChannel, source: Source) -> Send:
    """What sends a notification to the channel, or raises DeliveryError."""
    match channel.kind:
        case "webhook":
            url = channel.url.get_secret_value()
            return lambda found: post(url, orjson.dumps(as_webhook(found, name)))
        case "slack":
            url = channel.url.get_secret_value()
            return lambda found: post(url, orjson.dumps(as_slack(found)))
        case "kafka":
            topic = KafkaTopic(channel.topic, source)
            return lambda found: topic.send(found.name.encode(), orjson.dumps(as_webhook(found, name)))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected arrives as a GET without its body, and is answered with 200 all the same."""

    def redirect_request(self, *_: Any) -> None:  # noqa: ANN401 - the library's signature
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def post(url: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    """POST JSON.

    Raises:
        DeliveryError: it was not taken; the message never holds the address.
    """
    said = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, body, said, method="POST")  # noqa: S310 - checked
    try:
        with _OPENER.open(request, timeout=TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        what = f"it answered {error.code}"
        error.close()
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        what = f"it cannot be reached: {type(reason).__name__}"
    raise DeliveryError(what)


class KafkaTopic:
    """A topic of the source's cluster."""

    def __init__(self, topic: str, source: Source, *, producer: Callable[[dict[str, Any]], Any] = Producer) -> None:
        self._topic = topic
        options = {name: secret.get_secret_value() for name, secret in source.options.items()}
        self._settings = librdkafka_options(options) | {
            "bootstrap.servers": source.servers,
            "enable.idempotence": True,
            "message.timeout.ms": round(TIMEOUT_S * 1_000),
        }
        self._make = producer
        self._producer: Any = None

    def send(self, key: bytes, value: bytes) -> None:
        """Send one record and wait for its acknowledgement.

        Raises:
            DeliveryError: no broker acknowledged it in time.
        """
        problems: list[Any] = [None]
        try:
            self._producer = self._producer or self._make(self._settings | {"logger": SILENT})
            self._producer.produce(
                self._topic, value, key, on_delivery=lambda error, _: problems.append(error and error.name())
            )
            left = self._producer.flush(2 * TIMEOUT_S)
        except (KafkaException, BufferError) as error:
            raise DeliveryError(f"Kafka did not take it: {type(error).__name__}") from None
        if left or problems[-1]:
            raise DeliveryError(f"Kafka did not acknowledge it: {problems[-1] or 'no answer'}")


class Outbox(threading.Thread):
    """Sends to one channel, one notification after the other, in their order.

    Args:
        name: of the channel.
        send: as `sender` makes it.
        wait: waits some seconds, or less where the program ends; whether it ends.
    """

    def __init__(self, name: str, send: Send, *, wait: Callable[[float], bool] | None = None) -> None:
        super().__init__(name=f"channel-{name}", daemon=True)
        self._channel, self._send = name, send
        self._ending = threading.Event()
        self._wait = wait or self._ending.wait
        self._queue: Queue[Finding] = Queue(WAITING)
        self.left_out = 0

    def put(self, found: Finding) -> None:
        """Hand over a finding; returns at once. One that nobody has to be told of is passed over."""
        if found.told is None:
            return
        try:
            self._queue.put_nowait(found)
        except Full:
            self._leave_out(found, "too many wait")

    def run(self) -> None:
        """Send until `close`, then what still waits, each once."""
        while not (self._ending.is_set() and self._queue.empty()):
            try:
                found = self._queue.get(timeout=0.1)
            except Empty:
                continue
            self._deliver(found)

    def close(self, timeout_s: float = 3 * TIMEOUT_S) -> None:
        """Try once more what waits, and end."""
        self._ending.set()
        if self.is_alive():
            self.join(timeout_s)

    def _deliver(self, found: Finding) -> None:
        wait_s, what = FIRST_WAIT_S, ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._send(found)
            except Exception as error:  # noqa: BLE001 - the next one has to be sent whatever became of this one
                what = error.what if isinstance(error, DeliveryError) else type(error).__name__
            else:
                return
            if self._ending.is_set() or attempt == ATTEMPTS:
                break
            logger.warning("channel %s: %s; trying again in %.0f s", self._channel, what, wait_s)
            self._wait(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        self._leave_out(found, what)

    def _leave_out(self, found: Finding, why: str) -> None:
        self.left_out += 1
        logger.error("channel %s: that %s is %s was not told: %s", self._channel, found.name, found.told, why)


def outboxes(pipeline: Pipeline) -> list[Outbox]:
    """One for each channel of the file, not yet started."""
    return [Outbox(name, sender(name, of, pipeline.source)) for name, of in pipeline.alerts.notify.items()]
