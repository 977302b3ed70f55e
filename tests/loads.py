"""The load of the shipped pipeline, for tests."""

from __future__ import annotations

from pathlib import Path

from lakehouse.config.loader import load_pipeline
from lakehouse.load.events import Generator

CONF = Path(__file__).parent.parent / "conf"


def generator(name: str) -> Generator:
    """Draws the events of `conf/NAME.yaml`."""
    path = CONF / f"{name}.yaml"
    return Generator.beside(path, load_pipeline(path, {}))


FEATURE_EVENTS = generator("feature_events")
