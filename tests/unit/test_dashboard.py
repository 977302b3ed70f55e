"""The dashboard without a browser: what messages say, and what the page does with filters and pause."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import charts
from dashboard.feed import Feed, board, open_feeds
from dashboard.layout import footnote, layout, spec
from dashboard.pace import Pace
from dashboard.views import live
from lakehouse.config.loader import load_pipeline
from lakehouse.config.models import EventTime, Pipeline, Quality, Source
from lakehouse.serving.figures import derived_tiles
from lakehouse.serving.follower import Follower
from lakehouse.serving.questions import Answers, Question
from lakehouse.serving.scale import SCALES
from lakehouse.serving.snapshot import Problem, Shape
from tests.hot_table import FIELDS, ROLLUP, Event, HotTable, partials

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
SHAPE = Shape.of(ROLLUP, FIELDS)
SHOP = Pipeline(
    name="shop",
    source=Source(servers="localhost:9092", topic="shop", fields={name: field.type for name, field in FIELDS.items()}),
    event_time=EventTime(column="feature"),
    quality=Quality(suite="suite.json"),
    rollups={"by_feature": ROLLUP, "by_region": ROLLUP},
)
LAYOUT = layout(SHOP, "by_feature")
FIVE = SCALES["1s"].ranges["5m"]
FEED: list[Feed] = []
"""What the page under test draws; the script that AppTest runs can only reach a module's attribute."""
PACE: list[Pace] = []
ACTS: list[dict[str, Any]] = []
"""What the viewer does on the board before the next run."""


def page() -> None:
    import streamlit as st

    from dashboard.alarms import Alarms
    from dashboard.frame import Frame
    from dashboard.views import live
    from tests.unit.test_dashboard import ACTS, FEED, PACE, SHOP

    if ACTS:
        live._act()  # a component's callback comes before the script, too
        # The run that follows may begin with what the browser said before it was told.
        st.session_state.update(ACTS.pop().get("told", {}))
    frame = Frame("feature_events", "conf/feature_events.yaml")
    live.show(live.Live(FEED[0], frame, Alarms(SHOP), PACE[0]), "Live")


@pytest.fixture
def table(tmp_path: Path) -> HotTable:
    return HotTable(tmp_path / "hot")


