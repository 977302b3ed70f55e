"""Tables in a bucket: every part over S3, two writers, and what is said where the store is not as it should be."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from lakehouse import kafka_admin, storage
from lakehouse.chain import follows
from lakehouse.doctor import examine
from lakehouse.errors import (
    ConfigError,
    EnvironmentProblem,
    SecondDriver,
    SourceUnavailable,
    StorageError,
    StorageUnavailable,
)
from lakehouse.lock import driver_lock
from lakehouse.maintenance.run import Maintainer
from lakehouse.serving.follower import Follower
from lakehouse.serving.snapshot import Shape
from lakehouse.serving.sql import query
from lakehouse.serving.tables import list_tables
from lakehouse.sinks.delta_log import find_head
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.restores import Restores
from lakehouse.sinks.sink import Sink
from lakehouse.validation import _check_root
from tests import s3_server
from tests.pipelines import answers, small_pipeline

if TYPE_CHECKING:
    from lakehouse.config.models import Pipeline
    from tests.s3_server import Objects

ROOT = f"s3://{s3_server.BUCKET}/team/lake house"
SILVER, GOLD = "silver/clicks", "gold/clicks_by_page_1s"
NEEDS_GATEWAY = pytest.mark.skipif(s3_server.program() is None, reason="no S3 server here: `make s3-server` builds one")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_STATE", str(tmp_path / "machine"))


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name, value in s3_server.environment(url).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:
    """The server of this process."""
    with s3_server.in_process() as (url, held):
        use(monkeypatch, url)
        yield held


@pytest.fixture(params=["apart", pytest.param("gateway", marks=NEEDS_GATEWAY)])
def bucket(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A root on each of the servers."""
    with ExitStack() as stack:
        if request.param == "gateway":
            folder = tmp_path / "gateway"
            folder.mkdir()
            url = stack.enter_context(s3_server.gateway(folder))
        else:
            url = stack.enter_context(s3_server.apart())
        use(monkeypatch, url)
        yield ROOT


def pipeline_in(root: str) -> Pipeline:
    return small_pipeline(root)


def one_pass_in(root: str) -> OnePass:
    return OnePass(storage.resolve_root(root), pipeline_in(root), storage.storage_environment())


def write(sink: Sink, one_pass: OnePass, first: int, count: int, number: int, query_id: str = "q") -> None:
    start, end = {"clicks": {0: first}}, {"clicks": {0: first + count}}
    batch = sink.next_batch(query_id, number, start, end, "suite")
    sink.write(batch, answers(one_pass, first, count))


