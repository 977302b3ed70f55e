"""A field added, one dropped, a type widened and one broken, each while events flow into a real broker.

    python -m benchmarks.schema_change [--rate 5000] [--seconds 10]

Starts a broker, a producer that never stops, and `lakehouse run`. At each step the producer changes what it sends
first; later the pipeline's file follows, and the pipeline is started anew. Two readers of before stay: a dashboard's
follower of the rollup, and SQL over silver. At the end the topic is held against the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from confluent_kafka import Producer

from lakehouse import broker as embedded
from lakehouse import kafka_admin
from lakehouse.config.loader import load_pipeline
from lakehouse.reconcile import reconcile
from lakehouse.serving.follower import Follower
from lakehouse.serving.snapshot import Shape
from lakehouse.serving.sql import query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "orders"
FIELDS: dict[str, Any] = {
    "id": {"type": "long", "required": True, "description": "number of the event"},
    "at": "timestamp",
    "page": "string",
    "note": "string",
    "size": "integer",
}
SUITE = {
    "name": NAME,
    "expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "page"}}],
}
SILVER = """SELECT count(*) AS silver, count(colour) AS with_colour, count(note) AS with_note, count(_rescued_data) AS
rescued, count(_replayed_from) AS replayed, max(size) AS size FROM silver.orders"""
QUARANTINE = """SELECT e.rule_id, count(*) AS rows, min(e.message) AS example
FROM (SELECT unnest(_errors) AS e FROM quarantine.orders) GROUP BY ALL"""
ROWS = "SELECT (SELECT count(*) FROM silver.orders) + (SELECT count(*) FROM quarantine.orders) AS n"
BATCH_S = 0.02
WAIT_S = 240.0


@dataclass
class Load:
    """Sends `rate` events a second until it is stopped; `draw` says of what kind the next one is, and its fields."""

    bootstrap: str
    rate: int
    sent: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    stop: threading.Event = field(default_factory=threading.Event)
    draw: Callable[[int], tuple[str, dict[str, Any]]] = lambda _: ("as before", {"note": "n", "size": 1})

    def run(self) -> None:
        """The producer's thread."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 0,  # it waits for the broker as long as it takes
                "queue.buffering.max.messages": 0,
                "queue.buffering.max.kbytes": 1_000_000,
            }
        )
        began = time.monotonic()
        while not self.stop.wait(BATCH_S):
            due = int((time.monotonic() - began) * self.rate)
            at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            for number in range(self.sent, due):
                kind, extra = self.draw(number)
                self.kinds[kind] += 1
                event = {"id": number, "at": at, "page": f"p{number % 5}", **extra}
                producer.produce(NAME, json.dumps(event, separators=(",", ":")), str(number % 64))
            self.sent = max(self.sent, due)
            producer.poll(0)
        producer.flush()


