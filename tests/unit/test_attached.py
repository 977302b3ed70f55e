"""A child of maintenance ends in order while its parent still holds the other end of the pipe."""

from __future__ import annotations

import subprocess
import sys

_CHILD = """
import sys, time
from lakehouse.maintenance.background import attach
attach(sys.stdin.buffer)
time.sleep(0.2)  # the thread that watches the parent is reading by now
"""


def test_the_watch_for_the_parent_does_not_abort_an_orderly_end() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.wait(60) == 0, child.stderr.read() if child.stderr else ""
