"""What a derived table covers, as each commit that derives something into it records.

A derived table (`gold/X_1m` of `gold/X_1s`) holds, as partial aggregates of wider windows, every row that its source
gained up to one *version* of the source. What the source gains later are the files that later commits add with
`dataChange: true`: a batch, a replay, or, where the source is derived itself, another derivation. Rewrites and
retirements gain nothing. So the boundary between history and tail is a version and no time: there is no gap and no
overlap at it, however late an event is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lakehouse.errors import TableError

COVER_KEY = "lakehouseCover"
"""Key of the cover in a commit's `commitInfo`."""
_FORMAT = 1


@dataclass(frozen=True)
class Cover:
    """What a derived table holds.

    Attributes:
        source: name of the table that it is derived from.
        source_id: Delta's id of that table; a table made anew under its name has another.
        version: the last version of the source whose rows are in.
        whole_from: the first window from which on the table holds what its source was given, no more and no less, µs
            since 1970 UTC; None where that is all of it. Earlier rows had been retired from the source before anything
            was derived, or come from a former table under the source's name.
    """

    source: str
    source_id: str
    version: int
    whole_from: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The form in which a commit holds it."""
        return {"format": _FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, raw: dict[str, Any], *, where: str) -> Cover:
        """Read what `to_json` wrote.

        Raises:
            TableError: the commit was written by a later format, or is damaged.
        """
        try:
            if raw["format"] != _FORMAT:
                raise TableError(
                    f"the last derivation has format {raw['format']}; this version reads {_FORMAT}",
                    where=where,
                    remedy="run the version of this project that wrote the table, or a later one",
                )
            return cls(raw["source"], raw["source_id"], raw["version"], raw["whole_from"])
        except (KeyError, TypeError) as error:
            raise TableError(
                f"what the table covers cannot be read: {error!r}",
                where=where,
                remedy="restore the table's log from a backup; nothing was written",
            ) from error
