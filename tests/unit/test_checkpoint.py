"""Reading Spark's checkpoint, and deciding whether it and the tables tell one history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lakehouse.chain import Batch
from lakehouse.errors import CheckpointError, ForeignCheckpoint
from lakehouse.streaming.checkpoint import Checkpoint, Planned
from lakehouse.streaming.resume import starting_offsets


def spark_checkpoint(
    folder: Path, ends: list[int], *, committed: int, initial: int = 0, query: str = "q"
) -> Checkpoint:
    """A checkpoint as Spark lays it out: batches that end at `ends`, the first `committed` of them committed."""
    for name in ("offsets", "commits", "sources/0"):
        (folder / name).mkdir(parents=True)
    (folder / "metadata").write_text(json.dumps({"id": query}))
    (folder / "sources/0/0").write_bytes(b"\0v1\n" + json.dumps({"t": {"0": initial}}).encode())
    for number, end in enumerate(ends):
        (folder / f"offsets/{number}").write_text(f'v1\n{{"batchTimestampMs":1}}\n{{"t":{{"0":{end}}}}}')
    for number in range(committed):
        (folder / f"commits/{number}").write_text("v1\n{}")
    return Checkpoint(str(folder))


def head(start: int, end: int, *, query: str = "q", number: int = 0) -> Batch:
    return Batch("clicks", query, number, {"t": {0: start}}, {"t": {0: end}}, {"t": {0: 0}}, "sha", {})


def test_an_empty_folder_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(str(tmp_path))
    assert checkpoint.query_id() is None
    assert checkpoint.last_planned() is None


def test_ranges_are_read_from_the_offset_log(tmp_path: Path) -> None:
    checkpoint = spark_checkpoint(tmp_path, [5, 9], committed=1, initial=2)
    assert checkpoint.query_id() == "q"
    assert checkpoint.range_of(0) == ({"t": {0: 2}}, {"t": {0: 5}})
    assert checkpoint.range_of(1) == ({"t": {0: 5}}, {"t": {0: 9}})
    assert checkpoint.last_planned() == Planned(1, {"t": {0: 5}}, {"t": {0: 9}}, committed=False)


def test_a_partition_that_joins_begins_at_its_beginning(tmp_path: Path) -> None:
    checkpoint = spark_checkpoint(tmp_path, [5, 9], committed=1)
    (tmp_path / "offsets/1").write_text('v1\n{}\n{"t":{"0":9,"1":3}}')
    assert checkpoint.range_of(1)[0] == {"t": {0: 5, 1: 0}}


def test_batch_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    checkpoint = spark_checkpoint(tmp_path, list(range(1, 12)), committed=11)
    planned = checkpoint.last_planned()
    assert planned is not None
    assert planned.batch_id == 10


@pytest.mark.parametrize("content", ["", "v1\n", 'v1\n{}\n{"t":{"0"', "\0\0\0\0"])
def test_a_damaged_offset_file_is_named_with_the_way_out(tmp_path: Path, content: str) -> None:
    checkpoint = spark_checkpoint(tmp_path, [5], committed=0)
    (tmp_path / "offsets/0").write_text(content)
    with pytest.raises(CheckpointError, match="offsets/0") as damaged:
        checkpoint.last_planned()
    assert "lakehouse recover" in str(damaged.value)


def test_a_missing_offset_file_in_between_is_named(tmp_path: Path) -> None:
    checkpoint = spark_checkpoint(tmp_path, [5, 9], committed=1)
    (tmp_path / "offsets/0").unlink()
    with pytest.raises(CheckpointError, match="offsets/0 is missing"):
        checkpoint.last_planned()


def test_missing_metadata_is_named(tmp_path: Path) -> None:
    checkpoint = spark_checkpoint(tmp_path, [5], committed=1)
    (tmp_path / "metadata").unlink()
    with pytest.raises(CheckpointError, match="metadata is missing"):
        checkpoint.query_id()


def test_a_first_start_leaves_the_beginning_to_the_pipeline(tmp_path: Path) -> None:
    assert starting_offsets(None, Checkpoint(str(tmp_path))) is None


def test_a_lost_checkpoint_goes_on_where_the_tables_end(tmp_path: Path) -> None:
    assert starting_offsets(head(0, 5), Checkpoint(str(tmp_path))) == {"t": {0: 5}}


@pytest.mark.parametrize(
    ("last", "committed"),
    [
        (head(5, 9), 2),  # all is well
        (head(5, 9), 1),  # the tables have the batch, Spark had not noted it yet
        (head(0, 5), 1),  # planned, in no table yet
    ],
)
def test_a_checkpoint_that_agrees_goes_on(tmp_path: Path, last: Batch, committed: int) -> None:
    assert starting_offsets(last, spark_checkpoint(tmp_path, [5, 9], committed=committed)) is None


@pytest.mark.parametrize(
    ("last", "committed"),
    [
        (head(9, 14), 2),  # an old copy of the checkpoint
        (head(9, 14), 1),
        (head(0, 5), 2),  # Spark says done, the tables do not have it: tables restored from a backup
        (head(3, 7), 1),  # another pipeline's
    ],
)
def test_a_checkpoint_that_disagrees_is_refused_naming_both(tmp_path: Path, last: Batch, committed: int) -> None:
    with pytest.raises(CheckpointError) as refused:
        starting_offsets(last, spark_checkpoint(tmp_path, [5, 9], committed=committed))
    assert "t 0:9" in str(refused.value)
    assert f"t 0:{last.end['t'][0]}" in str(refused.value)


def test_a_checkpoint_over_empty_tables_is_refused_unless_nothing_was_done(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tables are empty"):
        starting_offsets(None, spark_checkpoint(tmp_path / "used", [5], committed=1))
    assert starting_offsets(None, spark_checkpoint(tmp_path / "fresh", [5], committed=0)) is None


def test_a_planned_batch_with_a_new_partition_goes_on(tmp_path: Path) -> None:
    checkpoint = spark_checkpoint(tmp_path, [5, 9], committed=1)
    (tmp_path / "offsets/1").write_text('v1\n{}\n{"t":{"0":9,"1":3}}')
    assert starting_offsets(head(0, 5), checkpoint) is None


def test_a_new_query_that_has_planned_its_first_batch_goes_on(tmp_path: Path) -> None:
    """The checkpoint was lost, a new query planned a batch where the tables end, and was killed."""
    checkpoint = spark_checkpoint(tmp_path, [9], committed=0, initial=5, query="new")
    assert starting_offsets(head(0, 5), checkpoint) is None
    with pytest.raises(ForeignCheckpoint, match="query new"):
        starting_offsets(head(0, 4), checkpoint)


def test_another_query_at_the_very_same_offsets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForeignCheckpoint, match="query other"):
        starting_offsets(head(5, 9), spark_checkpoint(tmp_path, [5, 9], committed=2, query="other"))
