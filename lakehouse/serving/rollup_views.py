"""A view of each rollup in SQL: its whole history, every event once, partials merged.

    SELECT feature, sum(events) FROM gold.by_feature WHERE window_start >= now() - INTERVAL 1 hour GROUP BY feature

A row is a window and its dimensions, of the finest grain that still has it; `grain` says which. What a rule has retired
from a grain comes from the next coarser one, and what that one has not been given yet from the tails of the finer ones
(`history`). The columns' metadata say how they merge, so that no pipeline's file is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from lakehouse.rollups.partials import GRAIN_US
from lakehouse.schemas import MERGE_KEY
from lakehouse.serving.explore import identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lakehouse.serving.history import Held, History, Part

_TABLE = re.compile(r"(?P<rollup>.+)_(?P<grain>1s|1m|1h|1d)")
_OWN = ("events", "min_event_time", "max_event_time")
_MERGED = {
    "sum": "sum({0})",
    "min": "min({0})",
    "max": "max({0})",
    "hll": "hll_merge(list({0}))",
    "kll": "kll_merge(list({0}))",
    "theta": "theta_merge(list({0}))",
    "bitmap": "bitmap_merge(list({0}))",
    "top": "top_merge(list({0}))",
    "moments": "moments_merge(list({0}))",
}
"""How a column merges → as SQL."""


@dataclass(frozen=True)
class Group:
    """The tables of one rollup.

    Attributes:
        name: `feature_events_by_feature`.
        tables: (grain, name in gold), finest first.
    """

    name: str
    tables: tuple[tuple[str, str], ...]

    def alias(self, pipelines: Iterable[str]) -> str | None:
        """The rollup's own name, `by_feature`; None where no pipeline of these has it."""
        owners = [each for each in pipelines if self.name.startswith(f"{each}_")]
        return self.name.removeprefix(f"{max(owners, key=len)}_") if owners else None


def groups(gold: Iterable[str]) -> list[Group]:
    """The rollups whose tables these are."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in gold:
        if matched := _TABLE.fullmatch(name):
            found.setdefault(matched["rollup"], []).append((matched["grain"], name))
    return [Group(name, tuple(sorted(tables, key=_width))) for name, tables in sorted(found.items())]


def _width(table: tuple[str, str]) -> int:
    return GRAIN_US[table[0]]


def is_gold(schema: pa.Schema) -> bool:
    """Whether a table has the columns of a rollup, and says of each metric how it merges."""
    names = schema.names
    if not {"window_start", *_OWN}.issubset(names) or names[0] != "window_start":
        return False
    return all(_kind(schema.field(name)) in _MERGED for name in _metrics(names))


def statement(history: History, schema: pa.Schema, rows_of: Callable[[Held, Sequence[Part]], str]) -> str:
    """The view's SELECT.

    Args:
        history: the rollup's tables, pinned.
        schema: of each of them.
        rows_of: a SELECT of the rows of some files of a table.
    """
    return "\nUNION ALL BY NAME\n".join(
        _grain(history, grain, bounds, schema, rows_of) for grain, bounds in _segments(history).items()
    )


def _segments(history: History) -> dict[str, tuple[int | None, int | None]]:
    """Grain → the range that it answers, µs since 1970 UTC, None where it is open: the finest that has it."""
    found: dict[str, tuple[int | None, int | None]] = {}
    until: int | None = None
    for held in history.tables.values():
        since = held.retired_us
        if since is None or until is None or since < until:
            found[held.grain] = (since, until)
            until = since
        if since is None:
            break
    return found


def _grain(
    history: History,
    grain: str,
    bounds: tuple[int | None, int | None],
    schema: pa.Schema,
    rows_of: Callable[[Held, Sequence[Part]], str],
) -> str:
    width = GRAIN_US[grain]
    window = f"make_timestamptz(epoch_us(window_start) - (epoch_us(window_start) % {width} + {width}) % {width})"
    sources = history.sources(grain)
    # Only tails are narrower: on the table's own rows a condition on the window then reaches the files.
    parts = [
        f"SELECT * FROM ({rows})" if number == 0 else f"SELECT * REPLACE ({window} AS window_start) FROM ({rows})"  # noqa: S608 - made here
        for number, rows in enumerate(rows_of(source.table, source.parts) for source in sources)
    ]
    keys = ["window_start", *_dimensions(schema.names)]
    columns = [f"'{grain}' AS grain", *map(identifier, keys), "sum(events)::BIGINT AS events"]
    columns += [_merged(schema.field(name)) for name in _metrics(schema.names)]
    columns += ["min(min_event_time) AS min_event_time", "max(max_event_time) AS max_event_time"]
    sides = zip((">=", "<"), bounds, strict=True)
    where = " AND ".join(f"window_start {sign} make_timestamptz({at})" for sign, at in sides if at is not None)
    return (
        f"SELECT {', '.join(columns)} FROM ({' UNION ALL BY NAME '.join(parts)})"  # noqa: S608 - quoted above
        f"{f' WHERE {where}' if where else ''} GROUP BY {', '.join(map(identifier, keys))}"
    )


def _dimensions(names: Sequence[str]) -> Sequence[str]:
    return names[1 : names.index("events")]


def _metrics(names: Sequence[str]) -> Sequence[str]:
    return names[names.index("events") + 1 : names.index("min_event_time")]


def _kind(field: pa.Field) -> str | None:
    found = (field.metadata or {}).get(MERGE_KEY.encode())
    return found.decode() if found else None


def _merged(field: pa.Field) -> str:
    column = identifier(field.name)
    merged = _MERGED[_kind(field) or ""].format(column)
    return f"{merged}::BIGINT AS {column}" if pa.types.is_integer(field.type) else f"{merged} AS {column}"
