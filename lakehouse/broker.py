"""Runs a real Kafka broker on this machine: one KRaft node in one JVM, bound to the loopback address only.

Everything it needs to be found and stopped again is in its folder:

    broker.json         which process it is and where it listens (only while it runs, or was killed)
    broker.log          its log, with what the JVM says when it dies
    kafka/              its data; removing it forgets every topic
    server.properties   written anew at each start
    log4j2.xml          likewise
    security/           certificates and accounts, where it is secured (`broker_security`)

The first broker that is stopped writes an archive of Kafka's classes, which takes it 3 to 5 s, once for each
Java; every later start maps this archive and serves in less than half the time
(docs/adr/0003-embedded-broker.md).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from lakehouse import kafka_admin
from lakehouse.broker_security import BROKER, Security
from lakehouse.broker_settings import HOST, LOG, log_settings, server_properties
from lakehouse.class_archive import ClassArchive, class_archive, class_path
from lakehouse.errors import ConfigError, LakehouseError, SourceUnavailable
from lakehouse.jars import ensure_jars, jar_folder
from lakehouse.java import find_java

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEFAULT_FOLDER = Path("data") / "_broker"
DEFAULT_PORT = 9092
START_TIMEOUT_S = 90.0
"""A start takes 2 to 7 s; on a machine that is busy elsewhere several times that."""

_STATE = "broker.json"
_POLL_S = 0.05
_COLLECTOR = ("-XX:+UseSerialGC",)
_MAIN_CLASS = "kafka.Kafka"
_LOG_LINES_SHOWN = 12


@dataclass(frozen=True)
class Broker:
    """A running broker.

    Attributes:
        bootstrap: host:port for clients; of a secured broker for those with a password.
        pid: its process.
        port: that of `bootstrap`.
        folder: its data.
        started_at: UTC.
        tls_bootstrap: host:port for clients with a certificate; None where the broker is open.
    """

    bootstrap: str
    pid: int
    port: int
    folder: Path
    started_at: datetime
    tls_bootstrap: str | None = None


def start(
    folder: Path = DEFAULT_FOLDER, *, port: int | None = None, heap_mb: int = 512, secure: bool = False
) -> Broker:
    """Start the broker of `folder` and wait until it serves, or return the one that runs there already.

    Args:
        folder: where its data and state live; made if absent.
        port: where clients connect; by default that of a killed predecessor, then 9092, then any free one.
        heap_mb: size of the JVM's heap, MiB.
        secure: admit nobody without a proof of who they are; a broker that was secured once stays so.

    Raises:
        ConfigError: the port is taken, or the broker that runs is an open one.
        EnvironmentProblem: Java or the jars are missing and cannot be fetched.
        LakehouseError: the broker died or did not serve in time; with the last lines of its log.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one_start(folder):
        running = status(folder)
        if running is not None:
            if secure and running.tls_bootstrap is None:
                raise ConfigError(
                    "The broker that runs in this folder is open to everyone on this machine.",
                    where=str(folder),
                    remedy="stop it first (lakehouse broker stop); its topics are kept",
                )
            return running
        chosen = _choose_port(port, _last_port(folder))
        tls_port = None if (security := _security(folder, secure=secure)) is None else free_port()
        java, jars = find_java(), ensure_jars("broker")
        _write_settings(folder, chosen, security, tls_port)
        _format(folder, java, jars)
        archive = class_archive(jar_folder("broker").parent, "broker", java, class_path(jars))
        process = _launch(folder, _command(folder, java, jars, heap_mb, archive))
        tls_bootstrap = tls_port and f"{HOST}:{tls_port}"
        broker = Broker(f"{HOST}:{chosen}", process.pid, chosen, folder, datetime.now(UTC), tls_bootstrap or None)
        _write_state(broker, archive)
        _await_service(broker, process)
        return broker


def status(folder: Path = DEFAULT_FOLDER) -> Broker | None:
    """The broker that runs in `folder`, or None. Another process that has its number is not taken for it."""
    folder = folder.resolve()
    state = _read_state(folder)
    if state is None or _process_of(state, folder) is None:
        return None
    started_at = datetime.fromisoformat(state["started_at"])
    return Broker(state["bootstrap"], state["pid"], state["port"], folder, started_at, state.get("tls_bootstrap"))


