"""The event's fields change between two starts: what flows into the tables, what is refused, what a kill leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema

from lakehouse.chain import COMMIT_KEY
from lakehouse.config.models import Pipeline
from lakehouse.errors import SchemaChanged, SecondDriver, TableError
from lakehouse.evolution import settle
from lakehouse.maintenance.run import Maintainer
from lakehouse.rollups.partials import aggregate
from lakehouse.schemas import silver_schema
from lakehouse.serving.follower import Follower
from lakehouse.serving.snapshot import Shape
from lakehouse.serving.sql import query
from lakehouse.sinks import alter as altering
from lakehouse.sinks.alter import settled
from lakehouse.sinks.delta_log import TableLog
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.sink import Sink
from tests.pipelines import answers, small_pipeline

SILVER, QUARANTINE, GOLD, MINUTES = (
    "silver/clicks",
    "quarantine/clicks",
    "gold/clicks_by_page_1s",
    "gold/clicks_by_page_1m",
)
HAPPENED_S = 1_700_000_000.0
"""When all events of `answers` happened."""
FIELDS: dict[str, Any] = {
    "id": "string",
    "at": "timestamp",
    "page": "string",
    "user": "long",
    "ms": "double",
    "status": "string",
    "size": "integer",
}


def a_pipeline(root: Path, fields: dict[str, Any], policy: dict[str, str] | None = None) -> Pipeline:
    rollup = small_pipeline(root, grains=("1s", "1m")).rollups["by_page"].model_dump(mode="json")
    if "size" in fields:
        rollup["dimensions"] = ["page", "size"]
    return small_pipeline(
        root,
        source={"servers": "localhost:1", "topic": "clicks", "fields": fields},
        rollups={"by_page": rollup},
        evolution=policy or {},
    )


def start(root: Path, fields: dict[str, Any], policy: dict[str, str] | None = None) -> tuple[Sink, OnePass]:
    pipeline, held = settled(str(root), a_pipeline(root, fields, policy))
    one_pass = OnePass(str(root), pipeline, {}, held=held)
    return Sink.open(one_pass), one_pass


def write(sink: Sink, one_pass: OnePass, first: int, count: int, number: int = 0) -> None:
    sink.write(
        sink.next_batch("q", number, {"t": {0: first}}, {"t": {0: first + count}}, "sha"),
        answers(one_pass, first, count),
    )


def columns(root: Path, name: str) -> dict[str, str]:
    return {field.name: str(getattr(field.type, "type", "")) for field in DeltaTable(str(root / name)).schema().fields}


def events(root: Path, name: str) -> int:
    return sum(DeltaTable(str(root / name)).to_pyarrow_table()["events"].to_pylist())


def keys(reader: Follower) -> set[Any]:
    """The combinations of dimensions that a dashboard knows."""
    buckets = [bucket for level in reader.snapshot.levels.values() for bucket in level.values()]
    return {key for bucket in buckets for key in bucket.cells}


def versions(root: Path) -> list[int]:
    return [DeltaTable(str(root / name)).version() for name in (SILVER, QUARANTINE, GOLD)]


def begun(root: Path, fields: dict[str, Any] = FIELDS) -> None:
    """Tables with one batch of three rows, and the minutes derived from them."""
    sink, one_pass = start(root, fields)
    write(sink, one_pass, 0, 3)
    Maintainer(one_pass.pipeline).maintain()


def test_a_new_field_is_a_column_from_the_next_start_on_and_null_before(tmp_path: Path) -> None:
    begun(tmp_path)
    shape = Shape.of(a_pipeline(tmp_path, FIELDS).rollups["by_page"], a_pipeline(tmp_path, FIELDS).source.fields)
    reader = Follower(f"{tmp_path}/{GOLD}", shape, clock=lambda: HAPPENED_S)
    reader.step()
    sink, one_pass = start(tmp_path, {**FIELDS, "colour": {"type": "string", "description": "of the button"}})
    write(sink, one_pass, 3, 2, number=1)
    found = query(str(tmp_path), "SELECT _offset, colour FROM silver.clicks ORDER BY _offset").to_pydict()
    assert found == {"_offset": [0, 1, 2, 3, 4], "colour": [None] * 5}
    told = next(field for field in DeltaTable(f"{tmp_path}/{SILVER}").schema().fields if field.name == "colour")
    assert told.nullable
    assert told.metadata["comment"] == "of the button"
    assert reader.step()  # a dashboard that was there before goes on
    assert sum(
        cell.events for level in reader.snapshot.levels.values() for b in level.values() for cell in b.cells.values()
    )


def test_a_wider_type_rewrites_every_file_in_one_commit(tmp_path: Path) -> None:
    begun(tmp_path)
    before = {name: set(DeltaTable(str(tmp_path / name)).file_uris()) for name in (SILVER, GOLD, MINUTES)}
    sink, one_pass = start(tmp_path, FIELDS | {"size": "long"})
    for name in (SILVER, GOLD, MINUTES):
        assert columns(tmp_path, name)["size"] == "long"
        assert not before[name] & set(DeltaTable(str(tmp_path / name)).file_uris())
        kinds = {
            str(f.physical_schema.field("size").type)
            for f in DeltaTable(str(tmp_path / name)).to_pyarrow_dataset().get_fragments()
        }
        assert kinds == {"int64"}
    write(sink, one_pass, 3, 2, number=1)
    assert query(str(tmp_path), "SELECT count(*) n FROM silver.clicks").to_pydict() == {"n": [5]}
    assert events(tmp_path, GOLD) == 5
    reports = Maintainer(one_pass.pipeline).maintain()
    assert [report.error for report in reports] == [None] * len(reports)
    assert events(tmp_path, MINUTES) == 5


def test_a_dashboard_of_before_goes_on_with_values_that_its_type_could_not_hold(tmp_path: Path) -> None:
    begun(tmp_path)
    described = a_pipeline(tmp_path, FIELDS)
    shape = Shape.of(described.rollups["by_page"], described.source.fields)
    reader = Follower(f"{tmp_path}/{GOLD}", shape, clock=lambda: HAPPENED_S)
    reader.step()
    sink, one_pass = start(tmp_path, FIELDS | {"size": "long"})
    reader.step()
    rows = DeltaTable(f"{tmp_path}/{SILVER}").to_pyarrow_table()
    wide = rows.set_column(rows.column_names.index("size"), "size", pa.array([2**40] * len(rows)))
    partials = aggregate(wide, one_pass.pipeline.rollups["by_page"], "1s", event_time="at")
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, partials.schema) as stream:
        stream.write_table(partials)
    batch = sink.next_batch("q", 1, {"t": {0: 3}}, {"t": {0: 6}}, "sha")
    sink.write(batch, [(GOLD, None, buffer.getvalue().to_pybytes())])
    reader.step()
    assert reader.snapshot.problem is None
    assert ("home", 2**40) in keys(reader)


def test_what_was_required_may_be_missing_from_now_on(tmp_path: Path) -> None:
    begun(tmp_path, FIELDS | {"page": {"type": "string", "required": True}})
    assert not DeltaTable(f"{tmp_path}/{SILVER}").schema().fields[2].nullable
    start(tmp_path, FIELDS)
    assert DeltaTable(f"{tmp_path}/{SILVER}").schema().fields[2].nullable


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (
            {name: kind for name, kind in FIELDS.items() if name != "id"},
            r"id is gone, while the table holds it \(string\)",
        ),
        (FIELDS | {"user": "integer"}, "user is integer, while the table holds long"),
        (FIELDS | {"id": "long"}, "id is long, while the table holds string"),
        (FIELDS | {"id": {"type": "string", "required": True}}, "id is required, while rows from before may lack it"),
        (FIELDS | {"new": {"type": "string", "required": True}}, "new is required"),
    ],
)
def test_a_change_that_breaks_the_table_is_refused_by_name_and_changes_nothing(
    tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    begun(tmp_path)
    before = versions(tmp_path)
    with pytest.raises(SchemaChanged, match=named) as caught:
        start(tmp_path, fields)
    assert "evolution.breaking: quarantine" in str(caught.value)
    with pytest.raises(SchemaChanged, match=named):
        Sink.open(OnePass(str(tmp_path), a_pipeline(tmp_path, fields), {}))
    assert versions(tmp_path) == before


def test_additive_changes_can_be_refused_as_well(tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(SchemaChanged, match=r"colour is new \(string\)"):
        start(tmp_path, {**FIELDS, "colour": "string"}, {"additive": "refuse"})


def test_tables_without_a_batch_change_as_often_as_the_file_does(tmp_path: Path) -> None:
    start(tmp_path, FIELDS)
    start(tmp_path, FIELDS | {"size": "long"})
    sink, one_pass = start(tmp_path, {**FIELDS, "size": "long", "colour": "string"})
    write(sink, one_pass, 0, 2)
    assert columns(tmp_path, SILVER)["colour"] == "string"
    assert events(tmp_path, GOLD) == 2


def test_another_rollup_is_no_change_of_fields(tmp_path: Path) -> None:
    begun(tmp_path)
    rollup = small_pipeline(tmp_path).rollups["by_page"].model_dump(mode="json") | {"dimensions": ["page", "id"]}
    pipeline = small_pipeline(
        tmp_path, source={"servers": "localhost:1", "topic": "clicks", "fields": FIELDS}, rollups={"by_page": rollup}
    )
    with pytest.raises(TableError, match=r"id is new \(string\).*size is gone"):
        Sink.open(OnePass(str(tmp_path), pipeline, {}))


def test_by_policy_the_table_wins_and_says_why(tmp_path: Path) -> None:
    begun(tmp_path)
    fields = {name: kind for name, kind in FIELDS.items() if name != "id"}
    fields |= {"note": {"type": "string", "required": True}}
    pipeline, held = settled(str(tmp_path), a_pipeline(tmp_path, fields, {"breaking": "quarantine"}))
    assert pipeline.source.fields["id"].type == "string"
    assert held == {"id": "the table holds it, while the pipeline's file has it no longer"}
    start(tmp_path, fields, {"breaking": "quarantine"})
    start(tmp_path, fields, {"breaking": "quarantine"})  # the same once more: the column may be null, records may not
    note = next(field for field in DeltaTable(f"{tmp_path}/{SILVER}").schema().fields if field.name == "note")
    assert note.nullable


def test_the_table_wins_by_its_type(tmp_path: Path) -> None:
    begun(tmp_path)
    silver = DeltaTable(f"{tmp_path}/{SILVER}").schema()
    pipeline, held = settle(a_pipeline(tmp_path, FIELDS | {"id": "long"}, {"breaking": "quarantine"}), silver)
    assert pipeline.source.fields["id"].type == "string"
    assert held == {"id": "the table holds string, while the pipeline's file has long"}


def test_what_rollups_are_made_of_cannot_be_of_the_tables_type_alone(tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(SchemaChanged, match="page is long"):
        start(tmp_path, FIELDS | {"page": "long"}, {"breaking": "quarantine"})


@pytest.mark.parametrize("reached", [1, 2])
def test_killed_between_two_tables_the_next_start_changes_the_others(
    tmp_path: Path, reached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path)
    commit = TableLog.commit
    done: list[str] = []

    def dies(self: TableLog, *arguments: Any) -> bool:
        if len(done) == reached:
            raise KeyboardInterrupt
        done.append(self.name)
        return commit(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TableLog, "commit", dies)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path, FIELDS | {"size": "long"})
    kinds = [columns(tmp_path, name)["size"] for name in (SILVER, GOLD, MINUTES)]
    assert sorted(kinds) == ["integer"] * (3 - reached) + ["long"] * reached
    sink, one_pass = start(tmp_path, FIELDS | {"size": "long"})
    assert [columns(tmp_path, name)["size"] for name in (SILVER, GOLD, MINUTES)] == ["long"] * 3
    write(sink, one_pass, 3, 2, number=1)
    assert events(tmp_path, GOLD) == 5


def test_a_batch_cut_in_two_is_finished_before_the_columns_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path)
    sink, one_pass = start(tmp_path, FIELDS)
    append = TableLog.append

    def dies(self: TableLog, *arguments: Any) -> bool:
        if self.name != SILVER:
            raise KeyboardInterrupt
        return append(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TableLog, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            write(sink, one_pass, 3, 2, number=1)
    again, _ = start(tmp_path, {**FIELDS, "size": "long", "colour": "string"})
    assert again.holds({"t": {0: 3}}, {"t": {0: 5}})
    assert events(tmp_path, GOLD) == 5


def between(monkeypatch: pytest.MonkeyPatch, what: Any) -> None:
    """Let something happen once, between reading a table's files and the commit that changes its columns."""
    actions, waiting = altering._actions, [what]

    def slow(*arguments: Any) -> Any:
        if waiting:
            waiting.pop()()
        return actions(*arguments)

    monkeypatch.setattr(altering, "_actions", slow)


