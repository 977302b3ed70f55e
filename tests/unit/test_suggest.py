"""From data to rules: what is proposed, on which evidence, and what is not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from lakehouse.cli import app
from lakehouse.config.models import EventField, Pipeline
from lakehouse.errors import ConfigError, TableError
from lakehouse.quality.suite import load_suite, parse_suite
from lakehouse.suggest.formats import format_of
from lakehouse.suggest.profile import profile
from lakehouse.suggest.proof import Provable, broken, unexpected
from lakehouse.suggest.propose import propose
from lakehouse.suggest.run import suggest
from lakehouse.suggest.sample import open_sample
from tests.judges import fails
from tests.silver import events, shipped_pipeline, write_silver


@pytest.fixture
def described(tmp_path: Path) -> tuple[Path, Pipeline]:
    path, pipeline = shipped_pipeline(tmp_path)
    for block in range(4):
        write_silver(pipeline, events([block]))
    return path, pipeline


def proposed(columns: dict[str, list[Any]], types: dict[str, Any], *, whole: bool = True) -> dict[str, dict[str, Any]]:
    """Rule id → expectation, of rows in two parts."""
    fields = {name: EventField.model_validate(of) for name, of in types.items()}
    table = pa.table(columns)
    half = table.num_rows // 2
    found = profile([table.slice(0, half), table.slice(half)], fields)
    return {one.rule_id: one.to_expectation() for one in propose(found, fields, whole=whole)[0]}


def test_the_loads_own_rules_are_found_with_their_evidence(described: tuple[Path, Pipeline]) -> None:
    found = suggest(described[1])
    rules = {one.rule_id: one for one in found.proposals}
    assert rules["status_known"].kwargs["value_set"] == ["error", "ok"]
    assert rules["event_id_format"].kwargs["regex"] == r"\A[0-9a-f]+\z"
    assert rules["event_id_length"].kwargs == {"column": "event_id", "min_value": 24, "max_value": 24}
    assert rules["event_id_unique"].evidence["distinct"] == 4 * 1_024
    assert rules["app_version_format"].evidence["family"] == "semantic version"
    assert rules["user_id_range"].kwargs == {"column": "user_id", "min_value": 0}
    assert 0 < rules["amount_share"].kwargs["min_value"] < rules["amount_share"].evidence["present_share"] < 0.1
    latency = rules["latency_ms_range"]
    assert latency.kwargs["min_value"] == 0
    assert latency.kwargs["max_value"] > latency.evidence["max"] > latency.evidence["quantiles"]["0.99"]
    assert found.document["meta"]["profiled"]["rows"] == 4 * 1_024
    assert "event_time_range" not in rules


def test_the_file_is_a_plain_suite_for_the_compiler_and_for_great_expectations(
    described: tuple[Path, Pipeline], tmp_path: Path
) -> None:
    output = tmp_path / "suggested.json"
    done = CliRunner().invoke(app, ["quality", "suggest", str(described[0]), "--output", str(output), "--json"])
    assert done.exit_code == 0, done.exception
    document = json.loads(output.read_text())
    assert json.loads(done.output)["suite"] == document
    ours = load_suite(output)
    assert {one.severity for one in ours.expectations} == {"warning"}
    assert CliRunner().invoke(app, ["quality", "lint", str(output), "--pipeline", str(described[0])]).exit_code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx

        theirs = gx.ExpectationSuite(**document)
    assert [one.expectation_type for one in theirs.expectations] == [one.type for one in ours.expectations]
    assert theirs.expectations[1].meta["evidence"] == document["expectations"][1]["meta"]["evidence"]
    again = CliRunner().invoke(app, ["quality", "suggest", str(described[0]), "--output", str(output)])
    assert isinstance(again.exception, ConfigError)


def test_people_get_a_table_and_a_reason_for_each_rule(described: tuple[Path, Pipeline]) -> None:
    shown = CliRunner().invoke(app, ["quality", "suggest", str(described[0])]).output
    assert "all 4,096 rows of version 3" in shown
    assert "status_known" in shown
    assert "4,096 rows hold 2 values" in shown


def test_a_sample_is_stated_pinned_and_the_same_each_time(described: tuple[Path, Pipeline]) -> None:
    pipeline = described[1]
    url = f"{pipeline.root}/silver/{pipeline.name}"
    sample = open_sample(url, ["event_id"], limit=1_500)
    assert (sample.rows, sample.of_rows, sample.row_groups, sample.of_row_groups) == (2_048, 4_096, 2, 4)
    read = [part["event_id"][0].as_py() for part in sample.read(["event_id"])]
    assert read == [
        part["event_id"][0].as_py() for part in open_sample(url, ["event_id"], limit=1_500).read(["event_id"])
    ]
    assert (
        open_sample(url, ["event_id"], limit=10**6, version=0).rows,
        open_sample(url, ["event_id"], limit=10**6, version=0).whole,
    ) == (
        1_024,
        True,
    )
    found = suggest(pipeline, rows=1_500)
    assert "a sample of 2,048 of 4,096 rows" in str(found)
    assert "event_id_unique" not in {one.rule_id for one in found.proposals}
    assert ("event_id",) in {one.columns for one in found.left_out if one.rule == "uniqueness"}


def test_a_value_seen_once_speaks_against_a_set() -> None:
    status = ["ok", "error"] * 100
    assert "s_known" in proposed({"s": status}, {"s": "string"})
    assert "s_known" not in proposed({"s": [*status, "strange"]}, {"s": "string"})
    versions = [f"1.{number % 3}.0" for number in range(200)]
    rules = proposed({"v": versions}, {"v": "string"})
    assert "v_known" not in rules
    assert rules["v_format"]["meta"]["evidence"]["family"] == "semantic version"


def test_an_order_is_a_rule_only_where_chance_would_have_broken_it() -> None:
    net = [float(number % 50) for number in range(400)]
    gross = [number * 1.2 for number in net]
    types = {"net": "double", "gross": "double"}
    rules = proposed({"net": net, "gross": gross}, types)
    assert rules["gross_not_below_net"]["kwargs"] == {
        "column_A": "gross", "column_B": "net", "or_equal": True, "ignore_row_if": "either_value_is_missing"
    }  # fmt: skip
    assert rules["gross_not_below_net"]["meta"]["evidence"]["expected_to_break_if_unrelated"] > 100
    apart = [number + 1_000 for number in net]
    assert "gross_not_below_net" not in proposed({"net": net, "gross": apart}, types)
    mixed = [*gross[:-1], -1.0]
    assert "gross_not_below_net" not in proposed({"net": net, "gross": mixed}, types)


def test_fields_that_identify_a_person_leave_no_value_in_the_suite() -> None:
    secrets = [f"secret_{number % 7}" for number in range(200)]
    rules = proposed({"who": secrets, "age": [30 + number % 9 for number in range(200)]},
                     {"who": {"type": "string", "pii": True}, "age": {"type": "integer", "pii": True}})  # fmt: skip
    assert "who_known" not in rules
    assert "secret" not in json.dumps(rules)
    assert rules["age_range"]["kwargs"] == {"column": "age", "min_value": 0}
    assert "quantiles" not in rules["age_range"]["meta"]["evidence"]


def test_what_is_no_evidence_is_left_out() -> None:
    few = proposed({"n": [1, 2, 3]}, {"n": "long"})
    assert set(few) == {"n_type"}
    strange = {"n": [1.0, float("nan")] * 100, "i": [1.0, float("inf")] * 100, "c": [7.0] * 200}
    assert not {rule for rule in proposed(strange, dict.fromkeys(strange, "double")) if rule.endswith("_range")}
    huge = [2**63 - 1 - number for number in range(200)]
    rules = proposed({"n": huge, "twice": huge[:100] * 2}, {"n": "long", "twice": "long"}, whole=True)
    assert "n_range" not in rules
    assert "n_unique" in rules
    assert "twice_unique" not in rules


@pytest.mark.parametrize(
    ("texts", "family"),
    [
        (["ord_12", "ord_345"], r"\Aord_[0-9]+\z"),
        (["a.b-0f", "a.b-1e"], r"\Aa\.b-[0-9a-f]+\z"),
        (["01ARZ3NDEKTSV4RRFFQ69G5FAV"], r"\A[0-7][0-9A-HJKMNP-TV-Z]{25}\z"),
        (["6ba7b810-9dad-11d1-80b4-00c04fd430c8"], None),
        (["two words"], r"\A[a-z]+([ _.-][a-z]+)*\z"),
        (["ends\n"], "none"),
        (["", "x"], "none"),
        (["é"], "none"),
    ],
)
def test_families_of_texts(texts: list[str], family: str | None) -> None:
    found = format_of(texts)
    assert (found is None) == (family == "none")
    if family not in (None, "none"):
        assert found is not None
        assert found[1] == family


def test_a_table_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot be read"):
        suggest(shipped_pipeline(tmp_path)[1])


def test_a_field_that_silver_does_not_have_is_said_so(described: tuple[Path, Pipeline]) -> None:
    url = f"{described[1].root}/silver/{described[1].name}"
    with pytest.raises(TableError, match="no column wishful"):
        open_sample(url, ["event_id", "wishful"], limit=1)


def test_a_proposal_that_rows_break_is_counted() -> None:
    items: list[dict[str, Any]] = [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a"}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "a", "min_value": 1, "max_value": 2}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "a", "min_value": 1}},
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "s", "value_set": ["x", "yy"]}},
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "s", "regex": r"\A[a-z]\z"}},
        {"type": "expect_column_value_lengths_to_equal", "kwargs": {"column": "s", "value": 1}},
        {"type": "expect_column_pair_values_a_to_be_greater_than_b", "kwargs": {"column_A": "a", "column_B": "b"}},
    ]
    rules = [{**item, "meta": {"rule_id": str(number)}} for number, item in enumerate(items)]
    suite = parse_suite(json.dumps({"name": "broken", "expectations": rules}), source="broken.json")
    rows = pa.table(
        {"a": [None, 3.0, float("nan"), 0.0, 1.5], "b": [1, 1, 1, None, 2], "s": ["x", None, "yy", "x\n", "é"]}
    )
    assert broken(suite, [rows.slice(0, 2), rows.slice(2)]) == {"0": 1, "1": 3, "2": 1, "3": 2, "4": 3, "5": 2, "6": 2}
    for one in suite.expectations:
        assert isinstance(one.check, Provable)
        told = unexpected(one.check, rows).to_pylist()
        # NaN is greater than every number; Arrow counts it against the order, which loses a proposal and makes none.
        judged = [fails(one.check, row) for row in rows.to_pylist()]
        assert told == (judged if one.rule_id != "6" else [False, False, True, False, True])