def test_every_part_works_over_s3(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one_pass = one_pass_in(bucket)
    sink = Sink.open(one_pass)
    for number in range(12):
        write(sink, one_pass, 10 * number, 10, number)
    follower = Follower(f"{bucket}/{GOLD}", Shape.of(*shape()))
    follower.step()
    before = follower.snapshot
    assert before is not None
    write(sink, one_pass, 120, 10, 12)
    follower.step()
    assert follower.snapshot is not before
    sink.close()

    reports = Maintainer(pipeline_in(bucket), clock=lambda: time.time() + 1_000).maintain()
    assert not [report for report in reports if report.error]
    assert {report.table for report in reports if report.rewrites} >= {SILVER, GOLD}
    before_vacuum = objects_in(bucket)
    Maintainer(pipeline_in(bucket), clock=lambda: time.time() + 10_000).maintain()
    assert len(objects_in(bucket)) < len(before_vacuum)

    # A crash is finished from the tables alone; the sum of the rollup is the number of rows.
    again = Sink.open(one_pass_in(bucket))
    assert again.end == {"clicks": {0: 130}}
    again.close()
    counted = query(bucket, "SELECT count(*) AS n, count(DISTINCT _offset) AS d FROM silver.clicks")
    assert counted.to_pylist() == [{"n": 130, "d": 130}]
    assert query(bucket, "SELECT sum(events) AS n FROM gold.clicks_by_page_1s").to_pylist() == [{"n": 130}]
    assert {f"{table.layer}/{table.name}" for table in list_tables(bucket)} >= {SILVER, GOLD}
    monkeypatch.setattr(kafka_admin, "topic_state", away)
    found = examine(pipeline_in(bucket))
    assert found.healthy, str(found)


def objects_in(bucket: str) -> list[str]:
    listed = obstore.list(storage.open_store(bucket))
    return [entry["path"] for entries in listed for entry in entries if entry["path"].endswith(".parquet")]


def shape() -> tuple[object, object]:
    pipeline = pipeline_in(ROOT)
    return pipeline.rollups["by_page"], pipeline.source.fields


def away(*_: object) -> None:
    raise SourceUnavailable("away")


DRIVE = """
import sys
from lakehouse.errors import ChainError, TableError
from lakehouse.sinks.sink import Sink
from tests.unit.test_s3 import one_pass_in, write

root, name = sys.argv[1], sys.argv[2]
one_pass = one_pass_in(root)
sink = Sink.open(one_pass)
print("ready", flush=True)
sys.stdin.readline()
for number in range(4):
    while True:
        try:
            sink = sink or Sink.open(one_pass)
            first = (sink.end or {}).get("clicks", {0: 0})[0]
            write(sink, one_pass, first, 5, number, query_id=name)
            print("won", first, flush=True)
            break
        except (ChainError, TableError):  # the other commits at this moment
            sink = None
"""


def test_of_two_processes_one_wins_each_batch_and_the_chain_stays_whole(bucket: str) -> None:
    """A rival that is refused starts anew, as an orchestrator would: both commit, none twice or over another."""
    Sink.open(one_pass_in(bucket)).close()
    command = [sys.executable, "-c", DRIVE, bucket]
    rivals = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in "ab"
    ]
    for rival in rivals:
        assert rival.stdout is not None
        assert rival.stdout.readline() == "ready\n"
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("\n")
        rival.stdin.flush()
    won = [line for rival in rivals for line in rival.communicate(timeout=120)[0].split("\n") if line.startswith("won")]
    assert len(won) == len(set(won)) == 8
    Sink.open(one_pass_in(bucket)).close()  # finishes what a refused rival had left
    for name in (SILVER, GOLD):
        table = DeltaTable(f"{bucket}/{name}")
        store, ends = storage.open_store(f"{bucket}/{name}"), []
        for version in range(table.version(), 0, -1):
            head = find_head(store, name, version)
            assert head is not None
            ends.append(head)
        for later, earlier in pairwise(ends):
            assert later.covers_same(earlier) or follows(earlier.end, later.start)
    rows = DeltaTable(f"{bucket}/{SILVER}").to_pyarrow_table(columns=["_offset"])
    assert sorted(rows["_offset"].to_pylist()) == list(range(40))
    assert pa.compute.sum(DeltaTable(f"{bucket}/{GOLD}").to_pyarrow_table()["events"]).as_py() == 40


def test_a_store_that_ignores_the_condition_is_refused_by_name(objects: Objects) -> None:
    objects.conditional = False
    with pytest.raises(StorageError, match="overwrites an object") as caught:
        Sink.open(one_pass_in(ROOT))
    assert "If-None-Match" in str(caught.value)
    assert not any("_delta_log" in key for key in objects.bodies)


def test_a_commit_whose_answer_was_lost_is_there_once(objects: Objects) -> None:
    one_pass = one_pass_in(ROOT)
    sink = Sink.open(one_pass)
    lost = []

    def lose(_method: str, key: str) -> bool:
        if "_delta_log" in key and key not in lost:
            lost.append(key)
            return True
        return False

    objects.lose = lose
    write(sink, one_pass, 0, 10, 0)
    sink.close()
    assert len(lost) >= 3
    assert DeltaTable(f"{ROOT}/{SILVER}").version() == 1
    assert DeltaTable(f"{ROOT}/{SILVER}").to_pyarrow_table().num_rows == 10


