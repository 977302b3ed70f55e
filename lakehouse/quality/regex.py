"""Early check of regular expressions. Spark uses Java's, so Python can only find what is wrong in both.

The last word is Java's own compiler, which `rules.compile_rules` asks. This module exists so that
`lakehouse validate`, which starts no JVM, finds the common slips.
"""

from __future__ import annotations

import re
import warnings

from lakehouse.quality.mistakes import Mistake

# Java syntax that Python does not know, each with a stand-in of the same shape.
_JAVA_ONLY: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\\Q.*?(?:\\E|$)", re.DOTALL), "Q"),
    (re.compile(r"\\[pP](?:\{[^}]*\}|[A-Z])"), r"\\w"),
    (re.compile(r"\\x\{[0-9a-fA-F]+\}"), "x"),
    (re.compile(r"\\[zG]"), r"\\Z"),
    (re.compile(r"\\[hHRXVNe]|\\c."), "x"),
    (re.compile(r"\\k<\w+>"), "x"),
    (re.compile(r"\(\?<(?=[a-zA-Z])"), "(?P<"),
    (re.compile(r"\(\?[a-zA-Z]*(?:-[a-zA-Z]+)?\)"), "(?:)"),
    (re.compile(r"\(\?[a-zA-Z]*(?:-[a-zA-Z]+)?:"), "(?:"),
)
_WRONG_IN_BOTH = (
    "unterminated character set",
    "missing ), unterminated subpattern",
    "unbalanced parenthesis",
    "bad escape (end of pattern)",
    "min repeat greater than max repeat",
)


def check_regex(pattern: str) -> None:
    """Refuse a pattern that Java cannot compile either.

    Raises:
        Mistake: with the position, where the pattern is certainly wrong. Silence is no proof that it is right.
    """
    if re.search(r"\(\?P[<=>]", pattern):
        raise Mistake(
            f"The regular expression {pattern!r} names a group as Python does",
            "Spark uses Java's syntax: write (?<name>…) and \\k<name>",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's doubts about its own future syntax say nothing about Java
            re.compile(_in_python(pattern))
    except (OverflowError, RecursionError):
        return  # limits of Python's own compiler
    except re.error as error:
        if error.msg.startswith(_WRONG_IN_BOTH) or _repeats_nothing(error):
            raise Mistake(
                f"The regular expression {pattern!r} cannot be compiled: {error.msg}",
                "correct it; in JSON each backslash is written twice",
            ) from error


def _repeats_nothing(error: re.error) -> bool:
    """Whether a quantifier stands first in a group; Java lets one stand after an anchor, Python does not."""
    if error.msg != "nothing to repeat" or error.pos is None:
        return False
    return error.pos == 0 or str(error.pattern)[error.pos - 1] in "(|"


def _in_python(pattern: str) -> str:
    """The pattern with Java's own constructs replaced, escaped backslashes kept as they are."""
    pieces = re.split(r"(\\\\)", pattern)
    for java, python in _JAVA_ONLY:
        pieces = [piece if piece == r"\\" else java.sub(python, piece) for piece in pieces]
    return "".join(pieces)
