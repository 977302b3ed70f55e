"""Quarantine and replays without Spark: a judge in plain Python before the real one pass, sink and tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from lakehouse.config.models import Pipeline
from lakehouse.quality.reasons import Reasons, word
from lakehouse.quality.suite import parse_suite
from lakehouse.schemas import ARROW_TYPES, KAFKA_POSITION, LINEAGE, RAW, TIMESTAMP
from lakehouse.sinks.headers import FLAT_RAW, pack
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.sink import Answer, Sink

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
SLOW_MS = 1_000
KINDS = ("good", "slow", "torn", "hopeless")
"""What a value may be: accepted, refused by a strict suite only, refused until repaired, refused always."""

_SLOW = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "ms", "max_value": SLOW_MS},
    "meta": {"rule_id": "slow"},
}
_STRICT = Reasons.by(parse_suite(json.dumps({"name": "strict", "expectations": [_SLOW]}), source="strict.json"))


def value_of(kind: str, offset: int) -> bytes:
    """The bytes of one event."""
    ms = 10 * SLOW_MS if kind == "slow" else offset % 50
    at = BEGAN + timedelta(milliseconds=700 * offset)
    event = {"id": f"e{offset}", "at": at.isoformat(), "page": f"p{offset % 3}", "user": offset % 7, "ms": ms}
    text = json.dumps({**event, "status": "ok" if offset % 5 else "error"}).encode()
    return {"torn": text[:-1], "hopeless": b"\xff\x00"}.get(kind, text)


def close_brace(value: bytes) -> bytes | None:
    """A repair: closes a torn object, raises for one kind of value and knows nothing of others."""
    if value.startswith(b"\xff"):
        raise ValueError("no text")
    return value + b"}" if value.startswith(b"{") and not value.endswith(b"}") else value


@dataclass(frozen=True)
class PlainJudge:
    """Judges as the stream does, with one rule: not slower than `SLOW_MS`, where `strict`."""

    strict: bool

    def __call__(self, records: pa.Table, one_pass: OnePass, /) -> list[Answer]:
        rows = [self._judged(record) for record in records.to_pylist()]
        fields = one_pass.pipeline.source.fields
        schema = pa.schema(
            [
                *((name, ARROW_TYPES[field.type]) for name, field in fields.items()),
                *KAFKA_POSITION,
                *FLAT_RAW,
                *((name, pa.bool_()) for name in ("_fits", "_timely", "_refused")),
                (word(0), pa.int64()),
                *([("_replayed_from", LINEAGE)] if "_replayed_from" in records.column_names else []),
            ]
        )
        batches = pa.Table.from_pylist(rows, schema=schema).to_batches()
        found = [answer for batch in replace(one_pass, reasons=_STRICT)(iter(batches)) for answer in batch.to_pylist()]
        return [(answer["table_name"], answer["adds"], answer["partials"]) for answer in found]

    def _judged(self, record: dict[str, Any]) -> dict[str, Any]:
        try:
            event = json.loads(record["value"].decode())
            event["at"] = datetime.fromisoformat(event["at"])
        except ValueError:
            event = None
        slow = self.strict and event is not None and event["ms"] > SLOW_MS
        return {
            **(event or {}),
            **{f"_{name}": record[name] for name in ("topic", "partition", "offset", "timestamp")},
            **{f"_{name}": record[name] for name in ("key", "value")},
            "_headers": pack(record["headers"]),
            "_fits": event is not None,
            "_timely": event is not None,
            "_refused": event is None or slow,
            word(0): int(slow),
            "_replayed_from": record.get("_replayed_from"),
        }


def append(sink: Sink, pipeline: Pipeline, kinds: list[str], *, partition: int = 0) -> None:
    """The next events of the topic as one micro-batch, judged strictly; `kinds` from the first offset on."""
    first = sink.end["clicks"][partition] if sink.end else 0
    offsets = range(first, first + len(kinds))
    records = pa.table(
        {
            "key": pa.array([b"k"] * len(kinds), pa.binary()),
            "value": pa.array([value_of(kind, offset) for kind, offset in zip(kinds, offsets, strict=True)]),
            "headers": pa.array([[{"key": "h", "value": b"\x01"}]] * len(kinds), dict(RAW)["_headers"]),
            "topic": pa.array(["clicks"] * len(kinds)),
            "partition": pa.array([partition] * len(kinds), pa.int32()),
            "offset": pa.array(offsets, pa.int64()),
            "timestamp": pa.array([BEGAN + timedelta(milliseconds=700 * offset) for offset in offsets], TIMESTAMP),
        }
    )
    start, end = {"clicks": {partition: first}}, {"clicks": {partition: first + len(kinds)}}
    sink.write(
        sink.next_batch("q", first, start, end, "strict"),
        PlainJudge(strict=True)(records, OnePass(pipeline.root, pipeline, {})),
    )
