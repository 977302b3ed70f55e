"""A victim: `lakehouse run`, as users start it, in a process that has patched itself to die or to err.

    python -m lakehouse.torture.victim PIPELINE

The patches come from the environment variable that `points.Orders` reads. Nothing in the product imports this.
"""

from __future__ import annotations

import os
import runpy
import sys
from dataclasses import replace

import lakehouse.pipeline
from lakehouse.torture import mutants, points


def main() -> None:
    """Patch this process, then be `lakehouse run PIPELINE --json`."""
    orders = replace(points.Orders.from_environment(), pid=os.getpid())
    # Spark's JVM and its Python workers inherit it, and with it the tree that they have to end.
    os.environ[points.VARIABLE] = orders.to_json()
    patches = points.Patches()
    mutants.apply(patches, orders.mutants, side="driver")
    points.arm(patches, orders, lambda: points.kill(orders), side="driver")
    patches.set(lakehouse.pipeline, "OnePass", points.TaskPatched)
    sys.argv = ["lakehouse", "run", *sys.argv[1:], "--json"]
    runpy.run_module("lakehouse", run_name="__main__")


if __name__ == "__main__":
    main()
