"""OpenLineage events: what they say, in which order they come, and that no receiver can stop or slow a run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lakehouse.config.checks import check
from lakehouse.config.models import Pipeline
from lakehouse.errors import DeliveryError, QualityError, SourceError
from lakehouse.lineage import tracer as tracing
from lakehouse.lineage.events import SPEC, Done, event
from lakehouse.lineage.tracer import WAITING, Tracer, sender
from lakehouse.metrics.record import Committed
from lakehouse.operate import traced
from lakehouse.quality.watch import Outcome
from tests.maintained import GOLD, QUARANTINE, SILVER, START_S, Stream
from tests.pipelines import small_pipeline

FACET = {
    "type": "object",
    "required": ["_producer", "_schemaURL"],
    "properties": {"_schemaURL": {"type": "string", "pattern": f"^{SPEC}/.*#/\\$defs/[A-Za-z]+$"}},
}
FACETS = {"type": "object", "additionalProperties": FACET}
DATASET = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {"facets": FACETS, "inputFacets": FACETS, "outputFacets": FACETS},
}
RUN_EVENT = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventTime": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$"},
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {"runId": {"pattern": "^[0-9a-f-]{36}$"}, "facets": FACETS},
        },
        "job": {"type": "object", "required": ["namespace", "name"], "properties": {"facets": FACETS}},
        "inputs": {"type": "array", "items": DATASET},
        "outputs": {"type": "array", "items": DATASET},
    },
}
"""The shape of a run event of OpenLineage 2-0-2, in words of this project's own."""


def committed(stream: Stream, failed: int = 2) -> Committed:
    stream.send(8, at_s=START_S)
    assert stream.sink.head is not None
    outcomes = (Outcome("ids", 8, failed=failed), Outcome("mean_ms", 8, value=1.5, success=failed == 0))
    return Committed(stream.sink.head, 0.1, 0.1, outcomes, 1, START_S)


def traced_pipeline(root: Path, **lineage: Any) -> Pipeline:
    return small_pipeline(root, lineage={"to": {"kind": "console"}, "every": "1h"} | lineage)


