"""Kafka accepts connections and answers nothing: the pipeline says so, waits, and every record is there once.

The pipeline is started as docker-compose.yml starts it. Stopping the broker's process leaves its port to the system,
which goes on taking connections: no line is more half open than that. A line that is cut is like a broker that is gone,
which test_pipeline.py has.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from deltalake import DeltaTable

from lakehouse import kafka_admin
from lakehouse.config.loader import load_pipeline
from lakehouse.errors import SourceUnavailable
from lakehouse.reconcile import reconcile
from tests.integration.stack import until

if TYPE_CHECKING:
    from lakehouse.broker import Broker
    from tests.integration.stack import Stack

PROJECT = Path(__file__).parent.parent.parent
FILE = "conf/feature_events.yaml"


def test_a_half_open_line_to_kafka_is_waited_for_and_costs_no_record(
    stack: Stack, broker: Broker, tmp_path: Path
) -> None:
    file, log, root = stack.file(tmp_path), tmp_path / "pipeline.log", tmp_path / "tables"
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]["pipeline"]["command"]
    command = [sys.executable, "-m", *(str(file) if word == FILE else word for word in compose)]
    environment = {**os.environ, "LAKEHOUSE_ROOT": str(root), "KAFKA_BOOTSTRAP": stack.bootstrap}

    def rows() -> int:
        layers = (root / layer / "feature_events" for layer in ("silver", "quarantine"))
        return sum(DeltaTable(str(path)).count() for path in layers if (path / "_delta_log").is_dir())

    def answers() -> bool:
        try:
            kafka_admin.topic_state(stack.bootstrap, stack.topic)
        except SourceUnavailable:
            return False
        return True

    stack.send(400, seed=1)
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        until(lambda: rows() == 400, "the first records", timeout_s=120)
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            with pytest.raises(SourceUnavailable, match="No Kafka broker answers"):
                kafka_admin.topic_state(stack.bootstrap, stack.topic)
            until(lambda: '"event":"waiting"' in log.read_text(), "a word about Kafka", timeout_s=120)
            assert rows() == 400
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        until(answers, "Kafka's answer", timeout_s=60)
        stack.send(400, seed=2)
        until(lambda: rows() == 800, "the records after the cut", timeout_s=120)
    finally:
        process.send_signal(signal.SIGINT)  # as a terminal does; Spark would put a handler of its own in the way
        process.wait(60)
    assert '"event":"stopped"' in log.read_text()
    assert "Traceback" not in log.read_text()
    assert reconcile(load_pipeline(file, environment)).ok
