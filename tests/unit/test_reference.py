from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakehouse.errors import SuiteError
from lakehouse.quality.archive import Archive
from lakehouse.quality.checks import Membership
from lakehouse.quality.suite import Suite, load_suite

CSV = "code,name\nwest,West\neast,East\nwest,West again\n"


def suite(folder: Path, *, kind: str = "column_values_to_be_in_set", **values_from: Any) -> Suite:
    item = {"type": f"expect_{kind}", "kwargs": {"column": "region"}, "meta": {"values_from": values_from}}
    path = folder / "suite.json"
    path.write_text(json.dumps({"name": "s", "expectations": [item]}))
    return load_suite(path)


def digits(folder: Path, text: str = CSV) -> str:
    (folder / "regions.csv").write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_the_values_of_a_file_are_the_set(tmp_path: Path) -> None:
    loaded = suite(tmp_path, path="regions.csv", column="code", version=digits(tmp_path))
    assert loaded.expectations[0].check == Membership("region", ("east", "west"), inside=True)
    assert loaded.document["expectations"][0]["kwargs"]["value_set"] == ["east", "west"]
    # The kept suite needs the file no more.
    archive = Archive(str(tmp_path / "root"))
    archive.keep(loaded)
    (tmp_path / "regions.csv").unlink()
    assert archive.load(loaded.sha256).expectations == loaded.expectations


def test_another_content_is_another_fingerprint(tmp_path: Path) -> None:
    one = suite(tmp_path, path="regions.csv", column="code", version=digits(tmp_path))
    reordered = "code\neast\nwest\n"
    same = suite(tmp_path, path="regions.csv", column="code", version=digits(tmp_path, reordered))
    other = suite(tmp_path, path="regions.csv", column="code", version=digits(tmp_path, CSV + "north,North\n"))
    assert one.sha256 == same.sha256 != other.sha256


def test_numbers_are_read_as_such_where_asked(tmp_path: Path) -> None:
    version = digits(tmp_path, "code\n007\n8\n")
    texts = suite(tmp_path, path="regions.csv", column="code", version=version)
    numbers = suite(tmp_path, path="regions.csv", column="code", version=version, type="long")
    assert texts.document["expectations"][0]["kwargs"]["value_set"] == ["007", "8"]
    assert numbers.document["expectations"][0]["kwargs"]["value_set"] == [7, 8]


def test_a_version_of_a_delta_table_stays_what_it_was(tmp_path: Path) -> None:
    table = tmp_path / "regions"
    write_deltalake(str(table), pa.table({"code": ["west", "east"]}))
    before = suite(tmp_path, path="regions", column="code", version=0)
    write_deltalake(str(table), pa.table({"code": ["north"]}), mode="append")
    assert suite(tmp_path, path="regions", column="code", version=0).sha256 == before.sha256
    after = suite(tmp_path, path="regions", column="code", version=1)
    assert after.document["expectations"][0]["kwargs"]["value_set"] == ["east", "north", "west"]


@pytest.mark.parametrize(
    ("text", "given", "what", "remedy"),
    [
        (CSV, {"version": "00000000"}, "its SHA-256 begins with", "look at what changed"),
        (CSV, {"version": None}, "its SHA-256 begins with", "look at what changed"),
        (CSV, {"column": "cod"}, "has no column 'cod'", "did you mean code"),
        (CSV, {"colum": "code"}, "unknown key 'colum'", "did you mean column"),
        (CSV, {"path": "gone.csv"}, "cannot be read", "check the path"),
        (CSV, {"type": "long"}, "'west' in line 2", "correct the file"),
        (CSV, {"kind": "column_values_to_not_be_null"}, "stands beside", "only"),
        ("code\n" + "".join(f"{n}\n" for n in range(1_001)), {}, "1,001 values", "join larger tables"),
        (CSV, {"path": "no_table", "version": 3}, "Version 3 of the table", "check the path and the version"),
        (CSV, {"path": "no_table", "version": "3"}, "The version of", "number of a version"),
    ],
)
def test_a_table_that_is_not_as_it_says_is_refused(
    tmp_path: Path, text: str, given: dict[str, Any], what: str, remedy: str
) -> None:
    values_from: dict[str, Any] = {"path": "regions.csv", "column": "code", "version": digits(tmp_path, text)}
    with pytest.raises(SuiteError) as raised:
        suite(tmp_path, **{**values_from, **given})
    assert what in raised.value.what
    assert remedy in str(raised.value.remedy)
