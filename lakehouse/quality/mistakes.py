"""A mistake inside one expectation, before it is known where the expectation stands."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Mistake(Exception):
    """What is wrong and what to do; `suite.load_suite` adds file, index and type."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """A remedy that names the closest known word, or `otherwise` where none is close."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else otherwise
