"""The log's tail: each commit once and in order, by name, and what it says about files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lakehouse.errors import TableError
from lakehouse.serving.log import Added, LogTail, Removed, open_state, parse_commit
from tests.hot_table import Event, HotTable, partials

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0
ROWS = partials([Event(NOW, "search", "eu")])


@pytest.fixture
def table(tmp_path: Path) -> HotTable:
    return HotTable(tmp_path / "hot", clock=lambda: NOW).create()


def test_each_commit_comes_once_and_in_order(table: HotTable) -> None:
    tail = LogTail(str(table.path))
    table.append(ROWS)
    assert [commit.version for commit in tail.poll()] == [0, 1]
    assert tail.poll() == []
    table.append(ROWS, ROWS)
    (commit,) = tail.poll()
    assert commit.version == tail.version == 2
    assert commit.timestamp_ms == int(NOW * 1000)
    assert commit.commit_info["operation"] == "WRITE"
    assert [added.num_records for added in commit.adds] == [1, 1]


def test_a_poll_is_bounded(table: HotTable) -> None:
    for _ in range(4):
        table.append(ROWS)
    tail = LogTail(str(table.path))
    assert [commit.version for commit in tail.poll(limit=3)] == [0, 1, 2]
    assert [commit.version for commit in tail.poll(limit=3)] == [3, 4]


def test_paths_are_decoded_and_open(table: HotTable) -> None:
    table.append(ROWS, folder="a b%/")
    tail = LogTail(str(table.path), version=0)
    (commit,) = tail.poll()
    path = commit.adds[0].path
    assert path.startswith("a b%/part-")
    assert tail.store.get(path).bytes()


def test_a_table_that_does_not_exist_has_no_commits_and_is_not_made(tmp_path: Path) -> None:
    tail = LogTail(str(tmp_path / "none"))
    assert tail.poll() == []
    assert open_state(str(tmp_path / "none")) is None
    assert not (tmp_path / "none").exists()


def test_compaction_is_told_from_change(table: HotTable) -> None:
    table.append(ROWS)
    table.compact()
    table.delete()
    _, _, compaction, retention = LogTail(str(table.path)).poll()
    assert not compaction.adds[0].data_change
    assert not compaction.removes[0].data_change
    assert retention.removes == (Removed(compaction.adds[0].path, data_change=True),)


def test_metadata_names_the_table(table: HotTable) -> None:
    (created,) = LogTail(str(table.path)).poll()
    assert created.table_id == table.table_id


def test_state_agrees_with_the_log(table: HotTable) -> None:
    table.append(ROWS, ROWS, folder="x y/")
    table.append(ROWS)
    table.compact(count=2)
    state = open_state(str(table.path))
    assert state is not None
    assert (state.table_id, state.version) == (table.table_id, 3)
    assert {file.path for file in state.files} == set(table.live)
    assert {file.modified_ms for file in state.files} == {int(NOW * 1000)}


def test_a_damaged_log_is_a_table_error(table: HotTable) -> None:
    (table.path / "_delta_log" / f"{1:020}.json").write_text("{broken", encoding="utf-8")
    with pytest.raises(TableError, match="version 1 of the log is not a Delta commit"):
        LogTail(str(table.path)).poll()
    with pytest.raises(TableError, match="log cannot be read"):
        open_state(str(table.path))


def test_what_readers_do_not_need_is_skipped() -> None:
    lines = [
        {"protocol": {"minReaderVersion": 1}},
        {"txn": {"appId": "q", "version": 3}},
        {"add": {"path": "f.parquet", "dataChange": True}},
        {"futureAction": {"x": 1}},
    ]
    commit = parse_commit(7, "\n".join(map(json.dumps, lines)).encode() + b"\n\n")
    assert commit.adds == (Added("f.parquet", None, data_change=True),)
    assert (commit.timestamp_ms, commit.commit_info, commit.table_id) == (0, {}, None)


def test_an_action_without_a_path_is_damage() -> None:
    with pytest.raises(TableError):
        parse_commit(1, b'{"add": {"size": 1}}')
