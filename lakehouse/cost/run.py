"""One estimate, from start to end: inputs, what was measured, the lines, and what would change them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.cost.analysis import advise, break_even, sensitivity
from lakehouse.cost.measure import measure
from lakehouse.cost.model import MONTH_S, Shape, druid_lines, lake_lines, stream_lines, total
from lakehouse.serving.grid import render_grid

if TYPE_CHECKING:
    from lakehouse.config.models import Pipeline
    from lakehouse.cost.analysis import Advice, BreakEven, Sensitivity
    from lakehouse.cost.inputs import Inputs
    from lakehouse.cost.model import Line

_SHOWN = 6


@dataclass(frozen=True)
class Estimate:
    """What a pipeline costs a month.

    Attributes:
        pipeline: its name; rate: events a second.
        inputs: every figure used.
        measured: assumptions that the tables replaced.
        lines: of Kafka and of this pipeline; druid: of Flink and Druid in its place, behind the same Kafka.
        total, druid_total: dollars a month, Kafka included.
        per_million_events, per_viewer: dollars.
        sensitivity, advice, break_even: what would change it.
    """

    pipeline: str
    rate: float
    inputs: Inputs
    measured: dict[str, float]
    lines: tuple[Line, ...]
    druid: tuple[Line, ...]
    total: float
    druid_total: float
    per_million_events: float
    per_viewer: float | None
    sensitivity: tuple[Sensitivity, ...]
    advice: tuple[Advice, ...]
    break_even: tuple[BreakEven, ...]

    def to_dict(self) -> dict[str, Any]:
        """For scripts."""
        found = asdict(self)
        for part in ("lines", "druid"):
            found[part] = [asdict(line) | {"amount": line.amount} for line in getattr(self, part)]
        return found

    def __str__(self) -> str:
        blocks = [
            f"{self.pipeline} at {self.rate:,.0f} events/s of {self.inputs['event_bytes']:g} bytes, a month of 30 days"
        ]
        if self.measured:
            blocks.append("measured: " + ", ".join(f"{name} {value:.4g}" for name, value in self.measured.items()))
        paid = [line for line in self.lines if line.amount]
        rows = [
            (line.name, f"{line.quantity:,.0f}", line.unit, f"{line.price:g}", f"{line.amount:,.2f}") for line in paid
        ]
        rows.append(("total", "", "", "", f"{self.total:,.2f}"))
        blocks.append(
            render_grid(("line", "quantity", "unit", "$ each", "$"), rows, right=(False, True, False, True, True))
        )
        blocks.append("\n".join(f"{line.name}: {line.why}" for line in paid))
        viewer = "" if self.per_viewer is None else f", {self.per_viewer:,.2f} a viewer"
        blocks.append(f"${self.per_million_events:.4f} for a million events{viewer}")
        moved = [
            (one.name, f"{one.value:g}", f"{one.halved:+,.2f}", f"{one.doubled:+,.2f}") for one in self.sensitivity
        ][:_SHOWN]
        blocks.append(render_grid(("input", "is", "half of it: $", "twice: $"), moved, right=(False, True, True, True)))
        blocks.append(
            _list("what would save most", [f"${one.saves:,.2f}: {one.what}; but {one.but}" for one in self.advice])
        )
        blocks.append(
            f"Flink and Druid behind the same Kafka: ${self.druid_total:,.2f}; cheaper now:"
            f" {self.break_even[0].cheaper_now}\n" + "\n".join(map(_turns, self.break_even))
        )
        unchecked = sum("not checked" in of.basis or "guess" in of.basis for of in self._figures())
        blocks.append(f"{unchecked} of the figures are unchecked defaults; docs/cost.md says how to give your own")
        return "\n\n".join(blocks)

    def _figures(self) -> list[Any]:
        return [*self.inputs.prices.values(), *self.inputs.assumptions.values()]


def estimate(pipeline: Pipeline, rate: float, inputs: Inputs, *, from_tables: bool = False) -> Estimate:
    """What the pipeline costs.

    Args:
        pipeline: its file.
        rate: events a second, on average.
        inputs: prices and assumptions.
        from_tables: whether the pipeline's own tables replace assumptions.

    Raises:
        TableError: they were to, and cannot be read.
    """
    inputs = inputs.having("maintenance.every", compaction_s=pipeline.maintenance.every.total_seconds())
    measured = measure(pipeline, inputs["event_bytes"]) if from_tables else {}
    inputs = inputs.having("measured", **measured)
    shape = Shape.of(pipeline)
    stream, lake, druid = stream_lines(rate, inputs), lake_lines(shape, rate, inputs), druid_lines(shape, rate, inputs)
    amount = total(stream) + total(lake)
    return Estimate(
        pipeline=pipeline.name,
        rate=rate,
        inputs=inputs,
        measured=measured,
        lines=(*stream, *lake),
        druid=tuple(druid),
        total=amount,
        druid_total=total(stream) + total(druid),
        per_million_events=amount / (rate * MONTH_S / 1e6),
        per_viewer=amount / inputs["viewers"] if inputs["viewers"] else None,
        sensitivity=tuple(sensitivity(shape, rate, inputs)),
        advice=tuple(advise(shape, rate, inputs)),
        break_even=tuple(break_even(shape, rate, inputs)),
    )


def _list(head: str, lines: list[str]) -> str:
    return (
        "\n".join([f"{head}:", *(f"  {line}" for line in lines)]) if lines else f"{head}: nothing of a dollar or more"
    )


def _turns(one: BreakEven) -> str:
    unit = "events/s" if one.by == "rate" else "viewers"
    return f"  by {one.by}: " + (
        f"turns at about {one.value:,.0f} {unit}" if one.value else "does not turn up to 100 million"
    )
