"""Coarser grains are derived from finer ones, each partial once, whatever comes between, dies, or comes late."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable

from lakehouse import kafka_admin
from lakehouse import topic as topic_module
from lakehouse.doctor import examine
from lakehouse.errors import TableError
from lakehouse.maintenance import run
from lakehouse.maintenance.derive import derivations, derive, uncovered
from lakehouse.maintenance.view import TableView, open_view
from lakehouse.reconcile import reconcile
from lakehouse.recover import carry_out, make_plan
from lakehouse.rollups.compare import compare_rollup
from lakehouse.rollups.cover import COVER_KEY, Cover
from lakehouse.sinks.delta_log import TableLog, find_cover
from lakehouse.sinks.files import write_file
from lakehouse.storage import commit_path, open_store
from tests.maintained import GOLD, SILVER, START_S, Stream, age, contents

MINUTE, HOUR = "gold/clicks_by_page_1m", "gold/clicks_by_page_1h"
GRAINS = ("1s", "1m", "1h")


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    made = Stream(tmp_path, grains=GRAINS)
    for number in range(4):
        made.send(20, at_s=START_S + 25 * number, late=3)
    return made


def view(stream: Stream, name: str) -> TableView:
    schema = stream.one_pass.schemas[GOLD]
    found = open_view(str(stream.path(name)), name, schema, kind="streamed" if name == GOLD else "derived")
    assert found is not None
    return found


def cover(stream: Stream, name: str) -> Cover:
    table = DeltaTable(str(stream.path(name)))
    found = find_cover(open_store(str(stream.path(name))), name, table.version())
    assert found is not None
    return found.cover


def derive_once(stream: Stream, name: str, source: TableView, target: TableView | None) -> bool:
    derivation = derivations(str(stream.root), stream.pipeline)[name]
    retention = stream.pipeline.maintenance.retention
    return derive(derivation, source, target, retired_us=None, target_bytes=2**20, retention=retention)


def require_whole(stream: Stream) -> None:
    for grain in GRAINS[1:]:
        assert stream.history(grain) == stream.expected_gold(grain)


def test_a_pass_derives_each_grain_from_the_finer_one(stream: Stream) -> None:
    require_whole(stream)  # before anything is derived, the finest grain answers for all
    reports = stream.maintain(time.time())
    assert (reports[MINUTE].derivations, reports[HOUR].derivations) == (1, 1)
    for name, grain in ((MINUTE, "1m"), (HOUR, "1h")):
        found = contents(stream.path(name))
        assert found.num_rows == len(stream.expected_gold(grain))  # one row per window and dimensions
        difference = compare_rollup(
            ds.dataset(stream.silver()), ds.dataset(found), stream.rollup, grain, event_time="at"
        )
        assert difference.ok, difference.first
    assert cover(stream, MINUTE) == Cover(GOLD, str(DeltaTable(str(stream.path(GOLD))).metadata().id), 4)


def test_what_came_since_is_derived_once_late_events_included(stream: Stream) -> None:
    stream.maintain(time.time())
    for number in range(13):
        stream.send(20, at_s=START_S + 200 + number, late=20)
        require_whole(stream)
    stream.maintain(time.time() + 60)  # also rewrites what it has derived
    require_whole(stream)
    assert sum(row["events"] for row in contents(stream.path(HOUR)).to_pylist()) == stream.sent
    version = DeltaTable(str(stream.path(MINUTE))).version()
    assert stream.maintain(time.time() + 60)[MINUTE].derivations == 0
    assert DeltaTable(str(stream.path(MINUTE))).version() == version


def test_rewrites_of_the_source_gain_nothing(stream: Stream) -> None:
    stream.maintain(time.time())
    for number in range(12):
        stream.send(2, at_s=START_S + number)
    stream.maintain(time.time() + 60)
    before = stream.history("1m")
    assert DeltaTable(str(stream.path(GOLD))).version() > cover(stream, MINUTE).version
    stream.maintain(time.time() + 60)
    assert stream.history("1m") == before == stream.expected_gold("1m")


def test_of_two_maintainers_with_the_same_rows_one_commits(stream: Stream) -> None:
    stream.maintain(time.time())
    stream.send(20, at_s=START_S)
    source, target = view(stream, GOLD), view(stream, MINUTE)
    assert derive_once(stream, MINUTE, source, target)
    assert not derive_once(stream, MINUTE, source, target)
    require_whole(stream)


def test_of_two_maintainers_that_make_the_table_one_commits(stream: Stream) -> None:
    source = view(stream, GOLD)
    assert derive_once(stream, MINUTE, source, None)
    assert not derive_once(stream, MINUTE, source, None)
    require_whole(stream)


def test_what_is_not_derived_yet_is_neither_cleaned_nor_vacuumed(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.maintain(time.time())
    covered = cover(stream, MINUTE).version

    def fail(*_: Any, **__: Any) -> bool:
        raise TableError("no")

    monkeypatch.setattr(run, "derive", fail)
    later = time.time() + 3_600
    for _ in range(4):
        for number in range(10):
            stream.send(4, at_s=START_S + number)
        reports = {report.table: report for report in stream.maintainer(later).maintain()}
        age(stream.root, 3_600)
    assert (reports[MINUTE].error, reports[GOLD].error) == ("no", None)
    assert (stream.path(GOLD) / commit_path(covered + 1)).exists()
    assert not (stream.path(SILVER) / commit_path(covered + 1)).exists()
    require_whole(stream)
    monkeypatch.undo()
    stream.maintain(later)
    require_whole(stream)
    assert not (stream.path(GOLD) / commit_path(covered + 1)).exists()


def test_nothing_is_deleted_while_a_coarser_table_cannot_be_read(stream: Stream) -> None:
    stream.maintain(time.time())
    (stream.path(MINUTE) / commit_path(1)).write_text("{")
    reports = {report.table: report for report in stream.maintainer(time.time()).maintain()}
    assert reports[MINUTE].error is not None
    assert f"nothing is deleted while {MINUTE} cannot be read" in str(reports[GOLD].error)
    assert reports[SILVER].error is None


def test_a_commit_that_is_gone_before_it_was_derived_is_an_error(stream: Stream) -> None:
    stream.maintain(time.time())
    for number in range(2):
        stream.send(4, at_s=START_S + number)
    gone = cover(stream, MINUTE).version + 1
    source = view(stream, GOLD)
    (stream.path(GOLD) / commit_path(gone)).unlink()
    with pytest.raises(TableError, match=f"what {GOLD} gained since version {gone - 1} cannot be read"):
        derive_once(stream, MINUTE, source, view(stream, MINUTE))


def test_rows_of_a_commit_without_a_batch_are_derived_too(stream: Stream) -> None:
    """As a replay of quarantine makes it."""
    stream.maintain(time.time())
    rows = contents(stream.path(GOLD)).slice(0, 1)
    add = write_file(str(stream.root), GOLD, rows, "max_event_time")
    source = view(stream, GOLD)
    log = TableLog(GOLD, source.store, source.version, None, source.table.schema())
    assert log.commit([{"commitInfo": {"timestamp": 0, "operation": "REPLAY"}}, {"add": add}], lambda _: True)
    before = sum(row["events"] for row in contents(stream.path(MINUTE)).to_pylist())
    stream.maintain(time.time())
    after = sum(row["events"] for row in contents(stream.path(MINUTE)).to_pylist())
    assert after - before == rows["events"][0].as_py()


def test_a_source_made_anew_goes_on_in_the_same_table(stream: Stream, tmp_path: Path) -> None:
    stream.maintain(time.time())
    before = stream.history("1h")
    other = Stream(tmp_path / "other", grains=GRAINS)
    other.send(20, at_s=START_S + 7_200)
    new = other.history("1h")
    stream.path(GOLD).rename(tmp_path / "aside")
    other.path(GOLD).rename(stream.path(GOLD))
    assert derive_once(stream, MINUTE, view(stream, GOLD), view(stream, MINUTE))
    assert cover(stream, MINUTE).whole_from == int((START_S + 120) * 1e6)  # the former one ended in the minute before
    stream.maintain(time.time())
    assert stream.history("1h") == before | new


def test_versions_that_gain_nothing_move_the_cover_once_they_are_many(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.maintain(time.time())
    monkeypatch.setattr("lakehouse.maintenance.derive.COMMITS", 3)
    covered = cover(stream, MINUTE).version
    source = view(stream, GOLD)
    log = TableLog(GOLD, source.store, source.version, None, source.table.schema())
    for number in range(4):
        assert log.commit([{"commitInfo": {"timestamp": number}}], lambda _: True)
        derive_once(stream, MINUTE, log_view(stream, log), view(stream, MINUTE))
        assert cover(stream, MINUTE).version == covered + (3 if number >= 2 else 0)
    assert uncovered(log_view(stream, log), view(stream, MINUTE)) == (covered + 3, set())


def log_view(stream: Stream, log: TableLog) -> TableView:
    found = view(stream, GOLD)
    assert found.version == log.version
    return found


def test_a_cover_of_a_later_format_is_refused(stream: Stream) -> None:
    stream.maintain(time.time())
    path = stream.path(MINUTE) / commit_path(1)
    lines = path.read_text().splitlines()
    info = json.loads(lines[0])
    info["commitInfo"][COVER_KEY]["format"] = 2
    path.write_text("\n".join([json.dumps(info), *lines[1:]]))
    with pytest.raises(TableError, match="the last derivation has format 2; this version reads 1"):
        view(stream, MINUTE)


def test_between_derivations_a_pass_of_the_background_waits_for_a_share_of_the_window(stream: Stream) -> None:
    maintainer = stream.maintainer(time.time(), thorough=False)
    assert [report.derivations for report in maintainer.maintain()][-2:] == [1, 1]
    stream.send(4, at_s=START_S)
    assert [report.derivations for report in maintainer.maintain()][-2:] == [0, 0]
    later = stream.maintainer(time.time() + 20, thorough=False)
    assert [report.derivations for report in later.maintain()][-2:] == [1, 0]
    require_whole(stream)


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic that the tables go on from."""
    ends = dict.fromkeys((0, 1), (0, 1_000))
    monkeypatch.setattr(kafka_admin, "topic_state", lambda *_: kafka_admin.TopicState(None, ends))


