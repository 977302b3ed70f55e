"""The oracle in plain Python gives the verdicts that Spark is known to give: the cases that `tests/spark` runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lakehouse.quality.suite import parse_suite
from tests.judges import fails
from tests.spark.test_rules import CASES


@pytest.mark.parametrize(("kind", "schema", "rows", "kwargs"), CASES)
def test_the_oracle_judges_as_spark_does(
    kind: str, schema: str, rows: list[tuple[Any, bool]], kwargs: dict[str, Any]
) -> None:
    suite = parse_suite(json.dumps({"name": "s", "expectations": [{"type": kind, "kwargs": kwargs}]}), source="s.json")
    [expectation] = suite.expectations
    assert expectation.check is not None
    columns = [field.split()[0] for field in schema.split(", ")]
    for values, unexpected in rows:
        row = dict(zip(columns, values if len(columns) > 1 else (values,), strict=True))
        assert fails(expectation.check, row) == unexpected, (kind, row)
