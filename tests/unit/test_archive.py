from __future__ import annotations

import json
from pathlib import Path

import pytest

from lakehouse.chain import Batch, Offsets
from lakehouse.errors import SuiteError, TableError
from lakehouse.quality.archive import Archive, render_history
from lakehouse.quality.suite import Suite, parse_suite


def suite(column: str) -> Suite:
    document = {
        "name": "kept",
        "expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": column}, "notes": "é"}],
    }
    return parse_suite(json.dumps(document), source="kept.json")


def batch(sha256: str, start: Offsets, number: int = 0) -> Batch:
    return Batch("events", "query", number, start, start, start, sha256, {})


def test_a_suite_comes_back_as_it_was(tmp_path: Path) -> None:
    archive, kept = Archive(str(tmp_path)), suite("a")
    archive.keep(kept)
    archive.keep(kept)
    again = archive.load(kept.sha256)
    assert again.expectations == kept.expectations
    assert again.document == kept.document


def test_a_suite_that_is_not_there_or_was_changed_is_refused(tmp_path: Path) -> None:
    archive, kept = Archive(str(tmp_path)), suite("a")
    with pytest.raises(SuiteError, match="no suite with the fingerprint"):
        archive.load(kept.sha256)
    (tmp_path / "_suites" / f"{kept.sha256}.json").write_text(json.dumps(suite("b").document))
    with pytest.raises(SuiteError, match="judges by other rules than its name says"):
        archive.load(kept.sha256)


def test_a_stretch_ends_where_the_next_suite_took_over(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    assert render_history(archive.uses("events")) == "no batch was judged yet"
    for number, (sha256, offset) in enumerate([("a", 0), ("a", 5), ("b", 9), ("b", 12), ("a", 20)]):
        archive.note(batch(sha256, {"t": {0: offset}}, number))
    uses = archive.uses("events")
    assert [(use.suite_sha256, use.start, use.end) for use in uses] == [
        ("a", {"t": {0: 0}}, {"t": {0: 9}}),
        ("b", {"t": {0: 9}}, {"t": {0: 20}}),
        ("a", {"t": {0: 20}}, None),
    ]
    assert archive.uses("another") == ()
    assert render_history(uses).splitlines()[2].endswith("from t 0:20, in use")


def test_a_damaged_history_is_said_so(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    archive.note(batch("a", {"t": {0: 0}}))
    (tmp_path / "_suites" / "uses" / "events" / "00000000.json").write_text("{")
    with pytest.raises(TableError, match="history of suites cannot be read"):
        archive.uses("events")