@pytest.mark.usefixtures("topic")
def test_a_torn_commit_of_a_derived_table_is_found_moved_aside_and_derived_again(stream: Stream) -> None:
    stream.maintain(time.time())
    assert not [finding for finding in examine(stream.pipeline).findings if "gold/" in finding.where]
    assert make_plan(stream.pipeline).healthy
    newest = stream.path(MINUTE) / commit_path(DeltaTable(str(stream.path(MINUTE))).version())
    newest.write_bytes(newest.read_bytes()[:100])
    errors = [finding for finding in examine(stream.pipeline).findings if finding.severity == "error"]
    assert any(finding.where.startswith(f"table {MINUTE}, version") for finding in errors)
    plan = make_plan(stream.pipeline)
    assert [(step.kind, step.table) for step in plan.steps] == [("set_log_files_aside", MINUTE)]
    stream.sink.close()
    carry_out(stream.pipeline, plan)
    stream.maintain(time.time())
    require_whole(stream)


@pytest.mark.usefixtures("topic")
def test_the_doctor_names_a_commit_that_is_gone_before_it_was_derived(stream: Stream) -> None:
    stream.maintain(time.time())
    for number in range(12):
        stream.send(4, at_s=START_S + number)
    DeltaTable(str(stream.path(GOLD))).create_checkpoint()
    gone = cover(stream, MINUTE).version + 1
    (stream.path(GOLD) / commit_path(gone)).unlink()
    (finding,) = [finding for finding in examine(stream.pipeline).findings if finding.where == f"table {MINUTE}"]
    assert finding.what == f"version {gone} of {GOLD} is gone, and the table covers only what came before it"


def test_reconcile_holds_derived_tables_and_tails_against_silver(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = range(stream.sent + 20)
    records = [topic_module.Record(number % 2, number // 2, None, b"", []) for number in numbers]
    monkeypatch.setattr(topic_module, "read_range", lambda *_: iter(records))
    monkeypatch.setattr(kafka_admin, "offsets", lambda *_: {0: (0, 1_000), 1: (0, 1_000)})
    stream.maintain(time.time())
    stream.send(20, at_s=START_S, late=5)
    found = reconcile(stream.pipeline)
    assert found.ok, str(found)
    assert set(found.rollups) == {GOLD, MINUTE, HOUR}
    extra = write_file(str(stream.root), MINUTE, contents(stream.path(MINUTE)).slice(0, 1), "max_event_time")
    source = view(stream, MINUTE)
    log = TableLog(MINUTE, source.store, source.version, None, source.table.schema())
    assert log.commit([{"commitInfo": {"timestamp": 0}}, {"add": extra}], lambda _: True)
    found = reconcile(stream.pipeline)
    assert [table for table, rollup in found.rollups.items() if not rollup.ok] == [MINUTE, HOUR]
