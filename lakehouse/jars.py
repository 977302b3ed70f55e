"""Fetches the jars that pyspark does not ship: Delta and the Kafka source for Spark, and a Kafka broker.

`jars.lock.json` names every one with its version and SHA-256, so nothing is resolved at run time. The Ivy
inside pyspark fetches them: no Maven, and a cache of its own, because a shared one may hold half of an
artifact. `python -m lakehouse.jars` fetches both groups.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies
from xml.sax.saxutils import quoteattr

from lakehouse.errors import EnvironmentProblem, LakehouseError
from lakehouse.java import find_java

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Group = Literal["spark", "broker"]
GROUPS: tuple[Group, ...] = ("spark", "broker")

LOCK_FILE = Path(__file__).with_name("jars.lock.json")
STAMP = "verified.json"
"""Name of the file in a jar folder that remembers which lock and which sizes were verified."""

_FETCH_SECONDS = 900
"""A minute is usual; a line that is slower than this is better mended than waited for."""


@dataclass(frozen=True)
class Artifact:
    """One jar: where a Maven repository keeps it, and the SHA-256 of its bytes in hex."""

    group: Group
    org: str
    name: str
    rev: str
    sha256: str

    @property
    def filename(self) -> str:
        """Name of the file in the jar folder."""
        return f"{self.name}-{self.rev}.jar"


@cache
def artifacts(group: Group) -> tuple[Artifact, ...]:
    """The locked jars of a group."""
    locked = [Artifact(**entry) for entry in json.loads(LOCK_FILE.read_text())]
    return tuple(artifact for artifact in locked if artifact.group == group)


def jar_folder(group: Group) -> Path:
    """Folder inside this Python environment that holds the group's jars."""
    return Path(sys.prefix) / "share" / "lakehouse" / "jars" / group


def ensure_jars(group: Group) -> list[Path]:
    """Paths of the group's jars, fetched where they are missing or damaged.

    With all in place this reads one small file and asks for each jar's size: no hashing, no network.

    Raises:
        EnvironmentProblem: they are missing and cannot be fetched, or one is not the jar that the lock names.
    """
    return ensure(artifacts(group), jar_folder(group))


def ensure(wanted: tuple[Artifact, ...], folder: Path) -> list[Path]:
    """Make `folder` hold exactly the `wanted` jars; see `ensure_jars`."""
    if not is_verified(wanted, folder):
        with _only_one_process(folder):
            if not is_verified(wanted, folder):
                _fill(wanted, folder)
    return [folder / artifact.filename for artifact in wanted]


