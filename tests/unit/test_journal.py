"""The Pipeline page without a browser: what the tables' logs tell, held against what was committed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from dashboard import pulse as pulse_module
from dashboard.alarms import Alarms
from dashboard.pulse import Pulse
from lakehouse.errors import SourceUnavailable, TableError
from lakehouse.serving.journal import Journal, batches, last_commits, pace, partition_rates
from tests.flowing import Flow, backfill
from tests.hot_table import Event, HotTable, partials

CONFIG = "conf/card_payments.yaml"


@pytest.fixture
def flow(tmp_path: Path) -> Iterator[Flow]:
    flow = Flow(tmp_path, "card_payments", rate=40, window_s=2)
    yield flow
    flow.close()


def board(pulse: Pulse, minutes: int = 1) -> dict[str, Any]:
    """The page's panels by id, or what it says instead."""
    data = orjson.loads(pulse.board(minutes, time.time() * 1000, CONFIG))
    return data if "waiting" in data else {panel["id"]: panel for panel in data["panels"]}


def cells(panel: dict[str, Any], column: str) -> list[str]:
    at = [each["label"] for each in panel["columns"]].index(column)
    return [cell if isinstance(cell, str) else cell["text"] for cell in (row[at] for row in panel["rows"])]


def test_a_journal_tells_what_was_committed(flow: Flow, tmp_path: Path) -> None:
    backfill([flow], seconds=10, every_s=1)
    journals = {name: Journal(str(tmp_path / name)) for name in ("silver/card_payments", "quarantine/card_payments")}
    entries = journals["silver/card_payments"].look()
    works = [entry.work for entry in batches(entries) if entry.work]
    sizes = {name: journal.sizes() for name, journal in journals.items()}
    held = {name: found.rows for name, found in sizes.items() if found}
    assert {name: sum(work.rows[name] for work in works) for name in held} == held
    assert works[-1].end == {"card_payments": flow.ends}
    assert [work.batch_id for work in works] == list(range(len(works)))
    assert works[0].suite_sha256 == flow.suite.sha256

    last_ms = last_commits(journal.look() for journal in journals.values())
    found = pace(entries, last_ms, entries[1].at_ms, entries[-1].at_ms + 1000, "card_payments")
    rows = sum(held[name] or 0 for name in held)
    assert (found.kept + found.refused) * len(works) == pytest.approx(rows, rel=0.01)
    assert found.batches == pytest.approx(1, rel=0.01)
    assert 250 < (found.behind_ms or 0) <= 1400, "a second of events, committed 0.3 s later"
    rates = partition_rates(entries, 0, time.time() * 1000 + 1e6)
    # Of the load's ten seconds; how many events they have depends on the hour.
    assert sum(rates.values()) == pytest.approx(rows / 10, rel=0.2)


def test_a_journal_reads_on_by_name_and_survives_clean_up(tmp_path: Path) -> None:
    now = [0.0]
    table = HotTable(tmp_path / "hot").create()
    journal = Journal(str(table.path), most=5, clock=lambda: now[0])
    for number in range(8):
        table.append(partials([Event(number, "a", "b")]))
    assert [entry.version for entry in journal.look()] == [4, 5, 6, 7, 8]
    table.append(partials([Event(9, "a", "b")]))
    assert [entry.version for entry in journal.look()][-1] == 9
    for number in range(3):
        table.append(partials([Event(number, "a", "b")]))
    table.checkpoint_and_clean()
    assert [entry.version for entry in journal.look()][-1] == 9, "the next version's name is gone"
    now[0] += 60
    assert [entry.version for entry in journal.look()] == [12]
    sizes = journal.sizes()
    assert sizes is not None
    assert (sizes.files, sizes.since_checkpoint) == (12, 0)


def test_a_table_made_anew_is_another_journal(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "hot"
    HotTable(path).create().append(partials([Event(1, "a", "b")]))
    journal = Journal(str(path), clock=lambda: now[0])
    assert len(journal.look()) == 2
    shutil.rmtree(path)
    now[0] += 60
    assert journal.look() == ()
    assert journal.sizes() is None
    HotTable(path).create()
    now[0] += 60
    assert [entry.version for entry in journal.look()] == [0]


def test_a_log_that_cannot_be_read_is_a_table_error(tmp_path: Path) -> None:
    table = HotTable(tmp_path / "hot").create()
    (table.path / "_delta_log" / f"{0:020}.json").write_text("{")
    with pytest.raises(TableError, match="cannot be read"):
        Journal(str(table.path)).look()


def test_the_page_waits_for_a_pipeline(flow: Flow) -> None:
    pulse = Pulse(flow.pipeline, Alarms(flow.pipeline))
    shutil.rmtree(Path(flow.pipeline.root) / "silver")
    assert board(pulse)["waiting"].endswith(f"lakehouse run {CONFIG}")


def test_the_page_shows_rates_tables_and_lag(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    backfill([flow], seconds=12, every_s=1)
    flow.close()
    ends = {number: (0, end + 7) for number, end in flow.ends.items()}
    monkeypatch.setattr(pulse_module.kafka_admin, "offsets", lambda *_: ends)
    pulse = Pulse(flow.pipeline, Alarms(flow.pipeline))
    first = board(pulse)
    assert first["tiles"]["items"][4]["note"] == "asking Kafka"
    pulse._topic._pool.shutdown(wait=True)
    made = board(pulse)
    tiles = {tile["id"]: tile for tile in made["tiles"]["items"]}
    assert tiles["lag"]["value"] == "14"
    assert tiles["behind"]["mood"] in ("good", "warn")
    assert tiles["refused"]["value"].endswith("%")
    assert cells(made["partitions"], "lag") == ["7", "7"]
    assert cells(made["tables"], "table") == [
        "silver/card_payments", "quarantine/card_payments", "gold/card_payments_by_category_1s",
        "gold/card_payments_by_country_1s", "_quality/card_payments_observed",
    ]  # fmt: skip
    assert sum(made["rates"]["series"][0][1]) > 0
    assert made["problems"]["rows"] == []


def test_a_damaged_table_and_the_log_of_the_demo_are_said(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise SourceUnavailable("no broker answers at localhost:9092")

    monkeypatch.setattr(pulse_module.kafka_admin, "offsets", away)
    backfill([flow], seconds=3, every_s=1)
    root = Path(flow.pipeline.root)
    (root / "gold/card_payments_by_country_1s/_delta_log" / f"{0:020}.json").write_text("{")
    (root / "_logs").mkdir()
    (root / "_logs" / "pipeline.log").write_text(
        '{"time_ms": 1000, "event": "batch"}\n{"time_ms": 2000, "event": "waiting", "reason": "no broker"}\n'
        "error: the disk is full\n"
    )
    pulse = Pulse(flow.pipeline, Alarms(flow.pipeline))
    board(pulse)
    pulse._topic._pool.shutdown(wait=True)
    made = board(pulse)
    assert cells(made["problems"], "where") == ["gold/card_payments_by_country_1s", "pipeline", "pipeline"]
    assert cells(made["problems"], "what")[1:] == ["the disk is full", "no broker; tried again"]
    assert "damaged" in [cell["text"] for row in made["tables"]["rows"] for cell in row if isinstance(cell, dict)]
    assert made["partitions"]["caption"] == "no broker answers at localhost:9092"
