"""Looks at what no micro-batch knows: how far Kafka has gone, the process tree's memory, the room on the disk."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from lakehouse import kafka_admin, storage
from lakehouse.errors import LakehouseError
from lakehouse.metrics.record import Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from lakehouse.config.models import Pipeline, Source


def kafka_ends(source: Source) -> dict[int, int] | None:
    """Partition → offset that its next committed record gets; None where Kafka does not answer."""
    options = {name: secret.get_secret_value() for name, secret in source.options.items()}
    try:
        ranges = kafka_admin.offsets(source.servers, source.topic, options)
    except LakehouseError:
        return None
    return {partition: end for partition, (_, end) in ranges.items()}


def memory(pid: int | None = None) -> dict[str, int]:
    """Part → resident bytes of this process and all below it.

    `driver` is the process itself, `jvm` Spark's, `workers` the Python processes below the JVM, `children` the others.
    Pages that forked workers share count in each of them.
    """
    found = {"driver": 0, "jvm": 0, "workers": 0, "children": 0}
    with suppress(psutil.Error):
        root = psutil.Process(pid or os.getpid())
        found["driver"] = root.memory_info().rss
        for child in root.children():
            with suppress(psutil.Error):
                is_jvm = child.name() == "java"
                found["jvm" if is_jvm else "children"] += child.memory_info().rss
                for below in child.children(recursive=True):
                    with suppress(psutil.Error):
                        found["workers" if is_jvm else "children"] += below.memory_info().rss
    return found


def take(pipeline: Pipeline, *, ask: Callable[[Source], dict[int, int] | None] = kafka_ends) -> Sample:
    """One look; with a Kafka that is away it takes some seconds."""
    ends = ask(pipeline.source)
    return Sample(time.time(), ends, memory(), storage.room(pipeline.root))
