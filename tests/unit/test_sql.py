"""SQL over the tables: the right rows, one version, and no way out of the tables."""

from __future__ import annotations

import contextlib
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import datasketches
import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse.errors import ConfigError, LakehouseError, TableError
from lakehouse.rollups.merge import merge_partials
from lakehouse.rollups.partials import aggregate
from lakehouse.schemas import gold_schema, quarantine_schema
from lakehouse.serving.sql import connect, query, render
from tests.maintained import START_S, Stream, cells

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = pa.table({"a": [1, 2, 3], "s": ["x", "y", None]})


def write(root: Path, name: str, rows: pa.Table = ROWS, **kwargs: object) -> Path:
    path = root / name
    write_deltalake(str(path), rows, mode="append", **kwargs)  # type: ignore[call-overload]  # of two forms
    return path


@pytest.fixture
def root(tmp_path: Path) -> str:
    write(tmp_path, "silver/clicks")
    write(tmp_path, "gold/clicks_by_page_1s", pa.table({"events": [10, 20]}))
    return str(tmp_path)


def ask(root: str | Path, sql: str, limit: int | None = None) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = query(str(root), sql, limit).to_pylist()
    return rows


def refusal(root: str | Path, sql: str) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        query(str(root), sql)
    assert "Traceback" not in str(caught.value)
    assert caught.value.__context__ is None
    return caught.value


def test_each_table_is_a_view_in_the_schema_of_its_layer(root: str) -> None:
    assert ask(root, "SELECT a, s FROM silver.clicks ORDER BY a") == ROWS.to_pylist()
    assert ask(root, "SELECT sum(events) AS n FROM gold.clicks_by_page_1s") == [{"n": 30}]
    assert ask(root, "SELECT count(*) AS n FROM silver.clicks, gold.clicks_by_page_1s") == [{"n": 6}]


def test_a_name_without_schema_is_silver_first(root: str) -> None:
    write(Path(root), "quarantine/clicks", pa.table({"q": [1]}))
    assert ask(root, "SELECT min(a) AS a FROM clicks") == [{"a": 1}]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("WITH t AS (SELECT 1 AS n) FROM t", [{"n": 1}]),
        ("FROM silver.clicks SELECT a LIMIT 0", []),
        ("VALUES (1)", [{"col0": 1}]),
        ("SELECT 1 AS n; -- and that is all", [{"n": 1}]),
        ("SHOW TABLES", [{"name": "clicks"}, {"name": "clicks_by_page_1s"}]),
    ],
)
def test_reading_statements_are_answered(root: str, sql: str, rows: object) -> None:
    assert ask(root, sql) == rows


def test_describe_and_explain_are_answered(root: str) -> None:
    described = ask(root, "DESCRIBE silver.clicks")
    assert [(row["column_name"], row["column_type"]) for row in described] == [("a", "BIGINT"), ("s", "VARCHAR")]
    assert query(root, "EXPLAIN SELECT * FROM silver.clicks", limit=5).num_rows == 1
    plan = render(query(root, "EXPLAIN ANALYZE SELECT * FROM silver.clicks"))
    assert plan.startswith("╭")


def test_a_limit_cuts_the_answer_after_its_order(root: str) -> None:
    assert ask(root, "SELECT a FROM silver.clicks ORDER BY a DESC", 2) == [{"a": 3}, {"a": 2}]
    assert ask(root, "SELECT a FROM silver.clicks ORDER BY a DESC LIMIT 1", 2) == [{"a": 3}]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO silver.clicks VALUES (1, 'x')",
        "DELETE FROM silver.clicks",
        "UPDATE silver.clicks SET a = 1",
        "CREATE TABLE t (a int)",
        "CREATE VIEW v AS SELECT 1",
        "DROP VIEW silver.clicks",
        "COPY (SELECT 1) TO '{out}'",
        "EXPORT DATABASE '{out}'",
        "ATTACH '{out}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 1",
        "RESET threads",
        "PRAGMA version",
        "CALL pragma_version()",
        "BEGIN",
        "CHECKPOINT",
        "VACUUM",
        "PREPARE p AS SELECT 1",
        "USE gold",
    ],
)
def test_other_statements_are_refused(root: str, tmp_path: Path, sql: str) -> None:
    out = tmp_path / "out"
    error = refusal(root, sql.format(out=out))
    assert isinstance(error, ConfigError)
    assert "tables are only read here" in str(error)
    assert not out.exists()


