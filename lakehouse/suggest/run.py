"""One suggestion, from start to end: choose rows, profile them, propose, prove, and write the suite."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lakehouse import storage
from lakehouse.errors import ConfigError
from lakehouse.quality.suite import check_columns, parse_suite
from lakehouse.serving.grid import render_grid
from lakehouse.suggest.profile import profile
from lakehouse.suggest.proof import broken
from lakehouse.suggest.propose import LeftOut, propose
from lakehouse.suggest.sample import open_sample

if TYPE_CHECKING:
    from pathlib import Path

    from lakehouse.config.models import Pipeline
    from lakehouse.suggest.propose import Proposal
    from lakehouse.suggest.sample import Sample

ROWS = 200_000
"""Rows that are looked at, unless another number is asked for."""
_GX_VERSION = "1.24.1"
_NOTES = (
    "Suggested from rows that had passed the suite in force when they came. Every rule is a warning: read the evidence"
    " in its meta, then keep it, raise its severity or remove it."
)


@dataclass(frozen=True)
class Suggestion:
    """A suite that every row of the sample passes.

    Attributes:
        pipeline: its name.
        sample: which rows were looked at.
        proposals: the rules, each with its evidence.
        left_out: what is not proposed, and why.
        document: the suite, as Great Expectations reads it.
    """

    pipeline: str
    sample: Sample
    proposals: tuple[Proposal, ...]
    left_out: tuple[LeftOut, ...]
    document: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "pipeline": self.pipeline,
            "profiled": _stated(self.sample),
            "left_out": [asdict(one) for one in self.left_out],
            "suite": self.document,
        }

    def write(self, path: Path) -> None:
        """Write the suite into a new file.

        Raises:
            ConfigError: the file is there already, or cannot be written.
        """
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(json.dumps(self.document, indent=2, ensure_ascii=False) + "\n")
        except FileExistsError as error:
            raise ConfigError(
                "the file is there already, and a suite may have been edited by hand",
                where=str(path),
                remedy="name another file, or remove this one",
            ) from error
        except OSError as error:
            raise ConfigError(
                f"the suite cannot be written: {error.strerror}", where=str(path), remedy="name a file in a folder"
            ) from error

    def __str__(self) -> str:
        lines = [f"{self.pipeline}: {self.sample}; each row passes each of {len(self.proposals)} rules"]
        rules = [(one.rule_id, one.type.removeprefix("expect_"), _demand(one.kwargs)) for one in self.proposals]
        lines += ["", render_grid(("rule", "expectation", "demands"), rules)]
        lines += ["", *(f"{one.rule_id}: {one.why}" for one in self.proposals)]
        if self.left_out:
            lines += ["", "not proposed:"]
            lines += [f"  {', '.join(one.columns)}, {one.rule}: {one.why}" for one in self.left_out]
        return "\n".join(lines)


def suggest(pipeline: Pipeline, *, rows: int = ROWS, version: int | None = None) -> Suggestion:
    """Profile silver and propose a suite.

    Args:
        pipeline: whose silver table.
        rows: about as many are looked at, at most.
        version: of silver; the newest where it is None.

    Raises:
        TableError: silver cannot be read, or has no rows.
    """
    fields = pipeline.source.fields
    url = storage.layer_url(pipeline.root, "silver", pipeline.name)
    sample = open_sample(url, fields, limit=rows, version=version)
    found = profile(sample.read([*fields]), fields)
    proposals, left_out = propose(found, fields, whole=sample.whole)
    # A row that breaks a proposal would make it a lie; so each is judged once more, by other code, over the same rows.
    suite = parse_suite(json.dumps(_document(pipeline, sample, proposals)), source="the suggested suite")
    check_columns(suite, {name: of.type for name, of in fields.items()})
    failing = broken(suite, sample.read([*fields]))
    left_out += [
        LeftOut(_columns(one), one.rule_id, f"{failing[one.rule_id]:,} of the rows break it")
        for one in proposals
        if one.rule_id in failing
    ]
    kept = tuple(one for one in proposals if one.rule_id not in failing)
    return Suggestion(pipeline.name, sample, kept, tuple(left_out), _document(pipeline, sample, kept))


def _document(pipeline: Pipeline, sample: Sample, proposals: tuple[Proposal, ...] | list[Proposal]) -> dict[str, Any]:
    return {
        "name": f"{pipeline.name}_suggested",
        "notes": _NOTES,
        "meta": {"great_expectations_version": _GX_VERSION, "profiled": _stated(sample)},
        "expectations": [one.to_expectation() for one in proposals],
    }


def _stated(sample: Sample) -> dict[str, Any]:
    names = ("table", "version", "rows", "of_rows", "row_groups", "of_row_groups")
    return {name: getattr(sample, name) for name in names}


def _columns(proposal: Proposal) -> tuple[str, ...]:
    return tuple(proposal.kwargs[key] for key in ("column", "column_A", "column_B") if key in proposal.kwargs)


def _demand(kwargs: dict[str, Any]) -> str:
    said = {name: value for name, value in kwargs.items() if name not in ("column", "ignore_row_if")}
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in said.items())
