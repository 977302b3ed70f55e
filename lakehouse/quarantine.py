"""What is in quarantine: choosing its rows, counting them by rule, and everything known of one record. No JVM."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import storage
from lakehouse.config.models import parse_duration
from lakehouse.errors import ConfigError
from lakehouse.quality.reasons import within_python
from lakehouse.schemas import RAW
from lakehouse.serving.grid import render_grid
from lakehouse.sinks.replays import open_table
from lakehouse.transforms.contract import printable, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lakehouse.config.models import Pipeline

_BATCH = 20_000
_DUMPED = 4_096
"""Bytes of a value that a terminal is shown; `--json` has all of them."""
_LINE = 16


@dataclass(frozen=True)
class Choice:
    """Which rows of quarantine are meant: those that meet every part.

    Attributes:
        rules: ids, any of which refused the row; empty for any rule.
        since: first Kafka time, inclusive; until: exclusive; None for open ends.
        where: field → value, compared with the fields of a value that is a JSON object, as text or as JSON.
        limit: the first so many rows, as the table holds them; None for all.
    """

    rules: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    where: dict[str, str] = field(default_factory=dict)
    limit: int | None = None


@dataclass(frozen=True)
class RuleCount:
    """Rows that one rule refused: how many, Kafka's time of the first and the last, and one of the messages."""

    rule_id: str
    rows: int
    first: datetime
    last: datetime
    sample: str


@dataclass(frozen=True)
class Overview:
    """Rows chosen, and by which rules they were refused; a row with several reasons counts at each."""

    pipeline: str
    rows: int
    rules: list[RuleCount]

    def __str__(self) -> str:
        lines = [
            [rule.rule_id, f"{rule.rows:,}", _moment(rule.first), _moment(rule.last), rule.sample]
            for rule in self.rules
        ]
        grid = render_grid(["rule", "rows", "first", "last", "for example"], lines, right=[False, True] + [False] * 3)
        return f"{grid}\n{self.rows:,} rows in quarantine" if lines else "no such row in quarantine"


