"""Everything about a pipeline that can be checked before it runs: reads no record and writes nothing."""

from __future__ import annotations

import os
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse import kafka_admin
from lakehouse.config.loader import load_pipeline
from lakehouse.errors import LakehouseError, SourceUnavailable, StorageUnavailable, TableDamaged, first_line
from lakehouse.evolution import require_additive
from lakehouse.formats.decode import connect
from lakehouse.kafka_options import librdkafka_options
from lakehouse.quality.schema_rules import require_schema
from lakehouse.quality.suite import check_columns, load_suite
from lakehouse.schemas import silver_schema
from lakehouse.serving.tables import usable_root
from lakehouse.sinks.alter import settled
from lakehouse.sinks.delta_log import table_exists
from lakehouse.storage import is_remote, require_reachable, resolve_root

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lakehouse.config.models import Pipeline, Source

Status = Literal["ok", "warning", "error", "skipped"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `detail` is for people; an error's has what, where and what to do."""

    name: str
    status: Status
    detail: str


@dataclass(frozen=True)
class ValidationReport:
    """What was checked, in the order in which a start would meet it."""

    pipeline: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether a start would get past all of it; warnings and what was skipped do not count."""
        return not any(check.status == "error" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """For scripts: `pipeline`, `ok` and `checks`, each with `name`, `status` and `detail`."""
        return {"pipeline": self.pipeline, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def __str__(self) -> str:
        lines = [f"{check.status:<7} {check.name}: {_indent(check.detail)}" for check in self.checks]
        verdict = "can be started" if self.ok else "cannot be started"
        return "\n".join([*lines, f"{self.pipeline} {verdict}"])


def validate_pipeline(
    path: Path, environ: Mapping[str, str] = os.environ, *, online: bool = True, require_broker: bool = False
) -> ValidationReport:
    """Check a pipeline file, its suite, its root and, where a broker answers, its topic.

    Args:
        path: the pipeline file.
        environ: what `${…}` is taken from.
        online: also ask Kafka for the topic; this waits a few seconds where no broker answers.
        require_broker: a broker that does not answer is an error, and not only a warning.

    Returns:
        The report; what is wrong stands in it and is not raised.
    """
    found: list[Pipeline] = []

    def load() -> str:
        found.append(load_pipeline(path, environ))
        return _summary(found[0])

    checks = [_run("pipeline file", load)]
    if not found:
        later = ("suite", "root", "fields", "Kafka options", "topic")
        skipped = [Check(name, "skipped", "the pipeline file has to be right first") for name in later]
        return ValidationReport(str(path), (*checks, *skipped))
    pipeline = found[0]
    root = _check_root(pipeline.root)
    options = _run("Kafka options", lambda: _check_options(pipeline.source))
    checks += [_run("suite", lambda: _check_suite(pipeline)), root, _check_tables(pipeline, root), options]
    if pipeline.source.registry is not None:
        checks.append(_check_registry(pipeline.source, online=online))
    checks.append(_check_topic(pipeline.source, online=online, require_broker=require_broker, before=options))
    return ValidationReport(str(path), tuple(checks))


def _run(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", look())
    except LakehouseError as error:
        return Check(name, "error", str(error))


def _summary(pipeline: Pipeline) -> str:
    tables = [f"silver/{pipeline.name}", f"quarantine/{pipeline.name}"]
    tables += [f"bronze/{pipeline.name}"] if pipeline.tables.bronze else []
    tables += [f"gold/{name}" for name, _, _ in pipeline.rollup_tables()]
    return f"{len(pipeline.source.fields)} fields of topic {pipeline.source.topic} to {', '.join(tables)}"


def _check_suite(pipeline: Pipeline) -> str:
    suite = load_suite(pipeline.quality.suite)
    check_columns(suite, {name: field.type for name, field in pipeline.source.fields.items()})
    require_schema(suite, silver_schema(pipeline.source.fields))
    rows = len(suite.in_stream())
    return f"{suite.name}: {rows} expectations judge rows, {len(suite.report_only)} only the report"


def _check_tables(pipeline: Pipeline, root: Check) -> Check:
    if root.status != "ok":
        return Check("fields", "skipped", "the tables cannot be looked at")
    return _run("fields", lambda: _check_fields(pipeline))


def _check_fields(pipeline: Pipeline) -> str:
    """What the next start does to silver where the event's fields have changed since it was made."""
    root, name = resolve_root(pipeline.root), f"silver/{pipeline.name}"
    asked, held = settled(root, pipeline)
    if not table_exists(f"{root}/{name}"):
        return "no table yet"
    try:
        columns = DeltaTable(f"{root}/{name}").schema()
    except (DeltaError, OSError) as error:
        raise TableDamaged(
            f"the table's log cannot be read: {first_line(error)}",
            where=f"table {name}",
            remedy="`lakehouse doctor` says which file is damaged and what to do",
        ) from error
    found = require_additive(name, columns, silver_schema(asked.source.fields), asked)
    told = [*map(str, found), *(f"{field} is read as before: {why}" for field, why in held.items())]
    return f"the next start changes {name}: {'; '.join(told)}" if told else f"as {name} has them"


def _check_root(root: str) -> Check:
    """A local root or the nearest folder above it has to be writable; nothing is made."""
    try:
        place = usable_root(root)
    except LakehouseError as error:
        return Check("root", "error", str(error))
    if is_remote(place):
        return _check_bucket(place)
    existing = Path(place)
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        return _root_error(place, f"{existing} is not a folder", "set root to a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        return _root_error(place, f"{existing} cannot be written", "change its rights, or set another root")
    return Check("root", "ok", place if existing == Path(place) else f"{place} can be made in {existing}")


def _check_bucket(place: str) -> Check:
    """A bucket has to answer; nothing is put, so that whether it can be written shows at the first start."""
    try:
        require_reachable(place)
    except StorageUnavailable as error:
        return Check("root", "skipped", str(error))
    except LakehouseError as error:
        return Check("root", "error", str(error))
    return Check("root", "ok", f"{place} answers; whether it can be written shows at the first start")


def _root_error(place: str, what: str, remedy: str) -> Check:
    return Check("root", "error", str(LakehouseError(what, where=f"root {place}", remedy=remedy)))


def _plain_options(source: Source) -> dict[str, str]:
    return {name: secret.get_secret_value() for name, secret in source.options.items()}


def _check_options(source: Source) -> str:
    librdkafka_options(_plain_options(source))
    return ", ".join(sorted(source.options)) or "none"


def _check_registry(source: Source, *, online: bool) -> Check:
    if not online:
        return Check("registry", "skipped", "not asked for")

    def look() -> str:
        registry = connect(source)
        registry.require()
        return f"{source.format} by the schemas of {registry.url}"

    return _run("registry", look)


def _check_topic(source: Source, *, online: bool, require_broker: bool, before: Check) -> Check:
    if not online or before.status == "error":
        return Check("topic", "skipped", "the Kafka options have to be right first" if online else "not asked for")
    try:
        partitions = kafka_admin.topic_partitions(source.servers, source.topic, _plain_options(source))
    except SourceUnavailable as error:
        if require_broker:
            return Check("topic", "error", str(error))
        return Check("topic", "warning", f"not checked: {error}")
    except LakehouseError as error:
        return Check("topic", "error", str(error))
    return Check("topic", "ok", f"{source.topic} at {source.servers}, {len(partitions)} partitions")


def _indent(text: str) -> str:
    return textwrap.indent(text, " " * 8).lstrip()