def stop(folder: Path = DEFAULT_FOLDER, timeout_s: float = 20) -> bool:
    """Stop the broker of `folder`: ask it, and kill it after `timeout_s`. False where none runs."""
    folder = folder.resolve()
    state = _read_state(folder)
    if state is None:
        return False
    process = _process_of(state, folder)
    if process is not None:
        _end(process, timeout_s)
        ClassArchive(Path(state["archive"]["path"]), Path(state["archive"]["draft"])).keep()
    (folder / _STATE).unlink(missing_ok=True)
    return process is not None


def put_account(broker: Broker, name: str, *, reads: Sequence[str] = (), writes: Sequence[str] = ()) -> Security:
    """Make an account of a secured broker with a new password and certificate, or give these to one that is there.

    Connections that stand go on with what they had; each new one needs the new password.

    Args:
        broker: which.
        name: of the account.
        reads: topics that it may read, beside those that it already may.
        writes: topics that it may make and write to, beside those that it already may.

    Returns:
        Where its secrets are.

    Raises:
        ConfigError: the broker is open, or the name cannot be an account's.
        SourceUnavailable: the broker does not answer.
    """
    security = Security.of(broker.folder)
    if security is None or broker.tls_bootstrap is None:
        raise ConfigError(
            "This broker is open: it has no accounts.",
            where=str(broker.folder),
            remedy="lakehouse broker stop, then lakehouse broker start --secure",
        )
    options = security.client_options(BROKER, "certificate")
    kafka_admin.put_password(broker.tls_bootstrap, name, security.add_account(name), options)
    kafka_admin.allow(broker.tls_bootstrap, name, options, reads=reads, writes=writes)
    return security


def _security(folder: Path, *, secure: bool) -> Security | None:
    return Security.make(folder) if secure else Security.of(folder)


def _write_settings(folder: Path, port: int, security: Security | None, tls_port: int | None) -> None:
    controller_port = free_port()
    secured = security.server_settings(port, tls_port, controller_port) if security and tls_port else None
    properties = server_properties(folder, port, controller_port, secured)
    (folder / "server.properties").write_text(properties)
    (folder / "log4j2.xml").write_text(log_settings(folder))


def _command(folder: Path, java: Path, jars: list[Path], heap_mb: int, archive: ClassArchive) -> list[str]:
    return [
        str(java),
        f"-Xmx{heap_mb}m",
        f"-Xms{min(heap_mb, 128)}m",
        *_COLLECTOR,
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={folder / 'log4j2.xml'}",
        *archive.flags(),
        *("-cp", class_path(jars), _MAIN_CLASS, str(folder / "server.properties")),
    ]


