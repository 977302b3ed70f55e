"""From marks to reasons: what the rules that Spark found failing say, as `_errors` and `_warnings`.

A mark is a bit: rule number n of a suite is bit n % `BITS` of the column `word(n // BITS)`. Spark sets them
(`verdicts.mark`); here, in the task, the few rows that have one get their reasons in words. Nothing here knows Spark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.quality.messages import sentence
from lakehouse.schemas import FIRST_US, LAST_US, TIMESTAMP, VERDICT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lakehouse.quality.suite import Expectation, Suite

ERRORS = "_errors"
WARNINGS = "_warnings"
COUNTED = "_counted"
"""Rule ids of the failing rules whose failures no verdict records."""
BITS = 62
"""Rules in one word: a 64-bit integer that stays positive."""
_WORD = "_failed_"
_ROWS_AS_OBJECTS = 256


def word(number: int) -> str:
    """Name of the column that holds the marks of rules number × `BITS` and following."""
    return f"{_WORD}{number}"


@dataclass(frozen=True)
class Reasons:
    """The rules of a suite, ready to say why a row failed.

    Attributes:
        expectations: those that judge rows, in the order of their bits.
        suite_sha256: fingerprint of the suite.
    """

    expectations: tuple[Expectation, ...] = ()
    suite_sha256: str = ""

    @classmethod
    def by(cls, suite: Suite) -> Reasons:
        """Those of a suite, in the order of `compile_rules`."""
        return cls(suite.in_stream(), suite.sha256)

    def explain(self, rows: pa.Table) -> pa.Table:
        """Add `_errors` and `_warnings`, lists of `schemas.VERDICT`, and `_counted` where the suite has such rules.

        Args:
            rows: with the words, and the columns that the rules read.

        Returns:
            rows without the words. The lists are empty, never null, where a row fails nothing.
        """
        marks = [rows[name].to_numpy() for name in rows.column_names if name.startswith(_WORD)]
        if len(marks) != -(-len(self.expectations) // BITS):
            message = f"{len(marks)} words of marks for {len(self.expectations)} rules: the rows are of another suite"
            raise AssertionError(message)
        failing = np.flatnonzero(np.logical_or.reduce(marks)) if marks else np.empty(0, np.int64)
        found: dict[str, list[tuple[int, Any]]] = {ERRORS: [], WARNINGS: []}
        if any(one.stream in ("metric", "fail") for one in self.expectations):
            found[COUNTED] = []
        read = list(dict.fromkeys(name for one in self.expectations for name in one.columns))
        for first in range(0, len(failing), _ROWS_AS_OBJECTS):
            few = failing[first : first + _ROWS_AS_OBJECTS]
            for index, row in zip(few.tolist(), _as_objects(rows.select(read).take(few)), strict=True):
                for number, one in enumerate(self.expectations):
                    if marks[number // BITS][index] >> (number % BITS) & 1:
                        self._add(found, index, one, row)
        rows = rows.drop_columns([name for name in rows.column_names if name.startswith(_WORD)])
        for name, pairs in found.items():
            rows = rows.append_column(name, _lists(pairs, rows.num_rows, pa.string() if name == COUNTED else VERDICT))
        return rows

    def _add(
        self, found: dict[str, list[tuple[int, Any]]], index: int, one: Expectation, row: Mapping[str, Any]
    ) -> None:
        if one.stream not in ("quarantine", "tag"):
            found[COUNTED].append((index, one.rule_id))
            return
        message, value = sentence(one, row)
        reason = {
            "rule_id": one.rule_id,
            "type": one.type,
            "columns": list(one.columns),
            "severity": one.severity,
            "message": message,
            "value": value,
            "suite_sha256": self.suite_sha256,
        }
        found[ERRORS if one.stream == "quarantine" else WARNINGS].append((index, reason))


def _as_objects(rows: pa.Table) -> list[dict[str, Any]]:
    for index, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):
            rows = rows.set_column(index, field.name, within_python(rows.column(index)))
    objects: list[dict[str, Any]] = rows.to_pylist()
    # A table without columns has rows, but lists none.
    return objects or [{}] * rows.num_rows


def within_python(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """The times, those beyond the years that Python knows moved to the nearest that it does."""
    micros = times.cast(TIMESTAMP).cast(pa.int64())
    clipped = pc.max_element_wise(pc.min_element_wise(micros, LAST_US), FIRST_US)
    return clipped.cast(TIMESTAMP)


def _lists(pairs: list[tuple[int, Any]], rows: int, kind: pa.DataType) -> pa.ListArray:
    """A list per row, from (row, element) in the order of the rows."""
    counts = np.bincount([index for index, _ in pairs], minlength=rows) if pairs else np.zeros(rows, np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array([element for _, element in pairs], kind))
