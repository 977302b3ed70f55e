"""`lakehouse` that dies by SIGKILL right after its nth put into a store.

python -m tests.integration.killed_at N ARGUMENTS
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import count
from typing import Any

import obstore

from lakehouse.cli import main


def die_after(last: int) -> None:
    """Let the `last`th put of this process be its end; the JVM that it started ends with its standard input."""
    put, numbers = obstore.put, count(1)

    def counted(*arguments: Any, **options: Any) -> Any:
        number = next(numbers)
        answer = put(*arguments, **options)
        if number == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    obstore.put = counted


if __name__ == "__main__":
    die_after(int(sys.argv.pop(1)))
    main()