def _format(folder: Path, java: Path, jars: list[Path]) -> None:
    """Give a new data folder its cluster id; an existing one is left as it is."""
    if (folder / "kafka" / "meta.properties").is_file():
        return
    answer = subprocess.run(
        [
            *(str(java), "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            f"-Dlog4j2.configurationFile={folder / 'log4j2.xml'}",
            *("-cp", class_path(jars), "kafka.tools.StorageTool", "format", "--ignore-formatted"),
            *("-t", _cluster_id(), "-c", str(folder / "server.properties")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise LakehouseError(
            f"Kafka could not prepare its data folder:\n{_tail(answer.stdout + answer.stderr)}",
            where=str(folder / "kafka"),
            remedy="check that the disk has space and that the folder is yours",
        )


def _cluster_id() -> str:
    """A random id as Kafka writes it: 16 bytes in URL-safe Base64, which must not look like an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def _launch(folder: Path, command: list[str]) -> psutil.Process:
    """Start the JVM in a session of its own, so that a Ctrl-C meant for its starter does not reach it."""
    log = folder / LOG
    to_log = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    actions = [to_log, (os.POSIX_SPAWN_DUP2, 1, 2), (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    return psutil.Process(os.posix_spawn(command[0], command, os.environ, file_actions=actions, setsid=True))


def _await_service(broker: Broker, process: psutil.Process) -> None:
    """Return when the broker answers a metadata request; raise when it dies or `START_TIMEOUT_S` is over."""
    deadline = time.monotonic() + START_TIMEOUT_S
    security = Security.of(broker.folder) if broker.tls_bootstrap else None
    options = security.client_options(BROKER, "certificate") if security else None
    while time.monotonic() < deadline:
        if _has_ended(process, within_s=_POLL_S):
            (broker.folder / _STATE).unlink(missing_ok=True)
            raise _death(broker, "The Kafka broker stopped while it started")
        if not _listens(broker.port):
            continue
        with contextlib.suppress(SourceUnavailable):
            if kafka_admin.brokers(broker.tls_bootstrap or broker.bootstrap, options):
                return
    _end(process, timeout_s=5)
    (broker.folder / _STATE).unlink(missing_ok=True)
    raise _death(broker, f"The Kafka broker did not serve within {START_TIMEOUT_S:.0f} s")


def _death(broker: Broker, what: str) -> LakehouseError:
    log = broker.folder / LOG
    return LakehouseError(
        f"{what}:\n{_tail(log.read_text(errors='replace') if log.exists() else '')}",
        where=str(log),
        remedy="see the log; if its data is damaged and not needed, remove the folder kafka beside it",
    )


def _has_ended(process: psutil.Process, within_s: float) -> bool:
    """Wait at most `within_s` for the end; also takes a dead child off the process table."""
    try:
        process.wait(within_s)
    except psutil.TimeoutExpired:
        return False
    return True


def _end(process: psutil.Process, timeout_s: float) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(psutil.NoSuchProcess):
            # psutil compares the creation time once more: a reused number is never signalled.
            process.send_signal(number)
        if _has_ended(process, timeout_s):
            return


# --- state: which process, and where ---


def _write_state(broker: Broker, archive: ClassArchive) -> None:
    state = asdict(broker) | {
        "folder": str(broker.folder),
        "started_at": broker.started_at.isoformat(),
        "archive": {"path": str(archive.path), "draft": str(archive.draft)},
    }
    fresh = broker.folder / f"{_STATE}.new"
    fresh.write_text(json.dumps(state, indent=1) + "\n")
    fresh.replace(broker.folder / _STATE)


def _read_state(folder: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((folder / _STATE).read_text())
        int(state["pid"]), int(state["port"]), str(state["bootstrap"])
        datetime.fromisoformat(state["started_at"])
        str(state["archive"]["path"]), str(state["archive"]["draft"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(state)


def _last_port(folder: Path) -> int | None:
    state = _read_state(folder)
    return int(state["port"]) if state else None


def _process_of(state: dict[str, Any], folder: Path) -> psutil.Process | None:
    """The live process that `state` speaks of: the same number, and Kafka with this folder's settings.

    Not its creation time: that is counted from boot, and shifts where the clock is set, as after a suspension.
    """
    try:
        process = psutil.Process(int(state["pid"]))
        is_ours = process.status() != psutil.STATUS_ZOMBIE and process.cmdline()[-2:] == [
            _MAIN_CLASS,
            str(folder / "server.properties"),
        ]
    except psutil.Error:
        return None
    return process if is_ours else None


@contextlib.contextmanager
def _only_one_start(folder: Path) -> Iterator[None]:
    """Two starts at once in one folder: the second waits, and finds the first one's broker."""
    import fcntl  # noqa: PLC0415 - absent on Windows, where importing this module must still work

    with (folder / "broker.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- ports ---


def _choose_port(wanted: int | None, last: int | None) -> int:
    if wanted is not None:
        if not _is_free(wanted):
            raise ConfigError(
                f"Port {wanted} is taken by another program.",
                where=f"{HOST}:{wanted}",
                remedy="choose another port, or leave it out to get a free one",
            )
        return wanted
    return next((port for port in (last, DEFAULT_PORT) if port and _is_free(port)), None) or free_port()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Kafka does: connections of a predecessor that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port of the loopback address that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _tail(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(f"    {line}" for line in lines[-_LOG_LINES_SHOWN:]) or "    (it wrote nothing)"
