"""Journals: appended beside the stream, compacted, expired, and their logs cleaned by maintenance."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from lakehouse.maintenance.run import Maintainer
from lakehouse.schemas import ALERTS_SCHEMA, OPS_SCHEMA
from lakehouse.sinks import journal
from lakehouse.sinks.journal import Journal
from tests.maintained import age
from tests.pipelines import small_pipeline

DAY_S = 86_400.0


def row(number: int) -> dict[str, Any]:
    moment = datetime.fromtimestamp(1_800_000_000 + number, UTC)
    return {"time": moment, "batch_id": number, "rows": [("silver/clicks", number)], "lag": [(0, 5), (1, number)]}


def write(root: Path, first: int, count: int) -> str:
    url = f"{root}/_ops/clicks"
    kept = Journal(url, OPS_SCHEMA, what="a record")
    for number in range(first, first + count):
        kept.append(lambda number=number: [row(number)])  # type: ignore[misc]
    kept.close()
    assert kept.left_out == 0
    return url


def numbers(url: str) -> list[int]:
    return sorted(DeltaTable(url).to_pyarrow_table()["batch_id"].to_pylist())


def maintain(root: Path, now_s: float, **changes: Any) -> dict[str, Any]:
    settings = {"checkpoint_every": 10, "retention": "5m", "min_age": "10s"}
    pipeline = small_pipeline(root, maintenance=settings, **changes)
    reports = {report.table: report for report in Maintainer(pipeline, clock=lambda: now_s).maintain()}
    assert not [report.error for report in reports.values() if report.error]
    return reports


def test_a_journal_is_compacted_in_the_order_of_time_and_its_log_is_cleaned(tmp_path: Path) -> None:
    url = write(tmp_path, 0, 25)
    age(tmp_path, 3_600)
    now_s = datetime.now(UTC).timestamp()
    report = maintain(tmp_path, now_s + 60)["_ops/clicks"]
    assert (report.files_before, report.files_after, report.rewrites) == (25, 1, 1)
    assert report.checkpoint is not None
    table = DeltaTable(url).to_pyarrow_table()
    assert table["batch_id"].to_pylist() == list(range(25))
    assert table["lag"].to_pylist()[7] == [(0, 5), (1, 7)]
    # A retention later the replaced files and the commits that are no longer needed are gone.
    write(tmp_path, 25, 12)
    age(tmp_path, 3_600)
    maintain(tmp_path, now_s + 120)
    later = maintain(tmp_path, now_s + DAY_S)["_ops/clicks"]
    assert later.vacuumed_files == 37
    assert later.log_files_deleted > 0
    assert len(list(Path(url, "_delta_log").glob("*.json"))) == 1
    assert numbers(url) == list(range(37))
    assert len(list(Path(url).glob("*.parquet"))) == 2


def test_rows_that_have_had_their_time_go_and_younger_ones_stay(tmp_path: Path) -> None:
    url = write(tmp_path, 0, 3)
    write(tmp_path, 3, 2)
    now_s = datetime.now(UTC).timestamp()
    assert maintain(tmp_path, now_s + 2 * DAY_S)["_ops/clicks"].expired_files == 0
    plan = Maintainer(small_pipeline(tmp_path, metrics={"keep": "1d"}), clock=lambda: now_s + 2 * DAY_S).plan()
    assert plan[0].expired_files == 5
    report = maintain(tmp_path, now_s + 2 * DAY_S, metrics={"keep": "1d"})["_ops/clicks"]
    assert report.expired_files == 5
    assert "5 files expired" in str(report)
    assert numbers(url) == []


def test_an_append_between_two_steps_of_maintenance_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse.sinks.delta_log import TableLog

    url = write(tmp_path, 0, 12)
    put = TableLog._put

    def late(log: TableLog, version: int, body: bytes) -> bool:
        monkeypatch.setattr(TableLog, "_put", put)
        write(tmp_path, 12, 1)
        return put(log, version, body)

    monkeypatch.setattr(TableLog, "_put", late)
    report = maintain(tmp_path, datetime.now(UTC).timestamp() + 60)["_ops/clicks"]
    assert report.rewrites == 1
    assert numbers(url) == list(range(13))


def test_a_store_that_stands_still_costs_rows_and_never_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal, "WAITING", 2)
    stuck, kept = threading.Event(), Journal(f"{tmp_path}/_ops/clicks_alerts", ALERTS_SCHEMA, what="an alert")

    def rows() -> list[dict[str, Any]]:
        stuck.wait(10)
        return [{"alert": "a"}]

    for _ in range(5):
        kept.append(rows)
    assert kept.left_out == 3
    stuck.set()
    kept.close()
    assert "an alert is left out: the store is too slow" in caplog.text
    assert DeltaTable(kept.url).to_pyarrow_table().num_rows == 2
