"""Whether an event may have fields beyond its contract, in Spark Columns, at next to no cost where it has none.

Spark's reader passes over a field that it was not asked for and says nothing of it. Reading each value twice would cost
as much again. But a flat JSON object has as many colons as it has names, plus those inside its texts: where the fields
that were read account for all of them, there is no other. Only the other values are read again, in the task (`rescue`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import Column


def may_hold_more(text: Column, event: Column, texts: Mapping[str, bool]) -> Column:
    """Whether the object may have a field that is none of `texts`; never null, and never false where it has one.

    Args:
        text: one JSON object that fits.
        event: the struct that was read of it, where each field has its value or is null.
        texts: field → whether `event` has it as the text that it is in the object.
    """
    colons = _colons(text)
    seen = _sum([_seen(event[name], is_text) for name, is_text in texts.items()])
    # A name whose value is null was read as if it were not there. In an object with one `}` alone, which has no objects
    # within, and without an escaped quote, `"name":` stands nowhere but where the field itself does.
    is_flat = ~text.contains(r"\"") & (F.octet_length(F.substring_index(text, "}", 1)) == F.octet_length(text) - 1)
    null = _sum([F.when(event[name].isNull() & text.contains(f'"{name}":'), 1).otherwise(0) for name in texts])
    # An escaped colon would count as read, though the text has none.
    accounted = ~text.contains(r"\u003") & ((colons == seen) | (is_flat & (colons == seen + null)))
    return ~F.coalesce(accounted, F.lit(False))


def _colons(text: Column) -> Column:
    return F.octet_length(text) - F.octet_length(F.replace(text, F.lit(":"), F.lit("")))


def _seen(value: Column, is_text: bool) -> Column:  # noqa: FBT001 - of each field
    """Colons in the object that a field accounts for."""
    here = F.lit(1) + _colons(value) if is_text else F.lit(1)
    return F.when(value.isNotNull(), here).otherwise(0)


def _sum(counts: list[Column]) -> Column:
    """Their sum as a balanced tree: Spark walks and compiles it level by level, and a chain is deep."""
    if len(counts) == 1:
        return counts[0]
    half = len(counts) // 2
    return _sum(counts[:half]) + _sum(counts[half:])
