"""How fast a dashboard's questions to years of history are, beside DuckDB and chDB over raw events.

    python -m benchmarks.history generate FOLDER 1s 1m 1h 1d     # Delta tables, laid out as maintenance does it
    python -m benchmarks.history ask FOLDER                      # warm and cold, p50 and p95
    python -m benchmarks.history raw FOLDER                      # beside raw events, of which both are made
    python -m benchmarks.history sketches                        # estimates against exact answers, on Zipf data

`raw` asks chDB as well where it is importable: `pip install --target SITE chdb`, then PYTHONPATH=.:SITE.

benchmarks/history.md says what was measured.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import numpy as np
import orjson
import pyarrow as pa
from deltalake import DeltaTable

from benchmarks.sketch_errors import sketch_errors
from lakehouse.config.models import Pipeline
from lakehouse.rollups.cover import COVER_KEY, Cover
from lakehouse.rollups.layout import row_groups
from lakehouse.rollups.merge import merge_partials
from lakehouse.rollups.partials import GRAIN_US, aggregate
from lakehouse.schemas import TIMESTAMP, gold_schema, silver_schema
from lakehouse.serving.query import Measure, Query, Rollups
from lakehouse.sinks.files import DataFile, write_file
from lakehouse.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lakehouse.config.models import Rollup

US = 1_000_000
END_S = 1_798_761_600
"""2027-01-01T00:00:00Z: where the history ends."""
TENANTS, ENDPOINTS = 100, 100
"""Values of the two dimensions: 10 000 series."""
FILE_ROWS = 4_200_000
"""Of a merged file: about half of maintenance's target size, where a file is full."""


@dataclass(frozen=True)
class Shape:
    """Seconds of history, and the share of the series that have a row in a window."""

    seconds: int
    active: float


FULL = {
    "1d": Shape(365 * 86_400, 1.0),
    "1h": Shape(365 * 86_400, 1.0),
    "1m": Shape(30 * 86_400, 0.02),
    "1s": Shape(6 * 3_600, 0.04),
}
SMALL = {
    "1d": Shape(365 * 86_400, 1.0),
    "1h": Shape(20 * 86_400, 1.0),
    "1m": Shape(6 * 3_600, 0.2),
    "1s": Shape(300, 0.4),
}
"""With `--small`: 10.4 million rows, made in 10 s of CPU."""
SHAPES = dict(FULL)


def pipeline(root: Path) -> Pipeline:
    """The pipeline whose rollup is asked."""
    fields = {"at": "timestamp", "tenant": "string", "endpoint": "string", "status": "string", "ms": "double"}
    metrics = [
        {"name": "errors", "type": "count", "where": {"status": "error"}},
        {"name": "ms_sum", "type": "sum", "column": "ms"},
        {"name": "ms_max", "type": "max", "column": "ms"},
    ]
    return Pipeline.model_validate(
        {
            "name": "calls",
            "root": str(root),
            "source": {"servers": "localhost:1", "topic": "calls", "fields": fields},
            "event_time": {"column": "at"},
            "quality": {"suite": "none.json"},
            "rollups": {
                "by_series": {
                    "dimensions": ["tenant", "endpoint"],
                    "grains": list(reversed(SHAPES)),
                    "metrics": metrics,
                }
            },
        }
    )


def generate(root: Path, grain: str) -> None:
    """Write one grain's table, file by file."""
    described = pipeline(root)
    rollup = described.rollups["by_series"]
    schema = gold_schema(rollup, described.source.fields)
    url = root / "gold" / f"calls_by_series_{grain}"
    made = DeltaTable.create(str(url), schema)
    store, adds, rows, began = open_store(str(url)), [], 0, time.monotonic()
    file: DataFile | None = None
    for part in row_groups(_windows(grain, schema), rollup):
        file = file or DataFile(schema, "max_event_time")
        file.write(part)
        rows += part.num_rows
        if rows // FILE_ROWS > (rows - part.num_rows) // FILE_ROWS:
            adds.append(file.put(store, f"part-{uuid.uuid4()}.parquet", data_change=True))
            file = None
    if file:
        adds.append(file.put(store, f"part-{uuid.uuid4()}.parquet", data_change=True))
    _commit(root, url, made, grain, adds)
    size = sum(add["size"] for add in adds)
    told = {"grain": grain, "rows": rows, "files": len(adds), "bytes": size, "seconds": time.monotonic() - began}
    print(json.dumps(told))


