"""How the command line ends: with its exit code and all it had to say, before anything of Python is taken down."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, logging, sys
from lakehouse import cli
from lakehouse.errors import ConfigError

atexit.register(print, "the interpreter was taken down")

@cli.app.command()
def end(how: str) -> None:
    print("x" * 100_000)
    logging.getLogger("tests").error("logged")
    if how == "refused":
        raise ConfigError("no such thing")
    if how != "done":
        raise cli.typer.Exit(int(how))

sys.argv = ["lakehouse", "end", sys.argv[1]]
cli.main()
"""


@pytest.mark.parametrize(("how", "code"), [("done", 0), ("1", 1), ("75", 75), ("refused", 2)])
def test_the_process_ends_with_all_it_said_and_without_a_finalizer(how: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout == "x" * 100_000 + "\n"
    assert "logged" in done.stderr
    assert ("error: no such thing" in done.stderr) == (how == "refused")


def test_a_fault_of_the_program_is_still_told_in_full() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ValueError" in done.stderr


def test_a_reader_that_has_gone_is_no_error_of_its_own() -> None:
    piped = f"{sys.executable} -c '{PROGRAM}' done | head -c 10"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {piped}"], capture_output=True, text=True, check=False)
    assert done.stdout == "x" * 10
    assert "Traceback" not in done.stderr