def test_a_rewrite_by_maintenance_in_between_begins_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path)
    sink, one_pass = start(tmp_path, FIELDS)
    for number in range(1, 12):
        write(sink, one_pass, 2 + number, 1, number=number)
    maintainer = Maintainer(one_pass.pipeline, clock=lambda: 4e9)
    between(monkeypatch, maintainer.maintain)
    start(tmp_path, FIELDS | {"size": "long"})
    rows = DeltaTable(f"{tmp_path}/{SILVER}").to_pyarrow_table()
    assert sorted(rows["_offset"].to_pylist()) == list(range(14))
    assert rows.schema.field("size").type == pa.int64()


def test_a_batch_in_between_is_another_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path)
    sink, one_pass = start(tmp_path, FIELDS)
    between(monkeypatch, lambda: write(sink, one_pass, 3, 1, number=1))
    with pytest.raises(SecondDriver, match="changed the table's columns"):
        start(tmp_path, {**FIELDS, "colour": "string"})
    assert "colour" not in columns(tmp_path, SILVER)


def test_maintenance_by_an_older_file_keeps_a_newer_column(tmp_path: Path) -> None:
    begun(tmp_path)
    sink, one_pass = start(tmp_path, {**FIELDS, "colour": "string"})
    for number in range(1, 12):
        write(sink, one_pass, 2 + number, 1, number=number)
    reports = Maintainer(a_pipeline(tmp_path, FIELDS), clock=lambda: 4e9).maintain()
    assert [report.error for report in reports] == [None] * len(reports)
    assert next(report for report in reports if report.table == SILVER).rewrites
    fragments = DeltaTable(f"{tmp_path}/{SILVER}").to_pyarrow_dataset().get_fragments()
    assert all("colour" in fragment.physical_schema.names for fragment in fragments)


def test_the_commit_of_a_change_is_no_batch_and_keeps_the_tables_identity(tmp_path: Path) -> None:
    begun(tmp_path)
    before = DeltaTable(f"{tmp_path}/{SILVER}").metadata()
    start(tmp_path, {**FIELDS, "colour": "string"})
    after = DeltaTable(f"{tmp_path}/{SILVER}")
    assert (after.metadata().id, after.metadata().configuration) == (before.id, before.configuration)
    commit = after.history(1)[0]
    assert COMMIT_KEY not in commit
    assert commit["operation"] == "CHANGE COLUMNS"
    assert after.protocol().min_reader_version == 1
    assert Schema.from_arrow(silver_schema(a_pipeline(tmp_path, FIELDS).source.fields))
