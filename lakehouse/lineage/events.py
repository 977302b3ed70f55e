"""OpenLineage's run events, version 2-0-2, as plain JSON: pure functions of a pipeline and of what it did.

A run is one start of the driver. It has a START event, a RUNNING event every so often, and at its end COMPLETE or FAIL.
Each says what came since the one before it: rows, files and bytes of every table, and how many rows failed which rule.
Names of tables, fields and rules, and numbers; no value of an event and no secret.

Specification: https://github.com/OpenLineage/OpenLineage/tree/main/spec
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from lakehouse.chain import describe
from lakehouse.sinks.onepass import OnePass

if TYPE_CHECKING:
    from lakehouse.chain import Batch, Offsets
    from lakehouse.config.models import Pipeline
    from lakehouse.metrics.record import Committed

EventType = Literal["START", "RUNNING", "COMPLETE", "FAIL"]

PRODUCER = "https://pypi.org/project/lakehouse/"
SPEC = "https://openlineage.io/spec"
_CORE = f"{SPEC}/2-0-2/OpenLineage.json#/$defs"
_FACETS = {
    "schema": "1-2-0/SchemaDatasetFacet",
    "version": "1-0-1/DatasetVersionDatasetFacet",
    "dataQualityAssertions": "1-1-0/DataQualityAssertionsDatasetFacet",
    "inputStatistics": "1-0-0/InputStatisticsInputDatasetFacet",
    "outputStatistics": "1-0-2/OutputStatisticsOutputDatasetFacet",
    "jobType": "2-0-4/JobTypeJobFacet",
    "processing_engine": "1-1-1/ProcessingEngineRunFacet",
    "errorMessage": "1-0-1/ErrorMessageRunFacet",
}
"""Facet → version and name of its schema; any other one is this project's own."""


@dataclass
class Done:
    """What micro-batches brought since the last event.

    Attributes:
        batches: how many.
        rows, files, bytes: table → added.
        evaluated, failed: rule → rows; for an aggregate of the suite, batches that met it not.
        start: offsets where the first began; end: where the last ended.
        suite_sha256: of the suite that judged the last; query_id: that planned it.
    """

    batches: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    evaluated: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    start: Offsets = field(default_factory=dict)
    end: Offsets = field(default_factory=dict)
    suite_sha256: str | None = None
    query_id: str | None = None

    def add(self, committed: Committed) -> None:
        """One more micro-batch."""
        batch: Batch = committed.batch
        self.batches += 1
        self.rows.update(batch.rows())
        for table, adds in batch.adds.items():
            self.files[table] += len(adds)
            self.bytes[table] += sum(add["size"] for add in adds)
        for one in committed.outcomes:
            self.evaluated[one.rule_id] += one.evaluated
            self.failed[one.rule_id] += (one.failed or 0) + (one.success is False)
        self.start = self.start or batch.start
        self.end, self.suite_sha256, self.query_id = batch.end, batch.suite_sha256, batch.query_id


