"""What a pipeline's file asks of its tables' columns, held against the columns that they have.

A change is *additive* where the rows that are there stay right and every query over them goes on: a new column, which
those rows have not; a wider type; a column that may be null from now on. Any other change of the event's fields is
*breaking*. `evolution` in the pipeline's file says what a start does with either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from deltalake import Field, Schema

from lakehouse.config.models import EventField, Pipeline
from lakehouse.errors import SchemaChanged, TableError
from lakehouse.schemas import silver_schema

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import pyarrow as pa

    from lakehouse.config.models import FieldType

Kind = Literal["added", "widened", "loosened", "removed", "retyped", "tightened"]

_ADDITIVE = ("added", "widened", "loosened")
_WIDER = {"integer": ("long", "double")}
"""Type → those that hold each of its values exactly. Delta has the pipeline file's names for them."""
_WAY_OUT = (
    "undo the edit (a field that producers no longer send may stay: it is null from then on); or set"
    " evolution.breaking: quarantine, to go on by what the tables hold; or rename the pipeline, for new tables"
)


@dataclass(frozen=True)
class Change:
    """One column that the table has otherwise; `before` or `after` is None where it is only in the other one."""

    column: str
    kind: Kind
    before: Field | None
    after: Field | None

    @property
    def is_additive(self) -> bool:
        """Whether rows and queries of before go on as they were."""
        return self.kind in _ADDITIVE

    def __str__(self) -> str:
        match self.kind:
            case "added":
                return f"{self.column} is new ({_type(self.after)})"
            case "removed":
                return f"{self.column} is gone, while the table holds it ({_type(self.before)})"
            case "widened" | "retyped":
                return f"{self.column} is {_type(self.after)}, while the table holds {_type(self.before)}"
            case "loosened":
                return f"{self.column} is no longer required"
            case "tightened":
                return f"{self.column} is required, while rows from before may lack it"


def changes(columns: Schema, wanted: pa.Schema) -> list[Change]:
    """What differs, column by column; neither their order nor what a field's metadata says of it makes a difference.

    Args:
        columns: of the table, as its log says.
        wanted: as the pipeline's file asks for them.
    """
    found = {field.name: field for field in columns.fields}
    asked = {field.name: field for field in Schema.from_arrow(wanted).fields}
    told = [change for name, after in asked.items() for change in _changes(found.get(name), after)]
    return told + [Change(name, "removed", before, None) for name, before in found.items() if name not in asked]


def _changes(before: Field | None, after: Field) -> Iterator[Change]:
    if before is None:
        yield Change(after.name, "added", before, after)
    elif before.type != after.type:
        kind: Kind = "widened" if _type(after) in _WIDER.get(_type(before), ()) else "retyped"
        yield Change(after.name, kind, before, after)
    if before is not None and after.nullable and not before.nullable:
        yield Change(after.name, "loosened", before, after)
    if not after.nullable and (before is None or before.nullable):
        yield Change(after.name, "tightened", before, after)


def altered(columns: Schema, additive: Collection[Change]) -> Schema:
    """The columns once additive changes are made. A new one may be null: the rows of before have none."""
    fields = {field.name: field for field in columns.fields}
    for change in additive:
        before, after = fields.get(change.column), change.after
        assert after is not None, "an additive change has a column that comes of it"  # noqa: S101 - by its kind
        nullable = before is None or before.nullable or after.nullable
        fields[change.column] = Field(change.column, after.type, nullable=nullable, metadata=after.metadata)
    return Schema([*fields.values()])


def require_additive(name: str, columns: Schema, wanted: pa.Schema, pipeline: Pipeline) -> list[Change]:
    """The additive changes that a table needs to become what the pipeline asks for.

    Args:
        name: the table's.
        columns: as its log says.
        wanted: as the pipeline asks for them, once `settle` has let the table win where the policy is so.
        pipeline: whose policy, and whose fields.

    Raises:
        SchemaChanged: a field has changed, and the policy refuses that.
        TableError: a column that is no field differs: the table is of another rollup, or of a later version.
    """
    found = changes(columns, wanted)
    if pipeline.evolution.breaking == "quarantine":
        # What is required of records from now on, the column may still lack in those of before.
        found = [change for change in found if change.kind != "tightened"]
    fields = _fields_in(name, found, pipeline)
    strange = [change for change in found if change.column not in fields and not _comes_with_version(change)]
    if strange:
        raise TableError(
            f"the table's columns are not those of the pipeline: {'; '.join(map(str, strange))}",
            where=f"table {name}",
            remedy="undo the edit of the pipeline's file, or give the pipeline another name or root",
        )
    told = [change for change in found if change.column in fields]
    _refuse_breaking(name, [change for change in told if not change.is_additive], pipeline)
    if told and pipeline.evolution.additive == "refuse":
        raise SchemaChanged(
            f"the event's fields have changed: {'; '.join(map(str, told))}",
            where=f"source.fields of pipeline {pipeline.name}, table {name}",
            remedy="undo the edit, or set evolution.additive: apply",
        )
    return found


