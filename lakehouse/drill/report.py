"""What a drill found: as text, as JSON (its fields) and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

BOUND_S = 15.0
"""Within which the right alert has to be told."""


@dataclass
class Trial:
    """One fault, or the control: a stretch of time without one.

    Attributes:
        fault: its name; `healthy` for the control.
        done: how it was done to the pipeline.
        alert: the one that has to be told; None for the control.
        told_s: from the fault to its arrival at the receiver, seconds; None where it never came.
        also: other alerts that were told before the fault was taken back.
        over_s: from taking it back until no alert fires any more; None where that did not happen.
    """

    fault: str
    done: str
    alert: str | None = None
    told_s: float | None = None
    also: list[str] = field(default_factory=list)
    over_s: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the right alert came in time, or none in the control."""
        if self.alert is None:
            return not self.also
        return self.told_s is not None and self.told_s <= BOUND_S


@dataclass(frozen=True)
class DrillReport:
    """Every trial, in order.

    Attributes:
        trials: the control first.
        seconds: of the whole drill.
        rate: events per second of the load.
        machine: what it ran on.
    """

    trials: list[Trial]
    seconds: float
    rate: float
    machine: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether each fault was told in time, and nothing without one."""
        return all(trial.ok for trial in self.trials)

    def __str__(self) -> str:
        lines = []
        for trial in self.trials:
            if trial.alert is None:
                told = "no alert" if trial.ok else f"told without a fault: {', '.join(trial.also)}"
            elif trial.told_s is None:
                told = f"{trial.alert} was never told"
            else:
                told = f"{trial.alert} after {trial.told_s:.1f} s"
            also = f" (also {', '.join(trial.also)})" if trial.also and trial.alert else ""
            lines.append(f"{'ok  ' if trial.ok else 'FAIL'}  {trial.fault:<18} {told}{also}")
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """The table of docs/operations.md."""
        rows = ["| fault | how it is done | alert | told after | told as well |", "|---|---|---|---|---|"]
        for trial in self.trials:
            told = "–" if trial.told_s is None else f"{trial.told_s:.1f} s"
            alert = f"`{trial.alert}`" if trial.alert else "none"
            also = ", ".join(f"`{name}`" for name in trial.also) or "–"
            rows.append(f"| {trial.fault} | {trial.done} | {alert} | {told} | {also} |")
        return "\n".join(rows) + "\n"
