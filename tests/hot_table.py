"""Makes a hot table commit by commit, as the sink and maintenance would, for tests and for development.

As a program it appends realistic partials several times a second until it is stopped:

    python -m tests.hot_table data/gold/feature_events_by_feature_1s
"""

from __future__ import annotations

import argparse
import json
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasketches
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.config.models import (
    CountMetric,
    DistinctMetric,
    EventField,
    NumberMetric,
    QuantilesMetric,
    Rollup,
)
from lakehouse.schemas import TIMESTAMP, gold_schema

ROLLUP = Rollup(
    dimensions=["feature", "region"],
    metrics=[
        CountMetric(name="errors", type="count", where={"status": "error"}),
        NumberMetric(name="latency_ms_sum", type="sum", column="latency_ms"),
        NumberMetric(name="latency_ms_min", type="min", column="latency_ms"),
        NumberMetric(name="latency_ms_max", type="max", column="latency_ms"),
        QuantilesMetric(name="latency_ms_kll", type="quantiles", column="latency_ms"),
        DistinctMetric(name="users_hll", type="distinct", column="user_id"),
    ],
)
FIELDS = {"feature": EventField(type="string"), "region": EventField(type="string")}
SCHEMA = gold_schema(ROLLUP, FIELDS)

FEATURES = (
    "search", "checkout", "upload", "login", "export", "share",
    "comment", "profile", "notify", "invite", "billing", "report",
)  # fmt: skip
REGIONS = ("eu-west", "us-east", "us-west", "ap-south", "sa-east")

DELTA_TYPES = {
    pa.string(): "string",
    pa.int64(): "long",
    pa.float64(): "double",
    pa.binary(): "binary",
    TIMESTAMP: "timestamp",
}


@dataclass(frozen=True)
class Event:
    """One event; `at` is seconds since 1970 UTC."""

    at: float
    feature: str
    region: str
    user: int = 1
    latency: float | None = 10.0
    error: bool = False


