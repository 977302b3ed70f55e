"""Allowed values from a table: `meta.values_from` of an expectation, read once when its suite is loaded.

    "meta": {"values_from": {"path": "regions.csv", "column": "code", "version": "5f3a09c1"}}

The values are put into `value_set`, so that stream, report and kept suite know the same plain expectation, and are part
of its fingerprint. The version is pinned: of a Delta table its number, of a CSV file the first digits of its SHA-256.
A table that changed without the suite is an error, never another verdict.
"""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse.quality.mistakes import Mistake, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from lakehouse.quality.checks import Scalar

_KEY, _READ_KEY = "values_from", "values_read_from"
_KEYS = ("path", "column", "version", "type")
_TYPES = ("expect_column_values_to_be_in_set", "expect_column_values_to_not_be_in_set")
_MOST_VALUES = 1_000
"""They stand in the plan of every micro-batch."""
_FEWEST_DIGITS = 8
_CONVERTED: dict[str, Callable[[str], Scalar]] = {
    "string": str,
    "long": int,
    "double": float,
    "boolean": lambda text: {"true": True, "false": False}[text.lower()],
}


def with_values(item: Any, base: Path) -> Any:  # noqa: ANN401 - an expectation as JSON, checked later
    """An expectation with its values put in; any other is returned as it is.

    Args:
        item: one of a suite's `expectations`.
        base: folder of the suite's file, to which paths are relative.

    Raises:
        Mistake: the table or its version is not as it says.
    """
    meta = item.get("meta") if isinstance(item, dict) else None
    if not isinstance(meta, dict) or _KEY not in meta:
        return item
    wanted = _checked(item, meta[_KEY])
    path = wanted["path"]
    located = path if "://" in path else str(base / path)
    values = (_of_csv if path.endswith(".csv") else _of_delta)(located, wanted)
    rest = {key: value for key, value in meta.items() if key != _KEY}
    kwargs = {**item.get("kwargs", {}), "value_set": _usable(values, wanted)}
    return {**item, "kwargs": kwargs, "meta": {**rest, _READ_KEY: wanted}}


def _checked(item: dict[str, Any], wanted: object) -> dict[str, Any]:
    if item.get("type") not in _TYPES:
        raise Mistake(f"meta.{_KEY} stands beside {item.get('type')}", f"only {' and '.join(_TYPES)} take values")
    if item.get("kwargs", {}).get("value_set"):
        raise Mistake(f"Both value_set and meta.{_KEY} are given", "keep one of them")
    if not isinstance(wanted, dict):
        raise Mistake(f"meta.{_KEY} is {wanted!r}", 'write {"path": …, "column": …, "version": …}')
    for key in wanted:
        if key not in _KEYS:
            raise Mistake(
                f"meta.{_KEY} has the unknown key {key!r}",
                did_you_mean(key, _KEYS, f"its keys are {', '.join(_KEYS)}"),
            )
    for key in ("path", "column"):
        if not isinstance(wanted.get(key), str):
            raise Mistake(f"meta.{_KEY} has no {key}", "add it, as a text")
    if wanted.get("type", "string") not in _CONVERTED:
        raise Mistake(f"meta.{_KEY} has type {wanted['type']!r}", f"choose one of {', '.join(_CONVERTED)}")
    return wanted


def _of_csv(path: str, wanted: dict[str, Any]) -> list[Scalar]:
    try:
        body = Path(path).read_bytes()
    except OSError as error:
        raise Mistake(f"The table {path} cannot be read: {error.strerror}", "check the path") from error
    found = hashlib.sha256(body).hexdigest()
    version = wanted.get("version")
    if not isinstance(version, str) or len(version) < _FEWEST_DIGITS or not found.startswith(version):
        raise Mistake(
            f"The version of {path} is {version!r}, but its SHA-256 begins with {found[:16]}",
            f'look at what changed, then write "version": "{found[:16]}"',
        )
    try:
        rows = list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Mistake(f"The table {path} is not CSV in UTF-8: {error}", "correct the file") from error
    column = wanted["column"]
    if not rows or column not in rows[0]:
        known = list(rows[0]) if rows else []
        raise Mistake(f"The table {path} has no column {column!r}", did_you_mean(column, known, "check the header"))
    convert = _CONVERTED[wanted.get("type", "string")]
    values: list[Scalar] = []
    for number, row in enumerate(rows, start=2):
        try:
            values.append(convert(row[column]))
        except (ValueError, KeyError, TypeError) as error:
            kind = wanted.get("type", "string")
            raise Mistake(f"{row[column]!r} in line {number} of {path} is no {kind}", "correct the file") from error
    return values


def _of_delta(path: str, wanted: dict[str, Any]) -> list[Scalar]:
    version = wanted.get("version")
    if isinstance(version, bool) or not isinstance(version, int):
        raise Mistake(f"The version of {path} is {version!r}", "write the number of a version of the Delta table")
    try:
        table = DeltaTable(path, version=version)
        known = [field.name for field in table.schema().fields]
        if wanted["column"] not in known:
            remedy = did_you_mean(wanted["column"], known, f"its columns are {', '.join(known)}")
            raise Mistake(f"The table {path} has no column {wanted['column']!r}", remedy)
        rows = table.to_pyarrow_dataset().to_table(columns=[wanted["column"]])
    except (DeltaError, OSError) as error:
        raise Mistake(
            f"Version {version} of the table {path} cannot be read: {error}", "check the path and the version"
        ) from error
    return list(rows[wanted["column"]].to_pylist())


def _usable(values: list[Scalar], wanted: dict[str, Any]) -> list[Scalar]:
    """Each value once and in order, so that the same values have the same fingerprint."""
    if any(value is None for value in values):
        raise Mistake(
            f"A value of {wanted['column']} in {wanted['path']} is missing, which would let every row pass",
            "remove it from the table",
        )
    if any(not isinstance(value, str | int | float) for value in values):
        raise Mistake(f"{wanted['column']} in {wanted['path']} holds no texts, numbers or booleans", "choose another")
    unique = sorted(set(values))  # type: ignore[type-var]  # of one kind, since a column has one type
    if not unique or len(unique) > _MOST_VALUES:
        raise Mistake(
            f"{wanted['path']} has {len(unique):,} values",
            f"a set has 1 to {_MOST_VALUES:,}; join larger tables instead",
        )
    return unique
