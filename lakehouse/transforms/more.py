"""Which events may have fields beyond their contract, for many values at once, at next to no cost where they have none.

Spark's reader passes over a field that it was not asked for and says nothing of it, and reading each value twice would
cost as much again. But in JSON a quote with a colon behind it ends a name, wherever it stands, as long as no quote is
escaped and nothing stands between the two. So names can be counted in bytes, without reading; where the fields that
were read account for all of them, there is no other. Only the other values are read again (`rescue`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    import pyarrow as pa
    from numpy.typing import NDArray

_QUOTE, _COLON, _BACKSLASH = b'":\\'
_LAST_BLANK = ord(" ")
"""No byte below it but blanks is let into JSON outside of texts, and none at all within."""


def may_hold_more(values: pa.Array, fields: pa.Table, known: Collection[str]) -> NDArray[np.bool_]:
    """Whether each object may have a field that is none of `known`; never false where it has one.

    Args:
        values: JSON objects as bytes, none of them null; of one chunk.
        fields: what was read of them, a column for each of `known`: null where a field is missing or null.
        known: names of the fields.

    Returns:
        One boolean per value.
    """
    if not len(values):
        return np.zeros(0, np.bool_)
    _, offsets, data = values.buffers()
    begins = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    text = np.frombuffer(data, np.uint8)[begins[0] : begins[-1]]
    begins = begins - begins[0]
    # Pairs of neighbours. One of two values' last and first bytes is none of these: an object ends with a brace.
    here, colon = text[:-1], text[1:] == _COLON
    ends = np.flatnonzero((here == _QUOTE) & colon)
    missing = {name: fields[name].is_null().to_numpy() for name in known if fields[name].null_count}
    more = _per_value(ends, begins) - len(known) + sum((of.astype(np.int32) for of in missing.values()), np.int32(0))
    # A name whose value is null was read as if it were not there. Inside of another object it is one name more.
    for name, of in missing.items():
        more -= of & (_per_value(_ends_of(name.encode(), text, ends), begins) > 0)
    unclear = (here <= _LAST_BLANK) & colon
    if (here == _BACKSLASH).any():
        unclear |= (here == _BACKSLASH) & (text[1:] == _QUOTE)
    found: NDArray[np.bool_] = more != 0
    if unclear.any():
        found |= _per_value(np.flatnonzero(unclear), begins) > 0
    return found


def _per_value(places: NDArray[np.int64], begins: NDArray[np.int32]) -> NDArray[np.int64]:
    """How many of the places, in order, lie in each value."""
    return np.diff(np.searchsorted(places, begins))


def _ends_of(name: bytes, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the closing quotes that close this name."""
    for back, byte in enumerate(reversed(b'"' + name), 1):
        # Never before the first value: the quote that opens a shorter name is none of this name's bytes.
        ends = ends[text[ends - back] == byte]
    return ends