def event(
    kind: EventType,
    pipeline: Pipeline,
    root: str,
    run_id: str,
    done: Done,
    *,
    at_s: float,
    versions: dict[str, int] | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    """One run event.

    Args:
        kind: of it.
        pipeline: whose run.
        root: resolved root of the tables.
        run_id: a UUID.
        done: what came since the last event.
        at_s: seconds since 1970 UTC.
        versions: table → its version now, where it is known.
        error: of a FAIL: what happened, without secrets.
    """
    run: dict[str, Any] = {"processing_engine": _engine()}
    if done.batches:
        run["lakehouse_batches"] = _facet(
            "lakehouse_batches",
            "RunFacet",
            batches=done.batches,
            queryId=done.query_id,
            suiteSha256=done.suite_sha256,
            start=describe(done.start),
            end=describe(done.end),
        )
    if error is not None:
        run["errorMessage"] = _facet("errorMessage", message=error, programmingLanguage="PYTHON")
    return {
        "eventType": kind,
        "eventTime": datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds"),
        "producer": PRODUCER,
        "schemaURL": f"{_CORE}/RunEvent",
        "run": {"runId": run_id, "facets": run},
        "job": {
            "namespace": pipeline.lineage.namespace,
            "name": pipeline.name,
            "facets": {"jobType": _job_type(pipeline)},
        },
        "inputs": [_topic(pipeline, done)],
        "outputs": [
            _table(name, schema, root, done, (versions or {}).get(name))
            for name, schema in OnePass(root, pipeline, {}).schemas.items()
        ],
    }


def _engine() -> dict[str, Any]:
    return _facet(
        "processing_engine", name="spark", version=version("pyspark"), openlineageAdapterVersion=version("lakehouse")
    )


def _job_type(pipeline: Pipeline) -> dict[str, Any]:
    kind = "BATCH" if pipeline.trigger.kind == "available_now" else "STREAMING"
    return _facet("jobType", processingType=kind, integration="LAKEHOUSE", jobType="QUERY")


def _topic(pipeline: Pipeline, done: Done) -> dict[str, Any]:
    """The topic, with what the suite and the contract found of its records."""
    source = pipeline.source
    fields = [
        {"name": name, "type": of.type} | ({"description": of.description} if of.description else {})
        for name, of in source.fields.items()
    ]
    found: dict[str, Any] = {}
    if done.batches:
        layers = (f"silver/{pipeline.name}", f"quarantine/{pipeline.name}")
        found["inputStatistics"] = _facet("inputStatistics", rowCount=sum(done.rows[table] for table in layers))
        found["dataQualityAssertions"] = _facet("dataQualityAssertions", assertions=_assertions(done))
    return {
        "namespace": f"kafka://{source.servers.split(',')[0].strip()}",
        "name": source.topic,
        "facets": {"schema": _facet("schema", fields=fields)},
        "inputFacets": found,
    }


def _assertions(done: Done) -> list[dict[str, Any]]:
    return [
        {
            "assertion": rule,
            "name": rule,
            "success": not done.failed[rule],
            "params": {"evaluated": evaluated, "failed": done.failed[rule]},
        }
        for rule, evaluated in sorted(done.evaluated.items())
    ]


def _table(name: str, schema: pa.Schema, root: str, done: Done, version_now: int | None) -> dict[str, Any]:
    facets = {"schema": _facet("schema", fields=[_column(column) for column in schema])}
    if version_now is not None:
        facets["version"] = _facet("version", datasetVersion=str(version_now))
    namespace, place = _place(f"{root}/{name}")
    found = {}
    if done.batches:
        found["outputStatistics"] = _facet(
            "outputStatistics", rowCount=done.rows[name], size=done.bytes[name], fileCount=done.files[name]
        )
    return {"namespace": namespace, "name": place, "facets": facets, "outputFacets": found}


def _column(column: pa.Field) -> dict[str, Any]:
    nested = column.type
    if pa.types.is_list(nested):
        nested = nested.value_type
    if pa.types.is_struct(nested):
        kind = "array" if nested is not column.type else "struct"
        return {"name": column.name, "type": kind, "fields": [_column(inner) for inner in nested]}
    return {"name": column.name, "type": str(column.type)}


def _place(url: str) -> tuple[str, str]:
    """(namespace, name) by OpenLineage's rules of naming."""
    if url.startswith("s3://"):
        bucket, _, path = url.removeprefix("s3://").partition("/")
        return f"s3://{bucket}", path
    return "file", url


def _facet(facet: str, core: str = "", /, **content: Any) -> dict[str, Any]:  # noqa: ANN401 - as its schema says
    known = _FACETS.get(facet)
    schema = f"{SPEC}/facets/{known}.json#/$defs/{known.partition('/')[2]}" if known else f"{_CORE}/{core}"
    return {"_producer": PRODUCER, "_schemaURL": schema} | content
