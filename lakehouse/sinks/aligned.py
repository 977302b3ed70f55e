"""One consistent view of a pipeline's tables: each at the version whose last batch is the same in all of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse import storage
from lakehouse.errors import ReconcileError, TableError
from lakehouse.sinks.delta_log import find_head

if TYPE_CHECKING:
    from lakehouse.chain import Batch

_ALIGN_S = 30.0
"""A running pipeline commits its tables within milliseconds of each other; a table that stays behind for this
long belongs to a batch that a crash cut in two, which the pipeline's next start finishes."""


def aligned(root: str, names: list[str]) -> tuple[dict[str, DeltaTable], Batch]:
    """Every table at the version whose last batch is the same in all of them."""
    deadline = time.monotonic() + _ALIGN_S
    while True:
        tables = {name: _open(root, name) for name in names}
        heads = {
            name: find_head(storage.open_store(f"{root}/{name}"), name, table.version())
            for name, table in tables.items()
        }
        ends = [head.end for head in heads.values() if head is not None]
        first = next(iter(heads.values()))
        if first is not None and len(ends) == len(heads) and all(end == first.end for end in ends):
            return tables, first
        if not ends:
            raise ReconcileError(
                "the tables hold no batch yet",
                where=root,
                remedy="run the pipeline first, or wait for its first batch",
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
