"""Lets a JVM that is started often map its classes from an archive instead of loading each from its jar.

This is the JVM's own class-data sharing. The first process that ends in an orderly way writes the archive; it
is renamed into place afterwards, so a process that starts meanwhile never maps half of one. A JVM checks that
an archive fits its build and class path, and goes on without it where it does not.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakehouse.java import java_build

if TYPE_CHECKING:
    from pathlib import Path

_QUIET = ("-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off")


@dataclass(frozen=True)
class ClassArchive:
    """One archive: `path` is where it is kept, `draft` the name under which this process writes it."""

    path: Path
    draft: Path

    def flags(self, *, write: bool = True) -> tuple[str, ...]:
        """Arguments for the JVM: use the archive, or (if `write`) write one at exit where there is none yet."""
        if self.path.is_file():
            return (f"-XX:SharedArchiveFile={self.path}", *_QUIET)
        return (f"-XX:ArchiveClassesAtExit={self.draft}", *_QUIET) if write else ()

    def keep(self) -> None:
        """Put the draft of a process that has ended in its place; nothing where it wrote none."""
        if self.draft.is_file():
            self.draft.replace(self.path)


def class_archive(folder: Path, name: str, java: Path, class_path: str) -> ClassArchive:
    """The archive in `folder` for this build of Java and this class path."""
    key = hashlib.sha256(f"{java_build(java)}\n{class_path}".encode()).hexdigest()[:16]
    path = folder / f"{name}-{key}.jsa"
    return ClassArchive(path, path.with_suffix(f".{uuid.uuid4().hex}"))


def class_path(jars: list[Path]) -> str:
    """The jars as Java's class path, in one order always: an archive is valid for one class path only."""
    return os.pathsep.join(str(jar) for jar in sorted(jars))
