"""LIKE patterns as regular expressions.

Great Expectations has no Spark code for LIKE. A pattern has an exact equal among Java's regular expressions, so such an
expectation is read as the one about regular expressions that says the same, in the stream and in the report alike.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lakehouse.quality.mistakes import Mistake

if TYPE_CHECKING:
    from collections.abc import Mapping

_AS_REGEX = {
    "expect_column_values_to_match_like_pattern": ("expect_column_values_to_match_regex", "regex"),
    "expect_column_values_to_not_match_like_pattern": ("expect_column_values_to_not_match_regex", "regex"),
    "expect_column_values_to_match_like_pattern_list": ("expect_column_values_to_match_regex_list", "regex_list"),
    "expect_column_values_to_not_match_like_pattern_list": (
        "expect_column_values_to_not_match_regex_list",
        "regex_list",
    ),
}


def as_regex(name: str, kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A type and its kwargs, LIKE replaced by the regular expression that matches the same texts.

    Raises:
        Mistake: the pattern or its escape character is not one.
    """
    if name not in _AS_REGEX:
        return name, dict(kwargs)
    kind, key = _AS_REGEX[name]
    given = kwargs[key.replace("regex", "like_pattern")]
    escape = kwargs.get("escape")
    if escape is not None and not (isinstance(escape, str) and len(escape) == 1):
        raise Mistake(f"escape is {escape!r}", "give one character")
    rest = {
        name: value for name, value in kwargs.items() if name not in ("like_pattern", "like_pattern_list", "escape")
    }
    if isinstance(given, list):
        return kind, {**rest, key: [_regex(pattern, escape) for pattern in given]}
    return kind, {**rest, key: _regex(given, escape)}


def _regex(pattern: object, escape: str | None) -> str:
    r"""`%` any characters, `_` one, an escaped character itself; the whole text has to match."""
    if not isinstance(pattern, str):
        raise Mistake(f"The LIKE pattern is {pattern!r}", "give a text")
    pieces, characters = [], iter(pattern)
    for character in characters:
        if character == escape:
            literal = next(characters, None)
            if literal not in ("%", "_", escape):
                raise Mistake(
                    f"In the LIKE pattern {pattern!r} {escape!r} stands before none of % _ {escape}",
                    "write it twice where it is meant itself",
                )
            pieces.append(_literal(literal))
        else:
            pieces.append({"%": ".*", "_": "."}.get(character) or _literal(character))
    return rf"(?s)\A{''.join(pieces)}\z"


def _literal(character: str) -> str:
    """The character itself, for Java as for Python."""
    return "\\" + character if re.fullmatch(r"[\\^$.|?*+()\[\]{}\-&#~]", character) else character
