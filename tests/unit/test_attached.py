"""A child of maintenance ends in order while its parent still holds the other end of the pipe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="Linux alone shares out among sessions")
def test_its_session_gives_way_too() -> None:
    tell = "import os; print(os.nice(0), open('/proc/self/autogroup').read().split()[-1])"
    attach = "import sys; from lakehouse.maintenance.background import attach; attach(sys.stdin.buffer)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{attach}; {tell}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.read().split() == ["19", "19"]


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="Linux alone shares out among sessions")
def test_a_session_of_others_is_left_alone() -> None:
    before = Path("/proc/self/autogroup").read_text()
    with subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, text=True) as child:
        assert child.wait(60) == 0
    assert Path("/proc/self/autogroup").read_text() == before
