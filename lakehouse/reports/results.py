"""The table `_quality/NAME_results`: one row per expectation and run, appended once per run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from lakehouse import storage
from lakehouse.errors import TableError
from lakehouse.schemas import TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lakehouse.reports.run import QualityReport

SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("run_at", TIMESTAMP),
        ("pipeline", pa.string()),
        ("suite", pa.string()),
        ("suite_sha256", pa.string()),
        ("silver_version", pa.int64()),
        ("quarantine_version", pa.int64()),
        ("range_start", TIMESTAMP),
        ("range_end", TIMESTAMP),
        ("rows_silver", pa.int64()),
        ("rows_quarantine_parsed", pa.int64()),
        ("rows_quarantine_unparsed", pa.int64()),
        ("expectation", pa.int32()),
        ("rule_id", pa.string()),
        ("type", pa.string()),
        ("columns", pa.list_(pa.string())),
        ("severity", pa.string()),
        ("stream", pa.string()),
        ("mostly", pa.float64()),
        ("success", pa.bool_()),
        ("evaluated", pa.int64()),
        ("unexpected", pa.int64()),
        ("percent", pa.float64()),
        ("observed", pa.string()),
        ("error", pa.string()),
        ("recounted", pa.int64()),
        ("due", pa.int64()),
        ("recorded", pa.int64()),
        ("agrees", pa.bool_()),
    ]
)
"""Times are UTC; `expectation` is the place in the suite, from 0; `percent` is of 100; `recounted`, `due`, `recorded`
and `agrees` are those of `agreement.Agreement`, null for expectations that the stream does not judge."""


def table_url(root: str, pipeline: str) -> str:
    """Where the table lies."""
    return storage.quality_url(root, pipeline, "results")


def append_once(report: QualityReport, root: str) -> bool:
    """Append the report's rows, unless the table has this run.

    The run is the commit's transaction. It is looked up first; of two writers that both found nothing, delta-rs
    refuses the second.

    Returns:
        False where the run is in the table already.

    Raises:
        TableError: the table cannot be read or written.
    """
    url = table_url(root, report.pipeline)
    run = Transaction(f"quality:{report.run_id}", 1)
    try:
        table = _opened(url)
        if table.transaction_version(run.app_id) is not None:
            return False
        try:
            rows = pa.Table.from_pylist(list(_rows(report)), schema=SCHEMA)
            write_deltalake(table, rows, mode="append", commit_properties=CommitProperties(app_transactions=[run]))
        except CommitFailedError:
            if DeltaTable(url).transaction_version(run.app_id) is not None:
                return False
            raise
    except (DeltaError, OSError) as error:
        raise TableError(
            f"the results cannot be written: {error}", where=url, remedy="try again with the same --run-id"
        ) from error
    return True


def _opened(url: str) -> DeltaTable:
    try:
        return DeltaTable(url)
    except TableNotFoundError:
        storage.open_store(url)  # makes the folder, which a local table needs
        return DeltaTable.create(url, SCHEMA, mode="ignore")


def _rows(report: QualityReport) -> Iterator[dict[str, object]]:
    agreements = {agreement.rule_id: agreement for agreement in report.found.agreements}
    for finding in report.found.findings:
        expectation = finding.expectation
        agreement = agreements.get(expectation.rule_id)
        yield {
            "run_id": report.run_id,
            "run_at": report.run_at,
            "pipeline": report.pipeline,
            "suite": report.suite.name,
            "suite_sha256": report.suite.sha256,
            "silver_version": report.versions["silver"],
            "quarantine_version": report.versions["quarantine"],
            "range_start": report.span.start,
            "range_end": report.span.end,
            "rows_silver": report.found.rows.silver,
            "rows_quarantine_parsed": report.found.rows.parsed,
            "rows_quarantine_unparsed": sum(report.found.rows.unparsed.values()),
            "expectation": expectation.index,
            "rule_id": expectation.rule_id,
            "type": expectation.type,
            "columns": list(expectation.columns),
            "severity": expectation.severity,
            "stream": expectation.stream,
            "mostly": expectation.mostly,
            "success": finding.success,
            "evaluated": finding.evaluated,
            "unexpected": finding.unexpected,
            "percent": finding.percent,
            "observed": finding.observed,
            "error": finding.error,
            "recounted": agreement.recounted if agreement else None,
            "due": agreement.due if agreement else None,
            "recorded": agreement.recorded if agreement else None,
            "agrees": agreement.ok if agreement else None,
        }
