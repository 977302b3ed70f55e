"""The Quality page without a browser: bounded searches, differences of suites, and what the page says and runs."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from streamlit.testing.v1 import AppTest

from dashboard import pulse as pulse_module
from dashboard import verdicts as verdicts_module
from dashboard.alarms import Alarms
from dashboard.pulse import Pulse
from dashboard.verdicts import Verdicts, replay_command
from lakehouse.errors import TableError
from lakehouse.quality.archive import Archive
from lakehouse.quality.suite import parse_suite
from lakehouse.reports import results
from lakehouse.serving import refused
from lakehouse.serving.refused import Wish, newest
from lakehouse.serving.standing import Watched, differences, newest_report, versions, watched
from tests.flowing import Flow, backfill

CONFIG = "conf/card_payments.yaml"
SHOWN: list[Verdicts] = []


def page() -> None:
    from dashboard.alarms import Alarms
    from dashboard.frame import Frame
    from dashboard.views import quality
    from tests.unit.test_verdicts_page import SHOWN

    verdicts = SHOWN[0]
    quality.show(verdicts, Frame("card_payments", "conf/card_payments.yaml"), Alarms(verdicts.pipeline))


def verdicts_of(flow: Flow) -> Verdicts:
    return Verdicts(flow.pipeline, Pulse(flow.pipeline, Alarms(flow.pipeline)))


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flow:
    monkeypatch.setattr(pulse_module.kafka_admin, "offsets", lambda *_: {})
    flow = Flow(tmp_path, "card_payments", rate=90, window_s=3)
    backfill([flow], seconds=10, every_s=1)
    flow.close()
    monkeypatch.setattr("tests.unit.test_verdicts_page.SHOWN", [verdicts_of(flow)])
    return flow


def quarantine(flow: Flow) -> tuple[str, list[dict[str, Any]]]:
    url = f"{flow.pipeline.root}/quarantine/card_payments"
    return url, DeltaTable(url).to_pyarrow_table().to_pylist()


def messages(app: AppTest) -> list[dict[str, Any]]:
    assert not app.exception, app.exception
    found: list[dict[str, Any]] = []

    def walk(block: Any) -> None:
        for child in block.children.values():
            if hasattr(child, "children"):
                walk(child)
            elif child.type == "bidi_component" and child.proto.component_name == "lakehouse_panels":
                found.append(orjson.loads(child.proto.bytes))

    walk(app.main)
    return found


def panel(app: AppTest, name: str) -> dict[str, Any]:
    return next(panel for message in messages(app) for panel in message["panels"] if panel["id"] == name)


def test_a_search_finds_the_newest_rows_that_meet_the_wish(flow: Flow) -> None:
    url, rows = quarantine(flow)
    every = newest(url, Wish(), 10_000)
    assert (every.scanned, every.total, every.whole) == (len(rows), len(rows), True)
    assert [row.at for row in every.rows] == sorted((row["_timestamp"] for row in rows), reverse=True)
    rule = max(every.counts, key=lambda rule: every.counts[rule])
    assert every.counts[rule] == sum(any(error["rule_id"] == rule for error in row["_errors"]) for row in rows)
    chosen = newest(url, Wish(rule=rule), 10_000)
    assert len(chosen.rows) == every.counts[rule]
    middle = sorted(row["_timestamp"] for row in rows)[len(rows) // 2]
    after, before = (newest(url, wish, 10_000) for wish in (Wish(since=middle), Wish(until=middle)))
    assert len(after.rows) + len(before.rows) == len(rows)
    assert all(row.at >= middle for row in after.rows)
    empty = newest(url, Wish(where=(("category", ""),)), 9).rows
    assert [dict(row.reasons)["category_known"] for row in empty]
    assert not newest(url, Wish(where=(("country", "DE"), ("decision", "nobody"))), 9).rows


def test_a_search_is_bounded_and_says_so(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    url, rows = quarantine(flow)
    few = newest(url, Wish(), 3)
    assert len(few.rows) == 3
    assert few.rows[0].at == max(row["_timestamp"] for row in rows), "the newest files are read first"
    assert few.scanned < len(rows)
    assert not few.whole
    monkeypatch.setattr(refused, "SCANNED_ROWS", 5)
    rare = newest(url, Wish(rule="never"), 3)
    assert (rare.scanned, rare.rows, rare.whole) == (5, (), False)
    monkeypatch.undo()
    monkeypatch.setattr(refused, "BATCH", 1)
    clock = iter(range(0, 1000, 1)).__next__
    assert newest(url, Wish(rule="never"), 3, clock=clock).scanned <= 2


def test_a_search_without_a_table_finds_nothing_and_in_a_damaged_one_says_why(flow: Flow, tmp_path: Path) -> None:
    assert newest(str(tmp_path / "none"), Wish(), 3).rows == ()
    url, _ = quarantine(flow)
    for file in Path(url).glob("*.parquet"):
        file.write_bytes(b"PAR1")
    with pytest.raises(TableError, match="quarantine cannot be read"):
        newest(url, Wish(), 3)


def test_observations_are_read_since_a_moment(flow: Flow) -> None:
    now = datetime.now(UTC)
    seen = watched(flow.pipeline.root, "card_payments", now - timedelta(hours=1))
    assert len({one.start for one in seen}) >= 3
    assert sum(one.failed or 0 for one in seen if one.rule_id == "category_known") > 0
    young = watched(flow.pipeline.root, "card_payments", now - timedelta(seconds=6))
    assert 0 < len({one.start for one in young}) < len({one.start for one in seen})
    assert watched(flow.pipeline.root, "nobody", now) == []


def test_suites_are_told_with_their_differences(flow: Flow, tmp_path: Path) -> None:
    root = flow.pipeline.root
    document = json.loads(flow.pipeline.quality.suite.read_text())
    document["expectations"][12]["kwargs"]["max_value"] = 50_000
    document["expectations"][14]["severity"] = "critical"
    del document["expectations"][0]
    changed = parse_suite(json.dumps(document), source="edited.json")
    archive = Archive(root)
    archive.keep(changed)
    assert flow.sink.head is not None
    archive.note(type(flow.sink.head)(**{**vars(flow.sink.head), "suite_sha256": changed.sha256}))
    new, old = versions(root, "card_payments")
    assert old.changes == ()
    assert (old.rules, new.rules) == (16, 15)
    assert set(new.changes) == {
        "− payment_id_form",
        "~ amount_plausible: max_value 100000 → 50000",
        "~ authorisation_in_time: severity warning → critical",
    }
    assert old.use.end == new.use.start
    assert versions(str(tmp_path / "elsewhere"), "card_payments") == ()
    assert not (tmp_path / "elsewhere").exists()


def test_differences_name_what_was_and_is() -> None:
    before = {"a": {"type": "x"}, "b": {"type": "y", "min": 1}}
    assert differences(before, {"b": {"type": "y", "max": 2}, "c": {}}) == (
        "+ c", "− a", "~ b: max none → 2", "~ b: min 1 → none",
    )  # fmt: skip
    assert differences(before, before) == ()


def report_rows(run: str, at: datetime, met: list[bool]) -> pa.Table:
    rows = [{"run_id": run, "run_at": at, "rule_id": f"r{n}", "success": ok} for n, ok in enumerate(met)]
    return pa.Table.from_pylist(rows, schema=results.SCHEMA)


def test_the_newest_report_is_found_and_offered(flow: Flow) -> None:
    root = Path(flow.pipeline.root)
    assert newest_report(str(root), "card_payments") is None
    url = results.table_url(str(root), "card_payments")
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    write_deltalake(url, report_rows("old", at, [False]))
    write_deltalake(url, report_rows("new", at + timedelta(days=1), [True, False, True]), mode="append")
    found = newest_report(str(root), "card_payments")
    assert found is not None
    assert (found.run_id, found.expectations, found.unmet) == ("new", 3, ("r1",))
    assert found.page == f"{root}/_quality/card_payments/new/index.html"
    app = AppTest.from_function(page, default_timeout=20).run()
    assert found.page in [code.value for code in app.code]


@pytest.mark.usefixtures("flow")
def test_the_page_shows_rules_rows_and_the_bytes_of_one() -> None:
    app = AppTest.from_function(page, default_timeout=20)
    app.query_params["rule"] = "category_known"
    app.run()
    rules = panel(app, "rules")["rows"]
    assert "amount_median" in [row[0] for row in rules]
    listed = panel(app, "refused")["rows"]
    assert listed
    assert all("category_known" in row[2] for row in listed)
    assert panel(app, "suites")["rows"][0][3] == "16 expectations, the first"
    shown, command = (code.value for code in app.code)
    assert "refused because\n  category_known: category is ''" in shown
    assert "00000000  7b 22 70 61" in shown
    assert command == "lakehouse quarantine replay conf/card_payments.yaml --rule category_known"
    app.text_input(key="where").set_value("category=").run()
    assert app.code[1].value.endswith("--where category=")


@pytest.mark.usefixtures("flow")
def test_a_wrong_filter_is_a_sentence() -> None:
    app = AppTest.from_function(page, default_timeout=20)
    app.query_params["since"] = "yesterday"
    app.run()
    assert not app.exception
    assert "'yesterday' is not a time" in app.warning[0].value


def test_the_command_quotes_what_a_shell_would_read() -> None:
    wish = Wish(rule="a", since=datetime(2026, 1, 2, tzinfo=UTC), where=(("name", "x; rm -rf '$HOME'"),))
    command = replay_command("conf/my file.yaml", wish)
    assert shlex.split(command) == [
        "lakehouse", "quarantine", "replay", "conf/my file.yaml", "--rule", "a", "--since",
        "2026-01-02T00:00:00+00:00", "--where", "name=x; rm -rf '$HOME'",
    ]  # fmt: skip


def test_failures_of_a_window_lie_over_all_its_steps() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    seen = [
        Watched(at + timedelta(seconds=60 * n), at + timedelta(seconds=60 * (n + 1)), "a", 100, 30, None, None)
        for n in range(10)
    ]
    made = verdicts_module._failures(seen, 1.0)
    ((name, values),) = made["series"]
    assert name == "a"
    assert values == [pytest.approx(0.5, abs=0.01)] * 60, "30 a minute are half a one a second"
    assert verdicts_module._failures([], 1.0)["series"] == []


def test_nothing_judged_yet_is_said(flow: Flow) -> None:
    import shutil

    shutil.rmtree(Path(flow.pipeline.root) / "silver")
    made = orjson.loads(verdicts_of(flow).board(1.0, CONFIG))
    assert made["title"] == "Nothing was judged yet"
    assert verdicts_module.HOURS["1h"] == 1.0