def test_a_batch_costs_few_requests(objects: Objects) -> None:
    """Per table one file and one commit, and nothing is listed or read: requests are what an object store charges."""
    one_pass = one_pass_in(ROOT)
    sink = Sink.open(one_pass)
    write(sink, one_pass, 0, 10, 0)
    objects.requests.clear()
    write(sink, one_pass, 10, 10, 1)
    sink.close()
    # silver and gold: a file and a commit each; quarantine, which has no row: a commit.
    assert objects.requests == {"PUT": 5}


def test_what_a_store_refuses_is_said_without_its_secrets(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone-else")
    with pytest.raises(StorageError, match="refuses this program") as caught:
        Sink.open(one_pass_in(ROOT))
    assert "AWS_" in str(caught.value)
    said = [str(caught.value), repr(caught.value), str(_check_root(ROOT)), repr(storage.open_store(ROOT))]
    assert _check_root(ROOT).status == "error"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.ACCESS_KEY)
    assert _check_root(ROOT).status == "ok"
    with pytest.raises(StorageError, match="no such bucket"):
        Sink.open(one_pass_in("s3://elsewhere/lake"))
    assert not any(s3_server.SECRET_KEY in text for text in said)
    one_pass = one_pass_in(ROOT)
    sink = Sink.open(one_pass)
    write(sink, one_pass, 0, 10, 0)
    sink.close()
    assert not any(s3_server.SECRET_KEY.encode() in body for body, _ in objects.bodies.values())


def test_a_store_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "http://127.0.0.1:1")
    monkeypatch.setattr(storage, "_PATIENCE_S", 0)
    began = time.monotonic()
    with pytest.raises(StorageUnavailable, match="does not answer") as caught:
        Sink.open(one_pass_in(ROOT))
    assert caught.value.retriable
    assert time.monotonic() - began < 10
    assert _check_root(ROOT).status == "skipped"


def test_what_needs_spark_to_read_a_bucket_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="no client for S3") as caught:
        storage.require_folder(ROOT, "this command reads the tables by Spark", "take a cluster")
    assert "take a cluster" in str(caught.value)
    storage.require_folder(str(tmp_path), "this command reads the tables by Spark", "take a cluster")


def test_credentials_from_files_are_taken_and_kept_out_of_logs(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("canary-from-a-file\n")
    environ = {"AWS_SECRET_ACCESS_KEY_FILE": str(tmp_path / "key")}
    storage.adopt_secret_files(environ)
    assert environ["AWS_SECRET_ACCESS_KEY"] == "canary-from-a-file"
    assert storage.secrets(environ) == {"canary-from-a-file"}
    for content in (None, ""):
        path = tmp_path / f"other-{content}"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID_FILE"):
            storage.adopt_secret_files({"AWS_ACCESS_KEY_ID_FILE": str(path)})


def test_checkpoint_and_locks_are_on_this_machine(tmp_path: Path) -> None:
    place = storage.checkpoint_url(ROOT, "clicks")
    assert place == f"{tmp_path}/machine/_state/lake/team/lake house/_checkpoints/clicks"
    with driver_lock(place), pytest.raises(SecondDriver), driver_lock(place):
        pass
    assert storage.checkpoint_url(str(tmp_path), "clicks") == f"{tmp_path}/_checkpoints/clicks"


def test_a_restore_in_a_bucket_sets_this_machines_checkpoint_aside(bucket: str, tmp_path: Path) -> None:
    checkpoint = Path(storage.checkpoint_url(bucket, "clicks"))
    checkpoint.mkdir(parents=True)
    (checkpoint / "metadata").write_text("{}")
    Restores(bucket, "clicks")._set_checkpoint_aside()
    assert not checkpoint.exists()
    assert [path.read_text() for path in (tmp_path / "machine").rglob("_set_aside/**/metadata")] == ["{}"]


def test_an_object_that_is_moved_is_moved_once(bucket: str) -> None:
    store = storage.open_store(bucket)
    obstore.put(store, "a/x", b"1")
    obstore.put(store, "a/y", b"2")
    storage.move(bucket, "a", "_set_aside/a")
    assert sorted(entry["path"] for listed in obstore.list(store) for entry in listed) == [
        "_set_aside/a/x",
        "_set_aside/a/y",
    ]
