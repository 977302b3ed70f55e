"""Quarantine as people see it: counts by rule, rows, one record with its bytes; and the way back without Spark."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

from lakehouse import reconcile
from lakehouse.cli import app
from lakehouse.config.models import Pipeline
from lakehouse.errors import ConfigError, ReconcileError, TableError
from lakehouse.quality.archive import Archive
from lakehouse.quality.suite import load_suite
from lakehouse.quarantine import Choice, entries, find, overview, parse_moment, parse_where, render_entries
from lakehouse.repair import Repair, load_repair
from lakehouse.replay import Replay, replay
from lakehouse.schemas import TIMESTAMP, quarantine_schema, silver_schema
from lakehouse.sinks import aligned
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.replays import Replays
from lakehouse.sinks.sink import Sink
from tests.pipelines import SUITE, small_pipeline
from tests.replays import BEGAN, PlainJudge, append, close_brace, value_of

KINDS = ["good", "slow", "torn", "hopeless", "slow", "slow"]
REPAIR = Repair("fix.py:close_brace", "abc", close_brace)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    pipeline = small_pipeline(tmp_path)
    append(Sink.open(OnePass(str(tmp_path), pipeline, {})), pipeline, KINDS)
    return pipeline


def replayed(pipeline: Pipeline, choice: Choice = Choice(), **options: object) -> Replay:  # noqa: B008 - frozen
    strict = bool(options.pop("strict", False))
    return replay(pipeline, choice, PlainJudge(strict), suite_sha256="lax", **options)  # type: ignore[arg-type]


def offsets(pipeline: Pipeline, layer: str) -> list[int]:
    table = DeltaTable(f"{pipeline.root}/{layer}/clicks").to_pyarrow_table()
    return sorted(table["_offset"].to_pylist())


def test_rows_are_counted_by_rule_with_their_times_and_a_message(pipeline: Pipeline) -> None:
    found = overview(pipeline, Choice())
    assert (found.pipeline, found.rows) == ("clicks", 5)
    assert [(rule.rule_id, rule.rows) for rule in found.rules] == [
        ("slow", 3),
        ("contract.encoding", 1),
        ("contract.json", 1),
    ]
    slow = found.rules[0]
    assert (slow.first, slow.last) == (BEGAN + timedelta(seconds=0.7), BEGAN + timedelta(seconds=3.5))
    assert slow.sample == "ms is 10000.0, above the maximum 1000"
    assert "contract.encoding" in str(found)
    assert "5 rows in quarantine" in str(found)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(rules=frozenset(["slow", "contract.encoding"])), [1, 3, 4, 5]),
        (Choice(since=BEGAN + timedelta(seconds=1.4)), [2, 3, 4, 5]),
        (Choice(until=BEGAN + timedelta(seconds=1.4)), [1]),
        (Choice(since=BEGAN + timedelta(seconds=1.4), until=BEGAN + timedelta(seconds=2.8)), [2, 3]),
        (Choice(where={"page": "p1"}), [1, 4]),
        (Choice(where={"ms": "10000", "user": "5"}), [5]),
        (Choice(where={"nothing": "p1"}), []),
        (Choice(limit=2), [1, 2]),
        (Choice(rules=frozenset(["slow"]), where={"page": "p1"}, limit=1), [1]),
    ],
)
def test_rows_are_chosen_by_rule_time_and_field(pipeline: Pipeline, choice: Choice, expected: list[int]) -> None:
    assert [entry.offset for entry in entries(pipeline, choice)] == expected
    assert overview(pipeline, choice).rows == len(expected)


def test_times_are_iso_or_a_span_before_now() -> None:
    assert parse_moment("2026-03-01") == BEGAN
    assert parse_moment("2026-03-01T01:00:00+01:00") == BEGAN
    assert timedelta(minutes=119) < datetime.now(UTC) - parse_moment("2h") < timedelta(minutes=121)
    with pytest.raises(ConfigError, match="not a time"):
        parse_moment("yesterday")
    assert parse_where(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    with pytest.raises(ConfigError, match="not FIELD=VALUE"):
        parse_where(["a"])


def test_a_record_is_shown_with_its_bytes_and_without_control_characters(pipeline: Pipeline) -> None:
    torn, hopeless = find(pipeline, 0, 2), find(pipeline, 0, 3)
    assert (torn.state, torn.value, torn.key) == ("quarantined", value_of("torn", 2), b"k")
    assert torn.headers == [{"key": "h", "value": b"\x01"}]
    assert "contract.json" in str(torn)
    assert "ff 00" in str(hopeless)
    assert hopeless.to_dict()["value_hex"] == "ff00"
    assert str(hopeless).replace("\n", "").isprintable()
    assert "0:3" in render_entries([hopeless])
    with pytest.raises(ConfigError, match="0:0 is not in quarantine"):
        find(pipeline, 0, 0)


def test_a_preview_tells_what_would_happen_and_changes_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    found = replayed(pipeline, repair=REPAIR)
    assert (found.state, found.accepted, found.refused) == ("previewed", 4, 1)
    assert [(rule.rule_id, rule.accepted, rule.refused) for rule in found.rules] == [
        ("slow", 3, 0),
        ("contract.encoding", 0, 1),
        ("contract.json", 1, 0),
    ]
    (refusal,) = found.refusals
    assert (refusal.rule_id, refusal.rows) == ("repair.failed", 1)
    assert refusal.sample == 'fix.py:close_brace failed: ValueError: "no text"'
    assert "nothing was changed" in str(found)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_replay_moves_what_is_accepted_and_remembers_what_is_not(pipeline: Pipeline) -> None:
    first = replayed(pipeline, strict=True, replay_id="first", commit=True)
    assert (first.state, first.accepted, first.refused) == ("replayed", 0, 5)
    second = replayed(pipeline, repair=REPAIR, replay_id="second", commit=True)
    assert (second.state, second.accepted, second.refused) == ("replayed", 4, 1)
    assert offsets(pipeline, "silver") == [0, 1, 2, 4, 5]
    assert offsets(pipeline, "quarantine") == [3]

    back = find(pipeline, 0, 2)
    assert (back.state, back.replay_id, back.repair) == ("replayed", "second", "fix.py:close_brace")
    assert back.value == value_of("torn", 2)
    assert [attempt["replay_id"] for attempt in back.attempts] == ["first"]
    assert "in silver, by replay second, repaired by fix.py:close_brace" in str(back)
    left = find(pipeline, 0, 3)
    assert [attempt["errors"][0]["rule_id"] for attempt in left.attempts] == ["contract.encoding", "repair.failed"]
    assert "refused again" in str(left)


def test_the_same_id_is_replayed_once(pipeline: Pipeline) -> None:
    replayed(pipeline, Choice(limit=1), replay_id="mine", commit=True)
    again = replayed(pipeline, replay_id="mine", commit=True)
    assert (again.state, again.accepted, again.refused) == ("already replayed", 1, 0)
    assert offsets(pipeline, "quarantine") == [2, 3, 4, 5]
    assert replayed(pipeline, Choice(rules=frozenset(["none"])), commit=True).state == "nothing to replay"


def test_tables_of_an_earlier_version_are_given_the_columns_by_the_next_start(tmp_path: Path) -> None:
    pipeline = small_pipeline(tmp_path)
    fields = pipeline.source.fields
    with pytest.MonkeyPatch.context() as before:
        silver, quarantine = silver_schema(fields), quarantine_schema()
        module = "lakehouse.sinks.onepass"
        before.setattr(f"{module}.silver_schema", lambda _: silver.remove(len(silver) - 1))
        before.setattr(f"{module}.quarantine_schema", lambda: quarantine.remove(len(quarantine) - 1))
        append(Sink.open(OnePass(str(tmp_path), pipeline, {})), pipeline, KINDS)
    with pytest.raises(TableError, match="start the pipeline once"):
        replayed(pipeline)
    sink = Sink.open(OnePass(str(tmp_path), pipeline, {}))
    append(sink, pipeline, ["slow"])
    assert replayed(pipeline, commit=True).accepted == 4
    assert offsets(pipeline, "silver") == [0, 1, 4, 5, 6]


def test_reconcile_waits_for_a_replay_and_names_one_that_was_cut_in_two(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["silver/clicks", "quarantine/clicks", "gold/clicks_by_page_1s"]
    with monkeypatch.context() as killed:
        killed.setattr(Replays, "_without_accepted", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            replayed(pipeline, commit=True)
    monkeypatch.setattr(aligned, "_ALIGN_S", 0)
    with pytest.raises(ReconcileError, match="'silver/clicks': 1, 'quarantine/clicks': 0"):
        aligned.aligned(str(tmp_path), names, Replays(str(tmp_path), pipeline))
    assert Replays(str(tmp_path), pipeline).finish() == 1
    tables, _ = aligned.aligned(str(tmp_path), names, Replays(str(tmp_path), pipeline))
    everything = pc.scalar(True)
    kept = reconcile._replayed(tables["silver/clicks"], everything)
    assert kept.keys() == {(0, 1), (0, 4), (0, 5)}
    assert kept[0, 4] == reconcile._fingerprint(b"k", value_of("slow", 4), [("h", b"\x01")])
    assert reconcile._refused(tables["quarantine/clicks"], everything).keys() == {(0, 2), (0, 3)}


def test_two_records_at_one_position_are_two_rows(pipeline: Pipeline, tmp_path: Path) -> None:
    """As where a topic was made anew: the same positions, ingested later."""
    table = DeltaTable(str(tmp_path / "quarantine" / "clicks"))
    later = table.to_pyarrow_table().slice(0, 1)
    moment = pa.array([datetime.now(UTC)], TIMESTAMP)
    later = later.set_column(later.column_names.index("_ingested_at"), "_ingested_at", moment)
    write_deltalake(table, later, mode="append")
    slow = Choice(rules=frozenset(["slow"]))
    assert replayed(pipeline, slow, commit=True).accepted == 3
    assert offsets(pipeline, "quarantine") == [1, 2, 3]
    assert replayed(pipeline, slow, commit=True).accepted == 1
    assert offsets(pipeline, "silver") == [0, 1, 1, 4, 5]


def test_the_suite_of_a_replay_is_kept_once_it_is_decided(pipeline: Pipeline, tmp_path: Path) -> None:
    suite = load_suite(SUITE)
    replayed(pipeline, suite=suite)
    assert not (tmp_path / "_suites").exists()
    replayed(pipeline, suite=suite, commit=True)
    assert Archive(str(tmp_path)).load(suite.sha256).expectations == suite.expectations


def test_a_damaged_plan_stops_everything_by_name(pipeline: Pipeline, tmp_path: Path) -> None:
    replayed(pipeline, commit=True)
    (plan,) = (tmp_path / "_replays" / "clicks").glob("*.json")
    plan.write_text("{")
    with pytest.raises(TableError, match="plan of a replay cannot be read"):
        Replays(str(tmp_path), pipeline).finish()
    plan.write_text('{"format": 2}')
    with pytest.raises(TableError, match="later version"):
        Sink.open(OnePass(str(tmp_path), pipeline, {}))


def test_a_repair_comes_from_a_file_and_never_crashes_a_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fixes_for_a_test.py").write_text(
        "def up(value): return value.upper()\ndef no(value): return None\n"
        "def text(value): return 'text'\ndef bad(value): raise RuntimeError('\\x1b[2J')\nNUMBER = 1\n"
    )
    file = tmp_path / "fixes_for_a_test.py"
    up = load_repair(f"{file}:up")
    assert up.apply(b"a") == b"A"
    assert len(up.sha256) == 64
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_repair("fixes_for_a_test:up").sha256 == up.sha256
    reasons = {name: load_repair(f"{file}:{name}").apply(b"a") for name in ("no", "text", "bad")}
    assert {name: reason["rule_id"] for name, reason in reasons.items() if isinstance(reason, dict)} == {
        "no": "repair.declined",
        "text": "repair.type",
        "bad": "repair.failed",
    }
    assert "\x1b" not in str(reasons["bad"])
    for name, message in (
        ("up", "names no repair"),
        (f"{file}:gone", "has no function gone"),
        (f"{file}:NUMBER", "has no function NUMBER"),
        (f"{tmp_path}/none.py:up", "cannot be imported"),
        ("no_such_module:up", "cannot be imported"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_repair(name)


def test_the_command_lists_and_shows_as_text_and_as_json(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = pipeline.model_dump(mode="json") | {"root": str(tmp_path), "quality": {"suite": str(SUITE)}}
    monkeypatch.setattr("lakehouse.cli.load", lambda _: Pipeline.model_validate(raw))
    runner = CliRunner()

    def run(*arguments: str) -> str:
        done = runner.invoke(app, ["quarantine", *arguments], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    assert json.loads(run("list", "any.yaml", "--json"))["rows"] == 5
    rows = json.loads(run("list", "any.yaml", "--rows", "--rule", "slow", "--where", "page=p1", "--json"))
    assert [row["offset"] for row in rows] == [1, 4]
    assert "0:4" in run("list", "any.yaml", "--rows", "--since", "2026-03-01T00:00:02")
    assert json.loads(run("show", "any.yaml", "0:3", "--json"))["value_hex"] == "ff00"
    assert "contract.encoding" in run("show", "any.yaml", "0:3")
    with pytest.raises(ConfigError, match="not PARTITION:OFFSET"):
        run("show", "any.yaml", "three")
