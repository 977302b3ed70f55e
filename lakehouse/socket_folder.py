"""A folder of this user alone for the Unix sockets between Spark and its Python workers, which ask for no password."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from lakehouse.errors import EnvironmentProblem

_LONGEST = 103
"""Bytes of a Unix socket's path: macOS takes no more, Linux four more."""
_NAME = len("/.00000000-0000-0000-0000-000000000000.sock")
"""How Spark calls a socket."""
_BOUND = Path("/proc/net/unix")
"""Linux's list of the sockets that a process holds."""


def socket_folder() -> str:
    """Make the folder where there is none, and take away the sockets that killed processes left in it.

    Raises:
        EnvironmentProblem: somebody else made it, or may enter it.
    """
    folder = Path(tempfile.gettempdir()) / f"lakehouse-{os.getuid()}"
    if len(os.fsencode(folder)) + _NAME > _LONGEST:
        folder = Path("/tmp") / folder.name  # noqa: S108 - checked below
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EnvironmentProblem(
            f"{folder} is not a folder of this user alone", remedy="remove it, or set TMPDIR to a folder of your own"
        )
    if _BOUND.exists():
        left = set(folder.glob(".*.sock"))  # listed first: one that is made from now on is not among them
        bound = _BOUND.read_text()
        for path in left:
            if str(path) not in bound:
                path.unlink(missing_ok=True)
    return str(folder)
