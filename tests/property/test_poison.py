"""Any bytes at all: the contract never raises, and each record ends in exactly one of silver and quarantine."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lakehouse.transforms.contract import SHOWN, Contract
from tests.loads import FEATURE_EVENTS as _EVENTS
from tests.poison import KAFKA_TIME, Case, corpus, poisoned_pipeline
from tests.poison.one_pass import kafka_records, written
from tests.property import examples
from tests.property.oracle import quick

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PIPELINE = poisoned_pipeline(Path("unused"))
CONTRACT = Contract(
    {name: field.type for name, field in PIPELINE.source.fields.items()},
    PIPELINE.event_time.column,
    PIPELINE.event_time.max_future,
)
_BLOCK = _EVENTS.draw(1, 0, 1_000)
GOOD = _EVENTS.render(_BLOCK, np.full(len(_BLOCK.keys), round(KAFKA_TIME.timestamp() * 1_000)))[:50]
SMALL = [case.value for case in corpus() if case.value is not None and len(case.value) < 2_000]
TOKENS = (
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\x00",
    b"\xff",
    b"\xc3",
    b"1e999",
    b"null",
    b"\\ud800",
    b"-",
    b" ",
)


@st.composite
def mutated(draw_from: st.DrawFn) -> bytes:
    """A good event, or one of the corpus, with a few bytes flipped, cut, doubled, or spliced with another's."""
    value = draw_from(st.sampled_from(GOOD + SMALL))
    for _ in range(draw_from(st.integers(1, 4))):
        at, to = sorted((draw_from(st.integers(0, len(value))), draw_from(st.integers(0, len(value)))))
        match draw_from(st.sampled_from(["flip", "cut", "drop", "double", "insert", "splice"])):
            case "flip" if at < len(value):
                value = value[:at] + bytes([value[at] ^ 1 << draw_from(st.integers(0, 7))]) + value[at + 1 :]
            case "cut":
                value = value[:at]
            case "drop":
                value = value[:at] + value[to:]
            case "double":
                value = value[:to] + value[at:]
            case "insert":
                value = value[:at] + draw_from(st.sampled_from(TOKENS)) + value[at:]
            case "splice":
                other = draw_from(st.sampled_from(GOOD + SMALL))
                value = value[:at] + other[min(at, len(other)) :]
            case _:
                pass
    return value


ANYTHING = st.one_of(
    st.binary(max_size=300), mutated(), st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))
)


@given(value=st.none() | ANYTHING)
@settings(max_examples=examples(500), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_contract_has_a_harmless_reason_against_whatever_spark_refused(value: bytes | None) -> None:
    row = {
        "_value": value,
        "_fits": False,
        "_timely": False,
        "_timestamp": KAFKA_TIME,
        **dict.fromkeys(CONTRACT.fields),
    }
    reasons = CONTRACT.reasons(row)
    assert reasons
    for reason in reasons:
        for text in filter(None, (reason["message"], reason["value"])):
            assert not any(unicodedata.category(char)[0] == "C" for char in text)
            assert len(text) < SHOWN + 250


# A Spark job takes a second, so a few examples hold many values each.
@pytest.mark.timeout(280)
@settings(
    max_examples=examples(3),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(values=st.lists(ANYTHING, min_size=40, max_size=80))
def test_each_record_ends_in_exactly_one_table(spark: SparkSession, values: list[bytes]) -> None:
    cases = [Case("", value, None, (), KAFKA_TIME, (), {}, ()) for value in values]
    with tempfile.TemporaryDirectory() as folder, quick(spark):
        root = Path(folder)
        tables = written(poisoned_pipeline(root), kafka_records(spark, cases, root / "records.parquet"), root)
    silver, quarantine = (tables[f"{layer}/feature_events"] for layer in ("silver", "quarantine"))
    assert sorted(row["_offset"] for row in silver + quarantine) == list(range(len(values)))
    for row in quarantine:
        assert row["_value"] == values[row["_offset"]]
        assert row["_errors"]
    for row in silver:
        # A reader that knows nothing of Spark takes it for one JSON object as well, with the same values.
        event = json.loads(values[row["_offset"]].decode(), parse_constant=pytest.fail)
        assert event["user_id"] == row["user_id"]
        assert event["latency_ms"] == row["latency_ms"]
        assert event["event_id"] == row["event_id"] or not isinstance(event["event_id"], str)
