from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from lakehouse import jars
from lakehouse.errors import EnvironmentProblem
from lakehouse.jars import Artifact

if TYPE_CHECKING:
    from pathlib import Path


def artifact(name: str, content: bytes) -> Artifact:
    return Artifact("spark", "org.example", name, "1.0", hashlib.sha256(content).hexdigest())


CONTENT = {"one-1.0.jar": b"first jar", "two-1.0.jar": b"second jar"}
WANTED = (artifact("one", b"first jar"), artifact("two", b"second jar"))


class Repository:
    """Stands in for the fetch: serves `content` and remembers what was asked of it."""

    def __init__(self) -> None:
        self.content = dict(CONTENT)
        self.asked: list[str] = []

    def fetch(self, missing: tuple[Artifact, ...], into: Path, _work: Path) -> None:
        for each in missing:
            self.asked.append(each.filename)
            (into / each.filename).write_bytes(self.content[each.filename])


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Repository:
    stand_in = Repository()
    monkeypatch.setattr(jars, "_fetch", stand_in.fetch)
    return stand_in


def test_missing_jars_are_fetched_once(tmp_path: Path, repository: Repository) -> None:
    folder = tmp_path / "jars" / "spark"
    paths = jars.ensure(WANTED, folder)
    assert [path.read_bytes() for path in paths] == [b"first jar", b"second jar"]
    made = folder.stat().st_ino
    assert jars.ensure(WANTED, folder) == paths
    assert folder.stat().st_ino == made
    assert repository.asked == ["one-1.0.jar", "two-1.0.jar"]
    assert [path.name for path in folder.parent.iterdir() if not path.name.startswith(".")] == ["spark"]


def test_only_what_is_damaged_or_new_is_fetched_again(tmp_path: Path, repository: Repository) -> None:
    folder = tmp_path / "spark"
    jars.ensure(WANTED, folder)
    (folder / "two-1.0.jar").write_bytes(b"cut")
    repository.asked.clear()
    jars.ensure(WANTED, folder)
    assert repository.asked == ["two-1.0.jar"]
    repository.content["three-1.0.jar"] = b"third jar"
    repository.asked.clear()
    jars.ensure((*WANTED, artifact("three", b"third jar")), folder)
    assert repository.asked == ["three-1.0.jar"]


def test_jars_that_the_lock_no_longer_names_leave(tmp_path: Path, repository: Repository) -> None:
    jars.ensure(WANTED, tmp_path / "spark")
    jars.ensure(WANTED[:1], tmp_path / "spark")
    assert sorted(path.name for path in (tmp_path / "spark").iterdir()) == ["one-1.0.jar", jars.STAMP]
    assert len(repository.asked) == 2


def test_wrong_bytes_are_deleted_and_named(tmp_path: Path, repository: Repository) -> None:
    repository.content["two-1.0.jar"] = b"something else"
    with pytest.raises(EnvironmentProblem, match=re.escape("two-1.0.jar")) as caught:
        jars.ensure(WANTED, tmp_path / "spark")
    assert "one-1.0.jar" not in str(caught.value)
    assert not list(tmp_path.rglob("*.jar"))


def test_a_damaged_stamp_is_not_trusted(tmp_path: Path, repository: Repository) -> None:
    jars.ensure(WANTED, tmp_path / "spark")
    for text in ("", "[]", '{"lock": 1}', json.dumps({"lock": "x", "bytes": {}})):
        (tmp_path / "spark" / jars.STAMP).write_text(text)
        assert not jars.is_verified(WANTED, tmp_path / "spark")
    jars.ensure(WANTED, tmp_path / "spark")
    assert len(repository.asked) == 2


def test_a_machine_without_network_gets_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_MAVEN_REPO", (tmp_path / "no-repository").as_uri() + "/")
    with pytest.raises(EnvironmentProblem) as caught:
        jars.ensure(WANTED, tmp_path / "spark")
    assert caught.value.what == "one-1.0.jar, two-1.0.jar could not be fetched."
    assert "LAKEHOUSE_MAVEN_REPO" in (caught.value.remedy or "")


def test_ivy_fetches_from_the_repository_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "repository" / "org" / "example" / "one" / "1.0"
    place.mkdir(parents=True)
    (place / "one-1.0.jar").write_bytes(b"first jar")
    monkeypatch.setenv("LAKEHOUSE_MAVEN_REPO", (tmp_path / "repository").as_uri() + "/")
    (path,) = jars.ensure(WANTED[:1], tmp_path / "jars" / "spark")
    assert path.read_bytes() == b"first jar"


def test_the_lock_is_complete_and_names_no_host() -> None:
    text = jars.LOCK_FILE.read_text()
    assert "://" not in text
    for group in jars.GROUPS:
        locked = jars.artifacts(group)
        assert len({each.filename for each in locked}) == len(locked)
        assert all(re.fullmatch(r"[0-9a-f]{64}", each.sha256) for each in locked)
    names = {(each.name, each.rev) for each in jars.artifacts("spark")}
    assert {("delta-spark_4.2_2.13", "4.4.0"), ("spark-sql-kafka-0-10_2.13", "4.2.0")} <= names
    assert ("kafka_2.13", "4.4.0") in {(each.name, each.rev) for each in jars.artifacts("broker")}


def test_no_locked_spark_jar_is_one_that_pyspark_ships() -> None:
    shipped = {re.sub(r"-\d.*", "", jar.name) for jar in jars._ivy_jar().parent.glob("*.jar")}
    assert shipped
    assert not shipped & {each.name for each in jars.artifacts("spark")}


def test_ivy_file_pins_each_jar_without_what_it_depends_on() -> None:
    root = ET.fromstring(jars.ivy_file(WANTED))  # noqa: S314 - our own text
    found = [dict(each.attrib) for each in root.iter("dependency")]
    assert found[0] == {"org": "org.example", "name": "one", "rev": "1.0", "transitive": "false"}
    assert len(found) == 2


@pytest.mark.parametrize(("root", "expected"), [(None, None), ("file:///a&b/", "file:///a&b/")])
def test_settings_name_a_repository_only_on_request(root: str | None, expected: str | None) -> None:
    resolver = next(ET.fromstring(jars.settings_file(root)).iter("ibiblio"))  # noqa: S314 - our own text
    assert resolver.get("root") == expected


def test_proxies_of_the_environment_reach_java() -> None:
    assert jars.proxy_flags({}) == []
    assert jars.proxy_flags({"https": "http://user:secret@proxy.local:3128"}) == [
        "-Dhttps.proxyHost=proxy.local",
        "-Dhttps.proxyPort=3128",
    ]
