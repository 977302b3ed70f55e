from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from lakehouse.errors import QualityError
from lakehouse.quality.observe import Observation, Wanted, merge_all
from lakehouse.quality.observe import statistics as statistics_of
from lakehouse.quality.suite import Suite, parse_suite
from lakehouse.quality.watch import Outcome, outcomes, stop_on_failure
from lakehouse.schemas import VERDICT
from lakehouse.sinks.observed import Watch, table_url
from lakehouse.sinks.onepass import OBSERVED

NUMBERS = [3.0, 1.0, None, 4.0, 1.0, 5.0, None, 9.0]


def suite(*extra: dict[str, Any], stream: str = "metric") -> Suite:
    def aggregate(kind: str, rule_id: str, **kwargs: Any) -> dict[str, Any]:
        return {"type": f"expect_column_{kind}", "kwargs": {"column": "x", **kwargs}, "meta": {"rule_id": rule_id}}

    row_rule = {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "x", "max_value": 6},
        "meta": {"rule_id": "small", "stream": stream},
    }
    expectations = [
        row_rule,
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 8}, "meta": {"rule_id": "rows"}},
        aggregate("max_to_be_between", "max", max_value=8),
        aggregate("min_to_be_between", "min", min_value=1, strict_min=True),
        aggregate("mean_to_be_between", "mean", min_value=0),
        aggregate("sum_to_be_between", "sum", max_value=23),
        aggregate("stdev_to_be_between", "stdev", max_value=10),
        aggregate("median_to_be_between", "median", min_value=0),
        aggregate("unique_value_count_to_be_between", "distinct", max_value=5),
        aggregate("proportion_of_unique_values_to_be_between", "share_distinct", min_value=0.9),
        aggregate("proportion_of_non_null_values_to_be_between", "share", min_value=0.75),
        aggregate(
            "quantile_values_to_be_between",
            "quantiles",
            quantile_ranges={"quantiles": [0.0, 1.0], "value_ranges": [[1, 1], [None, 8]]},
        ),
        *extra,
    ]
    return parse_suite(json.dumps({"name": "s", "expectations": expectations}), source="s.json")


def rows(values: list[float | None], *, first_offset: int = 0) -> tuple[pa.Table, pa.Table]:
    """(all rows, the refused ones): the last row does not fit the contract, and a row above 6 fails `small`."""
    count = len(values)
    reason = {"rule_id": "contract.json", "columns": []}
    table = pa.table(
        {
            "x": pa.array([*values, 1e9], pa.float64()),
            "_partition": pa.array([0] * (count + 1), pa.int32()),
            "_offset": pa.array(range(first_offset, first_offset + count + 1), pa.int64()),
            "_fits": [True] * count + [False],
            "_refused": [False] * count + [True],
            "_errors": pa.array([[]] * count + [[reason]], pa.list_(VERDICT)),
            "_warnings": pa.array([[]] * (count + 1), pa.list_(VERDICT)),
            "_counted": pa.array(
                [["small"] if value is not None and value > 6 else None for value in values] + [None],
                pa.list_(pa.string()),
            ),
        }
    )
    return table, table.filter(table["_refused"])


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_parts_together_are_the_whole(parts: int) -> None:
    wanted = Wanted.by(suite())
    size = math.ceil(len(NUMBERS) / parts)
    pieces = [NUMBERS[number : number + size] for number in range(0, len(NUMBERS), size)]
    seen = [wanted.observe(*rows(piece)) for piece in pieces]
    merged = merge_all(Observation.from_bytes(one.to_bytes()) for one in seen)
    found = {one.rule_id: one for one in outcomes(suite(), merged)}
    present = [number for number in NUMBERS if number is not None]
    assert merged.records == len(NUMBERS) + len(pieces)
    assert found["small"] == Outcome("small", 8, failed=1)
    assert found["contract.json"] == Outcome("contract.json", merged.records, failed=len(pieces))
    values = {rule_id: (one.value, one.success) for rule_id, one in found.items() if one.success is not None}
    assert values.pop("mean") == (pytest.approx(statistics.fmean(present)), True)
    assert values.pop("stdev") == (pytest.approx(statistics.stdev(present)), True)
    assert values == {
        "rows": (8, True),
        "max": (9.0, False),
        "min": (1.0, False),
        "sum": (23.0, True),
        "median": (3.5, True),
        "distinct": (5, True),
        "share_distinct": (pytest.approx(5 / 6), False),
        "share": (0.75, True),
        "quantiles": ([1.0, 9.0], False),
    }


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_nan_is_above_infinity_whichever_part_it_is_in(cut: int) -> None:
    wanted = Wanted.by(suite())
    values = [math.inf, math.nan, -math.inf, 2.0]
    for sequence in (values, values[::-1]):
        merged = merge_all(wanted.observe(*rows(part)) for part in (sequence[:cut], sequence[cut:]))
        assert math.isnan(merged.columns["x"].largest)
        assert merged.columns["x"].smallest == -math.inf
        found = {one.rule_id: one for one in outcomes(suite(), merged)}
        assert (found["max"].value, found["max"].success) == (None, False)


