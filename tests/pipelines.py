"""A small pipeline for tests: two fields of each kind that matter, one rollup with every metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lakehouse.config.models import Pipeline

SUITE = Path(__file__).parent.parent / "expectations" / "feature_events.json"


def small_pipeline(root: Path, **changes: Any) -> Pipeline:
    """A pipeline `clicks` under `root`; `changes` replace whole top-level keys."""
    raw: dict[str, Any] = {
        "name": "clicks",
        "root": str(root),
        "source": {
            "servers": "localhost:1",
            "topic": "clicks",
            "fields": {
                "id": "string",
                "at": "timestamp",
                "page": "string",
                "user": "long",
                "ms": "double",
                "status": "string",
            },
        },
        "event_time": {"column": "at", "max_future": "5m"},
        "quality": {"suite": str(SUITE)},
        "rollups": {
            "by_page": {
                "dimensions": ["page"],
                "metrics": [
                    {"name": "errors", "type": "count", "where": {"status": "error"}},
                    {"name": "ms_sum", "type": "sum", "column": "ms"},
                    {"name": "ms_min", "type": "min", "column": "ms"},
                    {"name": "ms_max", "type": "max", "column": "ms"},
                    {"name": "ms_kll", "type": "quantiles", "column": "ms"},
                    {"name": "users_hll", "type": "distinct", "column": "user"},
                ],
            }
        },
    }
    return Pipeline.model_validate(raw | changes)
