"""Why a record does not fit its contract, in words for people. Plain Python over the few records that need it."""

from __future__ import annotations

import gc
import json
import math
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime, timedelta

Reason = dict[str, Any]
"""One verdict in the shape of `schemas.VERDICT`."""

MISFIT = "_misfit"
"""Column, where the format is not JSON: what is wrong with a value, as JSON; null where it is an event. Either
`rule_id`, `message` and `value` of the whole, or `fields` with the unfit value of each."""
SHOWN = 120
"""Characters of an offending value that a reason quotes: enough to recognise it, too few to flood a page."""

_IN_WORDS = {
    "string": "a text",
    "integer": "a whole number of 32 bits",
    "long": "a whole number of 64 bits",
    "double": "a number of 64 bits",
    "boolean": "true or false",
    "timestamp": "a time such as 2026-01-31T12:00:00.000Z",
    "date": "a date such as 2026-01-31",
}
_LIMITS = (
    "the value is beyond what Spark's JSON reader takes (1,000 levels, 1,000 digits in a number, 50,000 characters in"
    " a name, names of equal hash)"
)
_BYTES_SHOWN = 32
LARGEST = 4 * 2**20
"""Bytes of the longest value that is read at all. A value passes through Spark's memory some ten times over while it
is read, so without a bound a few of 16 MB each end the process."""
EXAMINED = 2**20
"""Bytes of the longest value that is parsed once more to say why it does not fit: Kafka's own default limit of a
record. Parsing longer ones in Python could take seconds and gigabytes each."""
_DIGITS_SHOWN = 40

ESCAPED_PAIR = r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
HALF_PAIR = r"\\u[dD][89a-fA-F]"
"""JSON can escape one half of a surrogate pair, which no UTF-8 can spell; Spark would store `?` in its place. A text
holds such a half where `HALF_PAIR` is found after each `ESCAPED_PAIR` (or escaped backslash) was taken out. Both
patterns mean the same in Java and in Python."""

_BEGINNINGS = (
    (b"\xef\xbb\xbf", "a UTF-8 byte order mark"),
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"{\x00\x00\x00", "UTF-32"),
    (b"\x00\x00\x00{", "UTF-32"),
    (b"{\x00", "UTF-16"),
    (b"\x00{", "UTF-16"),
    (b"\x00", "a record of a schema registry (magic byte 0, then a schema's id)"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"\x04\x22\x4d\x18", "LZ4"),
    (b"\x82SNAPPY", "Snappy"),
    (b"Obj\x01", "an Avro file"),
    (b"PAR1", "a Parquet file"),
)
"""What producers send by mistake in place of JSON, by its first bytes; the longer ones first."""


@dataclass(frozen=True)
class Contract:
    """What a record has to be.

    Attributes:
        fields: name → type, a key of `schemas.ARROW_TYPES`.
        event_time: the field that says when the event happened.
        max_future: how far ahead of its arrival an event is believed.
        required: the fields that each event has to have.
        held: fields that are read as the table has them, against the pipeline's file → why, in words.
    """

    fields: Mapping[str, str]
    event_time: str
    max_future: timedelta
    required: Collection[str] = ()
    held: Mapping[str, str] = field(default_factory=dict)

    def reasons(self, row: Mapping[str, Any]) -> list[Reason]:
        """Why one record is refused whatever the suite says; empty where nothing is wrong.

        Args:
            row: its `_value`, `_fits`, `_timely`, `_timestamp` and typed fields, as Spark read them; and its `_misfit`,
                where the value was not JSON.
        """
        if row["_fits"]:
            return self._time_reasons(row, mistyped=False)
        if MISFIT in row:
            return self._told(row)
        untyped = _read(row["_value"])
        if not isinstance(untyped, dict):
            return [_whole(*untyped)]
        unread = {
            name: kind for name, kind in self.fields.items() if row[name] is None and untyped.get(name) is not None
        }
        if "string" in unread.values():
            # Any value is a text at least. What Spark has not even read as one, it has given up on as a whole.
            return [_whole("contract.json", f"{_LIMITS}: {quote(untyped)}", quote(untyped))]
        reasons = [self._misfit(name, quote(untyped[name])) for name in unread]
        reasons += [self._missing(name) for name in self.required if untyped.get(name) is None]
        mistyped_time = any(self.event_time in reason["columns"] for reason in reasons)
        reasons += self._time_reasons(row, mistyped=mistyped_time)
        return reasons or [_whole("contract.json", f"the value does not fit the contract: {quote(untyped)}")]

    def _told(self, row: Mapping[str, Any]) -> list[Reason]:
        """The reasons against a value that another reader than Spark's has read."""
        told = json.loads(row[MISFIT] or "{}")
        if "rule_id" in told:
            return [_whole(told["rule_id"], told["message"], told["value"])]
        unfit: dict[str, str] = told.get("fields", {})
        reasons = [self._misfit(name, shown) for name, shown in unfit.items()]
        reasons += [self._missing(name) for name in self.required if row[name] is None and name not in unfit]
        return reasons + self._time_reasons(row, mistyped=self.event_time in unfit)

    def _misfit(self, name: str, shown: str) -> Reason:
        what = f"{name} is {shown}, not {_IN_WORDS[self.fields[name]]}"
        if name in self.held:
            return _reason(f"contract.evolution.{name}", "field_evolution", [name], f"{what}: {self.held[name]}", shown)
        return _reason(f"contract.type.{name}", "field_type", [name], what, shown)

    def _missing(self, name: str) -> Reason:
        if name in self.held:
            what = f"{name} is missing: {self.held[name]}"
            return _reason(f"contract.evolution.{name}", "field_evolution", [name], what, None)
        return _reason(f"contract.missing.{name}", "field_missing", [name], f"{name} is missing, and is required", None)

    def _time_reasons(self, row: Mapping[str, Any], *, mistyped: bool) -> list[Reason]:
        moment: datetime | None = row[self.event_time]
        if row["_timely"] or mistyped:
            return []
        if moment is None:
            text = f"{self.event_time} is missing"
            return [_reason("contract.event_time.missing", "event_time_missing", [self.event_time], text, None)]
        shown = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
        ahead_s = (moment - row["_timestamp"]).total_seconds()
        text = (
            f"{self.event_time} is {shown}, {ahead_s:,.0f} s after the record reached Kafka;"
            f" at most {self.max_future.total_seconds():g} s are believed"
        )
        return [_reason("contract.event_time.future", "event_time_future", [self.event_time], text, shown)]