def test_only_nan_is_the_smallest_too() -> None:
    wanted = Wanted.by(suite())
    merged = merge_all(wanted.observe(*rows([value])) for value in (math.nan, math.nan))
    assert math.isnan(merged.columns["x"].smallest)
    assert merge_all([merged, wanted.observe(*rows([math.inf]))]).columns["x"].smallest == math.inf


def test_nothing_has_no_value_and_no_failure() -> None:
    found = {one.rule_id: one for one in outcomes(suite(), merge_all([]))}
    assert found["small"].failed == 0
    assert (found["mean"].value, found["mean"].success) == (None, False)
    assert (found["rows"].value, found["rows"].success) == (0, False)


def test_a_failing_row_of_the_stream_fail_stops_the_batch() -> None:
    stopping = suite(stream="fail")
    wanted = Wanted.by(stopping)
    stop_on_failure(stopping, wanted.observe(*rows([1.0, 2.0])))
    with pytest.raises(QualityError, match=r"1 of 8 rows of the next batch fail small .* partition 0, offset 107"):
        stop_on_failure(stopping, wanted.observe(*rows(NUMBERS, first_offset=100)))


def test_an_aggregate_of_the_stream_fail_stops_the_batch() -> None:
    extra = {
        "type": "expect_column_mean_to_be_between",
        "kwargs": {"column": "x", "max_value": 2},
        "meta": {"rule_id": "low", "stream": "fail"},
    }
    stopping = suite(extra)
    with pytest.raises(QualityError, match=r"does not meet low .*the value is 3\.8"):
        stop_on_failure(stopping, Wanted.by(stopping).observe(*rows(NUMBERS)))


def test_a_minute_is_one_row_per_rule(tmp_path: Path) -> None:
    now = [1_000.0]
    watch = Watch(str(tmp_path), "events", suite(), clock=lambda: now[0])
    answer = (OBSERVED, None, Wanted.by(suite()).observe(*rows(NUMBERS)).to_bytes())
    for second in (0, 30, 61):
        now[0] = 1_000.0 + second
        told = watch.record(watch.look([answer, answer]))
        assert next(one for one in told if one.rule_id == "small").failed == 2
    watch.close()
    found = DeltaTable(table_url(str(tmp_path), "events")).to_pyarrow_table().to_pylist()
    small = sorted((row["batches"], row["evaluated"], row["failed"]) for row in found if row["rule_id"] == "small")
    assert small == [(1, 16, 2), (2, 32, 4)]
    [two] = [row for row in found if row["rule_id"] == "quantiles" and row["batches"] == 2]
    assert (two["value"], two["success"]) == ("[1.0, 9.0]", False)


def test_figures_that_cannot_be_written_do_not_stop_the_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "_quality").write_text("a file where the folder should be")
    watch = Watch(str(tmp_path), "events", suite())
    watch.record(watch.look([(OBSERVED, None, Wanted.by(suite()).observe(*rows(NUMBERS)).to_bytes())]))
    watch.close()
    assert "a minute of observations is left out" in caplog.text


def test_values_near_the_end_of_doubles_raise_no_warning() -> None:
    found = statistics_of(pa.chunked_array([[0.0, 1e200, -1e200]]), frozenset({"moments"}))
    assert found.m2 == float("inf")