@pytest.mark.parametrize(
    "sql",
    [
        "EXPLAIN ANALYZE CREATE TABLE t (a int)",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
        "WITH d AS (DELETE FROM silver.clicks RETURNING *) FROM d",
        "SELECT * FROM query('COPY (SELECT 1) TO ''{out}''')",
    ],
)
def test_writing_inside_a_reading_statement_is_refused(root: str, tmp_path: Path, sql: str) -> None:
    out = tmp_path / "out"
    assert isinstance(refusal(root, sql.format(out=out)), ConfigError)
    assert not out.exists()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_json('http://127.0.0.1:9/x.json')",
        "SELECT * FROM read_parquet('{root}/silver/clicks/*.parquet')",
        "SELECT * FROM read_text('{root}/silver/clicks/_delta_log/00000000000000000000.json')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM query('FROM read_text(''/etc/passwd'')')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM '/etc/passwd.csv'",
    ],
)
def test_nothing_but_the_tables_can_be_read(root: str, sql: str) -> None:
    error = refusal(root, sql.format(root=root))
    assert isinstance(error, ConfigError)
    assert "silver.clicks" in str(error)
    assert "passwd" not in (error.remedy or "")


def test_python_variables_are_not_tables(root: str) -> None:
    secret_rows = ROWS
    assert "there is no table secret_rows" in str(refusal(root, "SELECT * FROM secret_rows"))
    assert secret_rows is ROWS


@pytest.fixture
def connection(root: str) -> Iterator[duckdb.DuckDBPyConnection]:
    with contextlib.closing(connect(root)) as made:
        yield made


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY (SELECT 1) TO '{out}'",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "RESET lock_configuration",
        "ATTACH '{out}' AS other",
        "INSTALL httpfs",
    ],
)
def test_a_connection_is_locked_by_itself(connection: duckdb.DuckDBPyConnection, tmp_path: Path, sql: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(duckdb.Error):
        connection.execute(sql.format(out=out))
    assert not out.exists()


def test_a_connection_keeps_its_version(connection: duckdb.DuckDBPyConnection, root: str) -> None:
    count = "SELECT count(*) FROM silver.clicks"
    assert connection.sql(count).fetchall() == [(3,)]
    write(Path(root), "silver/clicks")
    assert connection.sql(count).fetchall() == [(3,)]
    assert ask(root, f"{count[:16]} AS n FROM silver.clicks") == [{"n": 6}]


def test_removed_files_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, "silver/clicks")
    write_deltalake(str(path), pa.table({"a": [9], "s": ["z"]}), mode="overwrite")
    assert ask(tmp_path, "SELECT a FROM silver.clicks") == [{"a": 9}]


