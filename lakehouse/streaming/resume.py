"""Where a start goes on: the tables decide; the checkpoint and the topic have to agree with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.chain import describe, follows
from lakehouse.errors import (
    CheckpointError,
    ForeignCheckpoint,
    OtherTopic,
    RecordsExpired,
    StaleCheckpoint,
    TopicRecreated,
    TopicTruncated,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lakehouse.chain import Batch, Offsets
    from lakehouse.streaming.checkpoint import Checkpoint, Planned

Ranges = dict[int, tuple[int, int]]
"""partition → (first offset, inclusive; last, exclusive)."""

_SHOWN = 10
"""How many partitions a message names."""
_MOVE_ASIDE = (
    "`lakehouse recover` moves the checkpoint aside: the next start goes on where the tables end, without loss"
)


def starting_offsets(head: Batch | None, checkpoint: Checkpoint) -> Offsets | None:
    """Offsets for a query that has no checkpoint yet; None where the checkpoint or the pipeline's file decides.

    Args:
        head: the last batch in the tables, the same in each.
        checkpoint: Spark's, which may not exist.

    Raises:
        CheckpointError: where the checkpoint would go on elsewhere than the tables end. Without this check an
            old or foreign checkpoint would bring records in twice or leave them out.
    """
    query_id = checkpoint.query_id()
    planned = checkpoint.last_planned() if query_id else None
    if planned is None:
        _require_initial(head, checkpoint, query_id)
        return head.end if head else None
    if head is None:
        if planned.batch_id == 0 and not planned.committed:
            return None
        raise CheckpointError(
            f"the checkpoint has come as far as {describe(planned.end)}, but the tables are empty",
            where=checkpoint.url,
            remedy="restore the tables; or, to begin anew, let `lakehouse recover` move the checkpoint aside",
        )
    if not _agrees(head, planned, query_id):
        raise _disagreement(head, planned, query_id, checkpoint.url)
    return None


def _agrees(head: Batch, planned: Planned, query_id: str | None) -> bool:
    if query_id != head.query_id:
        # A query that has brought nothing in yet, after an older checkpoint was lost.
        return planned.batch_id == 0 and not planned.committed and follows(head.end, planned.start)
    if planned.committed:
        return head.end == planned.end
    return head.end == planned.end or follows(head.end, planned.start)


def _disagreement(head: Batch, planned: Planned, query_id: str | None, url: str) -> CheckpointError:
    both = (
        f"the checkpoint (query {query_id}, batch {planned.batch_id}) ends at {describe(planned.end)},"
        f" but the tables end at {describe(head.end)} (query {head.query_id}, batch {head.batch_id})"
    )
    if query_id == head.query_id:
        return StaleCheckpoint(f"{both}: one of them is an old copy", where=url, remedy=_MOVE_ASIDE)
    return ForeignCheckpoint(
        f"{both}: it is another pipeline's, or an old copy from before the tables' query",
        where=url,
        remedy=_MOVE_ASIDE,
    )


def _require_initial(head: Batch | None, checkpoint: Checkpoint, query_id: str | None) -> None:
    """A checkpoint without a batch still tells Spark where to begin."""
    initial = checkpoint.initial()
    if head is not None and initial is not None and not _begins_at(initial, head.end):
        raise StaleCheckpoint(
            f"the checkpoint (query {query_id}) has no batch and begins at {describe(initial)}, but the tables end at"
            f" {describe(head.end)} (query {head.query_id}, batch {head.batch_id})",
            where=checkpoint.url,
            remedy=_MOVE_ASIDE,
        )


def _begins_at(initial: Offsets, end: Offsets) -> bool:
    return all(
        initial.get(topic, {}).get(partition) == offset for topic, of in end.items() for partition, offset in of.items()
    )


def require_topic(head: Batch, topic: str, topic_id: str | None, offsets: Mapping[int, tuple[int, int]]) -> None:
    """Hold the topic against what the tables remember of it.

    Args:
        head: the last batch in the tables.
        topic: the topic that the pipeline's file names.
        topic_id: Kafka's id of it; None where the cluster knows none.
        offsets: partition → (earliest offset kept, offset of the next record).

    Raises:
        OtherTopic: the tables hold another topic's records.
        TopicRecreated: the topic was made anew.
        TopicTruncated: the topic ends before the tables.
        RecordsExpired: records that come next are gone.
    """
    if topic not in head.end:
        raise OtherTopic(
            f"the pipeline reads topic {topic}, but the tables hold records of {', '.join(head.end)}"
            f" ({describe(head.end)})",
            where=f"topic {topic}",
            remedy="give the pipeline another name or root, or name the old topic again",
        )
    require_same_topic(topic, head.topic_ids.get(topic), topic_id, tables=describe(head.end))
    cut = truncated(head.end[topic], offsets)
    if cut:
        raise TopicTruncated(
            f"topic {topic} ends before the tables in {_count(cut)}: {_spans(cut)} were read and are gone",
            where=f"topic {topic}",
            remedy=(
                "bring back the broker's data; or `lakehouse recover` lets the tables keep these records and take what"
                " comes under their offsets next"
            ),
        )
    gone = expired(head.end[topic], offsets)
    if gone:
        raise RecordsExpired(
            f"retention removed records of topic {topic} before they were read, in {_count(gone)}: {_spans(gone)}",
            where=f"topic {topic}, tables at {describe(head.end)}",
            remedy="they are lost for good; `lakehouse recover` records the gap and lets the tables go on behind it",
        )


def require_same_topic(topic: str, remembered: str | None, topic_id: str | None, *, tables: str = "") -> None:
    """Compare Kafka's ids of a topic, where both are known.

    Args:
        topic: its name.
        remembered: the id when its records were read.
        topic_id: the id now.
        tables: how far the tables hold it, for the message.

    Raises:
        TopicRecreated: they differ.
    """
    if None not in (remembered, topic_id) and remembered != topic_id:
        raise TopicRecreated(
            f"topic {topic} was deleted and made anew: it has the id {topic_id} now, the tables hold records of the"
            f" one with the id {remembered}{f' ({tables})' if tables else ''}",
            where=f"topic {topic}",
            remedy="`lakehouse recover` shows what is lost and lets the tables go on with the new topic",
        )


def truncated(end: Mapping[int, int], offsets: Mapping[int, tuple[int, int]]) -> Ranges:
    """Ranges that the tables hold and that lie behind the topic's end; a partition that is gone counts from 0."""
    ends = {partition: offsets[partition][1] if partition in offsets else 0 for partition in end}
    return {partition: (ends[partition], offset) for partition, offset in end.items() if ends[partition] < offset}


def expired(end: Mapping[int, int], offsets: Mapping[int, tuple[int, int]]) -> Ranges:
    """Ranges that come next but lie before the earliest offset that is kept; a new partition counts from 0."""
    return {
        partition: (end.get(partition, 0), earliest)
        for partition, (earliest, _) in offsets.items()
        if end.get(partition, 0) < earliest
    }


def _count(ranges: Ranges) -> str:
    return f"{len(ranges)} partition{'' if len(ranges) == 1 else 's'}"


def _spans(ranges: Ranges) -> str:
    shown = [f"partition {number} offsets {start}–{end}" for number, (start, end) in sorted(ranges.items())]
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")
