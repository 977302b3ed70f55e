"""The catalogue says what the installed Great Expectations says, and the docs page says what the catalogue says."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from lakehouse.quality.catalogue import CATALOGUE, COMMON_KWARGS, Family, markdown

PAGE = Path(__file__).parents[2] / "docs" / "expectations.md"


@pytest.fixture(scope="module")
def core() -> dict[str, Any]:
    """Type name -> class of great_expectations.expectations.core, by its modules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = importlib.import_module("great_expectations.expectations.core")
        found = {}
        for module in pkgutil.iter_modules(package.__path__):
            if "expect" in module.name:
                loaded = importlib.import_module(f"{package.__name__}.{module.name}")
                wanted = module.name.replace("_", "")
                found[module.name] = next(each for key, each in vars(loaded).items() if key.lower() == wanted)
    return found


def test_has_every_core_type_and_no_other(core: dict[str, Any]) -> None:
    assert len(core) == 64
    assert set(CATALOGUE) == set(core)


def test_kwargs_are_those_of_the_classes(core: dict[str, Any]) -> None:
    # Fields of every expectation, and one that some classes declare as a field by mistake.
    shared = set(core["expect_table_column_count_to_equal"].__base__.__fields__) | {"library_metadata"}
    for name, entry in CATALOGUE.items():
        if entry.family is Family.RETIRED:
            continue
        fields = {key: field for key, field in core[name].__fields__.items() if key not in shared}
        assert set(entry.required) == {key for key, field in fields.items() if field.required}, name
        assert set(entry.optional) == {key for key, field in fields.items() if not field.required}, name
    assert shared > COMMON_KWARGS


def test_types_refused_for_want_of_spark_have_no_spark_code(core: dict[str, Any]) -> None:
    registry = importlib.import_module("great_expectations.expectations.registry")
    for name, entry in CATALOGUE.items():
        map_metric = getattr(core[name], "map_metric", None)
        if map_metric is None or entry.family is Family.SCHEMA:
            continue
        providers = registry._registered_metrics[f"{map_metric}.condition"]["providers"]
        on_spark = entry.on_spark and entry.family is not Family.LIKE  # judged by a regular expression there
        assert on_spark == ("SparkDFExecutionEngine" in providers), name


def test_retired_types_cannot_be_made(core: dict[str, Any]) -> None:
    for name, entry in CATALOGUE.items():
        if entry.family is Family.RETIRED:
            assert not hasattr(core[name], "__fields__") or core[name].is_abstract(), name
            assert not entry.on_spark


def test_twenty_one_types_judge_rows() -> None:
    assert sum(entry.judges_rows for entry in CATALOGUE.values()) == 21


def test_each_family_has_a_reason() -> None:
    for entry in CATALOGUE.values():
        assert entry.meaning.endswith(".")
        assert entry.in_stream
        assert entry.in_report
        assert entry.why


def test_the_page_is_in_step() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), (
        "write it anew: python -m lakehouse.quality.catalogue > docs/expectations.md"
    )
