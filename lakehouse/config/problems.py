"""What is wrong in a pipeline file, place by place, and how that is told."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, NamedTuple

from lakehouse.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KeyPath = tuple[str | int, ...]
"""Keys and list indexes from the top of the file to one value."""


class Problem(NamedTuple):
    """One thing that is wrong. Line and column count from 1; sorting goes down the file."""

    line: int
    column: int
    key: str
    what: str
    remedy: str

    def located(self, file: Path) -> ConfigError:
        """The error that tells of this problem alone."""
        key = f", key {self.key}" if self.key else ""
        return ConfigError(self.what, where=f"{file}, line {self.line}, column {self.column}{key}", remedy=self.remedy)


def as_error(file: Path, problems: Iterable[Problem]) -> ConfigError:
    """One error for all problems of a file, in the order of its lines."""
    located = [problem.located(file) for problem in sorted(problems)]
    if len(located) == 1:
        return located[0]
    return ConfigError("\n\n".join([f"{file} has {len(located)} problems.", *map(str, located)]))


def dotted(path: KeyPath) -> str:
    """A path for people: `rollups.by_feature.metrics[0].column`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` most resembles, where one does."""
    known = list(known)
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lowered, n=1)
    return lowered[close[0]] if close else None


def choose(word: str, known: Iterable[str], of: str) -> str:
    """A remedy for an unknown word: the likely one, or all there are. `of` names them: `the fields are`."""
    known = list(known)
    likely = did_you_mean(word, known)
    if likely is not None:
        return f"did you mean {likely}?"
    return f"{of} {', '.join(known)}" if known else f"{of} none"
