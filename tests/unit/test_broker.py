"""The broker's bookkeeping, with a harmless process in the JVM's place; a real broker is in tests/integration."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lakehouse import broker
from lakehouse.broker_settings import HOST, log_settings, server_properties
from lakehouse.class_archive import ClassArchive, class_archive, class_path
from lakehouse.errors import ConfigError

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
ON_TERM = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: (open({!r}, 'w').close(), sys.exit())); "
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER

Launch = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start a process that looks like the broker of `tmp_path`: its command names the settings file."""
    started: list[subprocess.Popen[bytes]] = []

    def run(code: str = SLEEPER, named: str | None = None, program: str = "kafka.Kafka") -> subprocess.Popen[bytes]:
        settings = named or str(tmp_path.resolve() / "server.properties")
        process = subprocess.Popen([sys.executable, "-c", code, program, settings], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def remember(folder: Path, pid: int, **changes: Any) -> None:
    state = {
        "bootstrap": "127.0.0.1:19092",
        "pid": pid,
        "port": 19092,
        "folder": str(folder),
        "started_at": "2026-01-02T03:04:05+00:00",
        "archive": {"path": str(folder / "a.jsa"), "draft": str(folder / "a.draft")},
    }
    (folder / "broker.json").write_text(json.dumps(state | changes))


def test_a_running_broker_is_found(tmp_path: Path, launch: Launch) -> None:
    process = launch()
    remember(tmp_path, process.pid)
    found = broker.status(tmp_path)
    assert found is not None
    assert (found.pid, found.port, found.bootstrap) == (process.pid, 19092, "127.0.0.1:19092")
    assert found.started_at.isoformat() == "2026-01-02T03:04:05+00:00"
    assert broker.start(tmp_path) == found


def test_it_is_found_after_the_clock_was_set(tmp_path: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    process = launch()
    remember(tmp_path, process.pid)
    born = psutil.Process(process.pid).create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: born + 3_600)
    found = broker.status(tmp_path)
    assert found is not None
    assert found.pid == process.pid


def test_no_state_is_no_broker(tmp_path: Path) -> None:
    assert broker.status(tmp_path / "absent") is None
    assert not broker.stop(tmp_path / "absent")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": "x"}', "not json"])
def test_damaged_state_is_no_broker(tmp_path: Path, text: str) -> None:
    (tmp_path / "broker.json").write_text(text)
    assert broker.status(tmp_path) is None
    assert not broker.stop(tmp_path)


def test_another_process_with_the_same_number_is_left_alone(tmp_path: Path, launch: Launch) -> None:
    process = launch(program="editor")
    remember(tmp_path, process.pid)
    assert broker.status(tmp_path) is None
    assert not broker.stop(tmp_path)
    assert process.poll() is None
    assert not (tmp_path / "broker.json").exists()


def test_a_process_that_is_no_broker_of_this_folder_is_left_alone(tmp_path: Path, launch: Launch) -> None:
    process = launch(named="/elsewhere/server.properties")
    remember(tmp_path, process.pid)
    assert broker.status(tmp_path) is None
    assert not broker.stop(tmp_path)
    assert process.poll() is None


def test_stop_asks_first(tmp_path: Path, launch: Launch) -> None:
    process = launch(ON_TERM.format(str(tmp_path / "asked")) + SLEEPER)
    remember(tmp_path, process.pid)
    (tmp_path / "a.draft").write_text("classes")
    assert broker.stop(tmp_path)
    assert (tmp_path / "asked").exists()
    assert not psutil.pid_exists(process.pid)
    assert not (tmp_path / "broker.json").exists()
    assert (tmp_path / "a.jsa").read_text() == "classes"


def test_stop_kills_what_does_not_listen(tmp_path: Path, launch: Launch) -> None:
    process = launch(DEAF)
    remember(tmp_path, process.pid)
    assert broker.stop(tmp_path, timeout_s=0.2)
    assert not psutil.pid_exists(process.pid) or psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE


def test_a_taken_port_is_refused_when_asked_for_and_avoided_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(broker, "DEFAULT_PORT", port)
        with pytest.raises(ConfigError, match=str(port)):
            broker._choose_port(port, None)
        assert broker._choose_port(None, None) != port
        assert broker._choose_port(None, port) != port
    assert broker._choose_port(None, None) == port


def test_the_port_of_a_killed_predecessor_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    port = broker.free_port()
    monkeypatch.setattr(broker, "DEFAULT_PORT", broker.free_port())
    assert broker._choose_port(None, port) == port


def test_the_broker_listens_on_loopback_only_and_makes_no_topic_unasked(tmp_path: Path) -> None:
    lines = server_properties(tmp_path, 9092, 9093).splitlines()
    settings = dict(line.split("=", 1) for line in lines)
    assert settings["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert settings["controller.quorum.voters"] == "1@127.0.0.1:9093"
    assert settings["auto.create.topics.enable"] == "false"
    assert settings["log.dirs"] == str(tmp_path / "kafka")
    assert {settings[name] for name in settings if name.endswith((".replication.factor", ".isr", ".replicas"))} == {"1"}


def test_the_log_s_path_is_escaped(tmp_path: Path) -> None:
    assert "a&amp;b/broker.log" in log_settings(tmp_path / "a&b")


def test_a_cluster_id_is_22_characters_and_no_option() -> None:
    ids = {broker._cluster_id() for _ in range(500)}
    assert len(ids) == 500
    assert all(len(each) == 22 and not each.startswith("-") for each in ids)


def test_the_end_of_the_log_is_shown() -> None:
    text = broker._tail("\n".join(f"line {number}\n" for number in range(100)))
    assert text.splitlines()[-1].strip() == "line 99"
    assert len(text.splitlines()) == 12
    assert broker._tail("") == "    (it wrote nothing)"


def test_a_class_archive_is_written_once_and_used_afterwards(tmp_path: Path) -> None:
    archive = ClassArchive(tmp_path / "x.jsa", tmp_path / "x.draft")
    assert f"-XX:ArchiveClassesAtExit={tmp_path / 'x.draft'}" in archive.flags()
    assert archive.flags(write=False) == ()
    archive.keep()
    assert not archive.path.exists()
    archive.draft.write_text("classes")
    archive.keep()
    assert f"-XX:SharedArchiveFile={tmp_path / 'x.jsa'}" in archive.flags()
    assert archive.flags(write=False) == archive.flags()
    assert not archive.draft.exists()


def test_archives_differ_by_class_path_and_drafts_by_process(tmp_path: Path) -> None:
    java = tmp_path / "java"
    jars = [tmp_path / "b.jar", tmp_path / "a.jar"]
    assert class_path(jars) == class_path(jars[::-1])
    one, again = (class_archive(tmp_path, "broker", java, class_path(jars)) for _ in range(2))
    other = class_archive(tmp_path, "broker", java, class_path(jars[:1]))
    assert one.path == again.path != other.path
    assert one.draft != again.draft
