"""The dashboard without a browser: what messages say, and what the page does with filters and pause."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import charts
from dashboard.feed import Feed, open_feeds
from lakehouse.config.loader import load_pipeline
from lakehouse.config.models import EventTime, Pipeline, Quality, Source
from lakehouse.serving.follower import Follower
from lakehouse.serving.questions import Answers, Question, answer
from lakehouse.serving.snapshot import Problem, Shape
from tests.hot_table import FIELDS, ROLLUP, Event, HotTable, partials

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
SHAPE = Shape.of(ROLLUP, FIELDS)
FEED: list[Feed] = []
"""What the page under test draws; the script that AppTest runs can only reach a module's attribute."""


def page() -> None:
    from dashboard.frame import Frame
    from dashboard.views import live
    from tests.unit.test_dashboard import FEED

    live.show(FEED[0], Frame("feature_events", "conf/feature_events.yaml"), "Live")


@pytest.fixture
def table(tmp_path: Path) -> HotTable:
    return HotTable(tmp_path / "hot")


@pytest.fixture
def feed(table: HotTable, monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    boards = Answers(
        lambda snapshot, question, now: charts.encode_board(snapshot, question, answer(snapshot, question, now))
    )
    feed = Feed(
        "feature_events", "feature_events_by_feature_1s", "by_feature", Follower(str(table.path), SHAPE), boards
    )
    monkeypatch.setattr("tests.unit.test_dashboard.FEED", [feed])
    yield feed
    feed.follower.stop()


def messages(app: AppTest) -> dict[str, dict[str, Any]]:
    """What the page sent to each of its own parts."""
    assert not app.exception, app.exception
    found: dict[str, dict[str, Any]] = {}

    def walk(block: Any) -> None:
        for child in block.children.values():
            if hasattr(child, "children"):
                walk(child)
            elif child.type == "bidi_component" and child.proto.bytes:
                found[child.proto.component_name] = orjson.loads(child.proto.bytes)

    walk(app.main)
    return found


def filled(table: HotTable, feed: Feed) -> None:
    now = time.time()
    events = [
        Event(
            now - back / 4,
            ("search", "login")[back % 2],
            ("eu", "us")[back % 3 == 0],
            back,
            10.0 + back % 50,
            back % 10 == 0,
        )
        for back in range(1600)
    ]
    table.create().append(partials(events, batch_id=5))
    feed.follower.step()


@pytest.mark.usefixtures("feed")
def test_the_page_waits_for_a_table() -> None:
    app = AppTest.from_function(page).run()
    sent = messages(app)
    assert sent["lakehouse_board"]["title"] == "Waiting for the first commit"
    assert "lakehouse run conf/feature_events.yaml" in sent["lakehouse_board"]["waiting"]
    assert sent["lakehouse_badge"]["state"] == "waiting"


def test_the_page_shows_the_newest_version(table: HotTable, feed: Feed) -> None:
    app = AppTest.from_function(page).run()
    filled(table, feed)
    sent = messages(app.run())
    board = sent["lakehouse_board"]
    assert board["version"] == 1
    assert board["tiles"].keys() == {"rate", "errors", "p50", "p95", "p99", "users"}
    assert board["tiles"]["rate"]["now"] == pytest.approx(4, rel=0.05)
    assert [leader["name"] for leader in board["leaders"]] in (["search", "login"], ["login", "search"])
    assert sent["lakehouse_badge"]["state"] in ("fresh", "late")


def test_filters_come_from_the_url_and_go_there(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    app = AppTest.from_function(page)
    app.query_params["feature"] = "search"
    app.query_params["range"] = "1m"
    app.query_params["region"] = "nowhere-yet"
    board = messages(app.run())["lakehouse_board"]
    assert (board["minutes"], board["events"]) == (1, 0)
    assert app.multiselect(key="region").value == ["nowhere-yet"]
    app.multiselect(key="region").set_value([]).run()
    board = messages(app)["lakehouse_board"]
    assert [leader["name"] for leader in board["leaders"]] == ["search"]
    assert app.query_params["feature"] == "search"


def test_pause_holds_the_snapshot_and_lets_filters_work(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    app = AppTest.from_function(page).run()
    app.toggle(key="pause").set_value(True).run()
    table.append(partials([Event(time.time(), "search", "eu")]))
    feed.follower.step()
    sent = messages(app.run())
    assert sent["lakehouse_board"]["version"] == 1
    assert sent["lakehouse_badge"]["paused"] is True
    app.multiselect(key="feature").set_value(["login"]).run()
    assert [leader["name"] for leader in messages(app)["lakehouse_board"]["leaders"]] == ["login"]
    app.toggle(key="pause").set_value(False).run()
    assert messages(app)["lakehouse_board"]["version"] == 2


def test_a_new_value_becomes_an_option(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    app = AppTest.from_function(page).run()
    assert app.multiselect(key="feature").options == ["login", "search"]
    table.append(partials([Event(time.time(), "share", "eu")]))
    feed.follower.step()
    assert app.run().multiselect(key="feature").options == ["login", "search", "share"]


def test_the_same_version_and_question_is_the_same_message(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    now = time.time() * 1000
    first, second = (feed.boards.get(feed.follower.snapshot, Question(5), now + later) for later in (0, 200))
    assert first is second


def test_a_problem_is_shown_with_the_last_state(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    feed.follower._fail(OSError("disk gone"))
    assert isinstance(feed.follower.snapshot.problem, Problem)
    sent = messages(AppTest.from_function(page).run())
    assert sent["lakehouse_badge"]["problem"] == "OSError: disk gone"
    assert sent["lakehouse_board"]["version"] == 1


def test_the_badge_ages_at_each_render(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    snapshot = feed.follower.snapshot
    assert snapshot.max_event_ms is not None
    made = [
        orjson.loads(charts.encode_badge(snapshot, snapshot.max_event_ms + age, paused=False, problem=None))
        for age in (500, 1500, 8000)
    ]
    assert [badge["state"] for badge in made] == ["fresh", "late", "stale"]
    assert [badge["age_ms"] for badge in made] == [500, 1500, 8000]


def test_a_board_of_no_events_is_complete(table: HotTable, feed: Feed) -> None:
    table.create()
    feed.follower.step()
    snapshot = feed.follower.snapshot
    found = answer(snapshot, Question(5, split="feature"), time.time() * 1000)
    board = orjson.loads(charts.encode_board(snapshot, Question(5, split="feature"), found))
    assert board["tiles"]["rate"]["now"] == 0
    assert board["tiles"]["p95"]["now"] is None
    assert board["series"]["rates"] == []
    assert board["leaders"] == []


def test_sparklines_are_thinned_and_keep_gaps() -> None:
    tile = charts._tile(1.0, None, [float(value) for value in range(300)], 2)
    assert len(tile["spark"]) == 60
    assert tile["spark"][0] == 2.0
    assert charts._tile(None, None, [None, 1.0], 2)["spark"] == [None, 1.0]
    assert charts._tile(0.0, 0.0, [], 2)["spark"] == []


def test_the_footnote_states_the_error_of_the_sketches() -> None:
    text = charts.footnote(SHAPE)
    assert "±1.33% of rank" in text
    assert "±3.2% (95 %)" in text


def test_tiles_are_named_by_the_metrics() -> None:
    assert [spec["label"] for spec in charts.specs(SHAPE)][1:3] == ["Errors", "Latency p50"]
    payments = load_pipeline(APP.parents[1] / "conf" / "card_payments.yaml", {})
    made = {
        name: {
            spec["id"]: (spec["label"], spec["unit"], spec["good"])
            for spec in charts.specs(Shape.of(rollup, payments.source.fields))
        }
        for name, rollup in payments.rollups.items()
    }
    assert made["by_category"]["errors"] == ("Declined", "%", -1)
    assert made["by_category"]["p95"] == ("Amount p95", "€", 0)
    assert made["by_category"]["users"] == ("Distinct cards", "", 0)
    assert made["by_country"]["errors"] == ("Online", "%", 0)
    assert made["by_country"]["p99"] == ("Authorisation p99", "ms", -1)
    assert "Distinct merchants are within ±2.3% (95 %)" in charts.footnote(
        Shape.of(payments.rollups["by_country"], payments.source.fields)
    )


def test_feeds_follow_every_rollup(tmp_path: Path) -> None:
    pipeline = Pipeline(
        name="shop",
        root=str(tmp_path),
        source=Source(
            servers="localhost:9092", topic="shop", fields={name: field.type for name, field in FIELDS.items()}
        ),
        event_time=EventTime(column="feature"),
        quality=Quality(suite="suite.json"),
        rollups={"by_feature": ROLLUP, "by_region": ROLLUP},
    )
    feeds = open_feeds(pipeline)
    try:
        assert [feed.table for feed in feeds] == ["shop_by_feature_1s", "shop_by_region_1s"]
        HotTable(tmp_path / "gold" / "shop_by_region_1s").create()
        assert feeds[1].follower.wait_for(0, 5).version == 0
        assert feeds[0].follower.snapshot.version == -1
    finally:
        for feed in feeds:
            feed.follower.stop()


def test_a_config_that_does_not_load_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["app.py", str(tmp_path / "missing.yaml")])
    app = AppTest.from_file(APP).run()
    assert not app.exception
    assert app.error[0].value == "The dashboard cannot start."
    assert "missing.yaml" in app.code[0].value
