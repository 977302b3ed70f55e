"""The HTTP API: answers in two forms, what a client has already, hostile requests, load, and its own description."""

from __future__ import annotations

import asyncio
import http.client
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from lakehouse import cli
from lakehouse.api import app as module
from lakehouse.api.app import Limits, application
from lakehouse.api.guard import LOOPBACK
from lakehouse.api.lanes import Lane
from lakehouse.api.openapi import ARROW, JSON, document
from lakehouse.api.problems import MEDIA_TYPE
from lakehouse.api.questions import PARAMETERS
from lakehouse.api.server import serve
from lakehouse.errors import ConfigError, TooSlow
from lakehouse.serving.query import Rollups
from tests.asgi import Reply, get, request
from tests.maintained import START_S, Stream
from tests.pipelines import small_pipeline

ANSWER = "/v1/rollups/by_page/answer"
RANGE = "from=2027-01-15T07:00:00Z&to=2027-01-15T11:00:00Z"


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    made = Stream(tmp_path_factory.mktemp("api"), grains=("1s", "1m", "1h"))
    for number in range(3):
        made.send(20, at_s=START_S + 1_800 * number, late=2)
    made.maintain(time.time())
    made.send(20, at_s=START_S + 5_400, late=2)
    return made


@pytest.fixture(scope="module")
def app(stream: Stream) -> Any:
    return application(stream.pipeline)


def valid(reply: Reply, path: str, pipeline: Any) -> Reply:
    """The reply, whose status and body are those that the document promises for the path."""
    described = document(pipeline)
    responses = described["paths"][path]["get"]["responses"]
    content = responses[str(reply.status)]["content"][reply.headers["content-type"]]
    jsonschema.validate(reply.json(), {**content["schema"], "components": described["components"]})
    return reply


def test_an_answer_is_that_of_the_planner_as_json_and_as_arrow(app: Any, stream: Stream) -> None:
    question = f"{ANSWER}?measure=events&measure=errors/events&measure=ms_kll@0.5&by=page&step=1h&{RANGE}"
    told = valid(get(app, question), "/v1/rollups/{rollup}/answer", stream.pipeline)
    assert (told.status, told.headers["content-type"]) == (200, JSON)
    rows = told.json()["rows"]
    assert sum(row["events"] for row in rows) == 80
    assert set(rows[0]) == {"window_start", "page", "events", "errors/events", "ms_kll@0.5"}
    assert rows[0]["window_start"].endswith("Z")
    arrow = get(app, question, headers={"accept": ARROW})
    assert arrow.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(arrow.body).read_all()
    assert table["events"].to_pylist() == [row["events"] for row in rows]
    assert b"gold/clicks_by_page_1h" in table.schema.metadata[b"lakehouse"]
    assert arrow.headers["etag"] != told.headers["etag"]


def test_filters_are_values_and_no_text_that_is_run(app: Any) -> None:
    found = get(app, f"{ANSWER}?measure=events&where=page=a&where=page=b&by=page&{RANGE}").json()["rows"]
    assert {row["page"] for row in found} == {"a", "b"}
    injected = get(app, f"{ANSWER}?measure=events&where=page=a'%20OR%20'1'='1&{RANGE}")
    assert (injected.status, injected.json()["rows"]) == (200, [])


