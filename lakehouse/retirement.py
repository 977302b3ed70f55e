"""What a table says of its rows that left by a rule of retention: all from before one moment, and no others.

The moment stands in the table's `txn` of `RETIRED_APP_ID`, set by the commit that removed the rows. That outlives
checkpoints and log clean-up, so that nobody mistakes what was retired for what was lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deltalake import DeltaTable

RETIRED_APP_ID = "lakehouse.retired"
"""`appId` of the `txn` whose version is the moment before which rows have left, ms since 1970 UTC."""


def retired_before(table: DeltaTable) -> int | None:
    """The moment before which this version of a table holds no row that was there then, µs since 1970 UTC; or None.

    For a rollup it is a window's beginning, for any other table Kafka's `_timestamp`.
    """
    moment_ms = table.transaction_version(RETIRED_APP_ID)
    return None if moment_ms is None else moment_ms * 1_000
