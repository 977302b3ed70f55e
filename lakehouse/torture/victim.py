"""A victim: the `lakehouse` command, as users start it, in a process that has patched itself to die or to err.

    python -m lakehouse.torture.victim run PIPELINE --json

The patches come from the environment variable that `points.Orders` reads. Nothing in the product imports this. The
child that maintains the tables is a victim too, started by the first one with `maintain`.
"""

from __future__ import annotations

import os
import runpy
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import lakehouse.pipeline
from lakehouse.maintenance import background
from lakehouse.maintenance import run as maintaining
from lakehouse.torture import mutants, points

RETENTION = timedelta(seconds=40)
"""Of replaced files and old commits, so that a run of minutes meets vacuum and clean-up. A pipeline's file must not
ask for so little: it has to be longer than `_STALL_S` of `sinks.delta_log`, and than a reader needs."""


def main() -> None:
    """Patch this process, then be `lakehouse` with the given arguments."""
    command = sys.argv[1]
    side: points.Side = "maintenance" if command == "maintain" else "driver"
    orders = points.Orders.from_environment()
    if side == "driver":
        orders = replace(orders, pid=os.getpid())
        # Spark's JVM, its Python workers and maintenance inherit it, and with it the tree that they have to end.
        os.environ[points.VARIABLE] = orders.to_json()
    patches = points.Patches()
    mutants.apply(patches, orders.mutants, side=side)
    points.arm(patches, orders, lambda: points.kill(orders), side=side)
    patches.set(lakehouse.pipeline, "OnePass", points.TaskPatched)
    _patch_maintenance(patches)
    sys.argv[0] = "lakehouse"
    runpy.run_module("lakehouse", run_name="__main__")


def _patch_maintenance(patches: points.Patches) -> None:
    """The child becomes a victim, and keeps what is replaced for a short time only."""
    start, maintain = background.Background.__init__, maintaining.Maintainer.__init__

    def as_victim(self: Any, command: list[str], **named: Any) -> None:  # noqa: ANN401 - Background
        at = command.index("lakehouse")
        start(self, [*command[:at], __spec__.name, *command[at + 1 :]], **named)

    def hasty(self: Any, pipeline: Any, **named: Any) -> None:  # noqa: ANN401 - Maintainer, Pipeline
        settings = pipeline.maintenance.model_copy(update={"retention": RETENTION})
        maintain(self, pipeline.model_copy(update={"maintenance": settings}), **named)

    patches.set(background.Background, "__init__", as_victim)
    patches.set(maintaining.Maintainer, "__init__", hasty)


if __name__ == "__main__":
    main()
