"""What each expectation of a suite means: in the stream, in the report, and why. Needs no JVM."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lakehouse.quality.suite import Expectation, Suite

_STREAM = {
    "quarantine": "a failing row goes to quarantine",
    "tag": "a failing row is kept, with the reason in _warnings",
    "metric": "failing rows are only counted",
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
        stream=_STREAM[expectation.stream] if expectation.stream else kind.in_stream,
        report=kind.in_report
        + (f"; met where {expectation.mostly:.4g} of them pass" if expectation.mostly < 1 else ""),
        why=kind.why,
    )
