"""What the commits stand on: of several processes that put one name if it is absent, exactly one does."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NAMES = 300
BODY = 100_000
"""Bytes, so many that a file which is not put at once would be seen half written."""

COMPETE = """
import sys
import obstore
from obstore.exceptions import AlreadyExistsError
from lakehouse.storage import open_store

folder, letter, names, size = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])
store = open_store(folder)
print("ready", flush=True)
sys.stdin.readline()
for number in range(names):
    try:
        obstore.put(store, f"_delta_log/{number:020d}.json", letter * size, mode="create")
        print("won", number)
    except AlreadyExistsError:
        # Whoever loses reads the winner's commit at once: it has to be whole.
        body = bytes(obstore.get(store, f"_delta_log/{number:020d}.json").bytes())
        print("lost" if body == body[:1] * size and body[:1] != letter else "torn", number)
"""


def test_of_two_processes_one_puts_each_version_and_the_other_reads_it_whole(tmp_path: Path) -> None:
    rivals = {
        letter: subprocess.Popen(
            [sys.executable, "-c", COMPETE, str(tmp_path), letter, str(NAMES), str(BODY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for letter in "ab"
    }
    for rival in rivals.values():
        assert rival.stdout is not None
        assert rival.stdout.readline() == "ready\n"
    for rival in rivals.values():
        assert rival.stdin is not None
        rival.stdin.write("\n")
        rival.stdin.flush()
    said = {letter: rival.communicate(timeout=60)[0].split("\n")[:-1] for letter, rival in rivals.items()}
    won = {letter: {line for line in lines if line.startswith("won ")} for letter, lines in said.items()}
    lost = {letter: {line for line in lines if line.startswith("lost ")} for letter, lines in said.items()}
    every = {str(number) for number in range(NAMES)}
    assert {line[4:] for line in won["a"]} == {line[5:] for line in lost["b"]}
    assert {line[4:] for line in won["b"]} == {line[5:] for line in lost["a"]}
    assert {line[4:] for line in won["a"] | won["b"]} == every
    for letter, versions in won.items():
        for line in versions:
            path = tmp_path / "_delta_log" / f"{int(line[4:]):020d}.json"
            assert path.read_bytes() == letter.encode() * BODY
    # Nothing but the versions is left, no staged file of a loser either.
    assert len(list((tmp_path / "_delta_log").iterdir())) == NAMES