@pytest.fixture
def feed(table: HotTable, monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    feed = Feed(
        title="feature_events",
        table="feature_events_by_feature_1s",
        rollup="by_feature",
        follower=Follower(str(table.path), SHAPE),
        boards=Answers(partial(board, LAYOUT)),
        layout=LAYOUT,
        scale=SCALES["1s"],
    )
    monkeypatch.setattr("tests.unit.test_dashboard.FEED", [feed])
    monkeypatch.setattr("tests.unit.test_dashboard.PACE", [Pace()])
    monkeypatch.setattr("tests.unit.test_dashboard.ACTS", [])
    monkeypatch.setattr("dashboard.components.acted", lambda: ACTS[-1])
    yield feed
    feed.follower.stop()


def messages(app: AppTest) -> dict[str, dict[str, Any]]:
    """What the page sent to each of its own parts; of the board's two lines the first one is `badge`."""
    assert not app.exception, app.exception
    found: dict[str, dict[str, Any]] = {}

    def walk(block: Any) -> None:
        for child in block.children.values():
            if hasattr(child, "children"):
                walk(child)
            elif child.type == "bidi_component" and child.proto.bytes:
                name = child.proto.component_name.removeprefix("lakehouse_")
                *head, body = child.proto.bytes.split(b"\n")
                found[name] = orjson.loads(body)
                if head:
                    found["badge"] = orjson.loads(head[0])

    walk(app.main)
    return found


def leaders(board: dict[str, Any]) -> list[str]:
    return [row[0] for row in board["boards"][0]["rows"]]


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
    app = AppTest.from_function(page, default_timeout=60).run()
    sent = messages(app)
    assert sent["board"]["title"] == "Waiting for the first commit"
    assert "lakehouse run conf/feature_events.yaml" in sent["board"]["waiting"]
    assert sent["badge"]["state"] == "waiting"


def test_the_page_shows_the_newest_version(table: HotTable, feed: Feed) -> None:
    app = AppTest.from_function(page, default_timeout=60).run()
    filled(table, feed)
    sent = messages(app.run())
    board = sent["board"]
    assert board["version"] == 1
    assert list(board["tiles"]) == [
        "events", "errors-event", "latency_ms_kll-50", "latency_ms_kll-95", "latency_ms_kll-99", "users_hll",
    ]  # fmt: skip
    assert board["tiles"]["events"]["now"] == pytest.approx(4, rel=0.05)
    assert all(len(tile["spark"]) == 60 for tile in board["tiles"].values())
    assert leaders(board) in (["search", "login"], ["login", "search"])
    assert [name for name, _ in board["series"]["stacks"]["events"]] == ["login", "search"]
    assert len(board["series"]["heats"]["latency_ms_kll"]["columns"]) in (60, 61)
    assert sent["badge"]["state"] != "waiting"


def test_filters_come_from_the_url_and_go_there(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    app = AppTest.from_function(page, default_timeout=60)
    app.query_params["feature"] = "search"
    app.query_params["range"] = "1m"
    app.query_params["region"] = "nowhere-yet"
    board = messages(app.run())["board"]
    assert (board["minutes"], board["events"]) == (1, 0)
    assert app.multiselect(key="region").value == ["nowhere-yet"]
    app.multiselect(key="region").set_value([]).run()
    board = messages(app)["board"]
    assert leaders(board) == ["search"]
    assert app.query_params["feature"] == "search"


def test_a_click_on_a_value_filters_and_a_second_one_lets_all_in(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    app = AppTest.from_function(page, default_timeout=60).run()
    for chosen, shown in ((["login"], ["login"]), ([], ["login", "search"])):
        ACTS.append({"filter": ["feature", "login"]})
        board = messages(app.run())["board"]
        assert app.multiselect(key="feature").value == chosen
        assert sorted(leaders(board)) == shown
    ACTS.append({"filter": ["password", "x"]})
    assert sorted(leaders(messages(app.run())["board"])) == ["login", "search"]


def test_a_zoom_goes_into_the_url_and_out_of_it(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    app = AppTest.from_function(page, default_timeout=60).run()
    end = int(time.time()) - 20
    ACTS.append({"zoom": [end - 40, end]})
    board = messages(app.run())["board"]
    assert board["zoom"] == [end - 40, end]
    assert board["events"] == 160
    assert board["series"]["points"] == 40
    assert (app.query_params["from"], app.query_params["to"]) == (str(end - 40), str(end))
    ACTS.append({"zoom": []})
    assert messages(app.run())["board"]["zoom"] is None
    assert "from" not in app.query_params


def test_a_click_is_not_taken_back_by_what_the_browser_said_before(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    app = AppTest.from_function(page, default_timeout=60).run()
    ACTS.append({"filter": ["feature", "search"], "told": {"feature": []}})
    board = messages(app.run())["board"]
    assert [row[0] for row in board["boards"][0]["rows"]] == ["search"]
    assert app.query_params["feature"] == "search"


@pytest.mark.parametrize(
    ("start", "end", "title"),
    [("100", "200", "This range is not held here any more"), ("x", "5", None), ("9" * 40, "9" * 41, None)],
)
def test_a_range_from_the_url_may_be_anything(
    table: HotTable, feed: Feed, start: str, end: str, title: str | None
) -> None:
    filled(table, feed)
    app = AppTest.from_function(page, default_timeout=60)
    app.query_params["from"], app.query_params["to"] = start, end
    board = messages(app.run())["board"]
    assert board.get("title") == title
    if title:
        assert "`lakehouse ask`" in board["waiting"]


def test_a_stretched_interval_is_told(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    PACE[0].factor = 4.0
    badge = messages(AppTest.from_function(page, default_timeout=60).run())["badge"]
    assert (badge["chosen_s"], badge["every_s"], badge["viewers"]) == (0.25, 1.0, 0)
    assert badge["alerts"] == {"rules": 0, "problem": "", "alerts": []}


def test_an_interval_that_changes_between_two_whole_runs_sets_the_pages_timer(
    table: HotTable, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(table, feed)
    sent: list[Any] = []
    told = iter([0.25, 1.0, 0.25, 0.25])
    monkeypatch.setattr(live, "get_script_run_ctx", lambda: SimpleNamespace(session_id="a", enqueue=sent.append))
    monkeypatch.setattr(Pace, "interval", lambda _pace, _chosen_s: next(told))
    app = AppTest.from_function(page, default_timeout=60).run()
    assert messages(app)["badge"]["every_s"] == 1.0
    (message,) = sent
    assert message.auto_rerun.interval == pytest.approx(PACE[0].timer("a", 1.0))
    assert message.auto_rerun.fragment_id
    app.run()
    assert len(sent) == 1, "where nothing has changed, nothing is said"


def test_a_page_is_made_of_live_metrics_alone() -> None:
    exact = {"name": "ids_exact", "type": "distinct", "column": "region", "sketch": "theta"}
    spread = {"name": "spread", "type": "variance", "column": "region"}
    rollup = {"dimensions": ["region"], "metrics": [exact, spread, {"name": "n", "type": "count"}]}
    found = layout(Pipeline.model_validate(SHOP.model_dump() | {"rollups": {"r": rollup}}), "r")
    assert [tile["label"] for tile in found.tiles] == ["Events per second", "N per second"]
    assert [panel["kind"] for panel in found.panels] == ["series", "series", "leaderboard"]


def test_a_page_shows_what_its_file_declares(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    pipeline = Pipeline.model_validate(
        SHOP.model_dump()
        | {
            "dashboard": {
                "by_feature": {
                    "tiles": [{"metric": "latency_ms_max", "label": "Slowest"}, "users_hll"],
                    "panels": [
                        {"kind": "series", "figures": [{"metric": "errors", "per": "second"}]},
                        {
                            "kind": "series",
                            "figures": [{"metric": "latency_ms_kll", "quantile": q} for q in (0.5, 0.9)],
                        },
                        {"kind": "leaderboard", "dimension": "region", "figures": ["events", "errors"]},
                    ],
                }
            }
        }
    )
    declared = layout(pipeline, "by_feature")
    found = orjson.loads(board(declared, feed.follower.snapshot, Question(FIVE, split="region"), time.time() * 1000))
    assert [(tile["label"], tile["unit"]) for tile in found["specs"]] == [("Slowest", "ms"), ("Distinct users", "")]
    assert found["tiles"]["latency_ms_max"]["now"] == 59.0
    assert [panel["title"] for panel in found["panels"]] == ["Errors per second", "Latency", "By region"]
    assert [line["label"] for line in found["panels"][1]["lines"]] == ["p50", "p90"]
    assert list(found["series"]["lines"]) == ["latency_ms_kll-50", "latency_ms_kll-90"]
    assert [name for name, _ in found["series"]["stacks"]["errors"]] == ["eu", "us"]
    assert found["series"]["heats"] == {}
    assert sorted(row[0] for row in found["boards"][0]["rows"]) == ["eu", "us"]
    assert "Distinct users are within" in found["foot"]


def test_pause_holds_the_snapshot_and_lets_filters_work(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    app = AppTest.from_function(page, default_timeout=60).run()
    app.toggle(key="pause").set_value(True).run()
    table.append(partials([Event(time.time(), "search", "eu")]))
    feed.follower.step()
    sent = messages(app.run())
    assert sent["board"]["version"] == 1
    assert sent["badge"]["paused"] is True
    app.multiselect(key="feature").set_value(["login"]).run()
    assert leaders(messages(app)["board"]) == ["login"]
    app.toggle(key="pause").set_value(False).run()
    assert messages(app)["board"]["version"] == 2


def test_a_new_value_becomes_an_option(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    app = AppTest.from_function(page, default_timeout=60).run()
    assert app.multiselect(key="feature").options == ["login", "search"]
    table.append(partials([Event(time.time(), "share", "eu")]))
    feed.follower.step()
    assert app.run().multiselect(key="feature").options == ["login", "search", "share"]


def test_the_same_version_and_question_is_the_same_message(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    now = time.time() * 1000
    first, second = (feed.boards.get(feed.follower.snapshot, Question(FIVE), now + later) for later in (0, 200))
    assert first is second


def test_a_problem_is_shown_with_the_last_state(table: HotTable, feed: Feed) -> None:
    filled(table, feed)
    feed.follower._fail(OSError("disk gone"))
    assert isinstance(feed.follower.snapshot.problem, Problem)
    sent = messages(AppTest.from_function(page, default_timeout=60).run())
    assert sent["badge"]["problem"] == "OSError: disk gone"
    assert sent["board"]["version"] == 1


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
    question = Question(FIVE, split="feature")
    found = orjson.loads(board(LAYOUT, feed.follower.snapshot, question, time.time() * 1000))
    assert found["tiles"]["events"]["now"] == 0
    assert found["tiles"]["latency_ms_kll-95"]["now"] is None
    assert found["series"]["stacks"]["events"] == []
    assert set(found["series"]["heats"]["latency_ms_kll"]["columns"]) == {""}
    assert found["boards"][0]["rows"] == []


def test_sparklines_are_thinned_and_keep_gaps() -> None:
    points = charts._spark([float(value) for value in range(300)])
    assert len(points) == 60
    assert points[0] == 2.0
    assert charts._spark([None, 1.0]) == [None, 1.0]
    assert charts._spark([]) == []


def test_the_footnote_states_the_error_of_the_sketches() -> None:
    assert "±1.33% of rank" in LAYOUT.foot
    assert "±3.2% (95 %)" in LAYOUT.foot


def test_tiles_are_named_by_the_metrics() -> None:
    assert [tile["label"] for tile in LAYOUT.tiles][1:3] == ["Errors", "Latency p50"]
    payments = load_pipeline(APP.parents[1] / "conf" / "card_payments.yaml", {})
    made = {}
    for rollup in payments.rollups.values():
        shape = Shape.of(rollup, payments.source.fields)
        tiles = derived_tiles(rollup, shape)
        made |= {told["id"]: (told["label"], told["unit"], told["good"]) for told in map(spec, tiles)}
        assert "within ±" in footnote(shape, tiles)
    assert made["events"] == ("Events per second", "/s", 0)
    assert made["declined-event"] == ("Declined", "%", -1)
    assert made["amount_eur_kll-95"] == ("Amount p95", "€", 0)
    assert made["cards_hll"] == ("Distinct cards", "", 0)
    assert made["online-event"] == ("Online", "%", 0)
    assert made["authorisation_ms_kll-99"] == ("Authorisation p99", "ms", -1)


def test_feeds_follow_every_rollup(tmp_path: Path) -> None:
    pipeline = SHOP.model_copy(update={"root": str(tmp_path)})
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
    app = AppTest.from_file(APP, default_timeout=60).run()
    assert not app.exception
    assert app.error[0].value == "The dashboard cannot start."
    assert "missing.yaml" in app.code[0].value