def quote(value: object) -> str:
    """A value as JSON that a page may safely show: no control or invisible characters, cut to `SHOWN` characters."""
    text = value if isinstance(value, str) else _beginning(value)
    visible = printable(text[: SHOWN + 1])
    cut = visible if len(visible) <= SHOWN else visible[: SHOWN - 1] + "…"
    return f'"{cut}"' if isinstance(value, str) and not isinstance(value, _Number) else cut


def printable(text: str) -> str:
    """The text without control and invisible characters, which could move a terminal's cursor or turn its letters."""
    # Nearly every text: Python looks at all of its characters at once, for the same categories and a few more.
    if text.isprintable():
        return text
    return "".join("·" if _is_invisible(char) else char for char in text)


class _Number(str):
    """A number as it was written, where Python's own would say something else or take long to make."""

    __slots__ = ()


def _beginning(value: object) -> str:
    """The value's JSON, or more of it than is ever shown. Ends early, so neither size nor depth can hurt."""
    text = ""
    for part in json.JSONEncoder(ensure_ascii=False).iterencode(value):
        text += part
        if len(text) > SHOWN:
            break
    return text


def _is_invisible(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] == "C" or category in {"Zl", "Zp"}


_Refusal = tuple[str, str, str | None]
"""Rule, message, and the value shown, where the value as a whole is refused."""


def _read(value: bytes | None) -> dict[str, Any] | _Refusal:
    """The record's fields, or why it has none."""
    size = len(value or b"")
    if value is not None and size > LARGEST:
        shown = quote(value[: 2 * SHOWN].decode(errors="replace"))
        return "contract.oversize", f"the value has {size:,} bytes; at most {LARGEST:,} are read: {shown}", shown
    text = _text(value)
    if not isinstance(text, str):
        return text
    shown = quote(text)
    if size > EXAMINED:
        what = f"the value does not fit the contract; with {size:,} bytes it is too long to say why: {shown}"
        return "contract.unexamined", what, shown
    try:
        found = _parse(text)
    except (RecursionError, ValueError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        return "contract.json", f"the value is not one JSON object ({what}): {shown}", shown
    if isinstance(found, dict):
        return found
    return "contract.json", f"the value is not a JSON object: {shown}", shown


def _text(value: bytes | None) -> str | _Refusal:
    if value is None:
        return "contract.empty", "the record has no value (a tombstone)", None
    if not value.strip():
        return "contract.empty", "the value is empty", None
    shown = "0x" + value[:_BYTES_SHOWN].hex()
    for beginning, what in _BEGINNINGS:
        if value.startswith(beginning):
            return "contract.encoding", f"the value begins like {what}, not like JSON: {shown}", shown
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        return "contract.encoding", f"byte {error.start} is not valid UTF-8: {shown}", shown
    if re.search(HALF_PAIR, text) and re.search(HALF_PAIR, re.sub(ESCAPED_PAIR, " ", text)):
        shown = quote(text)
        return "contract.encoding", f"the value escapes half of a surrogate pair, which is no text: {shown}", shown
    return text


def _parse(text: str) -> Any:  # noqa: ANN401 - any JSON
    # The garbage collector would look at hundreds of thousands of small values again and again: four times the cost.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_float, parse_int=_int)
    finally:
        if was_enabled:
            gc.enable()


def _float(text: str) -> float | _Number:
    number = float(text)
    return number if math.isfinite(number) else _Number(text)


def _int(text: str) -> int | _Number:
    return int(text) if len(text) <= _DIGITS_SHOWN else _Number(text)


def _refuse(constant: str) -> float:
    message = f"{constant} is not JSON"
    raise ValueError(message)


def _whole(rule_id: str, message: str, value: str | None = None) -> Reason:
    return _reason(rule_id, rule_id.removeprefix("contract."), [], message, value)


def _reason(rule_id: str, kind: str, columns: list[str], message: str, value: str | None) -> Reason:
    return {
        "rule_id": rule_id,
        "type": kind,
        "columns": columns,
        "severity": "critical",
        "message": message,
        "value": value,
        # The contract judges here, not the suite.
        "suite_sha256": None,
    }
