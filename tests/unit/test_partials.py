"""Partial aggregates: exact where they are exact, mergeable in any order, sketches that other engines read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import datasketches
import pyarrow as pa
import pytest

from lakehouse.rollups.partials import aggregate
from lakehouse.schemas import TIMESTAMP, gold_schema, silver_schema
from lakehouse.sinks.delta_log import TableLog, require_columns
from tests.pipelines import small_pipeline

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PIPELINE = small_pipeline(Path("/nowhere"))
ROLLUP = PIPELINE.rollups["by_page"]


def events(*rows: tuple[float, str | None, int | None, float | None, str | None]) -> pa.Table:
    """Rows of (seconds after noon, page, user, ms, status)."""
    seconds, pages, users, times, statuses = zip(*rows, strict=True)
    return pa.table(
        {
            "at": pa.array([NOON + timedelta(seconds=second) for second in seconds], TIMESTAMP),
            "page": pa.array(pages, pa.string()),
            "user": pa.array(users, pa.int64()),
            "ms": pa.array(times, pa.float64()),
            "status": pa.array(statuses, pa.string()),
        }
    )


def rolled_up(table: pa.Table) -> dict[tuple[float, str | None], dict[str, object]]:
    partials = aggregate(table, ROLLUP, "1s", event_time="at")
    return {((row["window_start"] - NOON).total_seconds(), row["page"]): row for row in partials.to_pylist()}


def test_counts_sums_and_extremes_per_window_and_dimension() -> None:
    cells = rolled_up(
        events(
            (0.0, "a", 1, 10.0, "ok"),
            (0.999, "a", 1, 30.0, "error"),
            (1.0, "a", 2, 5.0, "ok"),
            (0.5, "b", 3, 7.0, "ok"),
        )
    )
    assert set(cells) == {(0.0, "a"), (1.0, "a"), (0.0, "b")}
    cell = cells[0.0, "a"]
    assert (cell["events"], cell["errors"]) == (2, 1)
    assert (cell["ms_sum"], cell["ms_min"], cell["ms_max"]) == (40.0, 10.0, 30.0)
    assert cell["min_event_time"] == NOON
    assert cell["max_event_time"] == NOON + timedelta(milliseconds=999)


def test_nulls_count_as_events_and_nothing_else() -> None:
    cell = rolled_up(events((0, None, None, None, None), (0, None, 4, 2.0, "error")))[0.0, None]
    assert (cell["events"], cell["errors"], cell["ms_sum"], cell["ms_min"]) == (2, 1, 2.0, 2.0)
    kll = datasketches.kll_doubles_sketch.deserialize(cell["ms_kll"])
    hll = datasketches.hll_sketch.deserialize(cell["users_hll"])
    assert kll.n == 1
    assert hll.get_estimate() == pytest.approx(1)


def test_a_cell_without_any_number_has_null_numbers_and_empty_sketches() -> None:
    cell = rolled_up(events((0, "a", None, None, "ok")))[0.0, "a"]
    assert (cell["ms_sum"], cell["ms_min"], cell["ms_max"]) == (None, None, None)
    assert datasketches.kll_doubles_sketch.deserialize(cell["ms_kll"]).is_empty()
    assert datasketches.hll_sketch.deserialize(cell["users_hll"]).is_empty()


def test_windows_before_1970_begin_before_their_events() -> None:
    table = events((0, "a", 1, 1.0, "ok"))
    old = table.set_column(0, "at", pa.array([datetime(1969, 12, 31, 23, 59, 58, 500_000, tzinfo=UTC)], TIMESTAMP))
    partials = aggregate(old, ROLLUP, "1s", event_time="at")
    assert partials["window_start"][0].as_py() == datetime(1969, 12, 31, 23, 59, 58, tzinfo=UTC)


def test_nan_is_kept_out_of_the_quantiles() -> None:
    cell = rolled_up(events((0, "a", 1, float("nan"), "ok"), (0, "a", 1, 3.0, "ok")))[0.0, "a"]
    assert datasketches.kll_doubles_sketch.deserialize(cell["ms_kll"]).n == 1


def test_the_sketches_are_of_the_declared_kind_and_size() -> None:
    cell = rolled_up(events(*((0, "a", user, float(user), "ok") for user in range(5_000))))[0.0, "a"]
    hll = datasketches.hll_sketch.deserialize(cell["users_hll"])
    assert hll.lg_config_k == 12
    assert hll.tgt_type == datasketches.tgt_hll_type.HLL_8
    assert hll.get_estimate() == pytest.approx(5_000, rel=0.05)
    kll = datasketches.kll_doubles_sketch.deserialize(cell["ms_kll"])
    assert kll.k == 200
    assert kll.get_quantile(0.5) == pytest.approx(2_500, abs=5_000 * 0.03)


def test_columns_are_those_of_the_gold_table() -> None:
    partials = aggregate(events((0, "a", 1, 1.0, "ok")), ROLLUP, "1s", event_time="at")
    gold = gold_schema(ROLLUP, PIPELINE.source.fields)
    assert partials.schema.names == [name for name in gold.names if name != "_batch_id"]
    assert all(partials.schema.field(name).type == gold.field(name).type for name in partials.schema.names)
    assert "at" in silver_schema(PIPELINE.source.fields).names


def test_distinct_counts_compare_equal_whether_or_not_they_were_merged() -> None:
    from lakehouse.rollups.compare import _hll_estimate
    from lakehouse.rollups.merge import hll_bytes

    def sketch(members: range) -> bytes:
        made = datasketches.hll_sketch(12, datasketches.HLL_8)
        for member in members:
            made.update(member)
        return bytes(made.serialize_compact())

    whole = sketch(range(5_000))
    merged = hll_bytes([sketch(range(first, 5_000, 5)) for first in range(5)], 12)
    assert _hll_estimate(whole, 12) == _hll_estimate(merged, 12)


def test_each_metrics_column_says_how_exact_it_is_also_in_the_table(tmp_path: Path) -> None:
    pipeline = small_pipeline(tmp_path)
    schema = gold_schema(pipeline.rollups["by_page"], pipeline.source.fields)
    made = TableLog.open(str(tmp_path / "t"), "gold/t", schema)
    told = {field.name: field.metadata for field in made.columns.fields}
    assert told["ms_kll"] == {
        "comment": "DataSketches KLL sketch, k 200: the rank of a quantile is within 1.33% with 99 % confidence",
        "lakehouse.error": "0.013295",
        "lakehouse.merge": "kll",
    }
    assert told["users_hll"]["comment"].startswith("DataSketches HLL sketch, lg_k 12: merged counts are within 3.")
    assert (told["errors"], told["ms_sum"]) == (
        {"comment": "count, exact", "lakehouse.merge": "sum"},
        {"comment": "sum, in double precision", "lakehouse.merge": "sum"},
    )


def test_a_table_made_without_these_words_is_the_same_table(tmp_path: Path) -> None:
    pipeline = small_pipeline(tmp_path)
    schema = gold_schema(pipeline.rollups["by_page"], pipeline.source.fields)
    plain = pa.schema([pa.field(field.name, field.type) for field in schema])
    require_columns(TableLog.open(str(tmp_path / "t"), "gold/t", plain).columns, schema, "gold/t")
