"""pydantic's complaints about a pipeline, in words for people and with the place in the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, cast, get_args, get_origin

from lakehouse.config.models import EventField, FieldType, Model
from lakehouse.config.problems import choose, did_you_mean, dotted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

    from lakehouse.config.document import Document
    from lakehouse.config.problems import KeyPath, Problem

_A_NUMBER = ("a whole number", "write digits alone, without quotes or unit")
_A_FRACTION = ("a number", "write digits, and a point where it has a fraction, without quotes or unit")
_A_GROUP = ("a group of keys", "indent its keys below it, as `key: value`")
_A_BOOLEAN = ("true or false", "write true or false, without quotes")
_WANTED = {
    "string_type": ("text", "put it in quotes"),
    "path_type": ("a path", "write the path of a file"),
    "int_type": _A_NUMBER,
    "int_parsing": _A_NUMBER,
    "int_parsing_size": _A_NUMBER,
    "int_from_float": _A_NUMBER,
    "finite_number": _A_NUMBER,
    "float_type": _A_FRACTION,
    "float_parsing": _A_FRACTION,
    "bool_type": _A_BOOLEAN,
    "bool_parsing": _A_BOOLEAN,
    "model_type": _A_GROUP,
    "model_attributes_type": _A_GROUP,
    "dict_type": _A_GROUP,
    "list_type": ("a list", "write [a, b], or each item on its own line after `- `"),
    "duration": ("a duration", "write a whole number and ms, s, m, h or d, such as 250ms or 5m"),
    "field": ("the type of a field", f"write one of {', '.join(get_args(FieldType))}"),
    "where": (
        "text, a whole number, true, false or a list of texts or whole numbers",
        "write the value that the field has to equal, or [one, of, these]",
    ),
}
"""pydantic's type of error → what the value has to be, and how to write it."""
_TAG_KEYS = ("type", "kind")
"""The keys that tell the members of a union apart, also where one of them need not be written."""
_UNFORESEEN = ("another value", "docs/configuration.md says what may stand here")
_NAME = "a name of lowercase letters, digits and _ that begins with a letter and has at most 63 characters"
_PATTERNS = {
    "^[a-z][a-z0-9_]{0,62}$": _NAME,
    "^[a-zA-Z0-9._-]{1,249}$": "a topic's name of letters, digits, dots, _ and -, at most 249 characters",
}


@dataclass(frozen=True)
class _Place:
    """Where an error stands: the path in the file, the model around it, and the type wanted there."""

    path: KeyPath
    owner: type[Model]
    wanted: Any
    is_key: bool = False


def problems_of(errors: Sequence[ErrorDetails], document: Document, model: type[Model]) -> list[Problem]:
    """One problem per wrong place, without those that the document has or that follow from another."""
    found: dict[KeyPath, Problem] = {}
    suggested: set[KeyPath] = set()
    for error in sorted(errors, key=lambda error: error["type"] == "missing"):
        place = _outside_short_form(_locate(error, model), document)
        spoilt = any(place.path[:depth] in document.spoilt for depth in range(len(place.path) + 1))
        if spoilt or place.path in found or place.path in suggested:
            continue
        what, remedy = _word(error, place, document)
        at_key = place.is_key or error["type"] == "extra_forbidden"
        found[place.path] = document.problem(place.path, what, remedy, at_key=at_key)
        if error["type"] == "extra_forbidden":
            # The key that was meant is missing too, but that is the same mistake.
            meant = did_you_mean(str(place.path[-1]), place.owner.model_fields)
            suggested |= {(*place.path[:-1], meant)} if meant else set()
    return list(found.values())


def _locate(error: ErrorDetails, model: type[Model]) -> _Place:
    """Follow pydantic's location down the models, without the tags of unions, which are not in the file."""
    path: list[str | int] = []
    owner, wanted = model, cast("Any", model)
    for step in error["loc"]:
        if step == "[key]":
            return _Place(tuple(path), owner, str, is_key=True)
        kind = _bare(wanted)
        members = get_args(kind)
        if isinstance(kind, type) and issubclass(kind, Model):
            owner = kind
            known = kind.model_fields.get(str(step))
            wanted = known.annotation if known else None
            path.append(step)
        elif get_origin(kind) in (dict, list):
            wanted = members[-1]
            path.append(step)
        elif _is_tagged(kind):
            wanted = owner = next(member for member in members if step in _tags(member))
        else:
            break  # inside a union of plain types: the value as a whole is wrong
    if error["type"].startswith("union_tag"):
        path.append(error["ctx"]["discriminator"].strip("'"))
    return _Place(tuple(path), owner, wanted)


