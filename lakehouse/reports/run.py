"""One report, from start to end."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import obstore

from lakehouse import storage
from lakehouse.errors import ConfigError
from lakehouse.quality.archive import Archive
from lakehouse.quality.suite import check_columns, load_suite
from lakehouse.reports.assess import assess
from lakehouse.reports.page import render
from lakehouse.reports.population import read_population
from lakehouse.reports.results import append_once
from lakehouse.sinks.aligned import aligned
from lakehouse.sinks.replays import Replays

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakehouse.config.models import Pipeline
    from lakehouse.quality.suite import Suite
    from lakehouse.reports.assess import Assessment
    from lakehouse.reports.at_rest import Finding
    from lakehouse.reports.population import Span

_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,199}")


@dataclass(frozen=True)
class QualityReport:
    """What a run found.

    Attributes:
        run_id: of the run; the results table has each once.
        run_at: when it began, UTC.
        pipeline: its name.
        suite: that judged.
        span: which records, by Kafka's timestamp.
        versions: `silver`, `quarantine` → version that was read.
        recorded_rows: rows that the logs of both versions record; None where the span leaves some out.
        found: what was found.
        page: path or URL of the report's page.
        seconds: how long it took.
    """

    run_id: str
    run_at: datetime
    pipeline: str
    suite: Suite
    span: Span
    versions: dict[str, int]
    recorded_rows: int | None
    found: Assessment
    page: str
    seconds: float

    @property
    def rows_agree(self) -> bool:
        """Whether as many rows were read as the tables' logs record."""
        return self.recorded_rows in (None, self.found.rows.total)

    @property
    def agrees(self) -> bool:
        """Whether the stream's counts are the report's."""
        return self.rows_agree and not self.found.disagreements

    @property
    def ok(self) -> bool:
        """Whether no critical expectation failed and the stream's counts are the report's."""
        return not self.found.failed and self.agrees

    def to_dict(self) -> dict[str, Any]:
        """For scripts."""
        rows = self.found.rows
        return {
            "ok": self.ok,
            "run_id": self.run_id,
            "run_at": self.run_at.isoformat(),
            "pipeline": self.pipeline,
            "suite": self.suite.name,
            "suite_sha256": self.suite.sha256,
            "range": [moment and moment.isoformat() for moment in (self.span.start, self.span.end)],
            "versions": self.versions,
            "rows": {
                "silver": rows.silver,
                "quarantine_parsed": rows.parsed,
                "quarantine_unparsed": rows.unparsed,
                "same_suite": rows.same_suite,
                "recorded": self.recorded_rows,
            },
            "stream_agrees": self.agrees,
            "expectations": [
                {
                    "rule_id": finding.expectation.rule_id,
                    "type": finding.expectation.type,
                    "severity": finding.expectation.severity,
                    "success": finding.success,
                    "evaluated": finding.evaluated,
                    "unexpected": finding.unexpected,
                    "percent": finding.percent,
                    "observed": finding.observed,
                    "error": finding.error,
                }
                for finding in self.found.findings
            ],
            "agreement": [
                {
                    "rule_id": agreement.rule_id,
                    "unexpected": agreement.unexpected,
                    "recounted": agreement.recounted,
                    "due": agreement.due,
                    "recorded": agreement.recorded,
                    "ok": agreement.ok,
                }
                for agreement in self.found.agreements
            ],
            "page": self.page,
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        rows = self.found.rows
        versions = ", ".join(f"{layer} version {version}" for layer, version in self.versions.items())
        lines = [
            f"{self.pipeline}, {self.span}: {versions}; suite {self.suite.name} {self.suite.sha256[:12]}",
            f"judged: {rows.judged:,} rows, {rows.silver:,} in silver and {rows.parsed:,} in quarantine",
            f"not judged: {sum(rows.unparsed.values()):,} rows in quarantine that do not fit the contract",
        ]
        width = max(len(finding.expectation.rule_id) for finding in self.found.findings)
        for finding in self.found.findings:
            mark = "ok" if finding.success else "FAILED" if finding.critical else finding.expectation.severity
            lines.append(f"{mark:<8} {finding.expectation.rule_id:<{width}}  {_counts(finding)}")
        lines.append(agreement_line(self))
        verdict = "passed" if self.ok else "FAILED"
        lines.append(f"{verdict} ({self.seconds:.1f} s): {self.page}")
        return "\n".join(lines)


def agreement_line(report: QualityReport) -> str:
    """The cross-check in one sentence: whether the stream's counts are the report's."""
    found = report.found
    if not report.rows_agree:
        return (
            f"STREAM AND REPORT DIFFER: the logs record {report.recorded_rows:,} rows, {found.rows.total:,} were read"
        )
    if found.disagreements:
        first = "; ".join(
            f"{one.rule_id}: report {one.unexpected}, compiled {one.recounted}, due {one.due}, recorded {one.recorded}"
            for one in found.disagreements[:3]
        )
        return f"STREAM AND REPORT DIFFER in {len(found.disagreements)} rules: {first}"
    recorded = sum(one.recorded is not None for one in found.agreements)
    return (
        f"stream and report agree: {len(found.agreements)} rules count the same rows, and the verdicts that {recorded}"
        f" of them record are those due, over {found.rows.same_suite:,} rows judged by this suite when they came"
    )


def run_report(spark: SparkSession, pipeline: Pipeline, span: Span, *, run_id: str | None = None) -> QualityReport:
    """Judge the pipeline's rows at rest; write the page and, once per run, the results.

    Args:
        spark: a session that reads Delta.
        pipeline: whose tables and suite.
        span: which records, by Kafka's timestamp.
        run_id: a name for the run, the same for a repetition; made where it is None.

    Raises:
        ConfigError: the run id cannot be a folder's name, or the suite cannot be loaded.
        ReconcileError, TableError: the tables cannot be read at versions of one batch.
    """
    began, run_at = time.perf_counter(), datetime.now(UTC)
    run_id = _checked(run_id) or f"{run_at:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
    suite = load_suite(pipeline.quality.suite)
    check_columns(suite, {name: field.type for name, field in pipeline.source.fields.items()})
    root = storage.resolve_root(pipeline.root)
    tables, _ = aligned(
        root, [f"{layer}/{pipeline.name}" for layer in ("silver", "quarantine")], Replays(root, pipeline)
    )
    versions = {name.partition("/")[0]: table.version() for name, table in tables.items()}
    recorded_rows = None
    if span.start is None and span.end is None:
        recorded_rows = sum(table.count() for table in tables.values())

    found = assess(read_population(spark, pipeline, versions, span), suite, Archive(root).uses(pipeline.name))
    page = f"{root}/_quality/{pipeline.name}/{run_id}/index.html"
    report = QualityReport(
        run_id=run_id,
        run_at=run_at,
        pipeline=pipeline.name,
        suite=suite,
        span=span,
        versions=versions,
        recorded_rows=recorded_rows,
        found=found,
        page=page,
        seconds=time.perf_counter() - began,
    )
    html = render(report, agreement_line(report))
    obstore.put(storage.open_store(page.rpartition("/")[0]), "index.html", html.encode())
    append_once(report, root)
    return report


def _checked(run_id: str | None) -> str | None:
    """It becomes a folder's name."""
    if run_id is not None and not _RUN_ID.fullmatch(run_id):
        raise ConfigError(f"the run id is {run_id!r}", remedy="use up to 200 letters, digits and _ . : + -")
    return run_id


def _counts(finding: Finding) -> str:
    if finding.error:
        return f"could not be judged: {finding.error}"
    if finding.unexpected is None:
        return f"observed {finding.observed}"
    share = "" if finding.percent is None else f", {finding.percent:.3g} %"
    return f"{finding.unexpected:,} of {finding.evaluated or 0:,} unexpected{share}"
