"""One driver per machine, and a topic that has to stay the one it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse import kafka_admin
from lakehouse.chain import Batch
from lakehouse.errors import RecordsExpired, SecondDriver, SourceError, SourceUnavailable, TopicRecreated
from lakehouse.guard import TopicGuard
from lakehouse.kafka_admin import TopicState
from lakehouse.lock import driver_lock
from tests.pipelines import small_pipeline


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    url = f"{tmp_path}/_checkpoints/clicks"
    program = (
        f"from lakehouse.lock import driver_lock\nwith driver_lock({url!r}):\n    print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SecondDriver, match=f"process {holder.pid}"), driver_lock(url):
            pass
        holder.kill()
        holder.wait()
    with driver_lock(url):
        pass


def head() -> Batch:
    return Batch("clicks", "q", 0, {"clicks": {0: 0}}, {"clicks": {0: 9}}, {}, "s", {}, topic_ids={"clicks": "id-1"})


class Cluster:
    """What Kafka says about the topic, as a test changes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = TopicState("id-1", {0: (0, 20)})
        self.away = False
        monkeypatch.setattr(kafka_admin, "topic_state", lambda *_: self.ask())
        monkeypatch.setattr(kafka_admin, "topic_id", lambda *_: self.ask().topic_id)

    def ask(self) -> TopicState:
        if self.away:
            raise SourceUnavailable("away")
        return self.state


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_a_topic_made_anew_beside_the_batches_is_noticed(cluster: Cluster, tmp_path: Path) -> None:
    guard = TopicGuard(small_pipeline(tmp_path).source, None)
    assert guard.topic_ids == {"clicks": "id-1"}
    guard.watch()
    cluster.away = True
    guard.watch()
    cluster.away, cluster.state = False, TopicState("id-2", {0: (0, 1)})
    with pytest.raises(TopicRecreated, match="id-2"):
        guard.watch()


def test_a_cluster_without_topic_ids_is_taken_at_its_word(cluster: Cluster, tmp_path: Path) -> None:
    cluster.state = TopicState(None, {0: (0, 20)})
    guard = TopicGuard(small_pipeline(tmp_path).source, head())
    assert guard.topic_ids == {}
    guard.watch()


def test_a_failure_to_read_is_explained_by_what_became_of_the_topic(cluster: Cluster, tmp_path: Path) -> None:
    guard = TopicGuard(small_pipeline(tmp_path).source, head())
    cluster.state = TopicState("id-1", {0: (15, 20)})
    with pytest.raises(RecordsExpired, match="9–15"), guard.explaining(head):
        raise SourceError("Spark: some data may have been lost")
    cluster.state = TopicState("id-1", {0: (0, 20)})
    with pytest.raises(SourceError, match="Spark"), guard.explaining(head):
        raise SourceError("Spark: some data may have been lost")
