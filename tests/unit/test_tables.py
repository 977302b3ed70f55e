"""Listing tables: what each log says, and that neither a damaged table nor an absent root is an exception."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake

from lakehouse.errors import ConfigError, TableError
from lakehouse.serving.grid import cut, render_grid
from lakehouse.serving.tables import TableInfo, list_tables, render_tables

ROWS = pa.table({"a": [1, 2, 3], "s": ["x", "y", None]})


def write(root: Path, name: str, rows: pa.Table = ROWS, **kwargs: object) -> Path:
    path = root / name
    write_deltalake(str(path), rows, mode="append", **kwargs)  # type: ignore[call-overload]  # of two forms
    return path


def commit(table: Path, **info: object) -> None:
    """Append a commit without files, as the sink writes it: the batch is an object, not text."""
    version = DeltaTable(str(table)).version() + 1
    actions = [{"commitInfo": {"timestamp": 1_700_000_000_000, "operation": "STREAMING UPDATE", **info}}]
    lines = "\n".join(json.dumps(action) for action in actions)
    (table / "_delta_log" / f"{version:020d}.json").write_text(lines)


def test_a_root_without_tables_is_empty_and_stays_as_it_is(tmp_path: Path) -> None:
    assert list_tables(str(tmp_path / "absent")) == []
    assert list_tables(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []
    assert render_tables([]) == "no tables yet"


def test_tables_come_layer_by_layer_and_by_name(tmp_path: Path) -> None:
    for name in ("gold/b", "gold/a", "silver/c", "quarantine/c", "bronze/c", "_checkpoints/c", "other/c"):
        write(tmp_path, name)
    (tmp_path / "silver" / "no_table").mkdir()
    (tmp_path / "silver" / "file").write_text("")
    found = [(table.layer, table.name) for table in list_tables(str(tmp_path))]
    assert found == [("bronze", "c"), ("silver", "c"), ("quarantine", "c"), ("gold", "a"), ("gold", "b")]


def test_figures_come_from_the_log(tmp_path: Path) -> None:
    path = write(tmp_path, "silver/clicks")
    write(tmp_path, "silver/clicks")
    (table,) = list_tables(str(tmp_path))

    assert (table.version, table.files, table.rows) == (1, 2, 6)
    assert table.bytes == sum(file.stat().st_size for file in path.glob("*.parquet"))
    assert table.columns == {"a": "int64", "s": "string"}
    assert table.path == str(path.resolve())
    assert table.offsets is None
    assert table.error is None
    assert table.last_commit is not None
    assert abs(datetime.now(UTC) - table.last_commit) < timedelta(minutes=5)


def test_a_table_without_files_has_no_rows(tmp_path: Path) -> None:
    DeltaTable.create(str(tmp_path / "silver" / "clicks"), ROWS.schema)
    (table,) = list_tables(str(tmp_path))
    assert (table.version, table.files, table.rows, table.bytes) == (0, 0, 0, 0)


def test_rows_are_unknown_where_a_file_does_not_say(tmp_path: Path) -> None:
    path = write(tmp_path, "silver/clicks")
    (log,) = (path / "_delta_log").glob("*.json")
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        action.get("add", {}).pop("stats", None)
    log.write_text("\n".join(json.dumps(action) for action in actions))

    (table,) = list_tables(str(tmp_path))

    assert (table.files, table.rows) == (1, None)
    assert "unknown" in render_tables([table])


def test_the_last_batch_is_found_behind_maintenance(tmp_path: Path) -> None:
    path = write(tmp_path, "silver/clicks")
    commit(path, lakehouse={"end": {"clicks": {"0": 3}}})
    commit(path, lakehouse={"end": {"clicks": {"0": 5, "10": 8, "2": 7}}})
    commit(path, operation="OPTIMIZE")

    (table,) = list_tables(str(tmp_path))

    assert table.offsets == {"clicks": {"0": 5, "2": 7, "10": 8}}
    assert table.last_commit == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert "clicks 0:5 2:7 10:8" in render_tables([table])


def test_a_batch_recorded_as_text_is_read_too(tmp_path: Path) -> None:
    properties = CommitProperties(custom_metadata={"lakehouse": json.dumps({"end": {"t": {"0": 1}}})})
    write(tmp_path, "silver/clicks", commit_properties=properties)
    assert list_tables(str(tmp_path))[0].offsets == {"t": {"0": 1}}


@pytest.mark.parametrize("record", ["words", {"begin": 1}, {"end": 5}, {"end": {"t": 5}}, 7, [1]])
def test_an_odd_record_of_a_batch_is_no_offset(tmp_path: Path, record: object) -> None:
    commit(write(tmp_path, "silver/clicks"), lakehouse=record)
    assert list_tables(str(tmp_path))[0].offsets is None


def test_a_damaged_table_is_an_entry_beside_the_others(tmp_path: Path) -> None:
    damaged = write(tmp_path, "silver/bad") / "_delta_log" / f"{0:020d}.json"
    damaged.write_text("{garbage")
    write(tmp_path, "silver/good")
    (tmp_path / "gold" / "empty_log" / "_delta_log").mkdir(parents=True)

    bad, good, empty = list_tables(str(tmp_path))

    assert bad.error is not None
    assert "Json error" in bad.error
    assert "\n" not in bad.error
    assert (bad.name, bad.version, bad.columns) == ("bad", None, {})
    assert (good.name, good.rows, good.error) == ("good", 3, None)
    assert empty.error is not None
    assert "silver.bad" in render_tables([bad])
    assert "damaged: " in render_tables([bad])


def test_the_list_is_json(tmp_path: Path) -> None:
    write(tmp_path, "silver/clicks")
    whole = json.loads(json.dumps([asdict(table) for table in list_tables(str(tmp_path))], default=str))
    assert whole[0]["rows"] == 3


def test_folders_with_spaces_and_links_are_found(tmp_path: Path) -> None:
    write(tmp_path / "real", "silver/clicks")
    (tmp_path / "a b").symlink_to(tmp_path / "real")
    assert [table.rows for table in list_tables(str(tmp_path / "a b"))] == [3]


def test_a_root_of_another_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither a folder nor"):
        list_tables("gs://bucket")


@pytest.mark.parametrize("folder", ["data[1]", "a^b", "a|b", "50%20", "a\\b", "a\tb"])
def test_a_root_that_delta_rs_would_misread_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ConfigError, match="no table can be kept in"):
        list_tables(str(tmp_path / folder))


def test_a_bucket_that_does_not_answer_is_one_error() -> None:
    """In a process of its own: the store reads the environment of the process, beside pytest's."""
    code = (
        "from lakehouse.serving.tables import list_tables\n"
        "from lakehouse.errors import TableError\n"
        "try: list_tables('s3://bucket/p')\n"
        "except TableError as error: print(error)\n"
    )
    env = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "canary",
        "AWS_REGION": "x",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
    }
    told = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=120
    )
    assert told.stdout.startswith("the tables cannot be listed: ")
    assert "canary" not in told.stdout


def test_an_unreadable_root_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("denied")

    monkeypatch.setattr("lakehouse.serving.tables.open_store", refuse)
    with pytest.raises(TableError, match="cannot be listed: denied"):
        list_tables(str(tmp_path))


def test_rendering_is_aligned() -> None:
    info = TableInfo(
        "silver", "clicks", "/d/silver/clicks", 12, 3, 1_234_567, 5_000_000, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    )
    assert render_tables([info]).splitlines() == [
        "table          version  files       rows     size  last commit (UTC)    offsets",
        "-------------  -------  -----  ---------  -------  -------------------  -------",
        "silver.clicks       12      3  1 234 567  4.8 MiB  2026-01-02 03:04:05",
    ]


def test_cells_cannot_move_the_cursor() -> None:
    assert cut("a\x1b[2J\nb") == "a·[2J·b"
    assert cut("x" * 100) == "x" * 59 + "…"
    assert render_grid(["n"], [["1"], ["10"]], right=[True]) == " n\n--\n 1\n10"