class Taken:
    """A receiver in memory, away for as long as the test says."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.away = False
        self.asked = threading.Event()

    def send(self, body: bytes) -> None:
        self.asked.set()
        if self.away:
            raise DeliveryError("it answered 503")
        self.events.append(json.loads(body))

    @property
    def kinds(self) -> list[str]:
        return [found["eventType"] for found in self.events]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_event_says_what_was_read_and_written(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    done = Done()
    done.add(committed(stream, failed=0))
    done.add(committed(stream))
    found = event(
        "RUNNING", stream.pipeline, str(tmp_path), "0" * 36, done, at_s=START_S, versions={SILVER: 2}, error=None
    )
    jsonschema.validate(found, RUN_EVENT)
    assert found["job"]["facets"]["jobType"]["processingType"] == "STREAMING"
    [topic] = found["inputs"]
    assert (topic["namespace"], topic["name"]) == ("kafka://localhost:1", "clicks")
    assert topic["inputFacets"]["inputStatistics"]["rowCount"] == 16
    assertions = {one["assertion"]: one for one in topic["inputFacets"]["dataQualityAssertions"]["assertions"]}
    assert not assertions["ids"]["success"]
    assert assertions["ids"]["params"] == {"evaluated": 16, "failed": 2}
    assert not assertions["mean_ms"]["success"]
    outputs = {one["name"].removeprefix(f"{tmp_path}/"): one for one in found["outputs"]}
    assert set(outputs) == {SILVER, QUARANTINE, GOLD}
    silver = outputs[SILVER]
    assert silver["namespace"] == "file"
    assert silver["facets"]["version"]["datasetVersion"] == "2"
    written = silver["outputFacets"]["outputStatistics"]
    size = sum(path.stat().st_size for path in (tmp_path / SILVER).glob("*.parquet"))
    assert (written["rowCount"], written["fileCount"], written["size"]) == (16, 4, size)
    columns = {one["name"]: one for one in silver["facets"]["schema"]["fields"]}
    assert columns["user"]["type"] == "int64"
    assert "rule_id" in [inner["name"] for inner in columns["_warnings"]["fields"]]
    assert found["run"]["facets"]["lakehouse_batches"]["end"] == "clicks 0:8 1:8"


def test_a_run_begins_goes_on_and_ends_and_each_event_tells_only_what_is_new(tmp_path: Path) -> None:
    stream, taken = Stream(tmp_path), Taken()
    tracer = Tracer(traced_pipeline(tmp_path), tracing_receiver(tmp_path), send=taken.send)
    tracer._every_s = 0.05
    with tracer.running():
        tracer.committed(committed(stream))
        until(lambda: sum(rows_of(found) for found in taken.events) == 8)
        tracer.committed(committed(stream))
    assert (taken.kinds[0], taken.kinds[-1]) == ("START", "COMPLETE")
    assert set(taken.kinds[1:-1]) == {"RUNNING"}
    assert sum(rows_of(found) for found in taken.events) == 16
    assert {found["run"]["runId"] for found in taken.events} == {tracer.run_id}
    times = [found["eventTime"] for found in taken.events]
    assert times == sorted(times)


def tracing_receiver(root: Path) -> Any:
    return traced_pipeline(root).lineage.to


def rows_of(found: dict[str, Any]) -> int:
    return sum(one["outputFacets"].get("outputStatistics", {}).get("rowCount", 0) for one in found["outputs"][:1])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SourceError("the topic is gone"), "SourceError: the topic is gone"),
        (QualityError("the value is 4711"), "QualityError"),
        (ZeroDivisionError("4711"), "ZeroDivisionError"),
    ],
)
def test_a_run_that_fails_says_so_and_no_value(tmp_path: Path, error: Exception, message: str) -> None:
    taken = Taken()
    tracer = Tracer(traced_pipeline(tmp_path), tracing_receiver(tmp_path), send=taken.send)
    with pytest.raises(type(error)), tracer.running():
        raise error
    assert taken.kinds == ["START", "FAIL"]
    assert taken.events[1]["run"]["facets"]["errorMessage"]["message"] == message


def test_a_receiver_that_is_away_gets_everything_in_order_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "RETRY_S", 0.01)
    stream, taken = Stream(tmp_path), Taken()
    taken.away = True
    tracer = Tracer(traced_pipeline(tmp_path), tracing_receiver(tmp_path), send=taken.send)
    tracer._every_s = 0.02
    with tracer.running():
        assert taken.asked.wait(30)
        began = time.monotonic()
        for _ in range(3):
            tracer.committed(committed(stream))
        assert time.monotonic() - began < 20, "the hot path waits for nobody"
        taken.away = False
        until(lambda: sum(map(rows_of, taken.events)) == 24)
    assert (taken.kinds[0], taken.kinds[-1]) == ("START", "COMPLETE")
    assert tracer.left_out == 0


def test_what_waits_for_a_dead_receiver_is_bounded_and_the_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "RETRY_S", 0.0)
    taken = Taken()
    taken.away = True
    tracer = Tracer(traced_pipeline(tmp_path), tracing_receiver(tmp_path), send=taken.send)
    tracer._every_s = 0.0
    with tracer.running():
        until(lambda: tracer.left_out > 3)
    assert not tracer._thread.is_alive()
    assert tracer.left_out > WAITING
    assert "events of lineage were left out" in caplog.text


def test_a_receiver_that_hangs_holds_the_end_up_for_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "_END_S", 0.1)
    hanging = threading.Event()
    tracer = Tracer(traced_pipeline(tmp_path), tracing_receiver(tmp_path), send=lambda _: hanging.wait(30) and None)
    with tracer.running():
        tracer.committed(committed(Stream(tmp_path)))
    hanging.set()
    tracer._thread.join(30)


def test_http_file_and_console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[tuple[str, str | None, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, self.headers["Authorization"], body))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/api/v1/lineage"
    pipeline = traced_pipeline(tmp_path, to={"kind": "http", "url": url, "token": "abc"})
    assert pipeline.lineage.to is not None
    sender(pipeline.lineage.to, pipeline)(b"{}")
    server.shutdown()
    server.server_close()
    assert asked == [("/api/v1/lineage", "Bearer abc", b"{}")]
    path = tmp_path / "deep" / "lineage.ndjson"
    for to in ({"kind": "file", "path": str(path)}, {"kind": "console"}):
        pipeline = traced_pipeline(tmp_path, to=to)
        assert pipeline.lineage.to is not None
        for number in (1, 2):
            sender(pipeline.lineage.to, pipeline)(b'{"a":%d}' % number)
    assert path.read_text() == '{"a":1}\n{"a":2}\n'
    assert capsys.readouterr().err == '{"a":1}\n{"a":2}\n'


def test_without_a_receiver_there_is_nothing(tmp_path: Path) -> None:
    class Silent:
        def tell(self, _: object) -> None:
            raise AssertionError

    with traced(small_pipeline(tmp_path), Silent()):  # type: ignore[arg-type]
        assert "lineage" not in [thread.name for thread in threading.enumerate()]


def test_a_wrong_receiver_is_refused(tmp_path: Path) -> None:
    pipeline = traced_pipeline(tmp_path, to={"kind": "http", "url": "marquez"}, every="1ms")
    found = check(pipeline)
    assert {finding.path[1] for finding in found} == {"to", "every"}
    assert "marquez" not in str(found)
