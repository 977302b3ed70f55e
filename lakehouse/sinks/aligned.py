"""One consistent view of a pipeline's tables: each at a version whose last batch and last replay are those of all."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse import storage
from lakehouse.errors import ReconcileError, TableError
from lakehouse.sinks.delta_log import find_head
from lakehouse.sinks.replays import last_replay

if TYPE_CHECKING:
    from lakehouse.chain import Batch
    from lakehouse.sinks.replays import Replays

_ALIGN_S = 30.0
"""A running pipeline commits its tables within milliseconds of each other; a table that stays behind for this
long belongs to a batch that a crash cut in two, which the pipeline's next start finishes."""


def aligned(root: str, names: list[str], replays: Replays) -> tuple[dict[str, DeltaTable], Batch]:
    """Every table at a version whose last batch and last replay are the same in all of them."""
    deadline = time.monotonic() + _ALIGN_S
    while True:
        tables = {name: _open(root, name) for name in names}
        heads = {
            name: find_head(storage.open_store(f"{root}/{name}"), name, table.version())
            for name, table in tables.items()
        }
        ends = [head.end for head in heads.values() if head is not None]
        first = next(iter(heads.values()))
        replayed = {name: last_replay(table) for name, table in tables.items()}
        last = max(replayed.values())
        # A table that joined after a replay has nothing of it.
        replays_agree = all(replayed.get(name, last) == last for name in replays.touched(last))
        if first is not None and len(ends) == len(heads) and all(end == first.end for end in ends) and replays_agree:
            # A table that has just joined is the only one that knows of it, until the next batch.
            joined = {name: mark for head in heads.values() if head for name, mark in head.past.joined.items()}
            return tables, replace(first, past=replace(first.past, joined=joined))
        if not ends:
            raise ReconcileError(
                "the tables hold no batch yet",
                where=root,
                remedy="run the pipeline first, or wait for its first batch",
            )
        if time.monotonic() > deadline and not replays_agree:
            raise ReconcileError(
                f"a replay has reached only some of the tables: {replayed}",
                where=root,
                remedy="start the pipeline or any `lakehouse quarantine replay` once: it finishes what was cut in two",
            )
        if time.monotonic() > deadline:
            raise ReconcileError(
                f"the tables do not end at the same batch: {_state(heads)}",
                where=root,
                remedy="start the pipeline once: it finishes the batch that a crash had cut in two",
            )
        time.sleep(0.02)


def _open(root: str, name: str) -> DeltaTable:
    try:
        return DeltaTable(f"{root}/{name}")
    except DeltaError as error:
        raise TableError(
            f"the table cannot be opened: {error}", where=f"{root}/{name}", remedy="run the pipeline first"
        ) from error


def _state(heads: dict[str, Batch | None]) -> str:
    return ", ".join(f"{name} at batch {head.batch_id if head else 'none'}" for name, head in heads.items())