def is_verified(wanted: Iterable[Artifact], folder: Path) -> bool:
    """Whether the stamp in `folder` is for these artifacts and every jar still has the size it had then."""
    try:
        stamp = json.loads((folder / STAMP).read_text())
        return bool(
            stamp["lock"] == _digest(wanted)
            and all((folder / name).stat().st_size == size for name, size in stamp["bytes"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _fill(wanted: tuple[Artifact, ...], folder: Path) -> None:
    """Build the folder beside its place and rename it, so that nobody ever sees half of it."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        fresh = Path(temporary) / "jars"
        fresh.mkdir()
        for artifact in wanted:
            if (folder / artifact.filename).is_file():
                shutil.copy2(folder / artifact.filename, fresh)
        discard_wrong(wanted, fresh)
        missing = tuple(artifact for artifact in wanted if not (fresh / artifact.filename).is_file())
        if missing:
            _fetch(missing, fresh, Path(temporary))
        _refuse_wrong(missing, fresh)
        sizes = {artifact.filename: (fresh / artifact.filename).stat().st_size for artifact in wanted}
        (fresh / STAMP).write_text(json.dumps({"lock": _digest(wanted), "bytes": sizes}, indent=1) + "\n")
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        fresh.rename(folder)


def discard_wrong(wanted: Iterable[Artifact], folder: Path) -> list[Artifact]:
    """Delete each jar in `folder` whose SHA-256 is not the locked one, and return those artifacts."""
    wrong = [
        artifact
        for artifact in wanted
        if (folder / artifact.filename).is_file() and _sha256(folder / artifact.filename) != artifact.sha256
    ]
    for artifact in wrong:
        (folder / artifact.filename).unlink()
    return wrong


def _refuse_wrong(fetched: tuple[Artifact, ...], folder: Path) -> None:
    wrong = discard_wrong(fetched, folder)
    if wrong:
        raise EnvironmentProblem(
            f"The repository served other bytes than those locked for {_names(wrong)}; they were deleted.",
            where=str(LOCK_FILE),
            remedy="try again; if it stays so, set LAKEHOUSE_MAVEN_REPO to a repository that you trust",
        )


def _fetch(missing: tuple[Artifact, ...], into: Path, work: Path) -> None:
    """Let Ivy download `missing` as `into/NAME-REV.jar`.

    Raises:
        EnvironmentProblem: a jar did not arrive.
    """
    group = missing[0].group
    _say(f"fetching {len(missing)} jars for {group} (once)")
    started = time.monotonic()
    (work / "ivy.xml").write_text(ivy_file(missing))
    (work / "settings.xml").write_text(settings_file(os.environ.get("LAKEHOUSE_MAVEN_REPO")))
    command = [
        *(str(find_java()), "-XX:TieredStopAtLevel=1", *proxy_flags(getproxies())),
        *(f"-Djars.cache={work / 'cache'}", f"-Divy.default.ivy.user.dir={work / 'ivy'}"),
        *("-jar", str(_ivy_jar()), "-settings", str(work / "settings.xml"), "-ivy", str(work / "ivy.xml")),
        *("-retrieve", f"{into}/[artifact]-[revision].[ext]"),
    ]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_FETCH_SECONDS, errors="replace"
        )
        output = answer.stdout + answer.stderr
    except subprocess.TimeoutExpired as error:
        output = f"no end after {error.timeout:.0f} s"
    absent = [artifact for artifact in missing if not (into / artifact.filename).is_file()]
    if absent:
        raise EnvironmentProblem(
            f"{_names(absent)} could not be fetched.",
            where=_last_complaint(output),
            remedy="connect to the network, or set LAKEHOUSE_MAVEN_REPO to a Maven repository within reach",
        )
    _say(f"{len(missing)} jars for {group} in {time.monotonic() - started:.0f} s")


def ivy_file(wanted: Iterable[Artifact]) -> str:
    """Ivy's description of what to fetch: each jar by name and version, and nothing that they depend on."""
    lines = (f'<dependency org="{jar.org}" name="{jar.name}" rev="{jar.rev}" transitive="false"/>' for jar in wanted)
    dependencies = "\n    ".join(lines)
    return (
        '<ivy-module version="2.0">\n'
        '  <info organisation="lakehouse" module="jars"/>\n'
        f"  <dependencies>\n    {dependencies}\n  </dependencies>\n"
        "</ivy-module>\n"
    )


def settings_file(root: str | None) -> str:
    """Ivy's settings: the public default repository, or the one at `root`; POMs are not read."""
    place = f" root={quoteattr(root)}" if root else ""
    return (
        "<ivysettings>\n"
        '  <settings defaultResolver="maven"/>\n'
        '  <caches defaultCacheDir="${jars.cache}"/>\n'
        f'  <resolvers><ibiblio name="maven" m2compatible="true" usepoms="false"{place}/></resolvers>\n'
        "</ivysettings>\n"
    )


def proxy_flags(proxies: Mapping[str, str]) -> list[str]:
    """Java's properties for the proxies that the environment names; Java does not read those itself."""
    flags = []
    for scheme in ("http", "https"):
        proxy = urlsplit(proxies.get(scheme, ""))
        if proxy.hostname:
            flags.append(f"-D{scheme}.proxyHost={proxy.hostname}")
            flags.append(f"-D{scheme}.proxyPort={proxy.port or (443 if proxy.scheme == 'https' else 80)}")
    return flags


def _ivy_jar() -> Path:
    pyspark = find_spec("pyspark")
    folder = Path(pyspark.origin).parent / "jars" if pyspark and pyspark.origin else Path()
    found = sorted(folder.glob("ivy-*.jar"))
    if not found:
        raise EnvironmentProblem(
            "pyspark is not installed with its jars, so nothing can fetch the others.",
            where=str(folder),
            remedy="run: pip install pyspark",
        )
    return found[-1]


def _last_complaint(output: str) -> str:
    """The line of Ivy's output that says why, without its decoration."""
    lines = [line.strip(" \t:") for line in output.splitlines()]
    telling = [line for line in lines if "Exception" in line or line.startswith(("no end", "Host "))]
    return (telling or [line for line in lines if line] or ["Ivy said nothing"])[0][:300]


def _names(some: list[Artifact]) -> str:
    shown = ", ".join(artifact.filename for artifact in some[:3])
    return shown if len(some) <= 3 else f"{shown} and {len(some) - 3} more jars"  # noqa: PLR2004 - three fit a line


def _digest(wanted: Iterable[Artifact]) -> str:
    return hashlib.sha256("\n".join(f"{a.filename} {a.sha256}" for a in wanted).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _only_one_process(folder: Path) -> Iterator[None]:
    """Hold a lock beside `folder`, so that two starts at once fetch once."""
    import fcntl  # noqa: PLC0415 - absent on Windows, where importing this module must still work

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / f".{folder.name}.lock").open("w")
    except OSError as error:
        raise EnvironmentProblem(
            f"The folder for the jars cannot be written: {error.strerror}.",
            where=str(folder.parent),
            remedy="use a Python environment (python -m venv) that belongs to you",
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    sys.stderr.write(f"jars: {line}\n")
    sys.stderr.flush()


def main() -> int:
    """Fetch both groups; exit code 0, or that of the error."""
    try:
        for group in GROUPS:
            _say(f"{len(ensure_jars(group))} jars ready in {jar_folder(group)}")
    except LakehouseError as error:
        _say(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