def partials(events: list[Event], batch_id: int = 0) -> pa.Table:
    """The rows that one task would return for these events."""
    groups: dict[tuple[int, str, str], list[Event]] = {}
    for event in events:
        groups.setdefault((int(event.at // 1), event.feature, event.region), []).append(event)
    return pa.Table.from_pylist([_row(*key, group, batch_id) for key, group in groups.items()], schema=SCHEMA)


def _row(window: int, feature: str, region: str, events: list[Event], batch_id: int) -> dict[str, Any]:
    latencies = np.array([event.latency for event in events if event.latency is not None], dtype=np.float64)
    kll = datasketches.kll_doubles_sketch(200)
    kll.update(latencies)
    hll = datasketches.hll_sketch(12, datasketches.HLL_8)
    for event in events:
        hll.update(event.user)
    times = [round(event.at * 1_000_000) for event in events]
    return {
        "window_start": window * 1_000_000,
        "feature": feature,
        "region": region,
        "events": len(events),
        "errors": sum(event.error for event in events),
        "latency_ms_sum": float(latencies.sum()) if len(latencies) else None,
        "latency_ms_min": float(latencies.min()) if len(latencies) else None,
        "latency_ms_max": float(latencies.max()) if len(latencies) else None,
        "latency_ms_kll": bytes(kll.serialize()),
        "users_hll": bytes(hll.serialize_compact()),
        "min_event_time": min(times),
        "max_event_time": max(times),
        "_batch_id": batch_id,
    }


class HotTable:
    """A Delta table on a local folder, written one log file at a time. `clock` is seconds since 1970 UTC."""

    def __init__(self, path: Path, clock: Any = time.time) -> None:
        self.path = path
        self.clock = clock
        self.version = -1
        self.table_id = str(uuid.uuid4())
        self.live: list[str] = []
        self._lock = threading.Lock()

    def create(self) -> HotTable:
        """Version 0: protocol and metadata, no rows."""
        fields = [{"name": f.name, "type": DELTA_TYPES[f.type], "nullable": True, "metadata": {}} for f in SCHEMA]
        metadata = {
            "id": self.table_id,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps({"type": "struct", "fields": fields}),
            "partitionColumns": [],
            "configuration": {},
            "createdTime": self._now(),
        }
        self.commit([{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}, {"metaData": metadata}])
        return self

    def append(self, *tables: pa.Table, folder: str = "") -> int:
        """One commit that adds each table as a file; its version."""
        with self._lock:
            adds = [self._write(table, folder, data_change=True) for table in tables]
            return self.commit([{"add": add} for add in adds])

    def compact(self, *, count: int | None = None) -> int:
        """Merge the oldest `count` live files (all by default) into one, changing no row."""
        with self._lock:
            old = self.live[:count]
            merged = pa.concat_tables([pq.read_table(self.path / name) for name in old])
            self.live = self.live[len(old) :]
            add = self._write(merged, "", data_change=False)
            return self.commit([*(self._remove(name, data_change=False) for name in old), {"add": add}])

    def delete(self, count: int = 1) -> int:
        """Retention: the oldest `count` files leave the table with their rows."""
        with self._lock:
            old, self.live = self.live[:count], self.live[count:]
            return self.commit([self._remove(name, data_change=True) for name in old])

    def checkpoint_and_clean(self) -> None:
        """What log clean-up leaves behind: a checkpoint at the newest version and no JSON before it."""
        from deltalake import DeltaTable

        DeltaTable(str(self.path)).create_checkpoint()
        for name in sorted((self.path / "_delta_log").glob("*.json"))[:-1]:
            name.unlink()

    def vacuum(self) -> None:
        """Delete the data files that the newest version does not hold."""
        for file in self.path.rglob("*.parquet"):
            if "_delta_log" not in file.parts and str(file.relative_to(self.path)) not in self.live:
                file.unlink()

    def commit(self, actions: list[dict[str, Any]]) -> int:
        """Put the next version's JSON in one rename, as a store with put-if-absent would."""
        info = {"commitInfo": {"timestamp": self._now(), "operation": "WRITE", "engineInfo": "tests"}}
        log = self.path / "_delta_log"
        log.mkdir(parents=True, exist_ok=True)
        staged = log / f".{uuid.uuid4()}.tmp"
        staged.write_text("\n".join(json.dumps(action) for action in [info, *actions]), encoding="utf-8")
        staged.rename(log / f"{self.version + 1:020}.json")
        self.version += 1
        return self.version

    def _write(self, table: pa.Table, folder: str, *, data_change: bool) -> dict[str, Any]:
        name = f"{folder}part-{uuid.uuid4()}.parquet"
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target, compression="snappy")
        self.live.append(name)
        return {
            "path": name.replace("%", "%25").replace(" ", "%20"),
            "partitionValues": {},
            "size": target.stat().st_size,
            "modificationTime": self._now(),
            "dataChange": data_change,
            "stats": json.dumps({"numRecords": table.num_rows}),
        }

    def _remove(self, name: str, *, data_change: bool) -> dict[str, Any]:
        path = name.replace("%", "%25").replace(" ", "%20")
        return {"remove": {"path": path, "deletionTimestamp": self._now(), "dataChange": data_change}}

    def _now(self) -> int:
        return int(self.clock() * 1000)


class Load:
    """Realistic events: features of different weight and speed, users with a long tail, a few errors."""

    def __init__(self, rate: float, seed: int = 7, *, skip: tuple[str, str] | None = None) -> None:
        self.rate = rate
        self.rng = np.random.default_rng(seed)
        weights = 1 / np.arange(1, len(FEATURES) + 1) ** 0.7
        self.weights = weights / weights.sum()
        self.skip = skip

    def between(self, start: float, end: float, batch_id: int = 0) -> pa.Table:
        """Partials of the events in [start, end), seconds since 1970 UTC, without one object per event."""
        wave = 1 + 0.18 * np.sin(start / 21) + 0.10 * np.sin(start / 6.1)
        count = int(self.rng.poisson(self.rate * wave * (end - start)))
        at = self.rng.uniform(start, end, count)
        feature = self.rng.choice(len(FEATURES), count, p=self.weights)
        region = self.rng.choice(len(REGIONS), count, p=[0.34, 0.28, 0.16, 0.13, 0.09])
        user = (self.rng.pareto(1.3, count) * 400).astype(np.int64) % 60_000
        latency = self.rng.lognormal(2.9 + 0.07 * feature, 0.55 + 0.02 * region, count)
        error = self.rng.random(count) < 0.004 + 0.0025 * feature
        groups: dict[tuple[int, int, int], list[int]] = {}
        for index, key in enumerate(zip(at.astype(np.int64).tolist(), feature.tolist(), region.tolist(), strict=True)):
            groups.setdefault(key, []).append(index)
        rows = []
        for (window, f, r), members in groups.items():
            if (FEATURES[f], REGIONS[r]) != self.skip:
                rows.append(
                    _bulk_row((window, f, r, batch_id), at[members], user[members], latency[members], error[members])
                )
        return pa.Table.from_pylist(rows, schema=SCHEMA)


def _bulk_row(place: tuple[int, int, int, int], at: Any, user: Any, latency: Any, error: Any) -> dict[str, Any]:
    window, feature, region, batch_id = place
    kll = datasketches.kll_doubles_sketch(200)
    kll.update(latency)
    hll = datasketches.hll_sketch(12, datasketches.HLL_8)
    for value in user.tolist():
        hll.update(value)
    return {
        "window_start": window * 1_000_000,
        "feature": FEATURES[feature],
        "region": REGIONS[region],
        "events": len(at),
        "errors": int(error.sum()),
        "latency_ms_sum": float(latency.sum()),
        "latency_ms_min": float(latency.min()),
        "latency_ms_max": float(latency.max()),
        "latency_ms_kll": bytes(kll.serialize()),
        "users_hll": bytes(hll.serialize_compact()),
        "min_event_time": int(at.min() * 1_000_000),
        "max_event_time": int(at.max() * 1_000_000),
        "_batch_id": batch_id,
    }


class Writer:
    """A thread that appends what happened since its last commit, `per_second` times a second."""

    def __init__(self, table: HotTable, load: Load, *, per_second: float = 4.0) -> None:
        self.table = table
        self.load = load
        self.every = 1 / per_second
        self.held = threading.Event()
        """While set, nothing happens: the stream has stopped."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hot-table-writer", daemon=True)

    def backfill(self, seconds: float) -> Writer:
        """One commit with the last `seconds`, so that charts are full from the start."""
        now = self.table.clock()
        self.table.append(self.load.between(now - seconds, now))
        return self

    def start(self) -> Writer:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        since, batch_id = self.table.clock(), 0
        while not self._stop.wait(self.every):
            until = self.table.clock()
            if not self.held.is_set():
                self.table.append(self.load.between(since, until, batch_id))
            since, batch_id = until, batch_id + 1


def main() -> None:
    """Append to a table until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--rate", type=float, default=2000, help="events a second")
    parser.add_argument("--per-second", type=float, default=4, help="commits a second")
    parser.add_argument("--backfill", type=float, default=1200, help="seconds of history to begin with")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many seconds")
    arguments = parser.parse_args()
    table = HotTable(arguments.path).create()
    writer = Writer(table, Load(arguments.rate), per_second=arguments.per_second)
    writer.backfill(arguments.backfill).start()
    try:
        threading.Event().wait(min(arguments.seconds, threading.TIMEOUT_MAX))
    except KeyboardInterrupt:
        pass
    finally:
        writer.stop()


if __name__ == "__main__":
    main()