def _outside_short_form(place: _Place, document: Document) -> _Place:
    """`at: timestmp` stands for `at: {type: timestmp}`: the mistake is where the text is."""
    parent = place.path[:-1]
    return replace(place, path=parent) if isinstance(document.at(parent), str) else place


def _word(error: ErrorDetails, place: _Place, document: Document) -> tuple[str, str]:
    """What is wrong, and the remedy."""
    if place.is_key or error["type"] in _ABOUT_KEYS:
        return _word_key(error["type"], place)
    key, shown = dotted(place.path), document.show(place.path)
    limits = error.get("ctx", {})
    match error["type"]:
        case "union_tag_invalid" | "literal_error":
            what = f"{key} is {shown}, which is not one of its values"
            remedy = choose(str(document.at(place.path)), _choices(place.wanted), "the values are")
        case "string_pattern_mismatch":
            what, remedy = (
                f"{key} is {shown}, which cannot be a name",
                f"write {_PATTERNS[limits['pattern']]}",
            )
        case "string_too_short" | "too_short":
            what, remedy = (
                f"{key} is empty",
                "write at least one value, or delete the key where it is optional",
            )
        case "string_too_long" | "too_long":
            what, remedy = f"{key} is too long", f"at most {limits['max_length']} fit"
        case "greater_than_equal":
            what, remedy = f"{key} is {shown}, but has to be at least {limits['ge']}", "write a larger number"
        case "less_than_equal":
            what, remedy = f"{key} is {shown}, but has to be at most {limits['le']}", "write a smaller number"
        case other:
            wanted, remedy = _WANTED.get(_kind(other, place.wanted), _UNFORESEEN)
            what = f"{key} is {shown}, but has to be {wanted}"
    return what, remedy


def _kind(error_type: str, wanted: Any) -> str:  # noqa: ANN401 - an annotation
    if wanted is EventField:
        return "field"
    return "where" if _is_union(wanted) and not _is_tagged(wanted) else error_type


_ABOUT_KEYS = ("missing", "extra_forbidden", "union_tag_not_found")


def _word_key(kind: str, place: _Place) -> tuple[str, str]:
    key, parent = str(place.path[-1]), dotted(place.path[:-1]) or "the file"
    fields = place.owner.model_fields
    match kind:
        case "missing":
            return f"{parent} needs the key {key}", f"add `{key}: …`: {fields[key].description}"
        case "extra_forbidden":
            return f"{key} is not a key of {parent}", choose(key, fields, "the keys are")
        case "union_tag_not_found":
            return (
                f"{parent} needs the key {key}",
                f"add `{key}: …`, one of: {', '.join(_choices(place.wanted))}",
            )
        case _:
            reserved = "; names that begin with _ are the tables' own" if key.startswith("_") else ""
            return f"{key} cannot be a name in {parent}", f"write {_NAME}{reserved}"


def _choices(wanted: Any) -> list[str]:  # noqa: ANN401 - an annotation
    """The words that a Literal or a tagged union allows."""
    kind = _bare(wanted)
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    members = [member for member in get_args(kind) if member is not type(None)]
    # Where the key may be left out, the union stands inside of another one.
    return [tag for member in members for tag in (_choices(member) if _is_union(_bare(member)) else _tags(member))]


def _bare(kind: Any) -> Any:  # noqa: ANN401 - an annotation
    return kind.__origin__ if get_origin(kind) is Annotated else kind


def _is_union(kind: Any) -> bool:  # noqa: ANN401 - an annotation
    return get_origin(kind) in (Union, UnionType)


def _is_tagged(kind: Any) -> bool:  # noqa: ANN401 - an annotation
    return _is_union(kind) and all(isinstance(member, type) and issubclass(member, Model) for member in get_args(kind))


def _tags(member: type[Model]) -> tuple[str, ...]:
    """The values of a union member's discriminator."""
    fields = [(name, field) for name, field in member.model_fields.items() if get_origin(field.annotation) is Literal]
    # Without a default it has to be the discriminator; with one, it is so by its name.
    return next(get_args(field.annotation) for name, field in fields if field.is_required() or name in _TAG_KEYS)
