"""Quarantined rows, repaired and replayed by a process that is killed again and again, beside a running pipeline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable

from lakehouse import pipeline as flow
from lakehouse.repair import load_repair
from tests.integration.stack import CONFIG, Stack, until

ROWS = int(os.environ.get("REPLAY_ROWS", "2000"))
"""Rows in quarantine; REPLAY_ROWS=10000 for more."""
DEATHS = (1, 3, 1, 2, 1, 2, 1, 2)
"""After how many puts each process dies. The first judges and dies before it has decided, the second as soon as it
has; the others carry out what it decided, file by file and table by table."""
REPAIR = '''"""Keeps an event's id, and makes the rest plausible."""
import json

DEFAULTS = {
    "event_time": "2020-01-01T00:00:00.000Z", "feature": "search", "action": "query", "user_id": 1, "session_id": "s",
    "region": "eu-west", "app_version": "1.0.0", "status": "ok", "latency_ms": 12.5,
}

def mend(value):
    if not value:
        return None
    text = value.decode(errors="ignore")
    if text[0] not in "{[":
        raise ValueError("no event")
    try:
        event = json.loads(text)
    except ValueError:
        event = {}
    event = event if isinstance(event, dict) else {}
    moment = f"2020-01-01T00:00:{len(value) % 60:02d}.000Z"
    return json.dumps({**DEFAULTS, "event_id": str(event.get("event_id") or "repaired"), "event_time": moment}).encode()
'''


@dataclass
class Replayer:
    """`lakehouse quarantine` in processes of its own, over the stack's topic and root."""

    stack: Stack
    folder: Path

    def __post_init__(self) -> None:
        raw = yaml.safe_load(CONFIG.read_text())
        raw["source"]["topic"] = self.stack.topic
        raw["quality"]["suite"] = str(CONFIG.parent.parent / "expectations" / "feature_events.json")
        (self.folder / "replayed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
        (self.folder / "fix.py").write_text(REPAIR)
        self.repair = load_repair(f"{self.folder / 'fix.py'}:mend")

    def run(self, command: str, *arguments: str, dies_after: int | None = None) -> Any:
        """The command's JSON; None of a process that has to die after so many puts."""
        start = ["-m", "lakehouse"] if dies_after is None else ["-m", "tests.integration.killed_at", str(dies_after)]
        done = subprocess.run(
            [sys.executable, *start, "quarantine", command, self.folder / "replayed.yaml", *arguments, "--json"],
            env={**os.environ, "LAKEHOUSE_ROOT": str(self.stack.root), "KAFKA_BOOTSTRAP": self.stack.bootstrap},
            cwd=Path(__file__).parent.parent.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        if dies_after is not None:
            assert done.returncode == -signal.SIGKILL, done.stderr
            return None
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def replay(self, *, dies_after: int | None = None) -> Any:
        """Replay everything through the repair; the same replay each time."""
        arguments = ("--repair", self.repair.name, "--id", "the-fix", "--cores", "1", "--yes")
        return self.run("replay", *arguments, dies_after=dies_after)


@contextmanager
def running(stack: Stack) -> Iterator[None]:
    """The pipeline, beside whatever is done meanwhile."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def drive() -> None:
        try:
            flow.run(stack.spark, stack.pipeline("processing_time"), stop)
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            failures.append(error)

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        yield
    finally:
        stop.set()
        driver.join(60)
    assert failures == []


def by_place(rows: list[dict[str, Any]]) -> dict[tuple[int, int], dict[str, Any]]:
    return {(row["_partition"], row["_offset"]): row for row in rows}


@pytest.mark.timeout(900)
def test_each_row_is_replayed_once_by_processes_that_are_killed(stack: Stack, tmp_path: Path) -> None:
    replayer = Replayer(stack, tmp_path)
    stack.send(ROWS, bad_share=1)
    stack.catch_up()
    before = by_place(stack.rows("quarantine"))
    assert len(before) == ROWS
    mended = {place for place, row in before.items() if isinstance(replayer.repair.apply(row["_value"] or b""), bytes)}
    assert ROWS / 2 < len(mended) < ROWS

    with running(stack):
        # Dead before its plan: nothing has changed.
        replayer.replay(dies_after=DEATHS[0])
        assert by_place(stack.rows("quarantine")).keys() == before.keys()
        for number, dies_after in enumerate(DEATHS[1:]):
            stack.send(50, seed=10 + number, bad_share=0)
            if number == 3:
                DeltaTable(str(stack.root / "quarantine" / "feature_events")).optimize.compact()
            replayer.replay(dies_after=dies_after)
        found = replayer.replay()
        total = ROWS + 50 * (len(DEATHS) - 1)
        until(lambda: stack.reconcile().records == total, "the running pipeline takes the new records")

    assert (found["state"], found["accepted"]) == ("already replayed", len(mended))
    assert found["refused"] == ROWS - len(mended)
    proof = stack.reconcile()
    assert proof.ok, proof
    assert (proof.records, proof.replayed) == (total, len(mended))
    lineages = {place: row["_replayed_from"] for place, row in by_place(stack.rows("silver")).items()}
    assert {place for place, lineage in lineages.items() if lineage} == mended
    for place in mended:
        lineage, row = lineages[place], before[place]
        by = (lineage["replay_id"], lineage["repair"], lineage["repair_sha256"])
        assert by == ("the-fix", replayer.repair.name, replayer.repair.sha256)
        assert [lineage[name] for name in ("key", "value", "headers", "errors")] == [
            row[name] for name in ("_key", "_value", "_headers", "_errors")
        ]
        assert lineage["quarantined_at"] == row["_ingested_at"]
    reasons: Counter[str] = Counter()
    for row in by_place(stack.rows("quarantine")).values():
        (attempt,) = row["_attempts"]
        assert attempt["replay_id"] == "the-fix"
        reasons.update(error["rule_id"] for error in attempt["errors"])
    assert reasons.keys() == {"repair.failed", "repair.declined", "contract.empty"}

    # What is left is refused again, and a preview changes nothing.
    preview = replayer.run("replay", "--rule", "contract.json", "--limit", "20", "--cores", "1")
    assert (preview["state"], preview["accepted"], preview["refused"]) == ("previewed", 0, 20)
    partition, offset = min(mended)
    shown = replayer.run("show", f"{partition}:{offset}")
    assert (shown["state"], shown["replay_id"]) == ("replayed", "the-fix")
    assert replayer.run("list")["rows"] == ROWS - len(mended)
    plans = [path.name for path in (stack.root / "_replays" / "feature_events").glob("*.json")]
    assert plans == [f"{1:020d}.json"]
