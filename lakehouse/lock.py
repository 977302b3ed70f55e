"""One driver per pipeline on a machine, and one replay: file locks, which the system lets go when the process ends.

The first spares two drivers on one machine the race that the chain would decide, and tells other commands that a
driver runs. It is no part of exactly-once: between machines only the chain decides.

Locks lie in a folder of this machine (`storage.machine_root`), also where the tables are in a bucket.

A replay runs beside a driver. Its lock makes a second one wait, which would otherwise judge in vain, and lets no table
join the pipeline between its judgement and its plan, which names the tables.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse.errors import SecondDriver

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def driver_lock(checkpoint_url: str) -> Iterator[None]:
    """Hold the lock of the pipeline with this checkpoint.

    Raises:
        SecondDriver: another process holds it.
    """
    path = Path(f"{checkpoint_url}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise SecondDriver(
                f"another driver of this pipeline runs on this machine (process {file.read().strip() or 'unknown'})",
                where=str(path),
                remedy="stop that process first; this one has read and written nothing",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def driver_of(checkpoint_url: str) -> str | None:
    """Process id of this machine's driver of the pipeline with this checkpoint; None where none runs."""
    path = Path(f"{checkpoint_url}.lock")
    if not path.exists():
        return None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "unknown"
    return None


@contextmanager
def replay_lock(root: str, pipeline: str) -> Iterator[None]:
    """Hold the lock of the pipeline's replays, once nobody else on this machine does."""
    path = Path(f"{root}/_replays/{pipeline}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def alert_lock(root: str, pipeline: str) -> Iterator[bool]:
    """Try for the lock of the pipeline's alerts; whether it is held."""
    path = Path(root) / "_ops" / f"{pipeline}_alerts.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
