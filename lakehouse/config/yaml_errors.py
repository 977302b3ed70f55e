"""What PyYAML complains of, in words for someone who does not know how YAML is parsed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lakehouse.config.problems import Problem

if TYPE_CHECKING:
    import yaml

_UNREADABLE = (
    (r"found character '\\t'", "a tab stands where YAML wants spaces", "indent with spaces"),
    (
        r"mapping values are not allowed here",
        "a second `:` stands in this line, or the line is indented too far",
        "put a text that holds `: ` in quotes, and align keys of one group",
    ),
    (r"could not find expected ':'", "a key without `:`", "write `key: value`"),
    (r"expected <block end>", "the indentation does not fit the lines above", "align keys of one group"),
    (
        r"expected ',' or '[\]}]'",
        "a list or group in brackets is not closed",
        "close it, and put commas between its parts",
    ),
    (r"found unexpected end of stream", "a quotation is not closed", "close it with the same quotation mark"),
    (
        r"found undefined alias",
        "an alias (`*name`) has no anchor (`&name`) above it",
        "put text that begins with * in quotes",
    ),
    (
        r"found character '.*' that cannot start",
        "a text may not begin with this character",
        "put it in quotes",
    ),
    (
        r"but found another document",
        "a second document begins here (`---`)",
        "describe one pipeline per file",
    ),
    (
        r"found unknown escape character",
        "an unknown escape in double quotes",
        "use single quotes, or write \\\\ for a backslash",
    ),
)
"""What PyYAML says → what is wrong, and the remedy."""


def explain(error: yaml.MarkedYAMLError, text: str) -> Problem:
    """What PyYAML found, without the lines of the file that its own message quotes."""
    said = error.problem or error.context or ""
    mark = error.problem_mark or error.context_mark
    if "unexpected end of stream" in said and error.context_mark is not None:
        mark = error.context_mark  # where the quotation opens, rather than the end of the file
    line, column = (mark.line + 1, mark.column + 1) if mark else (text.count("\n") + 1, 1)
    for pattern, what, remedy in _UNREADABLE:
        if re.search(pattern, said):
            return Problem(line, column, "", what, remedy)
    return Problem(line, column, "", "this line is not valid YAML", "check indentation, quotes and brackets")


def unprintable(text: str, position: int) -> Problem:
    """The control character at `position` of the text."""
    before = text[:position]
    line = before.count("\n") + 1
    return Problem(line, position - before.rfind("\n"), "", "an invisible control character stands here", "delete it")