def _windows(grain: str, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of some windows at a time, every series in turn, seeded by the first window."""
    width_s, shape = GRAIN_US[grain] // US, SHAPES[grain]
    series = TENANTS * ENDPOINTS
    tenants = pa.array([f"tenant-{number:03}" for number in range(TENANTS)])
    endpoints = pa.array([f"/v1/thing-{number:03}" for number in range(ENDPOINTS)])
    at_once = max(1, 400_000 // int(series * shape.active))
    for first in range(END_S - shape.seconds, END_S, width_s * at_once):
        rng = np.random.default_rng(first)
        starts = np.arange(first, min(END_S, first + width_s * at_once), width_s)
        window = np.repeat(starts * US, series)
        key = np.tile(np.arange(series), len(starts))
        if shape.active < 1:
            here = rng.random(len(key)) < shape.active
            window, key = window[here], key[here]
        events = rng.poisson(20, len(key)).astype(np.int64) + 1
        columns = {
            "window_start": pa.array(window).cast(TIMESTAMP),
            "tenant": tenants.take(pa.array(key // ENDPOINTS)),
            "endpoint": endpoints.take(pa.array(key % ENDPOINTS)),
            "events": pa.array(events),
            "errors": pa.array(rng.binomial(events, 0.02)),
            "ms_sum": pa.array(np.round(events * rng.gamma(4, 5, len(key)), 2)),
            "ms_max": pa.array(np.round(rng.gamma(9, 9, len(key)), 2)),
            "min_event_time": pa.array(window + 1_000).cast(TIMESTAMP),
            "max_event_time": pa.array(window + width_s * US - 1_000).cast(TIMESTAMP),
            "_batch_id": pa.array(np.zeros(len(key), dtype=np.int64)),
        }
        yield pa.table(columns, schema)


def _commit(root: Path, url: Path, made: DeltaTable, grain: str, adds: list[Any]) -> None:
    """One commit with all files: of a batch for the finest grain, of a derivation that covers the finer one else."""
    grains = list(reversed(SHAPES))
    info: dict[str, Any] = {"timestamp": END_S * 1_000, "operation": "WRITE"}
    if grain == grains[0]:
        info["lakehouse"] = {"format": 1}
    else:
        finer = f"gold/calls_by_series_{grains[grains.index(grain) - 1]}"
        # The finer table is generated first, so that its id is known.
        source = str(DeltaTable(str(root / finer)).metadata().id)
        info[COVER_KEY] = Cover(finer, source, 1).to_json()
    lines = [{"commitInfo": info}, *({"add": add} for add in adds)]
    retired = {"txn": {"appId": "lakehouse.retired", "version": (END_S - SHAPES[grain].seconds) * 1_000}}
    body = b"\n".join(orjson.dumps(line) for line in [*lines, retired])
    (url / "_delta_log" / f"{made.version() + 1:020}.json").write_bytes(body)


def questions(number: int) -> Iterator[tuple[str, Query]]:
    """What a dashboard asks; each number makes other ranges and values, so that no answer is known already."""
    rng = np.random.default_rng(number)
    tenant = ("tenant", frozenset({f"tenant-{rng.integers(TENANTS):03}"}))
    endpoint = ("endpoint", frozenset({f"/v1/thing-{rng.integers(ENDPOINTS):03}"}))
    hour, day = 3_600, 86_400
    until = END_S - number % 48 * hour
    figures = tuple(map(Measure.parse, ("events", "errors/events", "ms_sum/events", "ms_max")))

    def query(seconds: int, step_s: int, end: int = until, **more: Any) -> Query:  # noqa: ANN401 - the rest of a Query
        # As far back as windows of this width are kept.
        held = min(shape.seconds for grain, shape in SHAPES.items() if GRAIN_US[grain] >= step_s * US)
        start = max(end - seconds, END_S - held)
        return Query("by_series", figures, start * US, end * US, step_s * US, **more)

    days = 300 + number % 60
    yield "a year by day, everything", query(days * day, day, END_S)
    yield "a year by day, a tenant", query(days * day, day, END_S, filters=(tenant,))
    yield "90 days by hour, a series", query(90 * day, hour, filters=(endpoint, tenant))
    yield "7 days by hour, a tenant", query(7 * day, hour, filters=(tenant,))
    yield "24 hours by hour, tenants", query(day, hour, dimensions=("tenant",))
    minute_end = END_S - number % 60 * 60
    yield "6 hours by minute, a tenant", query(6 * hour, 60, minute_end, filters=(tenant,))
    yield "1 hour by minute, everything", query(hour, 60, minute_end)
    second_end = END_S - number % 200
    yield "5 minutes by second, a tenant", query(300, 1, second_end, filters=(tenant,))
    yield "1 minute by second, everything", query(60, 1, second_end)


def ask(root: Path, rounds: int) -> None:
    """Ask each question warm (tables open, files seen) and cold (a new process, its files not in the page cache)."""
    warm: dict[str, list[Took]] = {}
    rollups = Rollups(pipeline(root))
    for number in range(rounds + 3):
        for name, query in questions(number):
            took = _asked(rollups, query)
            if number >= 3:  # noqa: PLR2004 - rounds before the measurement
                warm.setdefault(name, []).append(took)
    first: dict[str, list[Took]] = {}
    for number in range(1_000, 1_000 + max(2, rounds // 5)):
        for index, (name, _) in enumerate(questions(number)):
            _forget(root)
            small = ["--small"] if SHAPES == SMALL else []
            command = [sys.executable, "-m", "benchmarks.history", "cold", str(root), str(number), str(index), *small]
            first.setdefault(name, []).append(Took(*json.loads(subprocess.check_output(command, text=True))))
    print("| Question | warm p50 | p95 | CPU p50 | p95 | cold p50 | p95 | CPU p50 | p95 |\n|" + "---|" * 9)
    for name, found in warm.items():
        print(f"| {name} | {_row(found)} | {_row(first[name])} |")
    every = [list(chain.from_iterable(found.values())) for found in (warm, first)]
    print(f"| all | {' | '.join(map(_row, every))} |")
    print(f"load average {os.getloadavg()[0]:.1f}; {rounds} rounds warm, {max(2, rounds // 5)} cold")


class Took(NamedTuple):
    """Seconds by the clock, and of this process's CPU."""

    wall: float
    cpu: float


def _asked(rollups: Rollups, query: Query) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    answer = rollups.ask(query)
    if answer.rows.num_rows == 0 or answer.cached:
        raise SystemExit(f"no rows, or an answer that was known: {query}")
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def _row(found: list[Took]) -> str:
    columns = ([each.wall for each in found], [each.cpu for each in found])
    return " | ".join(_ms(column, percentile) for column in columns for percentile in (50, 95))


def cold(root: Path, number: int, index: int) -> None:
    """What it takes from an open process without tables to the answer."""
    print(json.dumps(_asked(Rollups(pipeline(root)), list(questions(number))[index][1])))


def _forget(root: Path) -> None:
    """Ask the kernel to drop the files' pages."""
    for path in root.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


_RAW_SECONDS = 3_600


def raw(root: Path, rounds: int, events: int) -> None:
    """An hour of raw events in silver, its rollup by minute, and the same questions to both."""
    described = pipeline(root)
    rollup = described.rollups["by_series"].model_copy(update={"grains": ["1m"]})
    described = described.model_copy(update={"rollups": {"by_series": rollup}})
    silver = root / "silver" / "calls"
    if not silver.exists():
        _raw_events(root, rollup, events)
    files = sorted(map(str, silver.glob("part-*.parquet")))
    print(f"{events} raw events in {len(files)} files, {sum(map(os.path.getsize, files)) / 1e6:.0f} MB")
    figures = tuple(map(Measure.parse, ("events", "errors", "ms_sum", "ms_max")))
    start, end = (END_S - _RAW_SECONDS) * US, END_S * US
    engines = {"rollup": _ask_rollup(Rollups(described)), "DuckDB": _ask_duckdb(files)}
    if importlib.util.find_spec("chdb"):
        engines["chDB"] = _ask_chdb(files)
    print("| Question | " + " | ".join(f"{name} p50, p95" for name in engines) + " |")
    print("|" + "---|" * (len(engines) + 1))
    for name, more in (
        ("1 hour by minute, everything", {}),
        ("1 hour by minute, a tenant", {"filters": (("tenant", frozenset({"tenant-042"})),)}),
        ("1 hour, tenants", {"step_us": None, "dimensions": ("tenant",)}),
    ):
        query = Query("by_series", figures, start, end, **({"step_us": 60 * US} | more))
        cells, answers = [], []
        for asked in engines.values():
            seconds = []
            for number in range(rounds + 1):
                # Another range each time, so that no answer is known; the last one is everybody's.
                began = time.perf_counter()
                found = asked(replace(query, start_us=start + (rounds - number) * 60 * US))
                seconds.append(time.perf_counter() - began)
            answers.append(found)
            cells.append(f"{_ms(seconds[1:], 50)}, {_ms(seconds[1:], 95)}")
        same = all(other == answers[0] for other in answers)
        print(f"| {name} | {' | '.join(cells)} |" + ("" if same else " answers differ"))


def _raw_events(root: Path, rollup: Rollup, events: int) -> None:
    """Silver, and the rollup that the one pass and maintenance would make of it."""
    described = pipeline(root)
    fields = silver_schema(described.source.fields)
    schema = pa.schema([fields.field(name) for name in ("at", "tenant", "endpoint", "status", "ms")])
    rng = np.random.default_rng(0)
    partials = []
    for first in range(0, events, 1_000_000):
        count = min(1_000_000, events - first)
        at = (END_S - _RAW_SECONDS) * US + ((first + np.arange(count)) * (_RAW_SECONDS * US) // events)
        key = rng.zipf(1.2, count) % (TENANTS * ENDPOINTS)
        rows = pa.table(
            {
                "at": pa.array(at).cast(TIMESTAMP),
                "tenant": pa.array([f"tenant-{n:03}" for n in range(TENANTS)]).take(pa.array(key // ENDPOINTS)),
                "endpoint": pa.array([f"/v1/thing-{n:03}" for n in range(ENDPOINTS)]).take(pa.array(key % ENDPOINTS)),
                "status": pa.array(["ok", "error"]).take(pa.array(rng.binomial(1, 0.02, count))),
                "ms": pa.array(np.round(rng.gamma(4, 5, count) * 4) / 4),
            },
            schema,
        )  # fmt: skip
        write_file(str(root), "silver/calls", rows, "at")
        partials.append(aggregate(rows, rollup, "1m", event_time="at"))
    schema = gold_schema(rollup, described.source.fields)
    table = pa.concat_tables(partials).append_column("_batch_id", pa.nulls(sum(map(len, partials)), pa.int64()))
    merged = merge_partials(table.cast(schema), rollup)
    url = root / "gold" / "calls_by_series_1m"
    made = DeltaTable.create(str(url), schema)
    file = DataFile(schema, "max_event_time")
    for part in row_groups([merged], rollup):
        file.write(part)
    add = file.put(open_store(str(url)), f"part-{uuid.uuid4()}.parquet", data_change=True)
    info = {"commitInfo": {"timestamp": END_S * 1_000, "operation": "WRITE", "lakehouse": {"format": 1}}}
    body = b"\n".join(orjson.dumps(line) for line in (info, {"add": add}))
    (url / "_delta_log" / f"{made.version() + 1:020}.json").write_bytes(body)


Asked = Callable[[Query], list[tuple[Any, ...]]]


def _ask_rollup(rollups: Rollups) -> Asked:
    return lambda query: [tuple(row.values())[1:] for row in rollups.ask(query).rows.to_pylist()]


def _sql(query: Query, table: str, epoch: str) -> str:
    key = query.dimensions[0] if query.dimensions else f"{epoch} // 60000000"
    where = "".join(f" AND {name} = '{value}'" for name, values in query.filters for value in values)
    shown = f"{key} AS k, " if query.dimensions else ""
    return (
        f"SELECT {shown}count(*), sum(CASE WHEN status = 'error' THEN 1 ELSE 0 END), sum(ms), max(ms)"  # noqa: S608 - own values
        f" FROM {table} WHERE {epoch} >= {query.start_us} AND {epoch} < {query.end_us}{where}"
        f" GROUP BY {key} ORDER BY {key}"
    )


def _ask_duckdb(files: list[str]) -> Asked:
    connection = duckdb.connect()
    connection.execute(f"CREATE VIEW silver AS SELECT * FROM read_parquet({files})")  # noqa: S608 - own files
    return lambda query: connection.execute(_sql(query, "silver", 'epoch_us("at")')).fetchall()


def _ask_chdb(files: list[str]) -> Asked:
    session = importlib.import_module("chdb.session").Session()
    table = f"file('{Path(files[0]).parent}/part-*.parquet', Parquet)"

    def ask(query: Query) -> list[tuple[Any, ...]]:
        text = _sql(query, table, 'toUnixTimestamp64Micro("at")').replace(" // ", " DIV ")
        found = session.query(text, "JSONCompact")
        return [tuple(row) for row in _numbers(json.loads(found.bytes())["data"])]

    return ask


def _numbers(rows: list[list[Any]]) -> Iterator[list[Any]]:
    """ClickHouse's JSON spells 64 bit integers as texts."""
    for row in rows:
        yield [int(value) if isinstance(value, str) and value.isdecimal() else value for value in row]


def sketches(samples: int) -> None:
    """Errors of each sketch over many samples of Zipf data, against what its column states."""
    print("| Sketch | stated | confidence | samples | within | largest |\n|---|---|---|---|---|---|")
    for found in sketch_errors(samples):
        columns = (
            f"{found.stated:.2%}",
            f"{found.confidence:.0%}",
            samples,
            f"{found.within:.1%}",
            f"{found.largest:.2%}",
        )
        print(f"| {found.name} | {' | '.join(map(str, columns))} |")


def _ms(seconds: list[float], percentile: int) -> str:
    return f"{1_000 * float(np.percentile(seconds, percentile)):.0f} ms"


def main() -> None:
    """Read the arguments and do one of the four."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["generate", "ask", "cold", "raw", "sketches"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("more", nargs="*")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--events", type=int, default=10_000_000, help="raw events")
    parser.add_argument("--samples", type=int, default=400, help="of Zipf data")
    parser.add_argument("--small", action="store_true", help="10 million rows instead of 109")
    arguments = parser.parse_args()
    if arguments.small:
        SHAPES.update(SMALL)
    match arguments.what:
        case "generate":
            for grain in arguments.more:
                generate(arguments.folder, grain)
        case "ask":
            ask(arguments.folder, arguments.rounds)
        case "cold":
            cold(arguments.folder, *map(int, arguments.more))
        case "raw":
            raw(arguments.folder, arguments.rounds, arguments.events)
        case "sketches":
            sketches(arguments.samples)


if __name__ == "__main__":
    main()