def test_a_file_that_vanished_is_one_error(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(root) / "silver" / "clicks"

    def remove_first(*_: object) -> None:
        for file in path.glob("*.parquet"):
            file.unlink()

    monkeypatch.setattr("lakehouse.serving.sql._require_reading", remove_first)
    error = refusal(root, "SELECT * FROM silver.clicks")
    assert isinstance(error, TableError)
    assert "ask again" in str(error)


def test_a_table_without_files_has_its_columns(tmp_path: Path) -> None:
    DeltaTable.create(str(tmp_path / "quarantine" / "clicks"), quarantine_schema())
    answer = query(str(tmp_path), "SELECT * FROM quarantine.clicks")
    assert answer.num_rows == 0
    assert answer.column_names == quarantine_schema().names
    assert answer.schema.field("_errors").type.value_type.num_fields == 7
    assert answer.schema.field("_timestamp").type == pa.timestamp("us", tz="UTC")


def test_a_column_added_later_is_null_in_older_files(tmp_path: Path) -> None:
    write(tmp_path, "silver/clicks", pa.table({"a": [1]}))
    write(tmp_path, "silver/clicks", pa.table({"a": [2], "n": [1.5]}), schema_mode="merge")
    assert ask(tmp_path, "SELECT * FROM silver.clicks ORDER BY a") == [{"a": 1, "n": None}, {"a": 2, "n": 1.5}]


def test_nested_rows_and_bytes_come_out_whole(tmp_path: Path) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    verdict = {"rule_id": "r", "type": "t", "columns": ["a"], "severity": "critical", "message": "m", "value": "v"}
    row = dict.fromkeys(quarantine_schema().names) | {
        "_topic": "t",
        "_partition": 0,
        "_offset": 5,
        "_timestamp": moment,
        "_value": b"\xff",
        "_headers": [{"key": "k", "value": b"\x00"}],
        "_errors": [{**verdict, "suite_sha256": "s"}],
    }
    write(tmp_path, "quarantine/clicks", pa.Table.from_pylist([row], schema=quarantine_schema()))

    (found,) = ask(tmp_path, "SELECT * FROM quarantine.clicks")

    assert found == row
    counted = "SELECT e.rule_id, count(*) AS n FROM quarantine.clicks, unnest(_errors) AS u(e) GROUP BY ALL"
    assert ask(tmp_path, counted) == [{"rule_id": "r", "n": 1}]


def test_times_are_utc_wherever_the_machine_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    rows = pa.table({"t": pa.array([0], pa.timestamp("us", tz="UTC"))})
    write(tmp_path, "silver/clicks", rows)
    assert ask(tmp_path, "SELECT CAST(t AS VARCHAR) AS t FROM silver.clicks") == [{"t": "1970-01-01 00:00:00+00"}]


@pytest.mark.parametrize("folder", ["a b", "it's", "5%", "ä*?{x}", "a#b:c"])
def test_roots_with_odd_names_work(tmp_path: Path, folder: str) -> None:
    write(tmp_path / folder, "silver/clicks")
    assert ask(tmp_path / folder, "SELECT count(*) AS n FROM silver.clicks") == [{"n": 3}]


def test_a_star_in_a_path_matches_no_other_folder(tmp_path: Path) -> None:
    write(tmp_path / "a*b", "silver/clicks")
    shutil.copytree(tmp_path / "a*b", tmp_path / "a_copy_b")
    assert ask(tmp_path / "a*b", "SELECT count(*) AS n FROM silver.clicks") == [{"n": 3}]


def test_tables_with_odd_names_work(tmp_path: Path) -> None:
    write(tmp_path, 'silver/my "clicks"')
    assert ask(tmp_path, 'SELECT count(*) AS n FROM silver."my ""clicks"""') == [{"n": 3}]


def test_partitioned_tables_have_their_partition_columns(tmp_path: Path) -> None:
    rows = pa.table({"a": [1, 2, 3], "s": ["x", "y z", "y/z"]})
    write(tmp_path, "silver/clicks", rows, partition_by=["s"])
    assert ask(tmp_path, "SELECT s, a FROM silver.clicks WHERE s LIKE 'y%' ORDER BY a") == [
        {"s": "y z", "a": 2},
        {"s": "y/z", "a": 3},
    ]


def test_deletion_vectors_are_not_overlooked(tmp_path: Path) -> None:
    """Their files still hold rows that are deleted, so a table with the feature must not be read as plain files."""
    schema = ROWS.schema
    DeltaTable.create(
        str(tmp_path / "silver" / "clicks"), schema, configuration={"delta.enableDeletionVectors": "true"}
    )
    write(tmp_path, "silver/clicks")
    error = refusal(tmp_path, "SELECT * FROM silver.clicks")
    assert isinstance(error, TableError)
    assert "deletionVectors" in str(error)


def test_an_unknown_table_is_told_with_those_there_are(root: str) -> None:
    for name in ("silver.klicks", "klicks", "sliver.clicks"):
        error = refusal(root, f"FROM {name}")
        assert isinstance(error, ConfigError)
        assert str(error).startswith("there is no table ")
        assert error.remedy == "the tables are silver.clicks, gold.clicks_by_page_1s"


def test_a_root_without_tables_says_so(tmp_path: Path) -> None:
    error = refusal(tmp_path / "absent", "SELECT * FROM silver.clicks")
    assert error.remedy == "there are no tables under this root yet"
    assert not (tmp_path / "absent").exists()
    assert ask(tmp_path, "SELECT 1 AS n") == [{"n": 1}]


def test_a_damaged_table_is_told_only_to_who_asks_for_it(root: str) -> None:
    bad = write(Path(root), "silver/bad") / "_delta_log" / f"{0:020d}.json"
    bad.write_text("{garbage")
    assert ask(root, "SELECT count(*) AS n FROM silver.clicks") == [{"n": 3}]
    for name in ("silver.bad", "bad"):
        error = refusal(root, f"FROM {name}")
        assert isinstance(error, TableError)
        assert "the table silver.bad is damaged: " in str(error)


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"\n\nLINE 1: SELEC 1\n        ^^^^^'),
        ("SELECT b FROM silver.clicks", 'Referenced column "b" not found'),
        ("SELECT nope(1)", "nope does not exist"),
        ("SELECT CAST(s AS int) FROM silver.clicks", "Could not convert string"),
        ("SELECT ?", "parameter"),
        ("", "there is no statement"),
        ("-- nothing", "there is no statement"),
        ("SELECT 1; SELECT 2", "there are 2 statements"),
        ("SELECT hll_estimate('abc'::BLOB)", "this is not an HLL sketch"),
        ("SELECT kll_quantile('abc'::BLOB, 0.5)", "this is not a KLL sketch"),
        ("SELECT kll_quantile(NULL, 1.5)", "between 0 and 1"),
    ],
)
def test_a_wrong_statement_is_told_in_duckdbs_words(root: str, sql: str, what: str) -> None:
    error = refusal(root, sql)
    assert isinstance(error, ConfigError)
    assert what in str(error)
    assert "Error: " not in error.what.split("\n")[0]


