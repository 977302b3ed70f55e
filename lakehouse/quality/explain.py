"""What each expectation of a suite means: in the stream, in the report, and why. Needs no JVM."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.quality.aggregates import OBSERVED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lakehouse.quality.suite import Expectation, Suite

_STREAM = {
    "quarantine": "a failing row goes to quarantine",
    "tag": "a failing row is kept, with the reason in _warnings",
    "metric": "failing rows are only counted",
    "fail": "a failing row stops the query before its batch is committed",
    "off": "not judged, since meta.stream is off",
}

_SAID_ELSEWHERE = ("column", "column_A", "column_B", "mostly", "row_condition", "condition_parser")
_LONGEST_KWARGS = 160


@dataclass(frozen=True)
class Meaning:
    """One expectation in words."""

    rule_id: str
    type: str
    severity: str
    columns: tuple[str, ...]
    demands: str
    stream: str
    report: str
    why: str

    def __str__(self) -> str:
        on = f" ({', '.join(self.columns)})" if self.columns else ""
        lines = {"demands": self.demands + on, "stream": self.stream, "report": self.report, "why": self.why}
        told = "\n".join(f"{name:<8} {text}" for name, text in lines.items())
        return f"{self.rule_id}: {self.type}, {self.severity}\n{textwrap.indent(told, '  ')}"


@dataclass(frozen=True)
class Explanation:
    """A suite in words."""

    suite: str
    sha256: str
    meanings: tuple[Meaning, ...]

    def to_dict(self) -> dict[str, Any]:
        """For scripts."""
        return asdict(self)

    def __str__(self) -> str:
        head = f"{self.suite}, {len(self.meanings)} expectations, fingerprint {self.sha256}"
        return "\n\n".join([head, *map(str, self.meanings)])


def explain(suite: Suite) -> Explanation:
    """What every expectation of the suite means, in the file's order."""
    items = suite.document["expectations"]
    return Explanation(
        suite.name,
        suite.sha256,
        tuple(_meaning(expectation, items[expectation.index].get("kwargs", {})) for expectation in suite.expectations),
    )


def _meaning(expectation: Expectation, kwargs: Mapping[str, Any]) -> Meaning:
    kind = expectation.kind
    given = ", ".join(f"{name} {json.dumps(value)}" for name, value in kwargs.items() if name not in _SAID_ELSEWHERE)
    with_kwargs = f" With {textwrap.shorten(given, _LONGEST_KWARGS, placeholder=' …')}." if given else ""
    condition = f" Only where {expectation.condition.sql}." if expectation.condition else ""
    return Meaning(
        rule_id=expectation.rule_id,
        type=kind.name,
        severity=expectation.severity,
        columns=expectation.columns,
        demands=kind.meaning + with_kwargs + condition,
        stream=_in_stream(expectation),
        report=kind.in_report
        + (f"; met where {expectation.mostly:.4g} of them pass" if expectation.mostly < 1 else ""),
        why=_why(expectation),
    )


def _in_stream(expectation: Expectation) -> str:
    stream, kind = expectation.stream, expectation.kind
    if stream == "off":
        return _STREAM["off"]
    if expectation.check is not None and stream is not None:
        return _STREAM[stream]
    if expectation.aggregate is not None:
        return kind.in_stream + ("; a batch that does not meet it is not committed" if stream == "fail" else "")
    if kind.name in OBSERVED:
        return "not judged"
    if expectation.checks_schema and stream != "fail":
        return "checked before the first row, and only reported"
    return kind.in_stream


def _why(expectation: Expectation) -> str:
    kind = expectation.kind
    if kind.name in OBSERVED and expectation.aggregate is None:
        return "the one pass sees a column's values, but neither row_condition nor parameters"
    return kind.why