def _fields_in(name: str, found: Collection[Change], pipeline: Pipeline) -> set[str]:
    """The changed columns that hold a field of the event: silver's own, and dimensions of a rollup."""
    if name == f"silver/{pipeline.name}":
        return {change.column for change in found if not change.column.startswith("_")}
    dimensions = {dimension for rollup in pipeline.rollups.values() for dimension in rollup.dimensions}
    return {change.column for change in found if change.column in dimensions and change.kind in ("widened", "retyped")}


def _comes_with_version(change: Change) -> bool:
    """Whether a table of an earlier version of this project is only given a column of its own."""
    return change.kind == "added" and change.column.startswith("_")


def _refuse_breaking(name: str, breaking: Collection[Change], pipeline: Pipeline) -> None:
    if breaking:
        raise SchemaChanged(
            f"the event's fields have changed in a way that breaks the table: {'; '.join(map(str, breaking))}",
            where=f"source.fields of pipeline {pipeline.name}, table {name}",
            remedy=_WAY_OUT,
        )


class Settled(NamedTuple):
    """A pipeline as it can run on the tables that it has.

    Attributes:
        pipeline: with the fields of its file, except where the table has won.
        held: each field where it has → why its records are quarantined, in words.
    """

    pipeline: Pipeline
    held: dict[str, str]


def settle(pipeline: Pipeline, silver: Schema | None) -> Settled:
    """Let silver win where a change breaks it and the policy is `quarantine`.

    Such a field is read by the type that its column has, and one that the file no longer names is read as before.

    Args:
        pipeline: as its file says.
        silver: columns of the table; None where there is none yet.

    Raises:
        SchemaChanged: the policy is `refuse`; or the event's time or a rollup is made of the field, and can be of no
            other type.
    """
    if silver is None:
        return Settled(pipeline, {})
    fields = pipeline.source.fields
    found = [each for each in changes(silver, silver_schema(fields)) if not each.column.startswith("_")]
    name = f"silver/{pipeline.name}"
    if pipeline.evolution.breaking == "refuse":
        _refuse_breaking(name, [change for change in found if not change.is_additive], pipeline)
    won = {change.column: change for change in found if change.kind in ("removed", "retyped")}
    _refuse_breaking(name, [change for column, change in won.items() if column in _built_on(pipeline)], pipeline)
    if not won:
        return Settled(pipeline, {})
    kept = {column: _field(change.before, fields.get(column)) for column, change in won.items() if change.before}
    source = pipeline.source.model_copy(update={"fields": {**fields, **kept}})
    held = {
        column: f"the table holds {kept[column].type}, while the pipeline's file has {fields[column].type}"
        if column in fields
        else "the table holds it, while the pipeline's file has it no longer"
        for column in won
    }
    return Settled(pipeline.model_copy(update={"source": source}), held)


def _field(before: Field, declared: EventField | None) -> EventField:
    """The contract of a field as its column has it."""
    kind = cast("FieldType", _type(before))
    if declared is not None:
        return declared.model_copy(update={"type": kind})
    return EventField(
        type=kind,
        required=not before.nullable,
        description=before.metadata.get("comment", ""),
        pii="lakehouse.pii" in before.metadata,
    )


def _built_on(pipeline: Pipeline) -> set[str]:
    """The fields of which the event's time and the rollups are made."""
    found = {pipeline.event_time.column}
    for rollup in pipeline.rollups.values():
        found.update(rollup.dimensions)
        for metric in rollup.metrics:
            found.update(metric.where)
            found.update(() if metric.type == "count" else (metric.column,))
    return found


def _type(field: Field | None) -> str:
    """The name of a field's type; of one that is not primitive, its JSON."""
    if field is None:
        return "nothing"
    return str(getattr(field.type, "type", field.type))
