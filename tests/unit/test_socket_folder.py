"""The folder of the sockets between Spark and Python."""

from __future__ import annotations

import os
import socket
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from lakehouse.errors import EnvironmentProblem
from lakehouse.socket_folder import socket_folder


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Path:
    # Short, because a socket's path is: pytest's own folders may be too long.
    folder = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def listening(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    return made


def test_it_is_of_this_user_alone_whatever_the_umask(temporary: Path) -> None:
    before = os.umask(0)
    try:
        folder = Path(socket_folder())
    finally:
        os.umask(before)
    assert folder.parent == temporary
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert socket_folder() == str(folder)


def test_one_that_others_may_enter_is_refused(temporary: Path) -> None:
    folder = temporary / f"lakehouse-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o750)
    with pytest.raises(EnvironmentProblem, match=r"(?s)of this user alone.*remove it"):
        socket_folder()


def test_a_link_to_a_folder_is_refused(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (temporary / f"lakehouse-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(EnvironmentProblem, match="of this user alone"):
        socket_folder()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists who holds a socket")
def test_what_a_killed_process_left_goes_and_what_one_holds_stays(temporary: Path) -> None:
    folder = Path(socket_folder())
    assert folder.parent == temporary
    left, held = folder / ".left.sock", folder / ".held.sock"
    listening(left).close()
    with listening(held):
        socket_folder()
        assert (left.exists(), held.exists()) == (False, True)


def test_where_the_path_would_be_too_long_for_a_socket_it_is_in_tmp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 80)))
    assert Path(socket_folder()).parent == Path("/tmp")  # noqa: S108
