"""JSON Schema of a pipeline file, by which editors complete and check it.

`python -m lakehouse.config.schema` writes conf/pipeline.schema.json; a test keeps the two alike. The schema
is looser than the loader in one point: wherever a value may stand, `${…}` may stand as well.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from lakehouse.config.models import Pipeline, format_duration

SCHEMA_FILE = Path("conf/pipeline.schema.json")
"""Relative to the project's folder."""

_ABOUT = ("title", "description", "default", "examples", "writeOnly")
"""Keywords that describe a value without restricting it."""
_INTERPOLATED = {
    "type": "string",
    "pattern": r"\$\{[^{}]+\}",
    "description": "${NAME} or ${NAME:-default}: an environment variable",
}
_TAGS = ("type", "kind")
"""Keys by which editors tell the members of a union apart; these are written out."""

Schema = dict[str, Any]


class _Generator(GenerateJsonSchema):
    """Writes defaults as the file would spell them."""

    def encode_default(self, dft: Any) -> Any:  # noqa: ANN401 - whatever a model's default is
        if isinstance(dft, timedelta):
            return format_duration(dft)
        return dft.model_dump(mode="json") if isinstance(dft, BaseModel) else super().encode_default(dft)


def pipeline_schema() -> Schema:
    """The schema, in the 2020-12 draft."""
    found = Pipeline.model_json_schema(schema_generator=_Generator)
    definitions = found.pop("$defs")
    for name, tag in _tagged(found) | _tagged(definitions):
        definition = definitions[name]
        definition["required"] = sorted({*definition.get("required", []), tag})
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_open(found),
        "$defs": {name: _open(definition) for name, definition in sorted(definitions.items())},
    }
    whole["$defs"]["Interpolated"] = _INTERPOLATED
    whole["title"] = "Pipeline"
    return whole


def render() -> str:
    """The schema as it stands in the file."""
    return json.dumps(pipeline_schema(), indent=2, ensure_ascii=False) + "\n"


def _tagged(node: Any) -> set[tuple[str, str]]:  # noqa: ANN401 - any part of a schema
    """(definition, key that tells it from the others) of every member of a tagged union below `node`."""
    if isinstance(node, list):
        return {pair for item in node for pair in _tagged(item)}
    if not isinstance(node, dict):
        return set()
    pairs = {pair for value in node.values() for pair in _tagged(value)}
    if "discriminator" in node:
        tag = node["discriminator"]["propertyName"]
        pairs |= {(ref["$ref"].removeprefix("#/$defs/"), tag) for ref in node["oneOf"]}
    return pairs


def _open(node: Schema, *, is_tag: bool = False) -> Schema:
    """Let `${…}` stand for any restricted scalar below `node`, and no key that no pattern allows."""
    opened: Schema = {}
    for key, value in node.items():
        if key in ("properties", "patternProperties"):
            opened[key] = {name: _open(schema, is_tag=name in _TAGS) for name, schema in value.items()}
        elif key in ("anyOf", "oneOf"):
            opened[key] = [_open(schema) for schema in value]
        elif key == "items":
            opened[key] = _open(value)
        elif key != "title":
            opened[key] = value
    if "patternProperties" in opened:
        opened.setdefault("additionalProperties", False)
    return _or_interpolated(opened) if _is_restricted_scalar(opened) and not is_tag else opened


def _is_restricted_scalar(schema: Schema) -> bool:
    """Whether some text is refused here."""
    kind = schema.get("type")
    return kind in ("integer", "number", "boolean") or (
        kind == "string" and any(keyword in schema for keyword in ("enum", "const", "pattern"))
    )


def _or_interpolated(schema: Schema) -> Schema:
    about = {key: value for key, value in schema.items() if key in _ABOUT}
    rule = {key: value for key, value in schema.items() if key not in _ABOUT}
    return about | {"anyOf": [rule, {"$ref": "#/$defs/Interpolated"}]}


if __name__ == "__main__":
    SCHEMA_FILE.write_text(render(), encoding="utf-8")
