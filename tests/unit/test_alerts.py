"""Alerts: each kind against tables and a clock of the test's own, what follows over time, and what is remembered."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from lakehouse.alerts import evaluator, history
from lakehouse.alerts.conditions import FIGURES, levels
from lakehouse.alerts.evaluator import Evaluator
from lakehouse.alerts.figures import KNOWN_S
from lakehouse.alerts.finding import Finding
from lakehouse.alerts.standings import Standing, advance, tell
from lakehouse.config.checks import check
from lakehouse.config.models import AnyAlert, FigureName, Pipeline
from lakehouse.errors import ConfigError
from lakehouse.lock import alert_lock
from lakehouse.schemas import OPS_SCHEMA
from lakehouse.serving import beacon
from lakehouse.sinks.journal import Journal
from tests.maintained import FakeTime, Stream
from tests.pipelines import small_pipeline

START_S = time.time() // 3_600 * 3_600.0


class Room:
    """A pipeline with alerts, its tables, and a clock that the test moves."""

    def __init__(self, root: Path, clock: FakeTime, rules: dict[str, Any], **settings: Any) -> None:
        self.root = root
        self.clock = clock
        self.stream = Stream(root)
        self.pipeline: Pipeline = small_pipeline(root, alerts={"rules": rules, **settings})
        self.told: list[tuple[str, str]] = []
        self.evaluator = self.open()

    @property
    def now_s(self) -> float:
        return self.clock.now_s

    def open(self) -> Evaluator:
        return Evaluator(self.pipeline, clock=lambda: self.now_s, on_news=self._news)

    def _news(self, news: list[Finding]) -> None:
        self.told += [(found.name, found.told) for found in news if found.told]
        kept = history.journal(self.pipeline)
        kept.append(lambda: [found.to_row() for found in news])
        kept.close()
        assert kept.left_out == 0

    def send(self, count: int, *, at_s: float | None = None) -> None:
        self.stream.send(count, at_s=self.now_s if at_s is None else at_s)

    def ops(self, **changes: Any) -> None:
        row = {"time": datetime.fromtimestamp(self.now_s, UTC), "batch_id": 1, "kafka_reachable": True} | changes
        kept = Journal(f"{self.root}/_ops/clicks", OPS_SCHEMA, what="a row")
        kept.append(lambda: [row])
        kept.close()
        assert kept.left_out == 0

    def states(self, after_s: float = 0.0) -> dict[str, str]:
        return {found.name: found.standing.state for found in self.step(after_s)}

    def step(self, after_s: float = 0.0) -> list[Finding]:
        self.clock.now_s += after_s
        return self.evaluator.step()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """Commits and files are made at its time, and alerts evaluated. Journals' files know the real hour."""
    return FakeTime(monkeypatch, START_S)


def one(kind: str, **keys: Any) -> dict[str, Any]:
    of_rollup = {} if kind in ("lag", "quarantine", "figure") else {"rollup": "by_page"}
    return {"it": {"kind": kind, **of_rollup, **keys}}


# The stream's rows: `page` cycles over a, b, c and null, every fifth has failed, `ms` is up to 15.75.


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ({"limit": 99}, 100.0),
        ({"limit": 1, "per": "second", "window": "50s"}, 2.0),
        ({"metric": "errors", "limit": 19}, 20.0),
        ({"metric": "errors", "per": "event", "limit": 0.19}, 0.2),
        ({"metric": "ms_max", "limit": 15}, 15.75),
        ({"metric": "ms_min", "when": "below", "limit": 0.1}, 0.0),
        ({"metric": "ms_kll", "quantile": 1.0, "limit": 15}, 15.75),
        ({"metric": "users_hll", "limit": 49}, pytest.approx(50, rel=0.03)),
        ({"limit": 20, "where": {"page": "a"}}, 30.0),
        ({"limit": 50, "where": {"page": ["a", "b"]}}, 60.0),
        ({"when": "below", "limit": 1, "where": {"page": "nowhere"}}, 0.0),
    ],
)
def test_a_threshold_on_any_metric_of_a_rollup(
    keys: dict[str, Any], value: Any, tmp_path: Path, clock: FakeTime
) -> None:
    room = Room(tmp_path, clock, one("threshold", **keys))
    room.send(100)
    [found] = room.step(after_s=4)
    assert found.standing.state == "firing", found
    assert found.reading.value == value
    # Events leave the window with time; a metric that has no value then compares as neither.
    [later] = room.step(after_s=200)
    fires = keys.get("when") == "below" and keys.get("metric") is None
    assert (later.standing.state == "firing") == fires


