"""Holds a row of silver or quarantine against what the manifest says of its case."""

from __future__ import annotations

import unicodedata
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.poison import Case

LONGEST_MESSAGE = 400
"""Characters: quotes are cut, and what stands around them is short."""


def silver_problems(case: Case, row: dict[str, Any]) -> Iterator[str]:
    """What is wrong about the row that silver has of the case."""
    if case.quarantine:
        yield f"{case.name} is in silver, not refused by {case.quarantine}"
        return
    for name, wanted in case.silver.items():
        if not _same(row[name], wanted):
            yield f"{case.name}: {name} is {row[name]!r:.200}, not {wanted!r:.200}"
    warnings = tuple(each["rule_id"] for each in row["_warnings"])
    if warnings != case.warnings:
        yield f"{case.name}: warnings {warnings}, not {case.warnings}"


def quarantine_problems(case: Case, row: dict[str, Any]) -> Iterator[str]:
    """What is wrong about the row that quarantine has of the case."""
    messages = [each["message"] for each in row["_errors"]]
    rules = tuple(each["rule_id"] for each in row["_errors"])
    if rules != case.quarantine:
        yield f"{case.name} is refused by {rules}, not {case.quarantine}: {messages}"
    if row["_value"] != case.value or row["_key"] != case.key:
        yield f"{case.name} has other bytes than were sent"
    if [(each["key"], each["value"]) for each in row["_headers"] or []] != list(case.headers):
        yield f"{case.name} has other headers than were sent: {row['_headers']!r:.200}"
    if row["_timestamp"] != case.timestamp:
        yield f"{case.name}: Kafka's time is {row['_timestamp']}"
    for text in filter(None, (*messages, *(each["value"] for each in row["_errors"]))):
        if any(unicodedata.category(char)[0] == "C" for char in text):
            yield f"{case.name} shows invisible characters: {text!r}"
        if len(text) > LONGEST_MESSAGE:
            yield f"{case.name} has a text of {len(text)} characters"


def _same(found: Any, wanted: Any) -> bool:
    """Whether a value of a table is the one that the manifest spells in JSON."""
    if isinstance(found, datetime):
        return found == datetime.fromisoformat(wanted)
    if isinstance(found, date):
        return found.isoformat() == str(wanted)
    # A zero's sign is part of it.
    return bool(found == wanted) and (not isinstance(found, float) or str(found) == str(wanted))