def test_what_a_client_has_already_is_not_read_again(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    app = application(stream.pipeline)
    question = f"{ANSWER}?measure=events&{RANGE}"
    first = get(app, question)
    tag = first.headers["etag"]
    assert (first.headers["cache-control"], first.headers["x-lakehouse-cached"]) == ("private, no-cache", "false")
    monkeypatch.setattr(Rollups, "ask", lambda *_, **__: pytest.fail("it was asked"))
    for known in (tag, f'"other", W/{tag}'):
        again = get(app, question, headers={"if-none-match": known})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    monkeypatch.undo()
    other = get(app, f"{ANSWER}?measure=events&by=page&{RANGE}", headers={"if-none-match": tag})
    assert other.status == 200
    again = get(app, question)
    assert (again.body, again.headers["x-lakehouse-cached"]) == (first.body, "true")


def test_a_new_batch_is_a_new_etag(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    stream.send(20, at_s=START_S)
    app = application(stream.pipeline)
    question = f"{ANSWER}?measure=events&{RANGE}"
    tag = get(app, question).headers["etag"]
    stream.send(20, at_s=START_S)
    newer = get(app, question, headers={"if-none-match": tag})
    assert (newer.status, newer.json()["rows"][0]["events"]) == (200, 40)


def test_the_other_paths_say_what_there_is(app: Any, stream: Stream) -> None:
    for path in ("/v1/health", "/v1/tables", "/v1/rollups"):
        assert valid(get(app, path), path, stream.pipeline).status == 200
    plan = get(app, f"/v1/rollups/by_page/explain?measure=ms_max&{RANGE}")
    told = valid(plan, "/v1/rollups/{rollup}/explain", stream.pipeline).json()
    assert {use["table"] for use in told["uses"]} == {"gold/clicks_by_page_1h", "gold/clicks_by_page_1s"}
    assert told["rows_to_read"] == sum(use["rows"] for use in told["uses"]) > 0
    assert told["lane"] == "light"
    late = valid(get(app, "/v1/rollups/by_page/revisions"), "/v1/rollups/{rollup}/revisions", stream.pipeline)
    assert late.status == 200
    rollup = get(app, "/v1/rollups").json()["by_page"]
    assert rollup["dimensions"] == {"page": "string"}
    assert rollup["metrics"]["ms_kll"]["error"] == pytest.approx(0.0133, rel=0.01)
    tables = get(app, "/v1/tables")
    assert {f"{table['layer']}.{table['name']}" for table in tables.json()} >= {
        "silver.clicks",
        "gold.clicks_by_page_1s",
    }
    assert str(stream.root).encode() not in tables.body
    assert get(app, "/v1/health").json()["last_batch"]["by_page"].endswith("Z")


def test_the_document_is_that_of_the_parser(app: Any, stream: Stream) -> None:
    described = get(app, "/openapi.json").json()
    assert described == document(stream.pipeline)
    for path in ("answer", "explain"):
        parameters = described["paths"][f"/v1/rollups/{{rollup}}/{path}"]["get"]["parameters"]
        assert [each["name"] for each in parameters] == ["rollup", *PARAMETERS]
    jsonschema.Draft202012Validator.check_schema({"$defs": described["components"]["schemas"]})


MARK = "zqxj"
"""Stands in every hostile value, and must come back in no answer."""
HOSTILE: list[tuple[str, str | bytes, int]] = [
    ("no measure", f"{ANSWER}?{RANGE}", 400),
    ("SQL as a metric", f"{ANSWER}?measure=events;DROP%20TABLE%20{MARK}&{RANGE}", 400),
    ("SQL as a dimension", f"{ANSWER}?measure=events&by=page%22%20{MARK}--&{RANGE}", 400),
    ("SQL as a filter's name", f"{ANSWER}?measure=events&where={MARK}'%20OR%201=1&{RANGE}", 400),
    ("a filter without a value", f"{ANSWER}?measure=events&where={MARK}&{RANGE}", 400),
    ("a field that is no dimension", f"{ANSWER}?measure=events&where=user={MARK}&{RANGE}", 400),
    ("an unknown parameter", f"{ANSWER}?measure=events&{MARK}=1&{RANGE}", 400),
    ("a parameter twice", f"{ANSWER}?measure=events&step=1m&step={MARK}&{RANGE}", 400),
    ("too many measures", f"{ANSWER}?{'&'.join(['measure=events'] * 40)}&{RANGE}", 400),
    ("NaN as a rank", f"{ANSWER}?measure=ms_kll@NaN&{RANGE}", 400),
    ("infinity as a rank", f"{ANSWER}?measure=ms_kll@inf&{RANGE}", 400),
    ("a rank that is none", f"{ANSWER}?measure=ms_kll@{MARK}&{RANGE}", 400),
    ("a quantile without a rank", f"{ANSWER}?measure=ms_kll&{RANGE}", 400),
    ("a sketch divided", f"{ANSWER}?measure=events/ms_kll&{RANGE}", 400),
    ("no range", f"{ANSWER}?measure=events", 400),
    ("a range that ends before it begins", f"{ANSWER}?measure=events&from=2027-01-15&to=2026-01-15", 400),
    ("a moment that is none", f"{ANSWER}?measure=events&from={MARK}", 400),
    ("year 0", f"{ANSWER}?measure=events&from=0000-01-01", 400),
    ("before year 1", f"{ANSWER}?measure=events&from=0001-01-01T00:00:00%2B14:00&to=2027-01-01", 400),
    ("after year 9999", f"{ANSWER}?measure=events&from=2027-01-01&to=9999-12-31T23:59:59-14:00", 400),
    ("a range and a length", f"{ANSWER}?measure=events&from=2027-01-01&last=1h", 400),
    ("a length of ages", f"{ANSWER}?measure=events&last=999999999999999d", 400),
    ("a step of nothing", f"{ANSWER}?measure=events&{RANGE}&step=0s", 400),
    ("a negative step", f"{ANSWER}?measure=events&{RANGE}&step=-1s", 400),
    ("a step below every grain", f"{ANSWER}?measure=events&{RANGE}&step=7ms", 400),
    ("windows without number", f"{ANSWER}?measure=events&from=0001-01-01&to=9999-12-31&step=1s", 400),
    ("a staleness that is none", f"{ANSWER}?measure=events&{RANGE}&max_staleness={MARK}", 400),
    ("staler than asked", f"{ANSWER}?measure=events&{RANGE}&max_staleness=1ms", 503),
    ("a rollup that is none", f"/v1/rollups/{MARK}/answer?measure=events", 404),
    ("a path upwards", f"/v1/rollups/../../etc/{MARK}/answer", 404),
    ("a path upwards, encoded", f"/v1/rollups/..%2f..%2fetc%2f{MARK}/answer?measure=events", 404),
    ("a NUL in the path", f"/v1/rollups/by_page%00{MARK}/answer?measure=events", 404),
    ("another path", f"/{MARK}", 404),
    ("a slash too many", f"{ANSWER}/?measure=events", 404),
    ("script as a value", f"{ANSWER}?measure=%3Cscript%3E{MARK}%3C/script%3E&{RANGE}", 400),
    ("unicode that looks alike", f"{ANSWER}?measure=%D0%B5vents{MARK}&{RANGE}", 400),
    ("bytes that are no UTF-8", ANSWER.encode() + b"?measure=\xff\xfe" + MARK.encode() + b"&last=1h", 400),
    ("half a surrogate", f"{ANSWER}?measure=%ED%A0%80{MARK}&{RANGE}", 400),
    ("line ends for a header", f"{ANSWER}?measure=events%0D%0ASet-Cookie:{MARK}&{RANGE}", 400),
    ("a question without end", f"{ANSWER}?measure={MARK * 4_000}", 414),
    ("a path without end", f"/{MARK * 1_000}", 414),
]  # fmt: skip


@pytest.mark.parametrize(("target", "status"), [each[1:] for each in HOSTILE], ids=[each[0] for each in HOSTILE])
def test_hostile_requests_get_a_clear_problem_and_nothing_back(
    target: str | bytes, status: int, app: Any, stream: Stream
) -> None:
    reply = get(app, target)
    require_problem(reply, status)
    assert MARK.encode() not in reply.body.lower()
    assert MARK not in str(reply.headers).lower()
    assert str(stream.root).encode() not in reply.body


def require_problem(reply: Reply, status: int) -> None:
    assert (reply.status, reply.headers["content-type"]) == (status, MEDIA_TYPE), reply
    schema = document(small_pipeline(Path("/nowhere")))["components"]["schemas"]["Problem"]
    jsonschema.validate(reply.json(), schema)
    assert reply.json()["status"] == status
    assert "Traceback" not in reply.body.decode()
    require_headers(reply)


def require_headers(reply: Reply) -> None:
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


OTHERWISE: list[tuple[str, dict[str, Any], int]] = [
    ("a write", {"method": "POST"}, 405),
    ("a deletion", {"method": "DELETE"}, 405),
    ("a method that is none", {"method": "ZQXJ"}, 405),
    ("a name that is not the server's", {"headers": {"host": "zqxj.example"}}, 421),
    ("a name that begins alike", {"headers": {"host": "localhost.zqxj.example:8600"}}, 421),
    ("no name", {"headers": {"host": ""}}, 421),
    ("a body", {"headers": {"content-length": "1000000000"}}, 413),
    ("a body without a length", {"headers": {"transfer-encoding": "chunked"}}, 413),
    ("a form that is not to be had", {"headers": {"accept": "text/zqxj"}}, 406),
]


@pytest.mark.parametrize(("asked", "status"), [each[1:] for each in OTHERWISE], ids=[each[0] for each in OTHERWISE])
def test_what_is_not_read_only_or_not_meant_for_this_server_is_refused(
    asked: dict[str, Any], status: int, app: Any
) -> None:
    reply = get(app, f"{ANSWER}?measure=events&{RANGE}", **asked)
    require_problem(reply, status)
    assert b"zqxj" not in reply.body


def test_every_answer_has_the_headers_of_security(app: Any) -> None:
    for path in ("/v1/health", f"{ANSWER}?measure=events&{RANGE}", "/openapi.json"):
        require_headers(get(app, path))
    for host in LOOPBACK:
        assert get(app, "/openapi.json", headers={"host": f"{host}:1"}).status == 200


def test_an_answer_of_too_many_rows_is_not_sent(stream: Stream) -> None:
    app = application(stream.pipeline, limits=Limits(most_rows=3))
    reply = get(app, f"{ANSWER}?measure=events&by=page&step=1m&{RANGE}")
    require_problem(reply, 400)
    assert re.search(r"the answer has \d+ rows, and 3 are sent at most", reply.json()["detail"])


def test_without_tables_it_says_so(tmp_path: Path) -> None:
    app = application(small_pipeline(tmp_path))
    reply = get(app, f"{ANSWER}?measure=events&{RANGE}")
    require_problem(reply, 503)
    assert reply.headers["retry-after"] == "1"
    require_problem(get(app, "/v1/health"), 503)
    assert get(app, "/v1/tables").json() == []


def test_a_defect_is_logged_and_not_told(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the secret")

    monkeypatch.setattr(module, "list_tables", fail)
    reply = get(application(stream.pipeline), "/v1/tables")
    require_problem(reply, 500)
    assert b"secret" not in reply.body
    assert "the secret" in caplog.text


@pytest.fixture
def heavy(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[float], tuple[Any, Lane, threading.Event]]]:
    """Makes an application to which every question is heavy, one at a time while one may wait, and none ends before
    the event is set."""
    go_on = threading.Event()
    original = Rollups.ask

    def slow(self: Rollups, *arguments: Any, **named: Any) -> Any:
        go_on.wait(60)
        return original(self, *arguments, **named)

    def make(deadline_s: float) -> tuple[Any, Lane, threading.Event]:
        lanes: dict[str, Lane] = {}
        monkeypatch.setattr(module, "Lane", lambda name, **how: lanes.setdefault(name, Lane(name, **how)))
        limits = Limits(deadline_s=deadline_s, heavy_rows=-1, heavy=(1, 1))
        return application(stream.pipeline, limits=limits), lanes["heavy"], go_on

    monkeypatch.setattr(Rollups, "ask", slow)
    yield make
    go_on.set()


def test_more_questions_than_there_are_places_are_turned_away_at_once(heavy: Any) -> None:
    app, lane, go_on = heavy(60)
    question = f"{ANSWER}?measure=events&{RANGE}"

    async def load() -> list[Reply]:
        taken = [asyncio.create_task(request(app, question)) for _ in range(2)]
        await until(lambda: lane._taken == 2)
        turned_away = await request(app, question)
        cheap = await request(app, "/v1/rollups")
        go_on.set()
        return [turned_away, cheap, *await asyncio.gather(*taken)]

    turned_away, *others = asyncio.run(load())
    require_problem(turned_away, 503)
    assert turned_away.headers["retry-after"] == "1"
    assert "2 heavy questions are being answered or wait" in turned_away.json()["detail"]
    assert [reply.status for reply in others] == [200, 200, 200]


def test_a_question_that_takes_too_long_ends_and_its_place_is_free_again(heavy: Any) -> None:
    app, lane, go_on = heavy(0.1)

    async def load() -> Reply:
        late = await request(app, f"{ANSWER}?measure=events&{RANGE}")
        go_on.set()
        await until(lambda: not lane._taken)
        return late

    late = asyncio.run(load())
    require_problem(late, 504)
    assert late.json()["detail"] == "the question was not answered within 0.1 s"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.005)


def test_a_lane_ends_only_what_has_not_begun() -> None:
    began: list[int] = []
    go_on = threading.Event()

    async def fill() -> None:
        lane = Lane("heavy", running=1, waiting=1, deadline_s=0.2)

        def work(number: int) -> None:
            began.append(number)
            go_on.wait(60)

        jobs = [asyncio.create_task(lane.run(lambda _, number=number: work(number))) for number in range(2)]  # type: ignore[misc]
        found = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(each) for each in found] == [TooSlow, TooSlow]
        await until(lambda: lane._taken == 1)  # the one that goes on
        go_on.set()
        await until(lambda: lane._taken == 0)
        assert began == [0]
        lane.close()

    asyncio.run(fill())


