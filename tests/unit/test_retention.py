"""Rules of retention: what is older leaves, nothing else does, and nothing leaves that a coarser grain has not got."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from lakehouse import kafka_admin, topic
from lakehouse.errors import TableError
from lakehouse.maintenance import run
from lakehouse.maintenance.retire import choose
from lakehouse.maintenance.view import LiveFile
from lakehouse.reconcile import reconcile
from lakehouse.retirement import retired_before
from lakehouse.serving.follower import Follower
from lakehouse.serving.scale import Level
from lakehouse.serving.snapshot import Shape
from lakehouse.sinks.delta_log import find_cover
from lakehouse.storage import open_store
from tests.maintained import GOLD, QUARANTINE, SILVER, START_S, Stream, contents

MINUTE, HOUR = "gold/clicks_by_page_1m", "gold/clicks_by_page_1h"
RULES = [{"rows": "silver", "keep": "30m"}, {"rows": "1s", "keep": "10m"}, {"rows": "1m", "keep": "1h"}]
STEP_S = 300


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    """Batches of two hours, five minutes apart; each holds also some events of two minutes earlier."""
    made = Stream(tmp_path, grains=("1s", "1m", "1h"), retention=RULES)
    fill(made, 0, 24)
    return made


def fill(stream: Stream, first: int, last: int) -> None:
    for number in range(first, last):
        stream.send(12, at_s=START_S + STEP_S * number, late=2)


END_S = START_S + STEP_S * 24


def boundary(stream: Stream, name: str) -> int | None:
    return retired_before(DeltaTable(str(stream.path(name))))


def times(stream: Stream, name: str, column: str) -> list[int]:
    return [int(value) for value in contents(stream.path(name))[column].cast(pa.int64()).to_pylist()]


def us(seconds: float) -> int:
    return int(seconds * 1e6)


def test_each_table_keeps_what_its_rule_says_and_no_grain_loses_a_count(stream: Stream) -> None:
    whole = {grain: stream.expected_gold(grain) for grain in stream.grains}
    before = {name: times(stream, name, column) for name, column in ((SILVER, "_timestamp"), (GOLD, "window_start"))}
    reports = stream.maintain(END_S)
    assert boundary(stream, GOLD) == us(END_S - 600)  # a whole minute: no window of the coarser grain is cut
    assert boundary(stream, SILVER) == us(END_S - 1_800)
    assert boundary(stream, MINUTE) == us(START_S + 3_600)
    assert (boundary(stream, HOUR), boundary(stream, QUARANTINE)) == (None, None)
    for name, column in ((SILVER, "_timestamp"), (GOLD, "window_start")):
        kept = {moment for moment in before[name] if moment >= (boundary(stream, name) or 0)}
        assert set(times(stream, name, column)) == kept
    assert contents(stream.path(SILVER)).num_rows == sum(moment >= us(END_S - 1_800) for moment in before[SILVER])
    assert reports[SILVER].retired_rows == len(before[SILVER]) - contents(stream.path(SILVER)).num_rows > 0
    assert reports[SILVER].retired_before == "2027-01-15T09:30:00Z"
    # Rolled up, then dropped: the coarser grains hold what the finer ones held.
    assert stream.history("1h") == whole["1h"]
    minutes = {cell: row for cell, row in whole["1m"].items() if cell[0].timestamp() >= START_S + 3_600}
    assert stream.history("1m") == minutes


def test_what_follows_goes_on(stream: Stream) -> None:
    stream.maintain(END_S)
    fill(stream, 24, 36)  # with events from before the boundaries
    whole = stream.expected_gold("1s")
    stream.maintain(END_S + STEP_S * 12)
    assert sum(row[0] for row in stream.history("1h").values()) == stream.sent
    assert {cell: row for cell, row in stream.gold().items() if cell in whole} == stream.gold()
    stream.sink.close()
    stream.open()  # a start finds its head, and every file that the log names
    assert stream.sent == 36 * 12


def test_nothing_leaves_while_the_coarser_grain_has_not_got_it(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "derive", lambda *_, **__: False)
    before = stream.gold()
    reports = stream.maintain(END_S)
    assert (boundary(stream, GOLD), reports[GOLD].retired_before) == (None, None)
    assert stream.gold() == before
    monkeypatch.undo()
    stream.maintain(END_S)
    assert boundary(stream, GOLD) is not None
    fill(stream, 24, 36)
    monkeypatch.setattr(run, "derive", lambda *_, **__: False)
    before = stream.gold()
    stream.maintain(END_S + STEP_S * 12)
    assert stream.gold() == before


def test_nothing_leaves_while_the_coarser_table_cannot_be_derived(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> bool:
        raise TableError("no")

    monkeypatch.setattr(run, "derive", fail)
    stream.maintainer(END_S).maintain()
    assert boundary(stream, GOLD) is None


def test_a_plan_shows_what_would_go_and_does_nothing(stream: Stream) -> None:
    stream.maintain(START_S)  # derives, and nothing is old enough
    versions = {name: DeltaTable(str(stream.path(name))).version() for name in (SILVER, GOLD, MINUTE)}
    planned = {report.table: report for report in stream.maintainer(END_S).plan()}
    assert planned[GOLD].retired_before == "2027-01-15T09:50:00Z"
    assert planned[SILVER].retired_before == "2027-01-15T09:30:00Z"
    assert "retired before 2027-01-15T09:30:00Z: " in str(planned[SILVER])
    assert {name: DeltaTable(str(stream.path(name))).version() for name in versions} == versions
    done = stream.maintain(END_S)
    assert planned[SILVER].retired_files == done[SILVER].retired_files


def test_the_commit_says_what_left_and_that_remainders_are_not_new(stream: Stream) -> None:
    stream.maintain(START_S + 60)  # one file, which the boundary cuts
    stream.maintain(END_S)
    log = stream.path(SILVER) / "_delta_log"
    for path in sorted(log.glob("*.json")):
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        if actions[0]["commitInfo"].get("operation") == "RETIRE":
            break
    else:
        pytest.fail("no retirement")
    info = actions[0]["commitInfo"]
    assert info["operationParameters"] == {"before": "2027-01-15T09:30:00Z", "keep": "30m"}
    assert "lakehouse" not in info
    removes = [action["remove"]["dataChange"] for action in actions if "remove" in action]
    adds = [action["add"]["dataChange"] for action in actions if "add" in action]
    assert set(removes) == {True}
    assert set(adds) == {False}
    assert info["operationMetrics"]["numDeletedRows"] == str(stream.sent - contents(stream.path(SILVER)).num_rows)


def test_a_retirement_gives_way_to_a_commit_that_touched_its_files(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = run.retire.carry_out

    def late(view: Any, *arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(run.retire, "carry_out", original)
        stream.maintain(END_S)  # another maintainer
        return original(view, *arguments, **options)

    monkeypatch.setattr(run.retire, "carry_out", late)
    # By the pass's clock, months from now, a file could be vacuumed as soon as it was removed.
    monkeypatch.setattr(run.vacuum, "delete", lambda *_: [])
    reports = stream.maintain(END_S)
    assert sum(report.given_up for report in reports.values()) == 3
    assert sum(row[0] for row in stream.history("1h").values()) == stream.sent


def test_a_follower_keeps_its_cells_when_old_files_leave(stream: Stream) -> None:
    shape = Shape.of(stream.rollup, stream.pipeline.source.fields)
    levels = (Level(1, 400),)
    follower = Follower(str(stream.path(GOLD)), shape, levels=levels, clock=lambda: END_S)
    follower.step()
    generation, cells = follower.snapshot.generation, follower.snapshot.levels[1]
    stream.maintain(END_S)
    while follower.step():
        pass
    assert (boundary(stream, GOLD), follower.snapshot.generation) == (us(END_S - 600), generation)
    assert dict(follower.snapshot.levels[1]) == dict(cells)


def test_a_grain_that_is_added_later_begins_where_the_finer_one_does(tmp_path: Path) -> None:
    stream = Stream(tmp_path, retention=[{"rows": "1s", "keep": "30m"}])
    fill(stream, 0, 24)
    stream.maintain(END_S)
    stream.sink.close()
    later = Stream(tmp_path, grains=("1s", "1h"))
    later.maintain(END_S)
    assert {cell[0].timestamp() for cell in later.history("1h")} == {START_S + 3_600}
    table = DeltaTable(str(later.path(HOUR)))
    found = find_cover(open_store(str(later.path(HOUR))), HOUR, table.version())
    assert found is not None
    assert found.cover.whole_from == us(START_S + 7_200)


def test_reconcile_says_what_was_retired_and_compares_the_rest(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = contents(stream.path(SILVER))
    records = [
        topic.Record(row["_partition"], row["_offset"], None, b"", [], int(row["_timestamp"].timestamp() * 1_000))
        for row in rows.select(["_partition", "_offset", "_timestamp"]).to_pylist()
    ]
    monkeypatch.setattr(topic, "read_range", lambda *_: iter(records))
    monkeypatch.setattr(kafka_admin, "offsets", lambda *_: {0: (0, 10_000), 1: (0, 10_000)})
    assert reconcile(stream.pipeline).ok
    stream.maintain(END_S)
    found = reconcile(stream.pipeline)
    assert found.ok, str(found)
    assert found.retired == {
        SILVER: "2027-01-15T09:30:00Z",
        GOLD: "2027-01-15T09:50:00Z",
        MINUTE: "2027-01-15T09:00:00Z",
    }
    old = int(pc.sum(pc.less(rows["_timestamp"].cast(pa.int64()), us(END_S - 1_800))).as_py())
    assert (found.retired_records, found.silver) == (old, stream.sent - old)
    assert f"{old} records not looked for: they are older than what the tables keep" in str(found)
    assert all(rollup.cells > 0 for name, rollup in found.rollups.items() if name != HOUR)
    # A record that is young enough, and gone, is missing all the same.
    records.append(topic.Record(0, 9_999, None, b"", [], int(END_S * 1_000)))
    assert reconcile(stream.pipeline).missing.count == 1


def file(name: str, first: int, last: int, size: int = 100) -> LiveFile:
    return LiveFile(name, size, 10, 0, window=(first, last))


def chosen(files: list[LiveFile], before: int, **options: Any) -> tuple[list[str], list[str]] | None:
    found = choose(files, lambda each: each.window, before, **options)
    return found and ([each.path for each in found.whole], [each.path for each in found.cut])


def test_a_retirement_waits_until_it_is_worth_its_rewrites() -> None:
    files = [file("a", 0, 9), file("b", 10, 19), file("c", 20, 29)]
    assert chosen(files, 0) is None
    assert chosen(files, 3) is None
    assert chosen(files, 5) == ([], ["a"])
    assert chosen(files, 10) == (["a"], [])
    assert chosen(files, 13) == (["a"], ["b"])
    assert chosen([*files, file("d", 0, 99, 10_000)], 20) is None
    assert chosen(files, 30) == (["a", "b", "c"], [])
    assert chosen(files, 13, but={"b"}) is None


def test_maintenance_after_the_rules_is_idle(stream: Stream) -> None:
    stream.maintain(END_S)
    stream.maintain(END_S)
    version = DeltaTable(str(stream.path(SILVER))).version()
    assert stream.maintain(END_S)[SILVER].retired_before is None
    assert DeltaTable(str(stream.path(SILVER))).version() == version
