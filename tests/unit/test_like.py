from __future__ import annotations

import re

import pytest

from lakehouse.quality.like import as_regex
from lakehouse.quality.mistakes import Mistake


def regex(pattern: str, escape: str | None = None) -> str:
    kwargs = {"column": "c", "like_pattern": pattern} | ({"escape": escape} if escape else {})
    kind, read = as_regex("expect_column_values_to_match_like_pattern", kwargs)
    assert kind == "expect_column_values_to_match_regex"
    assert set(read) == {"column", "regex"}
    return str(read["regex"])


@pytest.mark.parametrize(
    ("pattern", "escape", "matches", "fails"),
    [
        ("eu-%", None, ["eu-", "eu-west", "eu-\n"], ["EU-west", "xeu-west", ""]),
        ("a_c", None, ["abc", "a\nc", "a𝒳c"], ["ac", "abbc", "abc\n"]),
        ("", None, [""], ["\n", "a"]),
        ("100!%", "!", ["100%"], ["100", "1000"]),
        ("a!!_", "!", ["a!x"], ["a!", "a_"]),
        (r"a.b\(#[&~", None, [r"a.b\(#[&~"], [r"axb\(#[&~"]),
    ],
)
def test_the_whole_text_has_to_match(pattern: str, escape: str | None, matches: list[str], fails: list[str]) -> None:
    # `\z` is Java's for Python's `\Z`; all else reads the same in both.
    compiled = re.compile(regex(pattern, escape).replace(r"\z", r"\Z"))
    assert all(compiled.search(text) for text in matches)
    assert not any(compiled.search(text) for text in fails)


def test_lists_stay_lists_and_other_types_as_they_are() -> None:
    kwargs = {"column": "c", "like_pattern_list": ["a%", "b%"], "match_on": "all"}
    kind, read = as_regex("expect_column_values_to_match_like_pattern_list", kwargs)
    assert kind == "expect_column_values_to_match_regex_list"
    assert read == {"column": "c", "match_on": "all", "regex_list": [r"(?s)\Aa.*\z", r"(?s)\Ab.*\z"]}
    assert as_regex("expect_column_values_to_be_null", {"column": "c"}) == (
        "expect_column_values_to_be_null",
        {"column": "c"},
    )


@pytest.mark.parametrize(("pattern", "escape"), [("a!", "!"), ("!a", "!"), ("a", "!!")])
def test_an_escape_character_that_escapes_nothing_is_refused(pattern: str, escape: str) -> None:
    with pytest.raises(Mistake):
        regex(pattern, escape)