@dataclass(frozen=True)
class Entry:
    """One record that is, or was, in quarantine.

    Attributes:
        state: `quarantined`, or `replayed`: then it is in silver, and `replay_id` says what brought it there.
        topic, partition, offset, timestamp: where it stands in Kafka, and Kafka's time.
        key, value, headers: its bytes as Kafka held them.
        errors: why it was refused when it came.
        quarantined_at: when that was.
        attempts: replays that refused it again, in order: which, when, with which suite and repair, and why.
        repair: name of the function that repaired a replayed record, where there was one.
    """

    state: str
    topic: str
    partition: int
    offset: int
    timestamp: datetime
    key: bytes | None
    value: bytes | None
    headers: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    quarantined_at: datetime
    attempts: list[dict[str, Any]]
    replay_id: str | None = None
    repair: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For scripts: bytes as hexadecimal digits under `key_hex`, `value_hex`, and `value_hex` of each header."""
        names = ("state", "topic", "partition", "offset", "timestamp", "errors", "quarantined_at", "attempts")
        return {
            **{name: getattr(self, name) for name in names},
            "replay_id": self.replay_id,
            "repair": self.repair,
            "key_hex": _hex(self.key),
            "value_hex": _hex(self.value),
            "headers": [{"key": header["key"], "value_hex": _hex(header["value"])} for header in self.headers],
        }

    def __str__(self) -> str:
        place = f"{printable(self.topic)} {self.partition}:{self.offset}"
        lines = [f"{place} of {_moment(self.timestamp)}, refused {_moment(self.quarantined_at)}"]
        if self.state == "replayed":
            by = f", repaired by {printable(self.repair)}" if self.repair else ""
            lines.append(f"in silver, by replay {printable(self.replay_id or '')}{by}")
        lines += ["", "refused because", *_reasons(self.errors)]
        for attempt in self.attempts:
            by = f", repaired by {printable(attempt['repair'])}" if attempt["repair"] else ""
            lines += ["", f"refused again {_moment(attempt['at'])} by replay {printable(attempt['replay_id'])}{by}"]
            lines += _reasons(attempt["errors"])
        lines += ["", f"key    {_bytes(self.key)}"]
        lines += [f"header {printable(header['key'] or '')} = {_bytes(header['value'])}" for header in self.headers]
        if self.value is None:
            return "\n".join([*lines, "no value (a tombstone)"])
        return "\n".join([*lines, f"value  {len(self.value):,} bytes", *_dump(self.value)])


def overview(pipeline: Pipeline, choice: Choice) -> Overview:
    """Count the chosen rows by rule, the most frequent first.

    Raises:
        TableError: there is no quarantine table yet.
    """
    total = 0
    counts: dict[str, RuleCount] = {}
    for rows in read(pipeline, choice):
        total += rows.num_rows
        pairs = zip(within_python(rows["_timestamp"]).to_pylist(), rows["_errors"].to_pylist(), strict=True)
        for moment, errors in pairs:
            for rule, message in {error["rule_id"]: error["message"] for error in errors}.items():
                known = counts.get(rule)
                counts[rule] = RuleCount(
                    rule,
                    known.rows + 1 if known else 1,
                    min(known.first, moment) if known else moment,
                    max(known.last, moment) if known else moment,
                    known.sample if known else message,
                )
    ordered = sorted(counts.values(), key=lambda rule: (-rule.rows, rule.rule_id))
    return Overview(pipeline.name, total, ordered)


def entries(pipeline: Pipeline, choice: Choice) -> list[Entry]:
    """The chosen rows, one by one."""
    return [_quarantined(row) for rows in read(pipeline, choice) for row in _objects(rows)]


def render_entries(found: list[Entry]) -> str:
    """A line a row for a terminal."""
    lines = [
        [
            f"{entry.partition}:{entry.offset}",
            _moment(entry.timestamp),
            ", ".join(error["rule_id"] for error in entry.errors),
            str(len(entry.attempts)),
            entry.errors[0]["message"] if entry.errors else "",
        ]
        for entry in found
    ]
    return render_grid(
        ["row", "time", "rules", "replays", "first reason"], lines, right=[False, False, False, True, False]
    )


def find(pipeline: Pipeline, partition: int, offset: int) -> Entry:
    """Everything known of one record that was refused, also where a replay has brought it to silver since.

    Raises:
        ConfigError: it is not in quarantine and never left it by a replay.
        TableError: a table cannot be read.
    """
    root = storage.resolve_root(pipeline.root)
    here = (pc.field("_partition") == partition) & (pc.field("_offset") == offset)
    # Silver first: a replay puts a row there before it takes it out of quarantine.
    silver = open_table(root, f"silver/{pipeline.name}").to_pyarrow_dataset()
    if "_replayed_from" in silver.schema.names:
        position = ["_topic", "_partition", "_offset", "_timestamp", "_replayed_from"]
        for row in _objects(silver.to_table(filter=here, columns=position)):
            if row["_replayed_from"] is not None:
                return _replayed(row)
    quarantine = open_table(root, f"quarantine/{pipeline.name}").to_pyarrow_dataset()
    for row in _objects(quarantine.to_table(filter=here)):
        return _quarantined(row)
    raise ConfigError(
        f"the record {partition}:{offset} is not in quarantine and was never replayed",
        where=f"quarantine/{pipeline.name}",
        remedy="take PARTITION:OFFSET from lakehouse quarantine list --rows",
    )


def read(pipeline: Pipeline, choice: Choice) -> Iterator[pa.Table]:
    """The chosen rows, in the columns of `schemas.quarantine_schema`, some at a time.

    Raises:
        TableError: there is no quarantine table yet.
    """
    dataset = open_table(storage.resolve_root(pipeline.root), f"quarantine/{pipeline.name}").to_pyarrow_dataset()
    left = choice.limit
    for batch in dataset.to_batches(filter=_times(choice), batch_size=_BATCH):
        rows = pa.Table.from_batches([batch])
        if choice.rules:
            rows = rows.filter(_refused_by(rows, choice.rules))
        if choice.where:
            rows = rows.filter(
                pa.array([_holds(value, choice.where) for value in rows["_value"].to_pylist()], pa.bool_())
            )
        rows = rows if left is None else rows.slice(0, left)
        if rows.num_rows:
            yield rows
        if left is not None:
            left -= rows.num_rows
            if not left:
                return


def parse_moment(text: str) -> datetime:
    """A time in ISO 8601, UTC where it names no zone; or a span such as `2h`, counted back from now.

    Raises:
        ConfigError: it is neither.
    """
    try:
        return datetime.now(UTC) - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a time", remedy="write 2026-01-31, 2026-01-31T12:00:00+01:00, or a span such as 2h"
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def parse_where(conditions: Iterable[str]) -> dict[str, str]:
    """`FIELD=VALUE` texts as a mapping.

    Raises:
        ConfigError: one of them has no `=`.
    """
    pairs = [condition.partition("=") for condition in conditions]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise ConfigError(
                f"{name + equals!r} is not FIELD=VALUE", remedy="write for example --where feature=search"
            )
    return {name: value for name, _, value in pairs}


def _objects(rows: pa.Table) -> list[dict[str, Any]]:
    index = rows.column_names.index("_timestamp")
    return rows.set_column(index, "_timestamp", within_python(rows["_timestamp"])).to_pylist()  # type: ignore[no-any-return]


def _times(choice: Choice) -> pc.Expression | None:
    parts = []
    if choice.since is not None:
        parts.append(pc.field("_timestamp") >= pa.scalar(choice.since, pa.timestamp("us", tz="UTC")))
    if choice.until is not None:
        parts.append(pc.field("_timestamp") < pa.scalar(choice.until, pa.timestamp("us", tz="UTC")))
    return (parts[0] & parts[1]) if len(parts) > 1 else (parts[0] if parts else None)


def _refused_by(rows: pa.Table, rules: frozenset[str]) -> pa.Array:
    named = [any(error["rule_id"] in rules for error in errors or ()) for errors in rows["_errors"].to_pylist()]
    return pa.array(named, pa.bool_())


def _holds(value: bytes | None, where: dict[str, str]) -> bool:
    try:
        found = json.loads((value or b"").decode())
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and all(
        name in found and wanted in (found[name], json.dumps(found[name], ensure_ascii=False))
        for name, wanted in where.items()
    )


def _quarantined(row: dict[str, Any]) -> Entry:
    return _entry(row, {name.removeprefix("_"): row.get(name) for name, _ in RAW}, row, "quarantined")


def _replayed(row: dict[str, Any]) -> Entry:
    lineage = row["_replayed_from"]
    judged = {"_errors": lineage["errors"], "_ingested_at": lineage["quarantined_at"], "_attempts": lineage["attempts"]}
    return replace(_entry(row, lineage, judged, "replayed"), replay_id=lineage["replay_id"], repair=lineage["repair"])


def _entry(position: dict[str, Any], raw: dict[str, Any], judged: dict[str, Any], state: str) -> Entry:
    return Entry(
        state=state,
        topic=position["_topic"],
        partition=position["_partition"],
        offset=position["_offset"],
        timestamp=position["_timestamp"],
        key=raw["key"],
        value=raw["value"],
        headers=raw["headers"] or [],
        errors=judged["_errors"] or [],
        quarantined_at=judged["_ingested_at"],
        attempts=judged.get("_attempts") or [],
    )


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _bytes(value: bytes | None) -> str:
    return "none" if value is None else f"{quote(value.decode(errors='replace'))} (0x{value[:32].hex()})"


def _reasons(errors: list[dict[str, Any]]) -> list[str]:
    return [f"  {printable(error['rule_id'])}: {printable(error['message'] or '')}" for error in errors]


def _dump(value: bytes) -> list[str]:
    """Offset, hexadecimal digits and ASCII, sixteen bytes a line."""
    lines = []
    for first in range(0, min(len(value), _DUMPED), _LINE):
        part = value[first : first + _LINE]
        text = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in part)  # noqa: PLR2004 - printable ASCII
        lines.append(f"{first:08x}  {part.hex(' '):<47}  {text}")
    rest = len(value) - _DUMPED
    return [*lines, f"… {rest:,} more bytes; --json has them"] if rest > 0 else lines
