"""Means, variances, ratios, Theta sketches, bitmaps and frequent values: made, merged, derived, asked and compared."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from lakehouse.config.checks import check
from lakehouse.config.models import Pipeline
from lakehouse.errors import ConfigError
from lakehouse.rollups import moments, sketches
from lakehouse.rollups.compare import compare_rollup
from lakehouse.rollups.merge import merge_partials
from lakehouse.schemas import gold_schema
from lakehouse.serving.query import Answer, Measure, Query, Rollups
from lakehouse.serving.snapshot import Shape
from lakehouse.serving.sql import query as sql
from tests.maintained import START_S, Stream, contents
from tests.pipelines import MORE_METRICS, small_pipeline

US = 1_000_000


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    made = Stream(tmp_path_factory.mktemp("kinds"), grains=("1s", "1m", "1h"), metrics=MORE_METRICS)
    for number in range(4):
        made.send(60, at_s=START_S + 900 * number, late=2)
    made.maintain(time.time())
    made.send(60, at_s=START_S + 3_600, late=2)
    return made


def ask(stream: Stream, *measures: str, **changes: Any) -> Answer:
    found = tuple(map(Measure.parse, measures))
    start = int(START_S) * US
    query = Query("by_page", found, start - 600 * US, start + 7_200 * US, **changes)
    return Rollups(stream.pipeline).ask(query)


def test_answers_over_history_and_tail_are_those_of_the_values(stream: Stream) -> None:
    answer = ask(stream, "ms_mean", "ms_variance", "users_theta", "users_bits", "ids_top@3")
    assert any(use.tail for use in answer.uses)
    (row,) = answer.rows.to_pylist()
    silver = stream.silver()
    values = silver["ms"].to_pylist()
    good = [ms for ms, status in zip(values, silver["status"].to_pylist(), strict=True) if status == "ok"]
    assert row["ms_mean"] == pytest.approx(statistics.mean(values), rel=1e-12)
    assert row["ms_variance"] == pytest.approx(statistics.variance(good), rel=1e-12)
    users = len(set(silver["user"].to_pylist()))
    assert (row["users_bits"], round(row["users_theta"])) == (users, users)
    assert [each["value"] for each in row["ids_top@3"]] == sorted(silver["id"].to_pylist())[:3]
    assert {each["count"] for each in row["ids_top@3"]} == {1}


def test_a_rewrite_and_the_comparison_with_silver_know_all_types(stream: Stream) -> None:
    gold = contents(stream.path("gold/clicks_by_page_1s"))
    assert pa.types.is_struct(gold.schema.field("ms_mean").type)
    same = compare_rollup(ds.dataset(stream.silver()), ds.dataset(gold), stream.rollup, "1s", event_time="at")
    assert (same.differing, same.cells) == (0, len(stream.expected_gold()))
    assert merge_partials(merge_partials(gold, stream.rollup), stream.rollup).num_rows == same.cells
    other = gold.set_column(
        gold.column_names.index("users_bits"), "users_bits", pa.array([b"\x01"] * gold.num_rows, pa.binary())
    )
    assert compare_rollup(
        ds.dataset(stream.silver()), ds.dataset(other), stream.rollup, "1s", event_time="at"
    ).differing


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        ("ms_mean", {"values": 7, "mean": 1.0, "m2": 1.0}),
        ("users_theta", sketches.theta(range(40_000, 43_000), 12)),
        ("ids_top", sketches.top(["nobody"] * 3, 10)),
    ],
)
def test_a_wrong_cell_is_found(stream: Stream, column: str, wrong: Any) -> None:
    gold = contents(stream.path("gold/clicks_by_page_1s"))
    kind = gold.schema.field(column).type
    broken = gold.set_column(gold.column_names.index(column), column, pa.array([wrong] * gold.num_rows, kind))
    found = compare_rollup(ds.dataset(stream.silver()), ds.dataset(broken), stream.rollup, "1s", event_time="at")
    assert found.differing == found.cells


def test_sql_merges_them_by_aggregates(stream: Stream) -> None:
    (row,) = sql(
        str(stream.root),
        "SELECT merged_mean(ms_mean) AS mean, merged_variance(ms_variance) AS variance, merged_theta(users_theta) AS t,"
        " merged_bitmap(users_bits) AS b, merged_top(ids_top, 2) AS top FROM gold.by_page",
    ).to_pylist()
    (asked,) = ask(stream, "ms_mean", "ms_variance", "users_theta", "users_bits", "ids_top@2").rows.to_pylist()
    assert row["mean"] == pytest.approx(asked["ms_mean"], rel=1e-12)
    assert row["variance"] == pytest.approx(asked["ms_variance"], rel=1e-12)
    assert (row["t"], row["b"], row["top"]) == (asked["users_theta"], asked["users_bits"], asked["ids_top@2"])
    (empty,) = sql(
        str(stream.root),
        "SELECT merged_mean(ms_mean) AS m, merged_variance(ms_variance) AS v, merged_theta(users_theta) AS t,"
        " merged_top(ids_top, 2) AS p FROM gold.by_page WHERE page = 'nowhere'",
    ).to_pylist()
    assert set(empty.values()) == {None}


def test_a_declared_ratio_is_the_quotient_of_its_metrics(tmp_path: Path) -> None:
    plain = small_pipeline(tmp_path)
    raw = plain.rollups["by_page"].model_dump() | {"ratios": {"error_rate": {"of": "errors", "over": "events"}}}
    stream = Stream(tmp_path)
    stream.send(20, at_s=START_S)
    pipeline = Pipeline.model_validate(plain.model_dump() | {"rollups": {"by_page": raw}})
    assert gold_schema(pipeline.rollups["by_page"], pipeline.source.fields).names == list(
        gold_schema(plain.rollups["by_page"], plain.source.fields).names
    )
    start = int(START_S) * US
    query = Query("by_page", (Measure("error_rate"), Measure("errors", over="events")), start, start + US)
    (row,) = Rollups(pipeline).ask(query).rows.to_pylist()
    assert row["error_rate"] == row["errors/events"] == 0.2
    with pytest.raises(ConfigError, match="of type ratio is not divided"):
        Rollups(pipeline).ask(Query("by_page", (Measure("error_rate", over="events"),), start, start + US))


def test_a_variance_that_is_small_beside_its_mean_keeps_its_digits() -> None:
    rng = np.random.default_rng(1)
    values = 1e9 + rng.normal(0, 1e-3, 10_000)
    parts = [
        {"values": len(part), "mean": float(part.mean()), "m2": float(((part - part.mean()) ** 2).sum())}
        for part in np.array_split(values, 97)
    ]
    merged = moments.merged(parts)
    exact = statistics.variance(map(float, values))
    assert merged["m2"] / (merged["values"] - 1) == pytest.approx(exact, rel=1e-3)
    squares = sum(part["m2"] + part["values"] * part["mean"] ** 2 for part in parts)
    by_sums_of_squares = (squares - merged["values"] * merged["mean"] ** 2) / (merged["values"] - 1)
    assert abs(by_sums_of_squares - exact) > exact / 2  # what was not taken


def test_moments_without_values_have_no_mean() -> None:
    none = pa.chunked_array([pa.array([{"values": 0, "mean": 0.0, "m2": 0.0}, None], moments.MOMENTS)])
    one = pa.chunked_array([pa.array([{"values": 1, "mean": 2.0, "m2": 0.0}], moments.MOMENTS)])
    assert moments.means(none).to_pylist() == moments.variances(none).to_pylist() == [None, None]
    assert (moments.means(one).to_pylist(), moments.variances(one).to_pylist()) == ([2.0], [None])
    assert moments.merged([]) == {"values": 0, "mean": 0, "m2": 0}


def test_a_bitmap_is_exact_or_says_that_it_does_not_know() -> None:
    some, more = sketches.bitmap(np.array([0, 7, 8, 8])), sketches.bitmap(np.array([8, 32_767]))
    assert (some, len(more)) == (b"\x81\x01", 4_096)
    merged = sketches.merge_bitmaps([some, more, b""])
    assert sketches.count_bitmap(merged) == 4
    for outside in (-1, 32_768):
        unknown = sketches.bitmap(np.array([outside, 3]))
        assert sketches.count_bitmap(unknown) is None
        assert sketches.count_bitmap(sketches.merge_bitmaps([some, unknown, more])) is None
    assert sketches.count_bitmap(b"") == 0


def test_frequent_values_lie_within_their_bounds_however_they_are_merged() -> None:
    rng = np.random.default_rng(3)
    values = [f"v{number}" for number in rng.zipf(1.3, 40_000) % 20_000]
    exact = Counter(values)
    sketch = sketches.merge_top([sketches.top(values[first::9], 8) for first in range(9)], 8)
    assert sketches.size_top(sketch) == 8
    found = sketches.read_top(sketch, 5)
    assert [each.value for each in found] == [value for value, _ in exact.most_common(5)]
    for each in found:
        assert each.at_least <= exact[each.value] <= each.at_most


def test_refusals_name_what_a_type_takes(stream: Stream) -> None:
    for measure, what in (
        ("ids_top", "ids_top is a metric of type top"),
        ("ids_top@0", "the rank 0 is not a whole number from 1 to 1000"),
        ("ids_top@2.5", "the rank 2.5 is not a whole number"),
        ("ms_mean@0.5", "ms_mean is a metric of type mean"),
        ("events/ids_top", "is not divided by one of type top"),
    ):
        with pytest.raises(ConfigError, match=what):
            ask(stream, measure)


def findings(**rollup: Any) -> list[str]:
    plain = small_pipeline(Path("/nowhere"))
    raw = plain.rollups["by_page"].model_dump()
    raw["metrics"] += rollup.pop("metrics", [])
    changed = Pipeline.model_validate(plain.model_dump() | {"rollups": {"by_page": raw | rollup}})
    return [finding.what for finding in check(changed)]


def test_a_file_that_asks_for_what_a_type_cannot_do_is_refused() -> None:
    assert findings(metrics=MORE_METRICS) == []
    metric = {"name": "m", "type": "distinct", "column": "page", "sketch": "bitmap"}
    assert "page" in findings(metrics=[metric])[0]
    theta = {"name": "m", "type": "distinct", "column": "page", "sketch": "theta", "lg_k": 4}
    assert findings(metrics=[theta]) == ["a theta sketch has no lg_k of 4"]
    assert "user" in findings(metrics=[{"name": "m", "type": "top", "column": "user"}])[0]
    assert findings(ratios={"events": {"of": "errors", "over": "events"}}) == ["events is the name of a column already"]
    assert findings(ratios={"r": {"of": "ms_kll", "over": "nothing"}}) == [
        "the rollup has no number ms_kll", "the rollup has no number nothing",
    ]  # fmt: skip


def test_an_alert_on_what_is_not_live_is_refused() -> None:
    plain = small_pipeline(Path("/nowhere"), more=MORE_METRICS)
    alert = {"kind": "threshold", "rollup": "by_page", "metric": "ms_mean", "limit": 1}
    changed = Pipeline.model_validate(plain.model_dump() | {"alerts": {"rules": {"slow": alert}}})
    assert [finding.what for finding in check(changed)] == ["alerts do not look at metrics such as ms_mean"]


def test_the_live_page_leaves_them_out() -> None:
    plain, more = (small_pipeline(Path("/nowhere"), more=metrics) for metrics in ((), MORE_METRICS))
    shapes = [Shape.of(each.rollups["by_page"], each.source.fields) for each in (plain, more)]
    assert (shapes[0].numbers, shapes[0].sketches) == (shapes[1].numbers, shapes[1].sketches)


def test_each_column_says_what_it_is_and_how_exact() -> None:
    pipeline = small_pipeline(Path("/nowhere"), more=MORE_METRICS)
    schema = gold_schema(pipeline.rollups["by_page"], pipeline.source.fields)
    told = {name: schema.field(name).metadata for name in (metric["name"] for metric in MORE_METRICS)}
    assert told["users_theta"][b"lakehouse.error"] == b"0.031254"
    assert told["ids_top"][b"lakehouse.error"] == b"0.003418"
    assert told["users_bits"][b"comment"] == b"bitmap of values from 0 to 32767, exact"
    assert {each[b"lakehouse.merge"] for each in told.values()} == {b"moments", b"theta", b"bitmap", b"top"}
