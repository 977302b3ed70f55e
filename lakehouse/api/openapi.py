"""The API as an OpenAPI document, made from the pipeline's file and the parameters that the parser knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakehouse.api.problems import MEDIA_TYPE
from lakehouse.api.questions import PARAMETERS
from lakehouse.serving.query import measure_names

if TYPE_CHECKING:
    from lakehouse.config.models import Pipeline

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
_PROBLEMS = {
    "400": "the question means nothing here; `detail` says which parameter, `remedy` what it takes",
    "404": "there is nothing at this path",
    "405": "only GET and HEAD are taken",
    "406": "neither JSON nor Arrow is accepted",
    "413": "a request has no body",
    "414": "the question is too long",
    "421": "the server is not asked by that name",
    "500": "an error of the server, which its log has",
    "503": "every place is taken, the tables are staler than the question allows, or they cannot be read",
    "504": "the question took longer than it may",
}
_ANYWHERE = ("405", "413", "414", "421", "500")


def document(pipeline: Pipeline) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a pipeline's API."""
    question = [_rollup_parameter(pipeline), *_parameters(pipeline)]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Rollups of {pipeline.name}",
            "version": "1",
            "description": "Read only. An answer is that of certain versions of tables, which its ETag stands for.",
        },
        "paths": {
            "/v1/health": _path(
                "Whether the tables can be read, and when the last batch came", "Health", ("503", "504")
            ),
            "/v1/tables": _path("The pipeline's tables", "Tables", ("503", "504")),
            "/v1/rollups": _path("What can be asked", "Rollups", ()),
            "/v1/rollups/{rollup}/answer": _answer(question),
            "/v1/rollups/{rollup}/explain": _path(
                "Which tables would answer which part of the range", "Plan", ("400", "404", "503", "504"), question
            ),
            "/v1/rollups/{rollup}/revisions": _path(
                "What came long after its window's end, within the last minutes before the last batch",
                "Revisions",
                ("404", "503", "504"),
                [_rollup_parameter(pipeline)],
            ),
            "/openapi.json": _path("This document", "Document", ()),
        },
        "components": {"schemas": _SCHEMAS},
    }


def _rollup_parameter(pipeline: Pipeline) -> dict[str, Any]:
    schema = {"type": "string", "enum": list(pipeline.rollups)} if pipeline.rollups else {"type": "string"}
    return {"name": "rollup", "in": "path", "required": True, "schema": schema}


def _parameters(pipeline: Pipeline) -> list[dict[str, Any]]:
    names = {name for rollup in pipeline.rollups.values() for name in measure_names(rollup)}
    dimensions = {name for rollup in pipeline.rollups.values() for name in rollup.dimensions}
    known = {"measure": f"; names: {', '.join(sorted(names))}", "by": f": {', '.join(sorted(dimensions))}"}
    return [
        {
            "name": each.name,
            "in": "query",
            "required": each.name == "measure",
            "description": each.takes + known.get(each.name, ""),
            "schema": {"type": "array", "items": {"type": "string"}, "maxItems": each.most}
            if each.most > 1
            else {"type": "string"},
            **({"example": [each.example] if each.most > 1 else each.example} if each.example else {}),
        }
        for each in PARAMETERS.values()
    ]


def _path(
    summary: str, schema: str, problems: tuple[str, ...], parameters: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    responses = {"200": {"description": "done", "content": content}} | _problems(problems)
    return {"get": {"summary": summary, "responses": responses, **({"parameters": parameters} if parameters else {})}}


def _answer(question: list[dict[str, Any]]) -> dict[str, Any]:
    found = _path("An answer", "Answer", ("400", "404", "406", "503", "504"), question)
    responses = found["get"]["responses"]
    responses["200"]["content"][ARROW] = {"schema": {"type": "string", "format": "binary"}}
    responses["200"]["headers"] = {"ETag": {"schema": {"type": "string"}, "description": "of question and versions"}}
    responses["304"] = {"description": "the answer of which `If-None-Match` has the ETag"}
    return found


def _problems(statuses: tuple[str, ...]) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": _PROBLEMS[status], "content": content} for status in sorted({*statuses, *_ANYWHERE})
    }


_MOMENT = {"type": ["string", "null"], "format": "date-time"}
_VERSIONS = {"type": "object", "additionalProperties": {"type": "integer"}}


def _object(properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


_USE = _object(
    {
        "segment": _object(
            {"grain": {"type": "string"}, "start_us": {"type": "integer"}, "end_us": {"type": "integer"}}
        ),
        "table": {"type": "string"},
        "version": {"type": "integer"},
        "tail": {"type": "boolean"},
        "files": {"type": "integer"},
        "rows": {"type": "integer"},
    }
)
_METRIC = _object(
    {"type": {"type": "string"}, "meaning": {"type": "string"}, "error": {"type": "number"}}, optional=("error",)
)
_TABLE = _object(
    {
        "layer": {"type": "string"},
        "name": {"type": "string"},
        "version": {"type": ["integer", "null"]},
        "files": {"type": ["integer", "null"]},
        "rows": {"type": ["integer", "null"]},
        "bytes": {"type": ["integer", "null"]},
        "last_commit": _MOMENT,
        "offsets": {"type": ["object", "null"]},
        "columns": {"type": "object", "additionalProperties": {"type": "string"}},
        "error": {"type": ["string", "null"]},
    }
)
_SCHEMAS: dict[str, Any] = {
    "Document": {"type": "object"},
    "Health": _object({"status": {"const": "ok"}, "last_batch": {"type": "object", "additionalProperties": _MOMENT}}),
    "Tables": {"type": "array", "items": _TABLE},
    "Rollups": {
        "type": "object",
        "additionalProperties": _object(
            {
                "dimensions": {"type": "object", "additionalProperties": {"type": "string"}},
                "metrics": {"type": "object", "additionalProperties": _METRIC},
                "grains": {"type": "object", "additionalProperties": {"type": "string"}},
            }
        ),
    },
    "Answer": _object(
        {
            "rows": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"window_start": {"type": "string", "format": "date-time"}},
                    "required": ["window_start"],
                },
                "description": "`window_start`, the dimensions, and a number for each measure",
            },
            "versions": _VERSIONS,
            "last_batch": _MOMENT,
        }
    ),
    "Plan": _object(
        {
            "uses": {"type": "array", "items": _USE},
            "versions": _VERSIONS,
            "rows_to_read": {"type": "integer"},
            "cached": {"type": "boolean"},
            "lane": {"enum": ["light", "heavy"]},
        }
    ),
    "Revisions": _object(
        {
            "since": _MOMENT,
            "by_lateness": _VERSIONS,
            "windows": {
                "type": "array",
                "items": _object({"window_start": _MOMENT, "events": {"type": "integer"}}),
            },
        }
    ),
    "Problem": _object(
        {
            "type": {"const": "about:blank"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "remedy": {"type": "string"},
        },
        optional=("remedy",),
    ),
}
