"""`lakehouse recover` and `lakehouse doctor` as people and scripts call them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lakehouse import kafka_admin
from lakehouse.cli import app
from lakehouse.errors import SecondDriver
from lakehouse.kafka_admin import TopicState
from lakehouse.lock import driver_lock
from lakehouse.sinks.onepass import OnePass
from lakehouse.sinks.sink import Sink
from tests.pipelines import SUITE, answers, small_pipeline

runner = CliRunner()


@pytest.fixture
def pipeline_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A pipeline at rest whose topic lost the four records that come next."""
    pipeline = small_pipeline(tmp_path)
    one_pass = OnePass(str(tmp_path), pipeline, {})
    sink = Sink.open(one_pass)
    for number, first in enumerate((0, 3)):
        batch = sink.next_batch("q", number, {"clicks": {0: first}}, {"clicks": {0: first + 3}}, "s", {"clicks": "id"})
        sink.write(batch, answers(one_pass, first, 3))
    sink.close()
    monkeypatch.setattr(kafka_admin, "topic_state", lambda *_: TopicState("id", {0: (10, 20)}))
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "localhost:1")
    raw = pipeline.model_dump(mode="json") | {"quality": {"suite": str(SUITE)}}
    # The suite in the repository is about other fields; recovery judges nothing.
    path = tmp_path / "clicks.yaml"
    path.write_text(yaml.safe_dump(raw))
    return str(path)


def test_the_plan_is_shown_first_and_nothing_is_done_without_a_yes(pipeline_file: str) -> None:
    refused = runner.invoke(app, ["recover", pipeline_file], input="n\n")
    assert refused.exit_code == 1
    assert "lost for good: clicks partition 0, offsets 6–10" in refused.output
    assert "goes on at clicks 0:10" in refused.output
    planned = runner.invoke(app, ["recover", pipeline_file, "--json"])
    assert planned.exit_code == 1
    plan = json.loads(planned.output)
    assert (plan["healthy"], plan["done"]) == (False, False)
    assert [step["kind"] for step in plan["steps"]] == ["acknowledge"]


def test_a_yes_carries_it_out_and_a_second_call_has_nothing_to_do(pipeline_file: str) -> None:
    sick = runner.invoke(app, ["doctor", pipeline_file])
    assert sick.exit_code == 1
    assert "6–10" in sick.output
    done = runner.invoke(app, ["recover", pipeline_file], input="y\n")
    assert done.exit_code == 0, done.output
    assert done.output.endswith("done\n")
    again = runner.invoke(app, ["recover", pipeline_file, "--yes", "--json"])
    assert again.exit_code == 0
    assert json.loads(again.output)["healthy"]
    healthy = runner.invoke(app, ["doctor", pipeline_file, "--json"])
    assert healthy.exit_code == 0
    assert json.loads(healthy.output)["healthy"]


def test_recover_refuses_while_a_driver_runs(pipeline_file: str, tmp_path: Path) -> None:
    with driver_lock(f"{tmp_path}/_checkpoints/clicks"):
        refused = runner.invoke(app, ["recover", pipeline_file, "--yes"])
    assert isinstance(refused.exception, SecondDriver)
    assert "process" in str(refused.exception)
    with driver_lock(f"{tmp_path}/_checkpoints/clicks"):
        pass  # it was let go
