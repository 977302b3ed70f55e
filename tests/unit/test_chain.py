"""Which batch may follow which: the rule that keeps records from being lost or doubled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lakehouse.chain import Batch, decide, describe, extend_origin
from lakehouse.errors import ChainError, TableError


def batch(start: dict[int, int], end: dict[int, int], *, query: str = "q", number: int = 0) -> Batch:
    return Batch("clicks", query, number, {"t": start}, {"t": end}, {"t": {0: 0}}, "sha", {"silver/clicks": []})


def test_the_first_batch_of_a_table_is_committed() -> None:
    assert decide(None, batch({0: 5}, {0: 9}), table="t") == "commit"


def test_a_batch_that_begins_where_the_last_one_ended_is_committed() -> None:
    assert decide(batch({0: 0}, {0: 5}), batch({0: 5}, {0: 9}), table="t") == "commit"


def test_the_same_range_again_is_skipped_even_from_another_query() -> None:
    again = batch({0: 0}, {0: 5}, query="other", number=7)
    assert decide(batch({0: 0}, {0: 5}), again, table="t") == "skip"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ({0: 6}, {0: 9}),  # a gap: records would be lost
        ({0: 4}, {0: 9}),  # an overlap: records would come in twice
        ({0: 0}, {0: 9}),  # a longer batch from the same beginning
        ({1: 0}, {1: 9}),  # another partition instead
        ({}, {}),  # nothing at all
    ],
)
def test_any_other_batch_is_refused_naming_both_ranges(start: dict[int, int], end: dict[int, int]) -> None:
    with pytest.raises(ChainError) as refused:
        decide(batch({0: 0}, {0: 5}), batch(start, end, query="new"), table="silver/clicks")
    text = str(refused.value)
    assert "t 0:5" in text
    assert describe({"t": end} if end else {"t": {}}).strip() in text
    assert "silver/clicks" in text


def test_a_new_partition_may_join_while_known_ones_go_on() -> None:
    assert decide(batch({0: 0}, {0: 5}), batch({0: 5, 1: 0}, {0: 6, 1: 3}), table="t") == "commit"
    with pytest.raises(ChainError):
        decide(batch({0: 0}, {0: 5}), batch({0: 4, 1: 0}, {0: 6, 1: 3}), table="t")


def test_a_partition_may_stand_still_but_not_disappear() -> None:
    head = batch({0: 0, 1: 0}, {0: 5, 1: 2})
    assert decide(head, batch({0: 5, 1: 2}, {0: 8, 1: 2}), table="t") == "commit"
    with pytest.raises(ChainError):
        decide(head, batch({0: 5}, {0: 8}), table="t")


def test_a_batch_survives_its_way_through_json() -> None:
    import json

    there = batch({0: 1, 10: 2}, {0: 3, 10: 4})
    back = Batch.from_json(json.loads(json.dumps(there.to_json())), where="here")
    assert back == there


def test_a_damaged_record_of_a_batch_is_named() -> None:
    raw = batch({0: 0}, {0: 1}).to_json()
    del raw["end"]
    with pytest.raises(TableError, match="cannot be read") as damaged:
        Batch.from_json(raw, where="silver/clicks, version 7")
    assert "version 7" in str(damaged.value)


def test_a_record_of_a_later_format_is_refused() -> None:
    raw = batch({0: 0}, {0: 1}).to_json() | {"format": 99}
    with pytest.raises(TableError, match="format 99"):
        Batch.from_json(raw, where="x")


def test_the_origin_is_kept_and_new_partitions_join_it() -> None:
    head = replace(batch({0: 5}, {0: 9}), origin={"t": {0: 2}})
    assert extend_origin(head, {"t": {0: 9, 1: 0}}) == {"t": {0: 2, 1: 0}}
    assert extend_origin(None, {"t": {0: 4}}) == {"t": {0: 4}}