@dataclass
class Driver:
    """`lakehouse run` of the pipeline's file."""

    path: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def edit(self, **changes: Any) -> None:  # noqa: ANN401 - keys of the file
        """Change fields of the event (None takes one out); `evolution` sets the policy."""
        raw = yaml.safe_load(self.path.read_text())
        raw["evolution"] = changes.pop("evolution", raw.get("evolution", {}))
        fields = raw["source"]["fields"] | changes
        raw["source"]["fields"] = {name: kind for name, kind in fields.items() if kind is not None}
        self.path.write_text(yaml.safe_dump(raw, sort_keys=False))

    def start(self) -> None:
        """Start it."""
        with self.path.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lakehouse", "run", str(self.path)], env=self.environment, stdout=log, stderr=log
            )

    def stop(self) -> None:
        """Ask it to end, and wait."""
        assert self.process is not None  # noqa: S101 - started
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command over the same file."""
        command = [sys.executable, "-m", "lakehouse", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=10, help="of each state")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended early"))  # what was started is ended as well
    with tempfile.TemporaryDirectory() as folder:
        running = embedded.start(Path(folder) / "broker", port=embedded.free_port())
        try:
            _run(Path(folder), running.bootstrap, arguments.rate, arguments.seconds)
        finally:
            embedded.stop(Path(folder) / "broker")


def _run(folder: Path, bootstrap: str, rate: int, seconds: float) -> None:
    (folder / "suite.json").write_text(json.dumps(SUITE))
    path = folder / "orders.yaml"
    path.write_text(yaml.safe_dump(_pipeline(folder, bootstrap), sort_keys=False))
    kafka_admin.create_topic(bootstrap, NAME, 2)
    driver, load = Driver(path, dict(os.environ)), Load(bootstrap, rate)
    described = load_pipeline(path)
    shape = Shape.of(described.rollups["by_page"], described.source.fields)
    reader = Follower(f"{folder}/data/gold/{NAME}_by_page_1s", shape).start()
    sender = threading.Thread(target=load.run)
    sender.start()
    driver.start()
    try:
        for title, step in _steps(driver, load, folder, seconds):
            began = time.monotonic()
            step()
            print(f"{title} ({time.monotonic() - began:.0f} s)", flush=True)
            problem = reader.snapshot.problem
            print(
                f"    the dashboard of before: version {reader.snapshot.version}, {problem or 'no problem'}", flush=True
            )
        load.stop.set()
        sender.join()
        _until(lambda: _rows(folder) == load.sent, "all that was sent is in the tables")
    finally:
        load.stop.set()
        sender.join()
        driver.stop()
        reader.stop()
    print(f"sent: {load.sent:,}: {dict(load.kinds)}")
    for sql in (SILVER, QUARANTINE):
        print(_asked(folder, sql))
    print(reconcile(load_pipeline(path)))


def _steps(driver: Driver, load: Load, folder: Path, seconds: float) -> Iterator[tuple[str, Callable[[], None]]]:
    def flow() -> None:
        _until(lambda: driver.process is not None and driver.process.poll() is None, "the pipeline runs")
        known = load.sent or 1
        _until(lambda: _rows(folder) >= known, "what was sent is in the tables")
        time.sleep(seconds)

    def restart(**changes: Any) -> None:  # noqa: ANN401 - keys of the file
        driver.stop()
        driver.edit(**changes)
        driver.start()
        flow()

    def refused() -> None:
        driver.stop()
        driver.edit(size="string")
        done = driver.command("run", str(driver.path))
        print(f"    exit {done.returncode}: {done.stderr.strip().splitlines()[-3:]}")

    def replay() -> None:
        done = driver.command("quarantine", "replay", str(driver.path), "--rule", "contract.type.size", "--yes")
        print(f"    {done.stdout.strip().splitlines()[-1:]} {done.stderr if done.returncode else ''}")

    def sends(kind: str, extra: Callable[[int], dict[str, Any]]) -> None:
        load.draw = lambda number: (kind, extra(number))
        flow()

    note = {"note": "n"}
    yield "as the file says", flow
    more = lambda _: note | {"size": 1, "colour": "red"}  # noqa: E731 - one step of the list
    yield "added: producers send `colour`", lambda: sends("with colour", more)
    yield "added: the file names it", lambda: restart(colour="string")
    yield "dropped: producers no longer send `note`", lambda: sends("without note", lambda _: {"size": 1})
    wide = lambda number: {"size": 2**40 if number % 10 == 0 else 1}  # noqa: E731
    yield "widened: each tenth `size` needs 64 bits", lambda: sends("wide size", wide)
    yield "widened: the file says long", lambda: restart(size="long")
    yield "widened: the quarantined rows are replayed", replay
    broken = lambda number: {"size": "big" if number % 10 == 0 else 2**40}  # noqa: E731
    yield "broken: each tenth `size` is a text", lambda: sends("size is text", broken)
    yield "broken: the file says string", refused
    yield (
        "broken: and evolution.breaking: quarantine",
        lambda: restart(size="string", evolution={"breaking": "quarantine"}),
    )


def _pipeline(folder: Path, bootstrap: str) -> dict[str, Any]:
    return {
        "name": NAME,
        "root": str(folder / "data"),
        "source": {"servers": bootstrap, "topic": NAME, "fields": FIELDS},
        "event_time": {"column": "at"},
        "quality": {"suite": "suite.json"},
        "rollups": {"by_page": {"dimensions": ["page"], "metrics": []}},
    }


def _asked(folder: Path, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = query(str(folder / "data"), sql).to_pylist()
    return found


def _rows(folder: Path) -> int:
    """Rows of silver and quarantine, as a reader of SQL has them; 0 while there is no table."""
    try:
        return int(_asked(folder, ROWS)[0]["n"])
    except Exception as error:  # noqa: BLE001 - told below
        if "no table" not in str(error):
            print(f"    SQL: {error}", flush=True)
        return 0


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {WAIT_S:.0f} s: {what}")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
