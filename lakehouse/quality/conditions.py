r"""`row_condition` as Spark SQL text: which rows an expectation speaks of.

Two of Great Expectations' forms can be judged on Spark, and both are taken here:

* SQL text (`"action = 'purchase'"`, with or without `condition_parser: spark`), used as it stands;
* the serialised Column condition, `{"type": "comparison", "column": {"name": "action"}, "operator": "==",
  "parameter": "purchase"}` and its kin `nullity`, `and`, `or` and `pass_through`. Great Expectations renders
  these to SQL with Python's `repr()` of each value; the same text is made here, and values whose `repr()`
  Spark would read differently are refused.

A row for which the condition is false or null is outside the expectation and cannot fail it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakehouse.quality.mistakes import Mistake, did_you_mean

if TYPE_CHECKING:
    from lakehouse.quality.checks import Scalar

_OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "IN", "NOT_IN")
_KINDS = ("comparison", "nullity", "and", "or", "pass_through")
_MAX_TERMS = 100  # Great Expectations refuses more
_QUOTED = re.compile(r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`(?:[^`]|``)*`", re.DOTALL)
_UNSTABLE = re.compile(
    r"\b(?:(?:rand|randn|random|uuid|shuffle|now|curdate|unix_timestamp|monotonically_increasing_id"
    r"|spark_partition_id|input_file_name|current_user|session_user)\s*\("
    r"|(?:current_timestamp|current_date|current_time|localtimestamp)\b)",
    re.IGNORECASE,
)
_OTHER_ROWS = re.compile(r"\b(?:select\b|over\s*\()", re.IGNORECASE)


@dataclass(frozen=True)
class Condition:
    """A condition as Spark SQL, and what it is known to compare.

    Attributes:
        sql: a boolean expression.
        terms: (column, values compared with it), known for serialised conditions only.
    """

    sql: str
    terms: tuple[tuple[str, tuple[Scalar, ...]], ...] = ()


def parse_condition(value: object, parser: object) -> Condition:
    """Read `row_condition` and `condition_parser`.

    Raises:
        Mistake: the condition is malformed, is of a form that does not run on Spark, or could give another
            answer when the same row is judged again.
    """
    if isinstance(value, str):
        if parser not in (None, "spark"):
            raise Mistake(
                f"condition_parser is {parser!r}",
                'write the condition as Spark SQL and set condition_parser to "spark", or leave it out',
            )
        return Condition(_checked_sql(value))
    if isinstance(value, Mapping):
        condition = _render(value, inside=None)
        if len(condition.terms) > _MAX_TERMS:
            raise Mistake(
                f"row_condition has {len(condition.terms)} terms and Great Expectations allows {_MAX_TERMS}",
                "use IN for several values of one column, or Spark SQL text",
            )
        return condition
    raise Mistake(
        f"row_condition is {value!r}",
        "write Spark SQL text, such as \"action = 'purchase'\", or a Column condition",
    )


def _checked_sql(text: str) -> str:
    bare = _QUOTED.sub(" ", text)
    if not bare.strip() and not text.strip():
        raise Mistake("row_condition is empty", "remove it, or write Spark SQL such as \"action = 'purchase'\"")
    if re.search(r"['\"`]", bare) or bare.count("(") != bare.count(")"):
        raise Mistake(f"row_condition {text!r} has an open quote or bracket", "close it")
    if unstable := _UNSTABLE.search(bare):
        raise Mistake(
            f"row_condition {text!r} uses {unstable[0].rstrip('( ')}, so a second verdict could differ",
            "use only the row's own columns and constants",
        )
    if _OTHER_ROWS.search(bare):
        raise Mistake(f"row_condition {text!r} looks at other rows", "use only the row's own columns and constants")
    return text


def _render(value: Mapping[str, object], *, inside: str | None) -> Condition:
    kind = value.get("type")
    match kind:
        case "comparison":
            _only_keys(value, "column", "operator", "parameter")
            return _comparison(value)
        case "nullity":
            _only_keys(value, "column", "is_null")
            column = _column_name(value.get("column"))
            if not isinstance(value.get("is_null"), bool):
                raise Mistake("row_condition of type nullity has no is_null", "set is_null to true or false")
            return Condition(f"{quoted(column)} IS {'' if value['is_null'] else 'NOT '}NULL", ((column, ()),))
        case "and" | "or" as word:
            _only_keys(value, "conditions")
            return _junction(value, word, inside)
        case "pass_through" if inside is None:
            _only_keys(value, "pass_through_filter")
            return parse_condition(value.get("pass_through_filter"), None)
        case "pass_through":
            raise Mistake(
                f"row_condition has SQL text inside {inside!r}",
                "write the whole condition as one Spark SQL text",
            )
        case _:
            remedy = did_you_mean(str(kind), _KINDS, f"the types are {', '.join(_KINDS)}")
            raise Mistake(f"row_condition has type {kind!r}", remedy)


def _junction(value: Mapping[str, object], kind: str, inside: str | None) -> Condition:
    if kind == "or" and inside is not None:
        raise Mistake(
            f"row_condition has an or inside {inside!r}, which Great Expectations refuses",
            "write the condition as Spark SQL text",
        )
    parts = value.get("conditions")
    if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
        raise Mistake(f"row_condition of type {kind} has no list of conditions", "list at least one in conditions")
    rendered: list[Condition] = []
    for part in parts:
        if not isinstance(part, Mapping):
            raise Mistake(f"row_condition holds {part!r}", "each condition is an object with a type")
        rendered.append(_render(part, inside=kind))
    return Condition(
        "(" + f" {kind.upper()} ".join(part.sql for part in rendered) + ")",
        tuple(term for part in rendered for term in part.terms),
    )


def _comparison(value: Mapping[str, object]) -> Condition:
    column = _column_name(value.get("column"))
    operator = value.get("operator")
    if operator not in _OPERATORS:
        raise Mistake(
            f"row_condition has operator {operator!r}",
            did_you_mean(str(operator), _OPERATORS, f"the operators are {', '.join(_OPERATORS)}"),
        )
    parameter = value.get("parameter")
    if operator in ("IN", "NOT_IN"):
        if not isinstance(parameter, Sequence) or isinstance(parameter, str) or not parameter:
            raise Mistake(f"row_condition compares {column} {operator} {parameter!r}", "give a list of values")
        literals = [_literal(column, item) for item in parameter]
        if len({isinstance(item, str) for item in parameter}) > 1 or any(isinstance(v, bool) for v in parameter):
            raise Mistake(f"row_condition compares {column} with mixed values", "list only texts, or only numbers")
        word = "IN" if operator == "IN" else "NOT IN"
        return Condition(f"{quoted(column)} {word} ({', '.join(literals)})", ((column, tuple(parameter)),))
    literal = _literal(column, parameter)
    return Condition(f"{quoted(column)} {operator} {literal}", ((column, (_scalar(parameter),)),))


def _scalar(value: object) -> Scalar:
    return value if isinstance(value, str | int | float) else None


def _literal(column: str, value: object) -> str:
    """Python's `repr()`, which Great Expectations puts into the SQL, where Spark reads it back unchanged."""
    if value is None:
        raise Mistake(f"row_condition compares {column} with null", 'use {"type": "nullity", …} instead')
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise Mistake(f"row_condition compares {column} with {value!r}", "compare with a text, number or boolean")
    literal = repr(value)
    if isinstance(value, str) and re.search(r"\\x[0-9a-f]{2}", literal.replace(r"\\", "")):
        raise Mistake(
            f"row_condition compares {column} with {literal}, whose control character Spark SQL would misread",
            "compare with a text without control characters",
        )
    return literal


def _column_name(value: object) -> str:
    name = value.get("name") if isinstance(value, Mapping) else None
    if not isinstance(name, str) or not name or re.search(r"[.`]", name):
        raise Mistake(f"row_condition names the column {value!r}", 'write {"name": "COLUMN"} with a plain name')
    return name


def _only_keys(value: Mapping[str, object], *keys: str) -> None:
    for key in value:
        if key not in ("type", *keys):
            raise Mistake(
                f"row_condition has the unknown key {key!r}",
                did_you_mean(key, keys, f"its keys are {', '.join(keys)}"),
            )


def quoted(column: str) -> str:
    """A column name as Spark SQL reads it, whatever it contains but dots and backticks."""
    return f"`{column}`"