def test_what_lies_inside_the_limit_does_not_fire(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(
        tmp_path, clock, one("threshold", limit=100) | {"low": {**one("threshold", limit=100)["it"], "when": "below"}}
    )
    room.send(100)
    assert room.states(after_s=4) == {"it": "inactive", "low": "inactive"}


def test_absence_of_all_events_or_of_some(tmp_path: Path, clock: FakeTime) -> None:
    rules = {
        "any": {"kind": "absence", "rollup": "by_page", "window": "30s"},
        "of_c": {"kind": "absence", "rollup": "by_page", "window": "30s", "where": {"page": "zz"}},
    }
    room = Room(tmp_path, clock, rules)
    room.send(20)
    assert room.states() == {"any": "inactive", "of_c": "firing"}
    assert room.states(after_s=29) == {"any": "inactive", "of_c": "firing"}
    assert room.states(after_s=4) == {"any": "firing", "of_c": "firing"}
    room.send(20)
    assert room.states()["any"] == "inactive"


def test_freshness_is_the_age_of_the_newest_event(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, one("freshness", limit="5s"))
    assert room.states(after_s=60) == {"it": "inactive"}, "nothing is known before the first event"
    room.send(20)
    assert room.states(after_s=4) == {"it": "inactive"}
    [found] = room.step(after_s=2)
    assert found.standing.state == "firing"
    assert found.reading.value == pytest.approx(6, abs=0.01)


def test_lag_over_all_partitions_and_what_is_not_known(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, one("lag", limit=100))
    assert room.states() == {"it": "inactive"}
    room.ops(lag=[(0, 60), (1, 40)])
    assert room.states(after_s=1) == {"it": "inactive"}
    room.ops(lag=[(0, 61), (1, 40)], batch_id=None)
    [found] = room.step(after_s=1)
    assert (found.standing.state, found.reading.value) == ("firing", 101.0)
    # While Kafka does not answer, or nobody writes, the alert neither ends nor begins.
    room.ops(lag=[], kafka_reachable=False)
    assert room.states(after_s=1) == {"it": "firing"}
    assert room.states(after_s=KNOWN_S + 5) == {"it": "firing"}
    room.ops(lag=[(0, 0)])
    assert room.states(after_s=1) == {"it": "inactive"}


def test_the_share_in_quarantine_and_of_one_rule(tmp_path: Path, clock: FakeTime) -> None:
    rules = {
        "refused": {"kind": "quarantine", "limit": 0.05, "window": "1m", "least_records": 50},
        "ids": {"kind": "quarantine", "limit": 0.5, "window": "1m", "rule": "ids"},
    }
    room = Room(tmp_path, clock, rules)
    room.ops(rows=[("silver/clicks", 20), ("quarantine/clicks", 20), ("gold/clicks_by_page_1s", 999)])
    assert room.states(after_s=1)["refused"] == "inactive", "too few records to say"
    room.ops(rows=[("silver/clicks", 60), ("quarantine/clicks", 0)], failed=[("ids", 51)])
    room.evaluator.step()
    room.ops(rows=[("silver/clicks", 5)], failed=[("ids", 1)])
    found = {one.name: one for one in room.step(after_s=1)}
    assert found["refused"].standing.state == "firing"
    assert found["refused"].reading.value == pytest.approx(20 / 105)
    assert found["ids"].standing.state == "inactive"
    room.ops(rows=[("silver/clicks", 4)], failed=[("ids", 3)])
    assert room.states(after_s=1)["ids"] == "firing"
    assert room.states(after_s=70) == {"refused": "inactive", "ids": "inactive"}


def figure(name: str, limit: float, **keys: Any) -> dict[str, Any]:
    return one("figure", figure=name, limit=limit, **keys)


def only(room: Room, after_s: float = 0.0) -> tuple[str, float | None]:
    [found] = room.step(after_s)
    return found.standing.state, found.reading.value


def test_kafka_that_does_not_answer_is_counted_from_its_first_silence(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, figure("kafka_unreachable_seconds", 5))
    assert only(room) == ("inactive", None)
    room.ops(kafka_reachable=True)
    assert only(room, 1) == ("inactive", 0.0)
    room.ops(kafka_reachable=False, batch_id=None)
    assert only(room, 4) == ("inactive", 4.0)
    room.ops(kafka_reachable=False, batch_id=None)
    room.ops(kafka_reachable=None, batch_id=None)  # a driver that waits for the answer says that it lives
    assert only(room, 2) == ("firing", 6.0)
    room.ops(kafka_reachable=True, batch_id=None)
    assert only(room, 1) == ("inactive", 0.0)
    assert only(room, KNOWN_S + 1) == ("inactive", None)


def test_a_driver_that_says_nothing(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, figure("silent_seconds", 6))
    assert only(room, 100) == ("inactive", None)
    room.ops(batch_id=None, kafka_reachable=None)
    assert only(room, 6) == ("inactive", 6.0)
    assert only(room, 1) == ("firing", 7.0)
    assert only(room, 3_600)[0] == "firing"
    room.ops()
    assert only(room)[0] == "inactive"


def test_maintenance_that_stands_still(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, figure("unmaintained_seconds", 30))
    room.ops()
    assert only(room) == ("inactive", None)
    moment = datetime.fromtimestamp(room.now_s, UTC)
    room.ops(maintained=moment)
    assert only(room, 20) == ("inactive", 20.0)
    room.ops(maintained=moment)
    assert only(room, 11) == ("firing", 31.0)
    # Once the driver is gone as well, nobody knows.
    assert only(room, KNOWN_S) == ("firing", None)


def test_commits_that_take_long_on_average(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, figure("commit_seconds", 0.5, window="10s"))
    for seconds in (0.1, 0.2, None):
        room.ops(commit_seconds=seconds)
    assert only(room, 1) == ("inactive", pytest.approx(0.1))
    room.ops(commit_seconds=3.7)
    assert only(room, 1) == ("firing", pytest.approx(1.0))
    assert only(room, 60) == ("firing", None)


def test_clocks_that_are_ahead_and_events_that_come_late(tmp_path: Path, clock: FakeTime) -> None:
    rules = figure("clock_ahead_seconds", 5) | {"late": figure("late_share", 0.5)["it"]}
    room = Room(tmp_path, clock, rules)
    room.ops(ahead_seconds=4.0, late=50, rows=[("silver/clicks", 99)])
    assert room.states(after_s=1) == {"it": "inactive", "late": "inactive"}
    room.ops(ahead_seconds=60.0, late=30, rows=[("silver/clicks", 60)])
    assert room.states(after_s=1) == {"it": "firing", "late": "firing"}
    room.ops(ahead_seconds=0.0, late=0, rows=[("silver/clicks", 400)])
    assert room.states(after_s=1) == {"it": "firing", "late": "inactive"}
    assert room.states(after_s=70) == {"it": "firing", "late": "inactive"}, "without a batch nothing is known"
    room.ops(ahead_seconds=0.0)
    assert room.states(after_s=1)["it"] == "inactive"


def test_a_suite_that_refuses_more_than_the_one_before(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, figure("suite_change_share", 0.2, window="10s"))

    def judged(suite: str, valid: int, refused: int) -> None:
        room.ops(suite_sha256=suite, rows=[("silver/clicks", valid), ("quarantine/clicks", refused)])

    judged("good", 95, 5)
    assert only(room, 5) == ("inactive", None)
    judged("bad", 40, 30)
    assert only(room, 5) == ("inactive", None), "70 records say too little"
    judged("bad", 0, 30)
    assert only(room, 1) == ("firing", pytest.approx(0.55))
    assert only(room, 300) == ("firing", None), "without records it neither ends nor begins"
    judged("good", 99, 1)
    assert only(room, 1) == ("inactive", pytest.approx(0.01 - 0.6))


def test_the_room_on_the_disk(tmp_path: Path, clock: FakeTime, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(tmp_path, clock, figure("disk_free_bytes", 10, when="below"))
    assert only(room)[0] == "inactive"
    monkeypatch.setattr("lakehouse.storage.shutil.disk_usage", lambda _: SimpleNamespace(free=9, total=99))
    assert only(room) == ("firing", 9.0)


def test_a_dashboard_that_falls_behind_stands_still_or_is_gone(tmp_path: Path, clock: FakeTime) -> None:
    follower = SimpleNamespace(current_s=START_S)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    served = beacon.serve(address, "clicks", {"gold/a": follower}, clock=lambda: clock.now_s)  # type: ignore[dict-item]
    rules = figure("dashboard_behind_seconds", 5)
    room = Room(tmp_path, clock, rules)
    room.pipeline = small_pipeline(tmp_path, metrics={"dashboard": address}, alerts={"rules": rules})
    room.evaluator = room.open()
    assert only(room) == ("inactive", 0.0)
    assert only(room, 6) == ("firing", 6.0)
    follower.current_s = clock.now_s
    assert only(room) == ("inactive", 0.0)
    with pytest.raises(ConfigError, match=r"metrics\.dashboard"):
        beacon.serve(address, "clicks", {})
    served.shutdown()
    served.server_close()
    assert only(room, 4) == ("inactive", 4.0)
    assert only(room, 4) == ("firing", 8.0)


def test_a_figure_that_can_never_be_known_is_refused(tmp_path: Path) -> None:
    rules = {
        "disk": figure("disk_free_bytes", 1)["it"],
        "page": figure("dashboard_behind_seconds", 1)["it"],
        "kept": figure("unmaintained_seconds", 1, window="1d")["it"],
    }
    made = {"alerts": {"rules": rules}, "maintenance": {"background": False}}
    pipeline = small_pipeline(tmp_path, **made).model_copy(update={"root": "s3://bucket/x"})
    said = " ".join(found.what for found in check(pipeline))
    for part in ("an object store", "where a dashboard", "does not maintain", "the window is 1d"):
        assert part in said
    bad = small_pipeline(tmp_path, metrics={"dashboard": "nowhere"})
    assert [found.path for found in check(bad)] == [("metrics", "dashboard")]


def test_rows_of_an_earlier_version_are_read_and_gain_the_new_columns(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, figure("clock_ahead_seconds", 5))
    old = pa.schema([field for field in OPS_SCHEMA if field.name not in ("ahead_seconds", "maintained")])
    kept = Journal(f"{tmp_path}/_ops/clicks", old, what="a row")
    kept.append(lambda: [{"time": datetime.fromtimestamp(room.now_s, UTC), "batch_id": 1, "kafka_reachable": True}])
    kept.close()
    assert only(room) == ("inactive", 0.0)
    room.ops(ahead_seconds=9.0)
    assert only(room, 1) == ("firing", 9.0)
    rows = DeltaTable(f"{tmp_path}/_ops/clicks").to_pyarrow_table()
    assert sorted(rows["ahead_seconds"].to_pylist(), key=bool) == [None, 9.0]


def test_a_burn_rate_needs_the_long_and_the_short_window(tmp_path: Path, clock: FakeTime) -> None:
    pair = {"long": "10m", "short": "1m", "factor": 10}
    room = Room(tmp_path, clock, one("burn_rate", errors="errors", objective=0.99, windows=[pair]))
    # A fifth of the events fail: 20 times the budget of a hundredth, in both windows.
    room.send(100)
    [found] = room.step(after_s=4)
    assert found.standing.state == "firing"
    assert found.reading.value == pytest.approx(20)
    # Five minutes later the long window still burns, the short one does not: it is over.
    [later] = room.step(after_s=300)
    assert (later.standing.state, later.reading.value) == ("inactive", 0.0)


def test_windows_of_hours_are_read_from_wide_buckets(tmp_path: Path, clock: FakeTime) -> None:
    windows = [{"long": "6h", "short": "30m", "factor": 6}]
    room = Room(tmp_path, clock, one("burn_rate", errors="errors", objective=0.99, windows=windows))
    clock.now_s = START_S + 5 * 3_600
    room.send(100, at_s=START_S)  # 20 of 100 failed, five hours ago
    [found] = room.step()
    assert found.reading.value == 0.0, "the short window is quiet"
    room.send(100, at_s=room.now_s - 60)
    [found] = room.step()
    assert found.standing.state == "firing"
    assert levels([timedelta(hours=6)])[-1].width == 900


def test_a_long_window_loses_no_event_at_its_start(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, one("threshold", window="10m", limit=99))
    room.send(100, at_s=START_S + 30)
    clock.now_s = START_S + 620  # the window begins within the minute of these events, which is one bucket by now
    [found] = room.step()
    assert found.reading.value == 100.0


def test_a_journal_that_is_compacted_counts_no_row_twice(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, one("quarantine", limit=0.5))
    for refused in (30, 30):
        room.ops(rows=[("silver/clicks", 100), ("quarantine/clicks", refused)])
        room.evaluator.step()
    DeltaTable(f"{tmp_path}/_ops/clicks").optimize.compact()
    room.ops(rows=[("silver/clicks", 0), ("quarantine/clicks", 20)])
    [found] = room.step(after_s=1)
    assert "80 of 280 records" in found.reading.summary


def test_a_table_that_cannot_be_read_changes_no_state(
    tmp_path: Path, clock: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    room = Room(tmp_path, clock, one("threshold", limit=1))
    room.send(100)
    assert room.states(after_s=4) == {"it": "firing"}
    log = tmp_path / "gold" / "clicks_by_page_1s" / "_delta_log"
    (log / f"{room.stream.batches + 1:020}.json").write_text("no commit")
    for _ in range(2):
        assert room.states(after_s=200) == {"it": "firing"}
    assert caplog.text.count("alerts cannot read by_page") == 1


def test_pending_firing_over_and_who_is_told(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, one("freshness", limit="5s", hold_for="10s"), repeat_every="1h")
    room.send(10)
    assert room.states() == {"it": "inactive"}
    assert room.states(after_s=6) == {"it": "pending"}
    assert room.states(after_s=9) == {"it": "pending"}
    assert room.told == []
    assert room.states(after_s=1) == {"it": "firing"}
    for _ in range(5):
        room.step(after_s=60)
    assert room.told == [("it", "firing")], "told once"
    room.step(after_s=3_600)
    assert room.told == [("it", "firing")] * 2, "and again while it goes on"
    room.send(10)
    assert room.states(after_s=1) == {"it": "inactive"}
    assert room.told[-1] == ("it", "resolved")
    kept = history.read(room.pipeline)
    assert [row["state"] for row in kept] == ["pending", "firing", "firing", "inactive"]
    assert kept[1]["runbook"] == "docs/runbooks/freshness.md"
    assert kept[1]["since"] == datetime.fromtimestamp(START_S + 6, UTC)


def test_a_condition_that_does_not_last_tells_nobody(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, one("freshness", limit="5s", hold_for="10s"))
    room.send(10)
    assert room.states(after_s=7) == {"it": "pending"}
    room.send(10)
    assert room.states() == {"it": "inactive"}
    assert room.told == []


def test_a_new_evaluator_goes_on_where_the_last_one_ended(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, one("freshness", limit="5s", hold_for="10s"))
    room.send(10)
    assert room.states(after_s=6) == {"it": "pending"}
    room.evaluator = room.open()
    assert room.states(after_s=11) == {"it": "firing"}
    room.evaluator = room.open()
    assert room.states(after_s=5) == {"it": "firing"}
    assert room.told == [("it", "firing")], "what was told is not told again"
    room.send(10)
    assert room.states() == {"it": "inactive"}
    assert room.told[-1] == ("it", "resolved")


def test_a_silence_is_heard_while_it_lasts_and_no_longer(
    tmp_path: Path, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path, clock, one("freshness", limit="5s"))
    room.send(10)
    room.step()
    monkeypatch.setattr(history.time, "time", lambda: room.now_s)
    history.silence(room.pipeline, "it", timedelta(minutes=10), "we know")
    [found] = room.step(after_s=60)
    assert found.standing.state == "firing"
    assert found.silenced_until_s == START_S + 600
    assert room.told == []
    room.evaluator = room.open()
    room.step(after_s=60)
    assert room.told == []
    room.step(after_s=600)
    assert room.told == [("it", "firing")], "it fires beyond its silence"
    with pytest.raises(Exception, match="there is no alert other"):
        history.silence(room.pipeline, "other", timedelta(minutes=10), "")
    with pytest.raises(Exception, match="a silence of 8d outlasts its row, which is kept for 7d"):
        history.silence(room.pipeline, "it", timedelta(days=8), "")


SECOND = timedelta(seconds=1)


def test_who_never_heard_of_an_alert_does_not_hear_its_end() -> None:
    assert tell(Standing("inactive", 1.0), 5.0, silenced=False, repeat_every=SECOND) == (
        Standing("inactive", 1.0),
        None,
    )
    never = tell(Standing("firing", 1.0, 2.0), 9_999.0, silenced=False, repeat_every=timedelta(0))
    assert never == (Standing("firing", 1.0, 2.0), None)


def test_a_reading_that_says_nothing_changes_nothing() -> None:
    from lakehouse.alerts.conditions import Reading

    for state in (Standing(), Standing("pending", 1.0), Standing("firing", 1.0, 1.0)):
        assert advance(state, Reading(None, None, 0, ""), SECOND, 99.0) is state


def test_one_evaluation_at_a_time_on_a_machine(tmp_path: Path, clock: FakeTime) -> None:
    room = Room(tmp_path, clock, one("absence", window="30s"))
    room.send(10)
    with alert_lock(str(tmp_path), "clicks") as alone:
        assert alone
        [found] = evaluator.once(room.pipeline)
        assert found.standing.state == "firing", "the stream's time is not the clock's"
    assert not Path(history.table_url(room.pipeline)).exists(), "only looked at"
    evaluator.once(room.pipeline)
    assert DeltaTable(history.table_url(room.pipeline)).to_pyarrow_table()["state"].to_pylist() == ["firing"]


def test_the_command_evaluates_once_and_silences(tmp_path: Path, clock: FakeTime) -> None:
    import yaml
    from typer.testing import CliRunner

    from lakehouse.cli import app

    Room(tmp_path / "data", clock, one("absence", window="30s")).send(10)
    raw = small_pipeline(tmp_path / "data", alerts={"rules": one("absence", window="30s")}).model_dump(mode="json")
    raw["source"].pop("options")
    path = tmp_path / "clicks.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    run = CliRunner().invoke(app, ["alerts", str(path), "--once", "--json"])
    assert run.exit_code == 1, run.output
    found = json.loads(run.stdout)
    assert (found["alert"], found["state"], found["kind"]) == ("it", "firing", "absence")
    run = CliRunner().invoke(app, ["alerts", str(path), "--silence", "it", "--for", "2h", "--reason", "planned"])
    assert run.exit_code == 0, run.output
    run = CliRunner().invoke(app, ["alerts", str(path), "--once"])
    assert "firing" in run.stdout
    assert "silenced" in run.stdout


def test_every_kind_has_a_runbook() -> None:
    kinds = {get_args(of.model_fields["kind"].annotation)[0] for of in get_args(get_args(AnyAlert)[0])}
    assert set(get_args(FigureName)) == set(FIGURES)
    pages = {of.page for of in FIGURES.values()}
    for page in (kinds - {"figure"}) | pages:
        text = (Path(__file__).parents[2] / "docs" / "runbooks" / f"{page}.md").read_text()
        assert "## Look" in text
        assert "## Do" in text
