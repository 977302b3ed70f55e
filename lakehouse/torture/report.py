"""What a run did and found: as text, as JSON (its fields) and as Markdown."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakehouse.torture.checks import Check


@dataclass
class Kill:
    """One step as it went.

    Attributes:
        fault: its name.
        outcome: `hit`; `missed` where the victim never came to the point; `skipped` where this machine cannot.
        note: why it was skipped, or what else is worth saying.
        fresh_s: from the SIGKILL to the first version of the hot table that holds a record sent after it; None where
            the next kill came first.
        aside: what the producer did meanwhile.
    """

    fault: str
    outcome: str = "hit"
    note: str = ""
    fresh_s: float | None = None
    aside: str | None = None


@dataclass(frozen=True)
class TortureReport:
    """The verdict, and every count behind it.

    Attributes:
        seed: of the schedule and of the load.
        schedule: its digest; equal for equal seeds.
        kills: the steps.
        checks: the verdicts.
        figures: counts by name.
        endings: how the pipeline ended where nobody had killed it.
        seconds: of the whole run; steps_s: of the steps alone.
        machine: what it ran on.
    """

    seed: int
    schedule: str
    kills: list[Kill]
    checks: list[Check]
    figures: dict[str, int]
    endings: list[str]
    steps_s: float
    seconds: float
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every check held and the pipeline never gave up by itself."""
        return all(check.ok for check in self.checks) and not self.endings

    @property
    def per_minute(self) -> float:
        """Steps per minute."""
        return 60 * len(self.kills) / self.steps_s if self.steps_s else 0.0

    def faults(self) -> list[tuple[str, int, int, int, int, float | None, float | None]]:
        """Per fault: hit, missed, skipped, measured; median and worst seconds until fresh again."""
        rows = []
        for fault in sorted({kill.fault for kill in self.kills}):
            of = [kill for kill in self.kills if kill.fault == fault]
            fresh = [kill.fresh_s for kill in of if kill.fresh_s is not None]
            counts = (sum(kill.outcome == outcome for kill in of) for outcome in ("hit", "missed", "skipped"))
            rows.append((fault, *counts, len(fresh), *_spread(fresh)))
        return rows  # type: ignore[return-value]  # mypy does not see the length of what is unpacked

    def asides(self) -> dict[str, int]:
        """How often the producer did what."""
        named = [kill.aside for kill in self.kills if kill.aside]
        return {name: named.count(name) for name in sorted(set(named))}

    def recovery(self) -> tuple[int, float | None, float | None]:
        """Kills after which the hot table became fresh before the next kill; median and worst seconds."""
        fresh = [kill.fresh_s for kill in self.kills if kill.fresh_s is not None]
        return len(fresh), *_spread(fresh)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, schedule {self.schedule}", "", *_text_table(_FAULT_HEAD, self._fault_rows()), ""]
        lines += [f"beside: {', '.join(f'{name} {count}' for name, count in self.asides().items()) or 'nothing'}", ""]
        lines += _text_table(("check", "verdict", "compared", "difference"), self._check_rows())
        lines += [""] + [f"the pipeline ended by itself: {ending}" for ending in self.endings]
        lines += [", ".join(f"{name} {count:,}" for name, count in self.figures.items()), self._summary()]
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """The tables, for a page."""
        parts = [
            (
                f"Seed {self.seed}, schedule `{self.schedule}`, on {self.machine.get('system', 'this machine')} with"
                f" {self.machine.get('cores', '?')} cores."
            ),
            "",
            *_markdown_table(_FAULT_HEAD, self._fault_rows()),
            "",
            *_markdown_table(("beside", "times"), [(name, str(count)) for name, count in self.asides().items()]),
            "",
            *_markdown_table(("check", "verdict", "compared", "difference"), self._check_rows()),
            "",
            *_markdown_table(("figure", "value"), [(name, f"{count:,}") for name, count in self.figures.items()]),
            "",
            *(f"The pipeline ended by itself: {ending}" for ending in self.endings),
            self._summary(),
        ]
        return "\n".join(parts) + "\n"

    def _fault_rows(self) -> list[tuple[str, ...]]:
        return [tuple(_shown(cell) for cell in row) for row in self.faults()]

    def _check_rows(self) -> list[tuple[str, ...]]:
        return [(each.name, "holds" if each.ok else "RED", f"{each.compared:,}", each.detail) for each in self.checks]

    def _summary(self) -> str:
        measured, median, worst = self.recovery()
        fresh = (
            f"fresh again after {median:.1f} s, worst {worst:.1f} s ({measured} kills)" if measured else "no recovery"
        )
        verdict = "everything holds" if self.ok else "THE TABLES OR THE PIPELINE FAILED"
        return f"{verdict}; {fresh}; {self.per_minute:.1f} kills a minute; {self.seconds:.0f} s"


_FAULT_HEAD = ("fault", "hit", "missed", "skipped", "measured", "fresh again, median s", "worst s")


def _spread(values: list[float]) -> tuple[float | None, float | None]:
    return (statistics.median(values), max(values)) if values else (None, None)


def _shown(cell: str | float | None) -> str:
    if cell is None:
        return "–"
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def _text_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]


def _markdown_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in [head, tuple("---" for _ in head), *rows]]
