"""What a torture run draws, keeps and tells, without running anything."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from lakehouse.errors import ConfigError
from lakehouse.torture.checks import Check, Stored, check_all
from lakehouse.torture.ledger import Kind, Ledger, LedgerWriter, Outcome, hash_of
from lakehouse.torture.points import POINTS, some_of
from lakehouse.torture.report import Kill, TortureReport
from lakehouse.torture.schedule import FAULTS, digest, schedule
from lakehouse.torture.sender import shifted
from lakehouse.torture.witness import Witness
from tests.simulation import World


def test_the_same_seed_draws_the_same_schedule() -> None:
    assert schedule(7, 200) == schedule(7, 200)
    assert digest(schedule(7, 200)) == digest(schedule(7, 200)) != digest(schedule(8, 200))
    # A longer run begins as a shorter one does.
    assert schedule(7, 200)[:50] == schedule(7, 50)


def test_a_deck_holds_every_fault_and_what_is_drawn_is_within_its_bounds() -> None:
    steps = schedule(3, 400)
    assert {step.fault for step in steps[: len(FAULTS)]} == set(FAULTS)
    for step in steps:
        assert 1 <= step.nth <= (POINTS[step.fault].most if step.fault in POINTS else 1)
        assert 0 < step.delay_s <= 14
    assert 100 < sum(step.aside is not None for step in steps) < 300


def test_only_the_chosen_faults_are_drawn_and_an_unknown_one_is_named() -> None:
    assert Counter(step.fault for step in schedule(1, 40, ["planned", "committed"])) == {"planned": 20, "committed": 20}
    with pytest.raises(ConfigError, match="'plannd'"):
        schedule(1, 1, ["plannd"])


@pytest.mark.parametrize("things", [1, 2, 3, 5])
def test_some_are_never_all(things: int) -> None:
    assert {some_of(bits, things) for bits in range(200)} == set(range((1 << things) - 1))


def test_an_event_time_is_moved_and_a_value_without_one_is_left() -> None:
    value = b'{"event_id":"a","event_time":"2026-01-31T23:30:00.250Z","x":1}'
    assert shifted(value, 3_600_000) == value.replace(b"2026-01-31T23:30:00.250", b"2026-02-01T00:30:00.250")
    for odd in (None, b"", b'{"event_time":"yesterday at noon, by my clock"}', b'{"event_time":"20'):
        assert shifted(odd, 3_600_000) == odd


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "ledger.bin")
    writer.write(5, hash_of(b"x"), Outcome.ACKED, Kind.PLAIN, 1, 42)
    writer.write(6, hash_of(None), Outcome.INFO, Kind.DUPLICATE, -1, -1)
    writer.close()
    ledger = Ledger.read(tmp_path / "ledger.bin")
    (acked,) = ledger.of(Outcome.ACKED)
    assert (acked["sequence"], acked["partition"], acked["offset"]) == (5, 1, 42)
    assert acked["sha256"].tobytes() == hash_of(b"x")
    assert len(ledger.of(Outcome.INFO)) == ledger.count(Kind.DUPLICATE) == 1


def red(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.detail for check in checks if not check.ok}


def test_a_topic_that_is_not_the_ledger_turns_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    world.send(30)
    world.run()
    assert red(world.check(monkeypatch)) == {}
    records, entries = world.stored(), world.ledger().entries

    def judged(changed: list[Stored], ledger: np.ndarray) -> dict[str, str]:
        return red(check_all(world.pipeline, changed, Ledger(ledger), world.witness))

    lost = judged(records[:-1], entries)
    assert "1 acknowledged but gone: 1:14" in lost["ledger"]
    altered = [*records[:-1], Stored(1, 14, b"{}", records[-1].sequence)]
    assert "1 altered: 1:14" in judged(altered, entries)["ledger"]
    aborted = entries.copy()
    aborted["outcome"][0] = Outcome.ABORTED
    assert "1 aborted but visible: 0" in judged(records, aborted)["ledger"]
    assert "1 not in it: 0" in judged(records, entries[1:])["ledger"]
    unknown = entries.copy()
    unknown["outcome"][0] = Outcome.INFO
    assert judged(records, unknown) == {}, "an unknown outcome may have happened or not"
    swapped = [*records]
    swapped[0], swapped[1] = (
        Stored(0, 0, records[0].value, records[1].sequence),
        Stored(0, 1, records[1].value, records[0].sequence),
    )
    assert "out of order" in judged(swapped, entries)["order"]


def test_the_witness_notices_a_version_that_changes_or_vanishes(tmp_path: Path) -> None:
    log = tmp_path / "t" / "_delta_log"
    log.mkdir(parents=True)
    for version in range(3):
        (log / f"{version:020d}.json").write_text('{"commitInfo":{"operation":"WRITE"}}')
    witness = Witness(str(tmp_path), ["t"])
    witness.look()
    (log / f"{1:020d}.json").write_text('{"commitInfo":{"operation":"ELSE"}}')
    (log / f"{4:020d}.json").write_text('{"commitInfo":{"operation":"WRITE"}}')
    witness.finish()
    assert witness.changed == ["t version 1"]
    assert witness.unseen() == ["t version 4"]


def test_a_report_tells_the_same_in_every_form() -> None:
    kills = [
        Kill("planned", fresh_s=7.5, aside="duplicates"),
        Kill("planned", fresh_s=9.5),
        Kill("disk_full", outcome="skipped", note="not here"),
    ]
    checks = [Check("chain", ok=True, compared=1_234), Check("files", ok=False, compared=5, detail="1 gone: a")]
    report = TortureReport(3, "abc", kills, checks, {"records": 1_000}, [], steps_s=30.0, seconds=60.0)
    assert not report.ok
    assert report.recovery() == (2, 8.5, 9.5)
    assert report.per_minute == 6.0
    for text in (str(report), report.to_markdown()):
        for told in ("planned", "8.5", "9.5", "disk_full", "duplicates", "RED", "1 gone: a", "1,234", "1,000"):
            assert told in text
    assert json.loads(json.dumps(asdict(report)))["kills"][0]["fresh_s"] == 7.5
