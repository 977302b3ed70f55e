"""The linter's findings: each names its rules and says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lakehouse.cli import app
from lakehouse.quality.lint import Lint, lint
from lakehouse.quality.suite import parse_suite

REPOSITORY = Path(__file__).parents[2]
FIELDS = {"n": "long", "s": "string", "t": "timestamp", "price": "double", "cost": "double"}


def rule(kind: str, rule_id: str, severity: str = "critical", **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": kwargs, "severity": severity, "meta": {"rule_id": rule_id}}


def between(rule_id: str, low: Any, high: Any, severity: str = "critical", **more: Any) -> dict[str, Any]:
    return rule("column_values_to_be_between", rule_id, severity, column="n", min_value=low, max_value=high, **more)


def linted(*rules: dict[str, Any], fields: dict[str, str] | None = None) -> Lint:
    return lint(parse_suite(json.dumps({"name": "made", "expectations": rules}), source="made.json"), fields)


def told(*rules: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.kind, one.rules) for one in linted(*rules).findings]


def in_set(rule_id: str, values: list[Any], severity: str = "critical", column: str = "s") -> dict[str, Any]:
    return rule("column_values_to_be_in_set", rule_id, severity, column=column, value_set=values)


NULLITY = {"type": "nullity", "column": {"name": "s"}, "is_null": True}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([between("a", 0, 5), between("b", 0, 5)], [("duplicate", ("b", "a"))]),
        ([between("a", 0, 5, "warning"), between("b", 0, 5)], [("duplicate", ("a", "b"))]),
        (
            [rule("column_value_lengths_to_equal", "a", column="s", value=3),
             rule("column_value_lengths_to_be_between", "b", column="s", min_value=3, max_value=3)],
            [("duplicate", ("b", "a"))],
        ),
        ([between("a", 0, 5), between("b", 6, 9)], [("contradictory", ("a", "b"))]),
        ([in_set("a", ["ok"]), in_set("b", ["error"])], [("contradictory", ("a", "b"))]),
        ([in_set("a", [1, 2], column="n"), between("b", 5, None)], [("contradictory", ("a", "b"))]),
        (
            [rule("column_values_to_not_be_null", "a", column="s"), rule("column_values_to_be_null", "b", column="s")],
            [("contradictory", ("a", "b"))],
        ),
        (
            [rule("column_pair_values_a_to_be_greater_than_b", "a", column_A="price", column_B="cost"),
             rule("column_pair_values_a_to_be_greater_than_b", "b", column_A="cost", column_B="price", or_equal=True)],
            [("contradictory", ("a", "b"))],
        ),
        ([between("a", 5, 5, strict_min=True)], [("contradictory", ("a",))]),
        ([between("a", 0, 100), between("b", 10, 20)], [("redundant", ("a", "b"))]),
        ([between("a", 0, 100, "warning"), between("b", 10, 20)], [("unreachable", ("a", "b"))]),
        ([between("a", 0, 100), between("b", 10, 20, "warning")], []),
        ([between("a", 0, 100), between("b", 10, 20, mostly=0.5)], []),
        ([between("a", 0, 100, mostly=0.5), between("b", 10, 20, mostly=0.5)], [("redundant", ("a", "b"))]),
        ([in_set("a", ["ok", None])], [("unreachable", ("a",))]),
        (
            [rule("column_values_to_not_be_null", "a", column="s"),
             {**between("b", 0, 5, "warning"), "kwargs": between("b", 0, 5)["kwargs"] | {"row_condition": NULLITY}}],
            [("unreachable", ("b", "a"))],
        ),
        (
            [rule("column_mean_to_be_between", "a", column="n", min_value=0, max_value=1),
             rule("column_mean_to_be_between", "b", column="n", min_value=2, max_value=3)],
            [("contradictory", ("a", "b"))],
        ),
        (
            [rule("column_max_to_be_between", "a", column="n", max_value=1),
             rule("column_min_to_be_between", "b", column="n", min_value=2)],
            [("contradictory", ("b", "a"))],
        ),
        (
            [rule("column_mean_to_be_between", "a", column="n", min_value=0, max_value=9),
             rule("column_mean_to_be_between", "b", column="n", min_value=2, max_value=3)],
            [("redundant", ("a", "b"))],
        ),
        ([rule("column_mean_to_be_between", "a", column="n", min_value=2, max_value=1)], [("contradictory", ("a",))]),
        # A rule that is wrong alone is not told of again beside each other one.
        ([in_set("a", ["ok", None]), rule("column_values_to_match_regex", "b", column="n", regex=".*")],
         [("unreachable", ("a",)), ("unreachable", ("b",))]),
        ([between("a", 5, 5, strict_min=True), between("b", 6, 9)], [("contradictory", ("a",))]),
        (
            [rule("column_values_to_not_be_null", "a", column="s"),
             {**between("b", 0, 5, "info"), "kwargs": between("b", 0, 5)["kwargs"] | {"row_condition": NULLITY}}],
            [],
        ),
        # Nothing is claimed of texts that a column of numbers might read alike.
        ([in_set("a", ["1"]), in_set("b", ["01"])], []),
        ([in_set("a", ["ok"]), rule("column_values_to_match_regex", "b", column="s", regex="k")], []),
    ],
)  # fmt: skip
def test_findings(rules: list[dict[str, Any]], expected: list[tuple[str, tuple[str, ...]]]) -> None:
    assert told(*rules) == expected


def test_a_finding_names_both_rules_their_places_and_what_to_do() -> None:
    text = str(linted(between("wide", 0, 100), between("narrow", 10, 20)))
    assert "every row that fails wide fails narrow" in text
    assert "expectations[0] wide, expectations[1] narrow" in text
    assert "to do: remove wide" in text
    assert "2 rules, 1 findings" in text


def test_columns_and_types_are_held_against_the_pipeline() -> None:
    found = linted(
        rule("column_values_to_not_be_null", "a", column="prise"),
        rule("column_value_lengths_to_equal", "b", column="n", value=3),
        rule("column_mean_to_be_between", "c", column="s", max_value=1),
        fields=FIELDS,
    ).findings
    assert [(one.kind, one.rules) for one in found] == [
        ("unknown column", ("a",)),
        ("wrong type", ("b",)),
        ("wrong type", ("c",)),
    ]
    assert "price" in found[0].remedy


def test_the_shipped_suite_is_clean_and_the_exit_code_says_so(tmp_path: Path) -> None:
    suite, pipeline = REPOSITORY / "expectations/feature_events.json", REPOSITORY / "conf/feature_events.yaml"
    clean = CliRunner().invoke(app, ["quality", "lint", str(suite), "--pipeline", str(pipeline)])
    assert clean.exit_code == 0, clean.output
    document = json.loads(suite.read_text())
    document["expectations"].append(
        {"type": "expect_column_values_to_be_of_type", "kwargs": {"column": "region", "type_": "LongType"}}
    )
    (tmp_path / "suite.json").write_text(json.dumps(document))
    arguments = ["quality", "lint", str(tmp_path / "suite.json"), "--pipeline", str(pipeline), "--json"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 1
    [finding] = json.loads(found.output)["findings"]
    assert finding["kind"] == "wrong type"
    assert "StringType" in finding["what"]
