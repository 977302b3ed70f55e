"""The poison corpus: records that break pipelines, each with what this one makes of it and why.

`manifest.yaml` lists the cases, `files/` holds the small ones byte for byte, `generate.py` makes the large ones.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lakehouse.config.loader import load_pipeline
from tests.poison import generate

if TYPE_CHECKING:
    from lakehouse.config.models import Pipeline

HERE = Path(__file__).parent
KAFKA_TIME = datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)
"""When each record reached Kafka, unless its case says otherwise."""

ADDED = {"score": "double", "retries": "integer", "trial": "boolean", "day": "date"}
"""Optional fields without a rule, for the types that the shipped pipeline has none or only a bounded one of."""

Header = tuple[str, bytes | None]


@dataclass(frozen=True)
class Case:
    """One record and its outcome.

    Attributes:
        name: unique; good events among them carry it as `event_id`.
        value: the record's value; None for a tombstone.
        key: its key.
        headers: its headers.
        timestamp: Kafka's.
        quarantine: rules that refuse it, in order; empty where it is let in.
        silver: some of its values where it is let in.
        warnings: rules that tag it.
    """

    name: str
    value: bytes | None
    key: bytes | None
    headers: tuple[Header, ...]
    timestamp: datetime
    quarantine: tuple[str, ...]
    silver: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def timestamp_ms(self) -> int:
        """Kafka's time as producers give it."""
        return round(self.timestamp.timestamp() * 1_000)


@cache
def manifest() -> tuple[dict[str, Any], ...]:
    """The cases as the file has them."""
    return tuple(yaml.safe_load((HERE / "manifest.yaml").read_text()))


@cache
def corpus() -> tuple[Case, ...]:
    """Every case."""
    return tuple(_case(entry) for entry in manifest())


def with_added_fields(pipeline: Pipeline) -> Pipeline:
    """The same pipeline with the corpus's fields."""
    raw = pipeline.model_dump(mode="json")
    raw["source"]["options"] = {}
    raw["source"]["fields"] |= {name: {"type": kind} for name, kind in ADDED.items()}
    return type(pipeline).model_validate(raw)


def poisoned_pipeline(root: Path) -> Pipeline:
    """The shipped pipeline with the corpus's fields, over tables under `root`."""
    shipped = load_pipeline(HERE.parent.parent / "conf" / "feature_events.yaml", {"LAKEHOUSE_ROOT": str(root)})
    return with_added_fields(shipped)


def _case(entry: dict[str, Any]) -> Case:
    moment = entry.get("timestamp_ms")
    return Case(
        name=entry["name"],
        value=_value(entry),
        key=_key(entry.get("key")),
        headers=_headers(entry.get("headers", [])),
        timestamp=KAFKA_TIME if moment is None else datetime.fromtimestamp(moment / 1_000, UTC),
        quarantine=tuple(entry.get("quarantine", ())),
        silver=entry.get("silver", {}),
        warnings=tuple(entry.get("warnings", ())),
    )


def _value(entry: dict[str, Any]) -> bytes | None:
    if "make" in entry:
        ((maker, arguments),) = entry["make"].items()
        made: bytes = getattr(generate, maker)(entry["name"], **arguments)
        return made
    return None if "value" in entry else (HERE / "files" / f"{entry['name']}.bin").read_bytes()


def _key(said: dict[str, Any] | None) -> bytes | None:
    if said is None:
        return None
    return b"k" * said["size"] if "size" in said else base64.b64decode(said["base64"])


def _headers(said: dict[str, int] | list[tuple[str, str | None]]) -> tuple[Header, ...]:
    if isinstance(said, dict):
        return tuple((f"h{number}", b"v" * said["size"]) for number in range(said["count"]))
    return tuple((name, None if text is None else base64.b64decode(text)) for name, text in said)
