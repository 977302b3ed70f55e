"""Why a record does not fit its contract, in words for people. Plain Python over the few records that need it."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

Reason = dict[str, Any]
"""One verdict in the shape of `schemas.VERDICT`."""

SHOWN = 120
"""Characters of an offending value that a reason quotes: enough to recognise it, too few to flood a page."""

_IN_WORDS = {
    "string": "a text",
    "integer": "a whole number of 32 bits",
    "long": "a whole number of 64 bits",
    "double": "a number",
    "boolean": "true or false",
    "timestamp": "a time such as 2026-01-31T12:00:00.000Z",
    "date": "a date such as 2026-01-31",
}
_BYTES_SHOWN = 32


@dataclass(frozen=True)
class Contract:
    """What a record has to be.

    Attributes:
        fields: name → type, a key of `schemas.ARROW_TYPES`.
        event_time: the field that says when the event happened.
        max_future: how far ahead of its arrival an event is believed.
    """

    fields: Mapping[str, str]
    event_time: str
    max_future: timedelta

    def reasons(self, row: Mapping[str, Any]) -> list[Reason]:
        """Why one record is refused whatever the suite says; empty where nothing is wrong.

        Args:
            row: its `_value`, `_fits`, `_timely`, `_timestamp` and typed fields, as Spark read them.
        """
        if row["_fits"]:
            return self._time_reasons(row, mistyped=False)
        untyped = _read(row["_value"])
        if not isinstance(untyped, dict):
            return [_whole(*untyped)]
        reasons = [
            _reason(
                f"contract.type.{name}",
                "field_type",
                [name],
                f"{name} is {quote(untyped[name])}, not {_IN_WORDS[kind]}",
                quote(untyped[name]),
            )
            for name, kind in self.fields.items()
            if row[name] is None and untyped.get(name) is not None
        ]
        mistyped_time = any(self.event_time in reason["columns"] for reason in reasons)
        reasons += self._time_reasons(row, mistyped=mistyped_time)
        return reasons or [_whole("contract.json", f"the value does not fit the contract: {quote(untyped)}")]

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
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    visible = printable(text[: SHOWN + 1])
    cut = visible if len(visible) <= SHOWN else visible[: SHOWN - 1] + "…"
    return f'"{cut}"' if isinstance(value, str) else cut


def printable(text: str) -> str:
    """The text without control and invisible characters, which could move a terminal's cursor or turn its letters."""
    return "".join("·" if unicodedata.category(char)[0] == "C" else char for char in text)


def _read(value: bytes | None) -> dict[str, Any] | tuple[str, str, str | None]:
    """The record's fields; or (rule, message, value shown) where it is not an object."""
    if value is None or not value.strip():
        what = "the record has no value (a tombstone)" if value is None else "the value is empty"
        return "contract.empty", what, None
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        shown = "0x" + value[:_BYTES_SHOWN].hex()
        return "contract.encoding", f"byte {error.start} is not valid UTF-8: {shown}", shown
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (RecursionError, ValueError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        return "contract.json", f"the value is not one JSON object ({what}): {quote(text)}", quote(text)
    if isinstance(found, dict):
        return found
    return "contract.json", f"the value is not a JSON object: {quote(text)}", quote(text)


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
