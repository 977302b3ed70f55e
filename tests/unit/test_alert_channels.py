"""Where alerts are told: forms, retries, what is left out, and that no evaluation waits and no address is printed."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import KafkaException

from lakehouse.alerts import channels
from lakehouse.alerts.channels import KafkaTopic, Outbox, as_slack, as_webhook, outboxes, sender
from lakehouse.alerts.conditions import Reading
from lakehouse.alerts.evaluator import evaluating
from lakehouse.alerts.finding import Finding
from lakehouse.alerts.standings import Standing
from lakehouse.config.loader import load_pipeline
from lakehouse.config.models import FreshnessAlert, KafkaChannel, SlackChannel, WebhookChannel
from lakehouse.errors import ConfigError, DeliveryError
from lakehouse.operate import alerted
from tests.maintained import START_S, Stream
from tests.pipelines import small_pipeline

TOKEN = "canary-token-in-a-path"
FOUND = Finding(
    pipeline="clicks",
    name="stale",
    alert=FreshnessAlert.model_validate(
        {"kind": "freshness", "rollup": "by_page", "limit": "5s", "severity": "critical"}
    ),
    standing=Standing("firing", START_S, START_S),
    reading=Reading(active=True, value=7.25, limit=5.0, summary="the newest event of by_page is <old> & grey"),
    runbook="docs/runbooks/freshness.md",
    at_s=START_S,
    changed=True,
    told="firing",
)


class Receiver:
    """An HTTP server that answers with the given codes, then with 200, and keeps what came."""

    def __init__(self, *codes: int, held: threading.Event | None = None) -> None:
        self.codes = list(codes)
        self.bodies: list[dict[str, Any]] = []
        self.methods: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if held is not None:
                    held.wait(10)
                receiver.methods.append("POST")
                receiver.bodies.append(json.loads(body))
                self.send_response(receiver.codes.pop(0) if receiver.codes else 200)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def do_GET(self) -> None:
                receiver.methods.append("GET")
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{TOKEN}"


@contextmanager
def receiving(*codes: int, held: threading.Event | None = None) -> Iterator[Receiver]:
    receiver = Receiver(*codes, held=held)
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


def webhook(url: str) -> WebhookChannel:
    return WebhookChannel.model_validate({"kind": "webhook", "url": url})


def deliver(url: str, waits: list[float]) -> Outbox:
    """Put one finding into a channel and see it through; the waits between attempts take no time."""
    box = Outbox("hook", sender("hook", webhook(url), source()), wait=lambda wait_s: waits.append(wait_s) or False)
    box.put(FOUND)
    box.put(replace(FOUND, told=None))
    box._deliver(box._queue.get_nowait())
    assert box._queue.empty(), "what nobody has to be told of is not sent"
    return box


def source() -> Any:
    return small_pipeline(Path("/nowhere")).source


def test_a_webhook_gets_what_alertmanager_would_send() -> None:
    with receiving() as receiver:
        deliver(receiver.url, [])
    [body] = receiver.bodies
    assert (body["version"], body["status"], body["receiver"]) == ("4", "firing", "hook")
    assert body["commonLabels"] == {
        "alertname": "stale",
        "pipeline": "clicks",
        "kind": "freshness",
        "severity": "critical",
    }
    [alert] = body["alerts"]
    assert alert["annotations"]["runbook_url"] == "docs/runbooks/freshness.md"
    assert alert["annotations"]["value"] == "7.25"
    assert alert["startsAt"] == "2027-01-15T08:00:00+00:00"
    over = as_webhook(replace(FOUND, told="resolved"), "hook")
    assert over["alerts"][0]["endsAt"] == "2027-01-15T08:00:00+00:00"
    assert over["alerts"][0]["fingerprint"] == alert["fingerprint"], "by which a receiver joins both"


def test_a_chat_gets_text_that_holds_no_markup_of_its_own() -> None:
    text = as_slack(FOUND)["text"]
    assert "*stale* of clicks is firing (critical)" in text
    assert "&lt;old&gt; &amp; grey" in text
    assert "docs/runbooks/freshness.md" in text
    with receiving() as receiver:
        sender("chat", SlackChannel.model_validate({"kind": "slack", "url": receiver.url}), source())(FOUND)
    assert receiver.bodies == [as_slack(FOUND)]


def test_a_receiver_that_fails_is_tried_again_with_longer_waits(caplog: pytest.LogCaptureFixture) -> None:
    waits: list[float] = []
    with receiving(500, 429, 503) as receiver:
        box = deliver(receiver.url, waits)
    assert waits == [1.0, 2.0, 4.0]
    assert (len(receiver.bodies), box.left_out) == (4, 0)
    assert "it answered 503; trying again in 4 s" in caplog.text
    assert TOKEN not in caplog.text


def test_a_receiver_that_never_answers_costs_the_notification_and_is_said(caplog: pytest.LogCaptureFixture) -> None:
    waits: list[float] = []
    with receiving() as receiver:
        pass
    box = deliver(receiver.url, waits)
    assert len(waits) == channels.ATTEMPTS - 1
    assert max(waits) == channels.LONGEST_WAIT_S
    assert box.left_out == 1
    assert "that stale is firing was not told: it cannot be reached: ConnectionRefusedError" in caplog.text
    assert TOKEN not in caplog.text


def test_a_redirect_is_no_delivery() -> None:
    with receiving(302) as receiver, pytest.raises(DeliveryError, match="it answered 302"):
        sender("hook", webhook(receiver.url), source())(FOUND)
    assert receiver.methods == ["POST"]


def test_an_evaluation_never_waits_for_a_receiver(tmp_path: Path) -> None:
    held = threading.Event()
    with receiving(held=held) as receiver:
        rules = {"gone": {"kind": "absence", "rollup": "by_page", "window": "30s"}}
        notify = {"hook": {"kind": "webhook", "url": receiver.url}}
        Stream(tmp_path).send(10, at_s=START_S)
        with evaluating(small_pipeline(tmp_path, alerts={"rules": rules, "notify": notify})) as evaluator:
            [first] = evaluator.step()
            assert first.told == "firing"
            [second] = evaluator.step()
            assert second.told is None
            assert receiver.bodies == []
            held.set()
    assert [body["status"] for body in receiver.bodies] == ["firing"]


def test_too_many_that_wait_are_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(channels, "WAITING", 2)
    box = Outbox("hook", lambda _: None)
    for _ in range(3):
        box.put(FOUND)
    assert box.left_out == 1
    assert "too many wait" in caplog.text


class Producer:
    """Stands in for the Kafka client; `error` is what the broker says, `raises` what the client does."""

    def __init__(self, settings: dict[str, Any], *, error: Any = None, left: int = 0) -> None:
        self.settings, self.error, self.left = settings, error, left
        self.sent: list[tuple[str, bytes, bytes]] = []
        self._callbacks: list[Any] = []

    def produce(self, topic: str, value: bytes, key: bytes, on_delivery: Any) -> None:
        self.sent.append((topic, key, value))
        self._callbacks.append(on_delivery)

    def flush(self, _: float) -> int:
        for callback in self._callbacks:
            callback(self.error, None)
        self._callbacks = []
        return self.left


class BrokerError:
    def name(self) -> str:
        return "TOPIC_AUTHORIZATION_FAILED"


def test_a_topic_of_the_sources_cluster_with_its_security() -> None:
    jaas = f'x.ScramLoginModule required username="u" password="{TOKEN}";'
    options = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.jaas.config": jaas}
    raw = source().model_dump(mode="json") | {"options": options}
    secured = type(source()).model_validate(raw)
    made: list[Producer] = []
    topic = KafkaTopic("alerts", secured, producer=lambda settings: made.append(Producer(settings)) or made[-1])
    topic.send(b"stale", b"{}")
    topic.send(b"stale", b"{}")
    [producer] = made
    assert producer.sent == [("alerts", b"stale", b"{}")] * 2
    assert producer.settings["sasl.password"] == TOKEN
    assert producer.settings["enable.idempotence"] is True


@pytest.mark.parametrize(("error", "left"), [(BrokerError(), 0), (None, 1)])
def test_what_no_broker_acknowledged_is_no_delivery(error: Any, left: int) -> None:
    topic = KafkaTopic("alerts", source(), producer=lambda settings: Producer(settings, error=error, left=left))
    with pytest.raises(DeliveryError, match="TOPIC_AUTHORIZATION_FAILED" if error else "no answer"):
        topic.send(b"stale", b"{}")

    def refuses(_: dict[str, Any]) -> Producer:
        raise KafkaException("a message with a password")

    with pytest.raises(DeliveryError, match=r"^Kafka did not take it: KafkaException$"):
        KafkaTopic("alerts", source(), producer=refuses).send(b"stale", b"{}")


def test_every_channel_of_the_file_has_an_outbox(tmp_path: Path) -> None:
    notify = {
        "hook": {"kind": "webhook", "url": "http://localhost:1/x"},
        "chat": {"kind": "slack", "url": "http://localhost:1/x"},
        "topic": {"kind": "kafka", "topic": "alerts"},
    }
    pipeline = small_pipeline(tmp_path, alerts={"notify": notify})
    assert [box.name for box in outboxes(pipeline)] == ["channel-hook", "channel-chat", "channel-topic"]
    assert isinstance(pipeline.alerts.notify["topic"], KafkaChannel)


def pipeline_file(tmp_path: Path, alerts: dict[str, Any]) -> Path:
    raw = small_pipeline(tmp_path / "data").model_dump(mode="json")
    raw["source"].pop("options")
    raw["alerts"] = alerts
    path = tmp_path / "clicks.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def test_an_address_comes_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "hook.txt").write_text(f"https://hooks.test/{TOKEN}\n")
    path = pipeline_file(tmp_path, {"notify": {"hook": {"kind": "webhook", "url": f"${{file:{tmp_path}/hook.txt}}"}}})
    pipeline = load_pipeline(path, {})
    channel = pipeline.alerts.notify["hook"]
    assert isinstance(channel, WebhookChannel)
    assert channel.url.get_secret_value() == f"https://hooks.test/{TOKEN}"
    assert TOKEN not in f"{pipeline} {pipeline.model_dump_json()}"
    for wrong in (f"ftp://{TOKEN}", f"{TOKEN} with spaces"):
        path = pipeline_file(tmp_path, {"notify": {"hook": {"kind": "webhook", "url": wrong}}})
        with pytest.raises(ConfigError, match=r"no http\(s\) URL") as told:
            load_pipeline(path, {})
        assert TOKEN not in str(told.value)
    path = pipeline_file(tmp_path, {"notify": {"hook": f"https://{TOKEN}"}})
    with pytest.raises(ConfigError) as told:
        load_pipeline(path, {})
    assert TOKEN not in str(told.value)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kind": "threshold", "rollup": "by_pag", "limit": 1}, "there is no rollup by_pag"),
    ({"kind": "threshold", "rollup": "by_page", "metric": "error", "limit": 1}, "the rollup has no metric error"),
    (
        {"kind": "threshold", "rollup": "by_page", "metric": "ms_max", "per": "second", "limit": 1},
        "no count and no sum",
    ),
    ({"kind": "threshold", "rollup": "by_page", "limit": 1, "where": {"status": "ok"}}, "has no dimension status"),
    ({"kind": "threshold", "rollup": "by_page", "limit": 1, "where": {"page": 3}}, "compared with the number 3"),
    ({"kind": "threshold", "rollup": "by_page", "limit": "much"}, "has to be a number"),
    ({"kind": "absence", "rollup": "by_page", "window": "4d"}, "the window is 4d"),
    ({"kind": "quarantine", "limit": 0.1, "window": "7h"}, "the window is 7h"),
    ({"kind": "quarantine", "limit": 5}, "at most 1"),
    (
        {"kind": "burn_rate", "rollup": "by_page", "errors": "ms_sum", "objective": 0.9},
        "no metric ms_sum of type count",
    ),
    ({"kind": "burn_rate", "rollup": "by_page", "errors": "errors", "objective": 1}, "has no budget"),
    (
        {
            "kind": "burn_rate",
            "rollup": "by_page",
            "errors": "errors",
            "objective": 0.9,
            "windows": [{"long": "5m", "short": "5m", "factor": 2}],
        },
        "the short window is not shorter",
    ),
    ({"kind": "lag"}, "needs the key limit"),
    ({"kind": "lags", "limit": 1}, "not one of its values"),
]


@pytest.mark.parametrize(("rule", "message"), WRONG)
def test_a_wrong_alert_is_told_with_its_place(rule: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        load_pipeline(pipeline_file(tmp_path, {"rules": {"it": rule}}), {})
    assert message in str(told.value)
    assert "alerts.rules.it" in str(told.value)


def test_figures_are_kept_for_as_long_as_alerts_look_back(tmp_path: Path) -> None:
    path = pipeline_file(tmp_path, {})
    path.write_text(path.read_text().replace("keep: 7d", "keep: 1h"))
    with pytest.raises(ConfigError, match="keep is 1h"):
        load_pipeline(path, {})


def test_the_child_of_a_run_evaluates_and_tells_its_parent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rules = {"gone": {"kind": "absence", "rollup": "by_page", "window": "30s", "severity": "critical"}}
    path = pipeline_file(tmp_path, {"rules": rules})
    Stream(tmp_path / "data").send(10, at_s=START_S)
    heard: list[tuple[str, str, bool]] = []
    known = threading.Event()

    class Telemetry:
        def alert(self, name: str, severity: str, *, firing: bool) -> None:
            heard.append((name, severity, firing))
            known.set()

    with caplog.at_level(logging.WARNING), alerted(path, load_pipeline(path, {}), Telemetry()):  # type: ignore[arg-type]
        assert known.wait(30), caplog.text
    assert heard == [("gone", "critical", True)]


def test_no_child_without_alerts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse import operate

    monkeypatch.setattr(operate, "Background", None)
    path = pipeline_file(tmp_path, {})
    with alerted(path, load_pipeline(path, {}), None):  # type: ignore[arg-type]
        pass