def hll(values: range, lg_k: int = 12) -> bytes:
    sketch = datasketches.hll_sketch(lg_k, datasketches.HLL_8)
    for value in values:
        sketch.update(value)
    return bytes(sketch.serialize_compact())


def kll(values: range) -> bytes:
    sketch = datasketches.kll_doubles_sketch(200)
    for value in values:
        sketch.update(float(value))
    return bytes(sketch.serialize())


def test_sketches_are_estimated_and_merged(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "page": ["x", "x", "y", "z"],
            "users": pa.array([hll(range(1000)), hll(range(500, 2000)), hll(range(7)), None], pa.binary()),
            "times": pa.array([kll(range(1000)), kll(range(1000, 2000)), kll(range(0)), None], pa.binary()),
        }
    )
    write(tmp_path, "gold/g", rows)

    found = ask(
        tmp_path,
        "SELECT page, hll_merge_estimate(list(users)) AS users, kll_merge_quantile(list(times), 0.5) AS median,"
        " max(hll_estimate(users)) AS most, max(kll_quantile(times, 1)) AS longest"
        " FROM gold.g GROUP BY page ORDER BY page",
    )

    x, y, z = found
    assert x["users"] == pytest.approx(2000, rel=0.05)
    assert x["median"] == pytest.approx(1000, rel=0.05)
    assert x["most"] == pytest.approx(1500, rel=0.05)
    assert x["longest"] == 1999
    assert y["users"] == pytest.approx(7, rel=0.001)
    assert (y["median"], y["longest"]) == (None, None)
    assert (z["users"], z["median"], z["most"], z["longest"]) == (None, None, None, None)


def test_sketches_of_unlike_accuracy_merge(tmp_path: Path) -> None:
    rows = pa.table({"users": [hll(range(5000), 12), hll(range(5000, 10_000), 8)]})
    write(tmp_path, "gold/g", rows)
    (row,) = ask(tmp_path, "SELECT hll_merge_estimate(list(users)) AS n FROM gold.g")
    assert row["n"] == pytest.approx(10_000, rel=0.2)


def test_rendering_is_aligned_and_shows_no_bytes() -> None:
    answer = pa.table({"page": ["x", None], "n": [1, 10], "users": [b"abc", None], "ok": [True, False]})
    assert render(answer).splitlines() == [
        "page   n  users      ok",
        "----  --  ---------  -----",
        "x      1  <3 bytes>  true",
        "      10             false",
        "(2 rows)",
    ]
    assert render(pa.table({"n": [1]})).endswith("(1 row)")


