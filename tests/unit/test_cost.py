"""The bill: a worked example by hand, what moves it, what the tables measure, and what a wrong file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from lakehouse.cli import app
from lakehouse.cost.analysis import advise, break_even, monthly, sensitivity
from lakehouse.cost.inputs import Inputs, load_inputs
from lakehouse.cost.measure import measure
from lakehouse.cost.model import Shape, batch_seconds, lake_lines, puts_per_batch, stream_lines
from lakehouse.cost.run import estimate
from lakehouse.errors import ConfigError, TableError
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.sink import Sink
from tests.pipelines import small_pipeline
from tests.replays import append
from tests.silver import SHIPPED, shipped_pipeline

RATE = 10_000
EXAMPLE = {"event_bytes": 500, "replication": 3, "consumer_groups": 1, "puts_per_batch": 6, "compression": 6,
           "poll_s": 1, "lists_per_poll": 1, "gets_per_poll": 3, "gets_per_batch": 0, "compaction_s": 0}  # fmt: skip
"""10,000 events/s of 500 bytes: 5 MB/s, 12.96 TB a month; 6 PUT a batch; one poller that lists and reads 3 objects."""


def amounts(interval_s: float = 1.0, rate: float = RATE, **changes: float) -> dict[str, float]:
    inputs = load_inputs().having("example", **EXAMPLE | changes)
    shape = Shape(rollups=1, bronze=False, interval_s=interval_s)
    return {line.name: line.amount for line in (*stream_lines(rate, inputs), *lake_lines(shape, rate, inputs))}


@pytest.mark.parametrize(
    ("line", "changes", "dollars"),
    [
        ("Kafka between zones", {}, 864),
        ("Kafka disks", {}, 1_016),
        ("Kafka disks", {"local_days": 1}, 145),
        ("Kafka tiered storage", {"local_days": 1, "tiered_days": 7}, 70),
        ("Silver", {}, 50),
        ("Batches: PUT", {"interval_s": 10.0}, 8),
        ("Batches: PUT", {"interval_s": 1.0}, 78),
        ("Batches: PUT", {"interval_s": 0.25}, 311),
        ("Batches: PUT", {"interval_s": 10.0, "put_1000": 0.00113}, 1.76),
        ("Batches: PUT", {"interval_s": 1.0, "put_1000": 0.00113}, 18),
        ("Batches: PUT", {"interval_s": 0.25, "put_1000": 0.00113}, 70),
        ("Followers: LIST", {}, 13),
        ("Followers: GET", {}, 3.1),
        ("Followers: LIST", {"pollers": 100}, 1_296),
    ],
)
def test_the_worked_example_comes_out_within_5_percent(line: str, changes: dict[str, float], dollars: float) -> None:
    assert amounts(**changes)[line] == pytest.approx(dollars, rel=0.05)


def test_requests_are_counted_from_the_pipelines_tables() -> None:
    inputs = load_inputs()
    # 2 files of silver, 1 of quarantine, 1 of each rollup, and a commit in each table.
    assert puts_per_batch(Shape(1, bronze=False, interval_s=0), inputs) == 2 + 1 + 1 + 3
    assert puts_per_batch(Shape(2, bronze=True, interval_s=0), inputs) == 4 + 1 + 2 + 5
    assert batch_seconds(Shape(1, bronze=False, interval_s=0), inputs) == 0.25
    assert batch_seconds(Shape(1, bronze=False, interval_s=5), inputs) == 5


def test_what_is_older_is_cold_and_cheaper() -> None:
    warm, split = amounts(retained_months=4), amounts(retained_months=4, cold_after_months=1)
    assert warm["Silver, cold"] == 0
    assert split["Silver"] == pytest.approx(warm["Silver"] / 4)
    assert split["Silver, cold"] == pytest.approx(warm["Silver"] * 3 / 4 * 0.0125 / 0.023)


def test_the_sum_moves_as_its_lines_do() -> None:
    shape, inputs = Shape(1, bronze=False, interval_s=0), load_inputs()
    moved = {one.name: one for one in sensitivity(shape, RATE, inputs)}
    puts = next(line.amount for line in lake_lines(shape, RATE, inputs) if line.name == "Batches: PUT")
    assert moved["trigger"].doubled < -puts / 2 < puts < moved["trigger"].halved < 1.2 * puts
    assert moved["local_days"].doubled == pytest.approx(1_016, rel=0.01)
    assert moved["compression"].doubled < 0 < moved["compression"].halved
    assert next(iter(moved)) in ("rate", "event_bytes")


def test_advice_saves_what_it_says_and_the_largest_comes_first() -> None:
    shape, inputs = Shape(1, bronze=False, interval_s=0), load_inputs().having("test", pollers=20)
    found = advise(shape, RATE, inputs)
    assert [one.saves for one in found] == sorted((one.saves for one in found), reverse=True)
    by_what = {one.what: one.saves for one in found}
    slower = monthly(shape.having(interval_s=10), RATE, inputs)
    assert by_what["trigger.interval 10s"] == pytest.approx(monthly(shape, RATE, inputs) - slower)
    assert by_what["1 day on Kafka's disks, the rest tiered (KIP-405)"] == pytest.approx(1_016 - 145 - 70, rel=0.01)
    assert "one follower for all viewers" in by_what
    assert not [one for one in advise(shape.having(interval_s=10), RATE, inputs) if one.what.startswith("trigger")]


def test_break_even_is_where_the_cheaper_one_changes() -> None:
    shape, inputs = Shape(1, bronze=False, interval_s=0), load_inputs()
    viewers = next(one for one in break_even(shape, RATE, inputs) if one.by == "viewers")
    assert viewers.cheaper_now == "lakehouse"
    assert viewers.value is not None
    beyond = inputs.having("test", viewers=viewers.value)
    assert break_even(shape, RATE, beyond)[0].cheaper_now == "druid and flink"
    assert break_even(shape, RATE, inputs.having("test", viewers=viewers.value / 1.1))[0].cheaper_now == "lakehouse"


def test_tables_replace_assumptions(tmp_path: Path) -> None:
    pipeline = small_pipeline(tmp_path)
    sink = Sink.open(OnePass(str(tmp_path), pipeline, {}))
    for _ in range(3):
        append(sink, pipeline, ["good"] * 40 + ["torn"])
    found = measure(pipeline, 120.0)
    assert found["puts_per_batch"] == 3 + 3  # a file and a commit in each of silver, quarantine and gold
    size = sum(path.stat().st_size for path in (tmp_path / "silver" / "clicks").glob("*.parquet"))
    assert found["compression"] == pytest.approx(120 * 120 / size)
    assert found["batch_s"] < 60
    told = estimate(pipeline, RATE, load_inputs(), from_tables=True)
    assert told.inputs.figure("compression").basis == "measured"
    assert "measured: compression" in str(told)
    with pytest.raises(TableError, match="cannot be read"):
        measure(small_pipeline(tmp_path / "empty"), 120.0)


def test_a_file_of_ones_own_is_put_over_the_shipped_one(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        yaml.safe_dump({"prices": {"put_1000": {"value": 0.01, "set": "2026-01-01"}}, "assumptions": {"viewers": 3}})
    )
    inputs = load_inputs(own)
    assert (inputs["put_1000"], inputs["viewers"], inputs["get_1000"]) == (0.01, 3, 0.0004)
    assert inputs.figure("put_1000").set == "2026-01-01"
    assert inputs.figure("viewers").basis == "own.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prices: {put_100: 1}", "put_1000"),
        ("price: {put_1000: 1}", "no part"),
        ("prices: {put_1000: cheap}", "the value is 'cheap'"),
        ("prices: {put_1000: -1}", "the value is -1"),
        ("prices: {put_1000: {value: 1, cost: 2}}", "unknown key 'cost'"),
        ("assumptions: {batch_s: 0}", "divided by it"),
        ("prices: [", "cannot be read"),
        ("- 1", "no YAML mapping"),
    ],
)
def test_a_wrong_file_is_said_so(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_inputs(path)
    assert message in str(caught.value)


def test_every_figure_has_a_unit_a_date_and_a_basis() -> None:
    inputs: Inputs = load_inputs()
    for figure in (*inputs.prices.values(), *inputs.assumptions.values()):
        assert figure.unit
        assert figure.set == "2026-11-24"
        assert figure.basis


def test_the_command_explains_each_line(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["cost", str(SHIPPED), "--rate", "10000"])
    assert shown.exit_code == 0, shown.exception
    for text in (
        "Kafka between zones: 12,960 GB a month cross a zone 3.33 times",
        "Silver: 12,960 GB a month / 6 x 1 months",
        "10,368,000 batches, one every 0.25 s, of 7 files and commits",
        "what would save most",
        "by viewers: turns at about",
        "for a million events",
    ):
        assert text in shown.output
    path, _ = shipped_pipeline(tmp_path, trigger={"kind": "processing_time", "interval": "10s"})
    told: dict[str, Any] = json.loads(CliRunner().invoke(app, ["cost", str(path), "--rate", "10000", "--json"]).output)
    puts = next(line for line in told["lines"] if line["name"] == "Batches: PUT")
    assert puts["amount"] == pytest.approx(259_200 * 7 * 0.005 / 1_000)
    assert told["total"] == pytest.approx(sum(line["amount"] for line in told["lines"]))