def test_work_that_is_late_is_not_gone_on_with(stream: Stream) -> None:
    from lakehouse.api.questions import parse

    asked = {"measure": "events", "from": "2027-01-15T07:00:00Z", "to": "2027-01-15T11:00:00Z"}
    query = parse(stream.pipeline, "by_page", asked.items())
    with pytest.raises(TooSlow, match="within the time that it had"):
        Rollups(stream.pipeline).ask(query, until_s=time.monotonic() - 1)


def test_the_server_listens_answers_and_ends(stream: Stream) -> None:
    stop, urls = threading.Event(), []
    started = threading.Event()
    thread = threading.Thread(
        target=serve, args=(stream.pipeline, stop), kwargs={"on_start": lambda url: (urls.append(url), started.set())}
    )
    thread.start()
    try:
        assert started.wait(30)
        host, _, port = urls[0].removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("GET", "/v1/health")
        reply = connection.getresponse()
        assert (reply.status, reply.getheader("server"), reply.getheader("x-content-type-options")) == (
            200, None, "nosniff",
        )  # fmt: skip
        connection.close()
        with pytest.raises(ConfigError, match="cannot listen"):
            serve(stream.pipeline, stop, port=int(port))
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def test_the_command_tells_where_it_listens(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse.api import server

    monkeypatch.setattr(cli, "load", lambda _: stream.pipeline)
    asked: dict[str, Any] = {}

    def pretend(_: object, __: object, **named: Any) -> None:
        named.pop("on_start")("http://127.0.0.1:8600")
        asked.update(named)

    monkeypatch.setattr(server, "serve", pretend)
    shown = CliRunner().invoke(cli.app, ["serve", "any.yaml", "--host", "lake.example", "--deadline", "2s"])
    assert shown.output == "http://127.0.0.1:8600/openapi.json\n"
    assert (asked["address"], asked["port"], asked["hosts"]) == ("127.0.0.1", 8600, ["lake.example"])
    assert asked["limits"].deadline_s == 2
