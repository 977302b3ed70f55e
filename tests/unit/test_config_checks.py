"""What has to fit together across a pipeline file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lakehouse.config.checks import DIMENSION_TYPES, DISTINCT_TYPES, GOLD_COLUMNS, NUMBER_TYPES, Finding, check
from lakehouse.config.models import Pipeline
from lakehouse.schemas import ARROW_TYPES, gold_schema

FIELDS = {f"a_{kind}": kind for kind in ARROW_TYPES}


def pipeline(**changes: Any) -> Pipeline:
    whole: dict[str, Any] = {
        "name": "clicks",
        "source": {"servers": "localhost:9092", "topic": "clicks", "fields": FIELDS},
        "event_time": {"column": "a_timestamp"},
        "quality": {"suite": "suite.json"},
    }
    for key, value in changes.items():
        whole[key] = whole[key] | value if key == "source" else value
    return Pipeline.model_validate(whole)


def with_rollup(*metrics: dict[str, Any], dimensions: tuple[str, ...] = ("a_string",), **fields: str) -> list[Finding]:
    rollup = {"dimensions": list(dimensions), "metrics": list(metrics)}
    return check(pipeline(rollups={"r": rollup}, source={"fields": FIELDS | fields}))


def with_where(**where: Any) -> list[Finding]:
    return with_rollup({"name": "m", "type": "count", "where": where})


def test_what_fits_has_no_findings() -> None:
    assert check(pipeline()) == []


@pytest.mark.parametrize("kind", sorted(ARROW_TYPES))
def test_the_event_time_is_a_timestamp(kind: str) -> None:
    findings = check(pipeline(event_time={"column": f"a_{kind}"}))
    assert bool(findings) == (kind != "timestamp")


def test_an_unknown_event_time_is_told_with_the_likely_field() -> None:
    assert check(pipeline(event_time={"column": "a_timestam"})) == [
        Finding(("event_time", "column"), "there is no field a_timestam", "did you mean a_timestamp?")
    ]


def test_a_missing_type_is_said_to_be_missing() -> None:
    only_text = pipeline(source={"fields": {"page": "string"}}, event_time={"column": "page"})
    assert check(only_text)[0].remedy == "choose a field of type timestamp; there is none yet"


@pytest.mark.parametrize("kind", sorted(ARROW_TYPES))
def test_dimensions_have_types_with_few_values(kind: str) -> None:
    assert bool(with_rollup(dimensions=(f"a_{kind}",))) == (kind not in DIMENSION_TYPES)


@pytest.mark.parametrize("kind", sorted(ARROW_TYPES))
@pytest.mark.parametrize("metric", ["sum", "min", "max", "quantiles", "distinct"])
def test_metrics_have_columns_that_they_can_take(metric: str, kind: str) -> None:
    fitting = DISTINCT_TYPES if metric == "distinct" else NUMBER_TYPES
    findings = with_rollup({"name": "m", "type": metric, "column": f"a_{kind}"})
    assert [finding.path for finding in findings] == (
        [] if kind in fitting else [("rollups", "r", "metrics", 0, "column")]
    )


@pytest.mark.parametrize(
    ("grains", "wanted"),
    [(["1m"], "[1s, 1m]"), (["1m", "1s"], "[1s, 1m]"), (["1s", "1d", "1h"], "[1s, 1h, 1d]")],
)
def test_grains_go_from_1s_to_coarser_ones(grains: list[str], wanted: str) -> None:
    (finding,) = check(pipeline(rollups={"r": {"dimensions": ["a_string"], "grains": grains}}))
    assert finding.path == ("rollups", "r", "grains")
    assert finding.remedy == f"write {wanted}"


@pytest.mark.parametrize(
    ("rules", "path", "what"),
    [
        ([{"rows": "1s", "keep": "1m"}], (0, "keep"), "keep is 1m, and rows stay for 10m at least"),
        ([{"rows": "1h", "keep": "1d"}], (0, "rows"), "no rollup has the grain 1h"),
        ([{"rows": "bronze", "keep": "1d"}], (0, "rows"), "the pipeline keeps no bronze"),
        ([{"rows": "silver", "rollup": "r", "keep": "1d"}], (0, "rollup"), "silver is no grain of a rollup"),
        ([{"rows": "1s", "rollup": "s", "keep": "1d"}], (0, "rollup"), "there is no rollup s"),
        (
            [{"rows": "1s", "keep": "forever"}, {"rows": "1s", "rollup": "r", "keep": "1d"}],
            (1,),
            "an earlier rule fits every table that this one fits",
        ),
    ],
)
def test_rules_of_retention_fit_the_tables(rules: list[dict[str, str]], path: tuple[Any, ...], what: str) -> None:
    (finding,) = check(pipeline(rollups={"r": {"dimensions": ["a_string"]}}, retention=rules))
    assert (finding.path, finding.what) == (("retention", *path), what)


def test_the_first_rule_that_fits_counts() -> None:
    rules = [
        {"rows": "1s", "rollup": "q", "keep": "forever"},
        {"rows": "1s", "rollup": "r", "keep": "6h"},
        {"rows": "1s", "keep": "12h"},
    ]
    kept = pipeline(rollups={name: {"dimensions": ["a_string"]} for name in "pqr"}, retention=rules)
    assert check(kept) == []
    assert [kept.keep("1s", name) for name in "pqr"] == [timedelta(hours=12), None, timedelta(hours=6)]
    assert kept.keep("silver") is None


def test_repeated_dimensions_and_grains_are_refused() -> None:
    findings = check(pipeline(rollups={"r": {"dimensions": ["a_string", "a_string"], "grains": ["1s", "1s"]}}))
    assert [finding.path for finding in findings] == [("rollups", "r", "dimensions", 1), ("rollups", "r", "grains", 1)]


@pytest.mark.parametrize("name", [name for name in GOLD_COLUMNS if not name.startswith("_")])
def test_names_of_gold_columns_are_taken(name: str) -> None:
    assert with_rollup({"name": name, "type": "count"})[0].path == ("rollups", "r", "metrics", 0, "name")
    assert with_rollup(dimensions=(name,), **{name: "string"})[0].path == ("rollups", "r", "dimensions", 0)
    assert with_rollup({"name": "m", "type": "sum", "column": name}, **{name: "long"}) == []


def test_the_reserved_names_are_those_of_the_schema() -> None:
    empty = pipeline(rollups={"r": {"dimensions": ["a_string"]}})
    names = gold_schema(empty.rollups["r"], empty.source.fields).names
    assert set(names) - {"a_string"} == set(GOLD_COLUMNS)


def test_metric_names_are_unique_and_no_dimensions() -> None:
    counts = [{"name": name, "type": "count"} for name in ("m", "a_string", "m")]
    assert [finding.what for finding in with_rollup(*counts)] == [
        "a_string is the name of a dimension already",
        "two metrics have the name m",
    ]


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ({"a_string": "x"}, True),
        ({"a_string": ["x", "y"]}, True),
        ({"a_string": 5}, False),
        ({"a_string": True}, False),
        ({"a_string": ["x", 5]}, False),
        ({"a_string": []}, False),
        ({"a_integer": 2**31 - 1}, True),
        ({"a_integer": -(2**31)}, True),
        ({"a_integer": 2**31}, False),
        ({"a_integer": "5"}, False),
        ({"a_integer": False}, False),
        ({"a_long": 2**63 - 1}, True),
        ({"a_long": 2**63}, False),
        ({"a_double": 5}, True),
        ({"a_double": "5"}, False),
        ({"a_boolean": True}, True),
        ({"a_boolean": 1}, False),
        ({"a_boolean": "true"}, False),
        ({"a_date": "2026-01-31"}, True),
        ({"a_date": "2026-02-30"}, False),
        ({"a_date": "20260131"}, False),
        ({"a_date": 20260131}, False),
        ({"a_timestamp": "2026-01-31"}, False),
        ({"b_string": "x"}, False),
    ],
)
def test_conditions_fit_the_type_of_their_field(where: dict[str, Any], *, fits: bool) -> None:
    assert (with_where(**where) == []) == fits


def test_a_condition_of_any_metric_is_checked_at_its_place() -> None:
    metric = {"name": "m", "type": "sum", "column": "a_long", "where": {"a_string": ["x", 5]}}
    assert with_rollup(metric) == [
        Finding(
            ("rollups", "r", "metrics", 0, "where", "a_string", 1),
            "a_string has the type string, but is compared with the number 5",
            "put the value in quotes",
        )
    ]


@pytest.mark.parametrize(
    ("servers", "fits"),
    [
        ("localhost:9092", True),
        ("a:1,b:2", True),
        ("a:1, b:2", True),
        ("[::1]:9092", True),
        ("SASL_SSL://a.b-c:65535", True),
        ("localhost", False),
        ("a:1,", False),
        ("a:0", False),
        ("a:65536", False),
        ("a b:1", False),
        ("a:b", False),
        ("a:1x", False),
    ],
)
def test_servers_are_addresses(servers: str, *, fits: bool) -> None:
    assert (check(pipeline(source={"servers": servers})) == []) == fits


@pytest.mark.parametrize(
    ("root", "fits"),
    [("./data", True), ("/data", True), ("s3://b/p", True), ("s3://b", True), ("s3:///p", False), ("gs://b", False)],
)
def test_roots_are_folders_or_buckets(root: str, *, fits: bool) -> None:
    assert (check(pipeline(root=root)) == []) == fits


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ("isolation.level", "remove it: only committed records are read"),
        ("kafka.isolation.level", "remove it: only committed records are read"),
        ("bootstrap.servers", "set source.servers"),
        ("kafka.client.id", "write client.id"),
        ("client.id", None),
    ],
)
def test_options_that_would_undo_a_guarantee_are_refused(option: str, remedy: str | None) -> None:
    findings = check(pipeline(source={"options": {option: "x"}}))
    assert [finding.remedy for finding in findings] == ([remedy] if remedy else [])
    assert all(finding.at_key and finding.path == ("source", "options", option) for finding in findings)


@pytest.mark.parametrize(("key", "value"), [("retention", "4m"), ("every", "500ms")])
def test_maintenance_that_would_not_be_safe_is_refused(key: str, value: str, tmp_path: Path) -> None:
    from tests.pipelines import small_pipeline

    (finding,) = check(small_pipeline(tmp_path, maintenance={key: value}))
    assert finding.path == ("maintenance", key)
    assert value in finding.what


def test_the_live_page_shows_only_what_it_holds() -> None:
    metrics = [
        {"name": "spread", "type": "variance", "column": "a_double"},
        {"name": "exact", "type": "distinct", "column": "a_long", "sketch": "bitmap"},
    ]
    rollup = {"dimensions": ["a_string"], "metrics": metrics}
    findings = check(pipeline(rollups={"r": rollup}, dashboard={"r": {"tiles": ["events", "spread", "exact"]}}))
    assert [finding.path[-1] for finding in findings] == [1, 2]
    assert findings[0].what == "spread is of a kind that the Live page does not hold"
    assert findings[0].remedy == "the metrics are events"
