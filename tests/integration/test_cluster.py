"""The job by spark-submit on a standalone cluster: one master, two workers, the project shipped as a wheel."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyspark
import pytest
import yaml

from lakehouse.jars import ensure_jars
from lakehouse.java import find_java
from tests.integration.stack import CONFIG, Stack, until

PROJECT = Path(__file__).parent.parent.parent
SPARK_HOME = Path(pyspark.__file__).parent


def environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "SPARK_HOME": str(SPARK_HOME),
        "JAVA_HOME": str(find_java().parent.parent),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        **more,
    }


@pytest.fixture
def master(tmp_path: Path) -> Iterator[str]:
    """A standalone master and two workers of one core each; yields the master's URL."""
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> Path:
            log = tmp_path / f"{name}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [str(SPARK_HOME / "bin" / "spark-class"), *arguments],
                    env=environment(SPARK_WORKER_DIR=str(tmp_path / name)),
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )

            def end() -> None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)

            stack.callback(end)
            return log

        log = start(
            "master", "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0"
        )
        found: list[str] = []

        def is_up() -> bool:
            found[:] = re.findall(r"spark://127\.0\.0\.1:\d+", log.read_text())
            return bool(found)

        until(is_up, "the master's start")
        for number in (1, 2):
            start(
                f"worker{number}", "org.apache.spark.deploy.worker.Worker", "--cores", "1", "--memory", "1g",
                "--host", "127.0.0.1", "--webui-port", "0", found[0],
            )  # fmt: skip
        until(lambda: log.read_text().count("Registering worker") == 2, "both workers' registration")
        yield found[0]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as users ship it."""
    folder = tmp_path_factory.mktemp("wheel")
    arguments = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(PROJECT)]
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)
    return next(folder.glob("lakehouse-*.whl"))


@pytest.mark.timeout(300)
def test_a_standalone_cluster_gives_the_same_tables(stack: Stack, master: str, wheel: Path, tmp_path: Path) -> None:
    stack.send(3_000, seed=1)
    raw = yaml.safe_load(CONFIG.read_text())
    raw["source"]["topic"] = stack.topic
    raw["quality"]["suite"] = str(PROJECT / "expectations" / "feature_events.json")
    raw["trigger"] = {"kind": "available_now"}
    pipeline_file = tmp_path / "cluster.yaml"
    pipeline_file.write_text(yaml.safe_dump(raw))

    def submit() -> str:
        finished = subprocess.run(
            [
                str(SPARK_HOME / "bin" / "spark-submit"),
                "--master", master,
                "--executor-memory", "512m",
                "--conf", "spark.ui.enabled=false",
                "--conf", "spark.driver.host=127.0.0.1",
                "--conf", "spark.eventLog.enabled=true",
                "--conf", f"spark.eventLog.dir={tmp_path.as_uri()}",
                "--conf", "spark.eventLog.compress=false",
                "--jars", ",".join(map(str, ensure_jars("spark"))),
                "--py-files", str(wheel),
                str(PROJECT / "jobs" / "ingest.py"),
                str(pipeline_file),
            ],
            env=environment(LAKEHOUSE_ROOT=str(stack.root), KAFKA_BOOTSTRAP=stack.bootstrap),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=240,
            check=False,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stdout[-3_000:] + finished.stderr[-3_000:]
        return finished.stdout

    submit()
    stack.send(2_000, seed=2)
    submit()
    proof = stack.reconcile()
    assert proof.ok, proof
    assert proof.records == 5_000
    # The tasks ran on the workers, not in the driver.
    events = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file() and "app-" in path.name)
    assert {"0", "1"} <= set(re.findall(r'"Event":"SparkListenerExecutorAdded".*?"Executor ID":"(\d+)"', events))
    assert not re.findall(r'"Event":"SparkListenerTaskEnd".*?"Executor ID":"driver"', events)