def test_the_gold_schema_can_be_asked(tmp_path: Path) -> None:
    from lakehouse.config.models import EventField, Rollup

    rollup = Rollup.model_validate(
        {"dimensions": ["page"], "metrics": [{"name": "u", "type": "distinct", "column": "page"}]}
    )
    schema = gold_schema(rollup, {"page": EventField(type="string")})
    DeltaTable.create(str(tmp_path / "gold" / "g"), schema)
    assert ask(tmp_path, "SELECT hll_merge_estimate(list(u)) AS n, sum(events) AS e FROM gold.g") == [
        {"n": None, "e": None}
    ]


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    made = Stream(tmp_path_factory.mktemp("sql"), grains=("1s", "1m", "1h"))
    for number in range(3):
        made.send(20, at_s=START_S + 1_800 * number, late=2)
    made.maintain(time.time())
    made.send(20, at_s=START_S + 5_400, late=2)
    made.send(10, at_s=START_S + 5_400, late=1)
    return made


def test_a_rollup_is_a_view_of_merged_partials(clicks: Stream) -> None:
    found = query(str(clicks.root), "SELECT * FROM gold.by_page ORDER BY window_start, page NULLS FIRST")
    assert set(found["grain"].to_pylist()) == {"1s"}
    expected = merge_partials(aggregate(clicks.silver(), clicks.rollup, "1s", event_time="at"), clicks.rollup)
    assert found.num_rows == expected.num_rows
    assert cells(found) == cells(expected)
    assert query(str(clicks.root), "SELECT * FROM gold.clicks_by_page").num_rows == found.num_rows


def test_sketches_of_a_view_merge_by_aggregates(clicks: Stream) -> None:
    silver = clicks.silver()  # noqa: F841 - DuckDB finds it by its name
    (expected,) = duckdb.sql(
        "SELECT count(*), count(DISTINCT \"user\"), max(ms) FROM silver WHERE page = 'a'"
    ).fetchall()
    (row,) = ask(
        clicks.root,
        "SELECT sum(events) AS n, merged_distinct(users_hll) AS users, merged_quantile(ms_kll, 1) AS most"
        " FROM gold.by_page WHERE page = 'a'",
    )
    assert (row["n"], round(row["users"]), row["most"]) == expected  # type: ignore[call-overload]


def test_what_is_retired_comes_from_the_coarser_grain_and_every_event_once(tmp_path: Path) -> None:
    stream = Stream(tmp_path, grains=("1s", "1m", "1h"), retention=[{"rows": "1s", "keep": "10m"}])
    old, new = time.time() - 4 * 3_600, time.time() - 30
    stream.send(20, at_s=old, late=2)
    stream.send(20, at_s=new)
    for _ in range(3):
        stream.maintain(time.time())
    stream.send(10, at_s=new)
    stream.send(10, at_s=old)  # late, of windows that left: a tail of 1 s is all that has it
    found = ask(tmp_path, "SELECT grain, sum(events) AS n FROM gold.by_page GROUP BY grain ORDER BY grain")
    assert found == [{"grain": "1m", "n": 30}, {"grain": "1s", "n": 30}]
    minutes = ask(tmp_path, "SELECT count(*) AS n FROM gold.by_page WHERE grain = '1m' AND second(window_start) <> 0")
    assert minutes == [{"n": 0}]


def test_a_rollup_of_two_pipelines_keeps_its_whole_name(tmp_path: Path) -> None:
    schema = gold_schema(Stream(tmp_path / "other").rollup, Stream(tmp_path / "other").pipeline.source.fields)
    for name in ("a", "b"):
        write(tmp_path, f"silver/{name}")
        DeltaTable.create(str(tmp_path / "gold" / f"{name}_by_page_1s"), schema)
    assert ask(tmp_path, "SELECT count(*) AS n FROM gold.a_by_page") == [{"n": 0}]
    assert "there is no table by_page" in str(refusal(tmp_path, "SELECT * FROM gold.by_page"))
