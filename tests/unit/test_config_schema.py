"""The JSON Schema and the reference page are in step with the models, and the schema with the loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lakehouse.config import reference, schema
from lakehouse.config.loader import load_pipeline
from lakehouse.errors import ConfigError

PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / "conf" / "feature_events.yaml"
PIPELINES = sorted((PROJECT / "conf").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(schema.pipeline_schema())


def example() -> Any:
    return yaml.safe_load(EXAMPLE.read_text())


def test_the_committed_schema_is_the_one_that_the_models_give() -> None:
    assert (PROJECT / schema.SCHEMA_FILE).read_text() == schema.render(), "run python -m lakehouse.config.schema"


def test_the_committed_reference_is_the_one_that_the_models_give() -> None:
    rendered = reference.render(EXAMPLE.read_text())
    assert (PROJECT / reference.REFERENCE_FILE).read_text() == rendered, "run python -m lakehouse.config.reference"


def test_the_reference_explains_every_key() -> None:
    assert "None |" not in reference.render("")


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.pipeline_schema())


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.name)
def test_every_pipeline_of_the_project_meets_schema_and_loader(file: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(file.read_text()))
    load_pipeline(file, {})


def every(node: Any) -> list[dict[str, Any]]:
    """Every schema below a node."""
    below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return ([node] if isinstance(node, dict) else []) + [found for inner in below for found in every(inner)]


def test_no_object_takes_unknown_keys_and_every_key_is_described() -> None:
    whole = schema.pipeline_schema()
    for node in every(whole):
        if node.get("type") == "object" and "properties" in node:
            assert node["additionalProperties"] is False
            for name, value in node["properties"].items():
                assert value.get("description"), name


CHANGES: list[tuple[tuple[str | int, ...], Any, bool]] = [
    (("name",), "Clicks", False),
    (("name",), "${NAME:-clicks}", True),
    (("nam",), "x", False),
    (("source", "max_records_per_batch"), 0, False),
    (("source", "max_records_per_batch"), "${MAX:-5}", True),
    (("source", "starting_offsets"), "first", False),
    (("source", "options"), {"a.b": 5, "c": True, "d": "x"}, True),
    (("source", "options"), {"a.b": [5]}, False),
    (("source", "fields", "extra"), "string", True),
    (("source", "fields", "extra"), {"type": "string", "pii": True}, True),
    (("source", "fields", "extra"), {"type": "text"}, False),
    (("source", "fields", "extra"), {"kind": "string"}, False),
    (("source", "fields", "_extra"), "string", False),
    (("source", "fields", "extra"), "text", False),
    (("event_time", "max_future"), "5 minutes", False),
    (("event_time", "max_future"), "90 s", True),
    (("event_time", "max_future"), "${AHEAD:-5m}", True),
    (("tables", "bronze"), "perhaps", False),
    (("trigger",), {"kind": "available_now"}, True),
    (("trigger",), {"kind": "available_now", "interval": "1s"}, False),
    (("trigger",), {"interval": "1s"}, False),
    (("rollups", "by_feature", "grains"), [], False),
    (("rollups", "by_feature", "metrics", 0, "type"), "cnt", False),
    (("rollups", "by_feature", "metrics", 0, "column"), "status", False),
    (("rollups", "by_feature", "metrics", 0, "where"), {"status": ["a", "b"]}, True),
    (("rollups", "by_feature", "metrics", 0, "where"), {"status": {"a": 1}}, False),
    (("rollups", "by_feature", "metrics", 4, "k"), 7, False),
    (("rollups", "By"), {"dimensions": ["feature"]}, False),
]


@pytest.mark.parametrize(("path", "value", "right"), CHANGES)
def test_schema_and_loader_agree(path: tuple[str | int, ...], value: object, tmp_path: Path, *, right: bool) -> None:
    changed = example()
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    file = tmp_path / "changed.yaml"
    file.write_text(yaml.safe_dump(changed))

    assert VALIDATOR.is_valid(changed) == right
    try:
        load_pipeline(file, {})
    except ConfigError:
        assert not right
    else:
        assert right
