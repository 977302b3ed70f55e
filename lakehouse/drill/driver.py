"""The `lakehouse` command, as users start it, over storage that a switch makes slow.

    python -m lakehouse.drill.driver run PIPELINE --json

While the file named by the environment variable `SWITCH` exists, every object that this process puts takes longer by
the seconds that the file holds: what a busy disk or a throttled bucket does, without a file system of its own.
Nothing in the product imports this.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import obstore

SWITCH = "LAKEHOUSE_DRILL_SLOW"


def main() -> None:
    """Stand between this process and its storage, then be `lakehouse` with the given arguments."""
    put, switch = obstore.put, Path(os.environ[SWITCH])

    def slow(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever obstore takes and gives
        if switch.exists():
            time.sleep(float(switch.read_text()))
        return put(*arguments, **named)

    obstore.put = slow
    sys.argv[0] = "lakehouse"
    runpy.run_module("lakehouse", run_name="__main__")


if __name__ == "__main__":
    main()
