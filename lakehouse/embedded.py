"""Where the embedded broker of this project's root lives, and how commands find it without being told."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse import broker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VARIABLE = "KAFKA_BOOTSTRAP"
"""Names another cluster; the embedded broker is left alone where it is set."""


def broker_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of the broker's data: beside the tables, or under ./data where those are not on this machine."""
    root = environ.get("LAKEHOUSE_ROOT", "./data")
    return (Path("./data") if "://" in root else Path(root)) / "_broker"


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`environ`, with the embedded broker as the cluster where one runs and no other is named."""
    found = dict(environ)
    running = None if found.get(VARIABLE) else broker.status(broker_folder(found))
    if running:
        found[VARIABLE] = running.bootstrap
    return found


@contextmanager
def borrowed(environ: Mapping[str, str] = os.environ) -> Iterator[dict[str, str]]:
    """`environment`, with the embedded broker running: one that was stopped is started for this long only.

    A folder without a broker's data is left as it is: then there is nothing to borrow.
    """
    folder = broker_folder(environ)
    sleeping = not environ.get(VARIABLE) and (folder / "kafka").is_dir() and broker.status(folder) is None
    if not sleeping:
        yield environment(environ)
        return
    started = broker.start(folder)
    try:
        yield {**environ, VARIABLE: started.bootstrap}
    finally:
        broker.stop(folder)
