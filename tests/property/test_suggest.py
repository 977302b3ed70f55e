"""Whatever the rows are, no row breaks a rule that was suggested from them: judged here value by value, in Python."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.config.models import Pipeline
from lakehouse.quality.suite import parse_suite
from lakehouse.schemas import ARROW_TYPES, TIMESTAMP
from lakehouse.suggest import propose
from lakehouse.suggest.run import suggest
from tests.judges import fails
from tests.property import examples

FIELDS = {
    "id": "string",
    "note": "string",
    "count": "long",
    "small": "integer",
    "price": "double",
    "cost": "double",
    "on": "boolean",
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "id": st.sampled_from(["ord_1", "ord_22", "a-1", "0f", "x\n", "", "é"]) | st.text(max_size=6),
    "note": st.sampled_from(["ok", "error"]) | st.text(st.characters(codec="utf-8"), max_size=4),
    "count": st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9),
    "small": st.integers(-(2**31), 2**31 - 1),
    "price": st.floats() | st.floats(0, 100),
    "cost": st.floats(0, 100) | st.just(-0.0),
    "on": st.booleans(),
}


@st.composite
def columns(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Columns made of few values or of many, with or without gaps; long enough for rules to be looked for."""
    rows = draw(st.integers(1, 12))
    found = {}
    for name, values in VALUES.items():
        optional = draw(st.booleans())
        found[name] = draw(st.lists(values | st.none() if optional else values, min_size=rows, max_size=rows)) * 3
    return found


@settings(max_examples=examples(60), deadline=None)
@given(columns())
def test_no_row_breaks_a_suggested_rule(rows: dict[str, list[Any]]) -> None:
    fewest = propose.FEWEST_ROWS
    propose.FEWEST_ROWS = 1
    try:
        check(rows)
    finally:
        propose.FEWEST_ROWS = fewest


def check(rows: dict[str, list[Any]]) -> None:
    with TemporaryDirectory() as folder:
        pipeline = pipeline_in(folder)
        table = pa.table({name: pa.array(rows[name], ARROW_TYPES[of]) for name, of in FIELDS.items()})
        write_deltalake(f"{folder}/silver/made", table.append_column("at", pa.nulls(table.num_rows, TIMESTAMP)))
        found = suggest(pipeline)
    suite = parse_suite(json.dumps(found.document), source="made.json")
    for expectation in suite.expectations:
        if expectation.check is not None:
            judged = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
            assert not any(fails(expectation.check, row) for row in judged), expectation
        if expectation.type.endswith("_to_be_unique"):
            present = [value for value in rows[expectation.columns[0]] if value is not None]
            assert len(present) == len(set(present))
    # Nothing had to be taken back: what the profile says is so.
    assert not any(re.search("of the rows break it", one.why) for one in found.left_out if "format" not in one.rule)
    assert all(
        math.isfinite(bound) for one in found.proposals for bound in one.kwargs.values() if isinstance(bound, float)
    )


def pipeline_in(folder: str) -> Pipeline:
    """A pipeline `made` of the fields above."""
    return Pipeline.model_validate(
        {
            "name": "made",
            "root": str(Path(folder)),
            "source": {"servers": "localhost:1", "topic": "made", "fields": FIELDS | {"at": "timestamp"}},
            "event_time": {"column": "at"},
            "quality": {"suite": "none.json"},
        }
    )
