"""Where a start goes on: the tables decide, the checkpoint has to agree with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.chain import describe
from lakehouse.errors import CheckpointError

if TYPE_CHECKING:
    from lakehouse.chain import Batch, Offsets
    from lakehouse.streaming.checkpoint import Checkpoint


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
        return head.end if head else None
    if head is None:
        if planned.batch_id == 0 and not planned.committed:
            return None
        raise CheckpointError(
            f"the checkpoint has come as far as {describe(planned.end)}, but the tables are empty",
            where=checkpoint.url,
            remedy="restore the tables, or move the checkpoint away to begin anew",
        )
    agrees = head.end == planned.end if planned.committed else head.end in (planned.start, planned.end)
    if not agrees:
        raise CheckpointError(
            f"the checkpoint (query {query_id}, batch {planned.batch_id}) ends at {describe(planned.end)},"
            f" but the tables end at {describe(head.end)} (query {head.query_id}, batch {head.batch_id}):"
            " it is an old copy, or another pipeline's",
            where=checkpoint.url,
            remedy="move the checkpoint folder away: the next start goes on where the tables end, without loss",
        )
    return None
