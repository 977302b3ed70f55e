"""Secrets planted in every place of a pipeline's file, and values in its events, are found in nothing that is told.

`test_logs.py` plants them in figures and alerts of a running pipeline; here are the file itself, mistakes in it,
lineage, savepoints, logs at every level, and the processes that are started.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner

from lakehouse import logs, operate, savepoints
from lakehouse.alerts.channels import outboxes
from lakehouse.cli import app
from lakehouse.config.loader import load_pipeline, show
from lakehouse.config.models import Pipeline
from lakehouse.errors import ConfigError, QualityError
from lakehouse.lineage.tracer import Tracer
from lakehouse.maintenance import background
from lakehouse.metrics.record import Sample
from lakehouse.metrics.telemetry import Telemetry
from lakehouse.quality.watch import Outcome
from lakehouse.session import SECRET_NAMES, STREAMING
from lakehouse.storage import storage_environment
from tests import maintained
from tests.maintained import START_S, Stream
from tests.pipelines import small_pipeline

VALUE = "canary-value-of-an-event"
SECRETS = {
    "KAFKA_PASSWORD": "canary-kafka-password",
    "KEYSTORE_PASSWORD": "canary-keystore-password",
    "HOOK_TOKEN": "canary-hook-token",
    "CHAT_TOKEN": "canary-chat-token",
    "LINEAGE_PATH": "canary-lineage-path",
    "LINEAGE_TOKEN": "canary-lineage-token",
    "AWS_ACCESS_KEY_ID": "canary-access-key",
    "AWS_SECRET_ACCESS_KEY": "canary-secret-key",
    "AWS_SESSION_TOKEN": "canary-session-token",
}
JAAS = 'org.apache.kafka.common.security.scram.ScramLoginModule required username="u" password="${KAFKA_PASSWORD}";'


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Everything that is logged, from DEBUG on; the secrets are in the environment."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    stream, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(stream), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)
    logs._Current.secrets = ()


def described(root: Path) -> dict[str, Any]:
    """A pipeline's file with a secret in every place that takes one, from the environment and from a file."""
    keystore = root / "keystore"
    keystore.write_text(SECRETS["KEYSTORE_PASSWORD"] + "\n")
    raw = small_pipeline(root / "tables").model_dump(mode="json", exclude_defaults=True)
    raw["source"]["options"] = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": JAAS,
        "ssl.keystore.password": f"${{file:{keystore}}}",
    }
    raw["alerts"] = {
        "rules": {"gone": {"kind": "absence", "rollup": "by_page", "window": "30s"}},
        "notify": {
            "hook": {"kind": "webhook", "url": "http://127.0.0.1:1/${HOOK_TOKEN}"},
            "chat": {"kind": "slack", "url": "http://u:${CHAT_TOKEN}@127.0.0.1:1/x"},
        },
    }
    raw["lineage"] = {"to": {"kind": "http", "url": "http://127.0.0.1:1/${LINEAGE_PATH}", "token": "${LINEAGE_TOKEN}"}}
    raw["quality"]["suite"] = str(Path(raw["quality"]["suite"]).resolve())
    return raw


def written(root: Path, raw: dict[str, Any]) -> Path:
    path = root / "pipeline.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def require_clean(*texts: str) -> None:
    for text in texts:
        for canary in (*SECRETS.values(), VALUE):
            assert canary not in text, f"{canary} in {text[:2_000]}"


@pytest.mark.usefixtures("said")
def test_the_secrets_arrive_where_they_belong(tmp_path: Path) -> None:
    pipeline = load_pipeline(written(tmp_path, described(tmp_path)))
    known = logs.secrets_of(pipeline)
    for name in ("KAFKA_PASSWORD", "KEYSTORE_PASSWORD", "LINEAGE_TOKEN"):
        assert SECRETS[name] in known
    for part in ("HOOK_TOKEN", "CHAT_TOKEN", "LINEAGE_PATH"):
        assert [secret for secret in known if SECRETS[part] in secret]
    assert storage_environment()["AWS_SECRET_ACCESS_KEY"] == SECRETS["AWS_SECRET_ACCESS_KEY"], "for the executors"


def test_commands_that_show_the_file(tmp_path: Path, said: io.StringIO) -> None:
    path = written(tmp_path, described(tmp_path))
    pipeline = load_pipeline(path)
    require_clean(show(pipeline), repr(pipeline), str(pipeline), pipeline.model_dump_json())
    for arguments in (
        ["validate", str(path), "--no-online"],
        ["validate", str(path), "--no-online", "--json"],
        ["validate", str(path), "--json"],
        ["cost", str(path), "--rate", "1000", "--json"],
        ["doctor", str(path), "--json"],
        ["alerts", str(path), "--once", "--json"],
        ["savepoint", "list", str(path), "--json"],
        ["quarantine", "list", str(path)],
    ):
        run = CliRunner().invoke(app, arguments)
        require_clean(run.output, str(run.exception))
    require_clean(said.getvalue())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("source", "options", "bootstrap.servers"), "${KAFKA_PASSWORD}"),
        (("source", "options"), ["${KAFKA_PASSWORD}"]),
        (("source", "options", "ssl.key.password"), {"oops": "${KAFKA_PASSWORD}"}),
        (("alerts", "notify", "hook", "url"), "${HOOK_TOKEN}"),
        (("alerts", "notify", "hook", "urll"), "http://x/${HOOK_TOKEN}"),
        (("alerts", "notify", "hook"), "http://x/${HOOK_TOKEN}"),
        (("lineage", "to", "url"), "${LINEAGE_PATH}"),
        (("lineage", "to", "tokn"), "${LINEAGE_TOKEN}"),
        (("lineage", "to", "token"), ["${LINEAGE_TOKEN}"]),
        (("lineage", "to"), "http://x/${LINEAGE_PATH}"),
        (("lineage", "namespace"), "${file:keystore}"),
        (("name",), "${file:keystore}"),
    ],
)
def test_a_mistake_beside_a_secret_is_told_without_it(
    place: tuple[str, ...], value: Any, tmp_path: Path, said: io.StringIO
) -> None:
    raw = described(tmp_path)
    inner = raw
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(ConfigError) as caught:
        load_pipeline(written(tmp_path, raw))
    require_clean(str(caught.value), repr(caught.value), said.getvalue())
    run = CliRunner().invoke(app, ["validate", str(tmp_path / "pipeline.yaml"), "--json"])
    require_clean(run.output)


def test_a_run_with_everything_on(
    tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures, alerts to receivers that refuse, lineage, a savepoint: logs at DEBUG and every file beside the data."""
    events = maintained.events

    def with_values(first: int, count: int, *, at_s: float, late: int = 0) -> pa.Table:
        rows = events(first, count, at_s=at_s, late=late)
        planted = pa.array([f"{VALUE}-{number}" for number in range(count)])
        return rows.set_column(rows.column_names.index("id"), rows.schema.field("id"), planted)

    monkeypatch.setattr(maintained, "events", with_values)
    raw = described(tmp_path)
    raw["root"] = str(tmp_path)
    pipeline = load_pipeline(written(tmp_path, raw))
    logs.configure(pipeline, as_json=True)
    stream = Stream(tmp_path)
    stream.send(8, at_s=START_S)
    assert stream.sink.head is not None
    outcomes = (Outcome("ids", 8, failed=2), Outcome("largest", 8, value=f"{VALUE}-7", success=False, of_events=True))
    bodies: list[bytes] = []
    assert pipeline.lineage.to is not None
    monkeypatch.setattr("lakehouse.lineage.tracer._END_S", 30.0)
    for tracer in (
        Tracer(pipeline, pipeline.lineage.to),  # its receiver is not there
        Tracer(pipeline, pipeline.lineage.to, send=bodies.append),
    ):
        telemetry = Telemetry.open(pipeline, sample=lambda _: Sample(START_S))
        telemetry.tell(tracer.committed)
        telemetry.committed(stream.sink.head, outcomes, 1, 0.1, 0.1)
        telemetry.close()
        with pytest.raises(QualityError), tracer.running():
            raise QualityError(f"the value is {VALUE}")
    for box in outboxes(pipeline):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger("lakehouse").log(level, "options %s", [pipeline.source.options, *SECRETS.values()])
        box.close()
    made = savepoints.create(pipeline, "before", note="a test")
    told = capsys.readouterr()
    beside = b"".join(
        path.read_bytes()
        for folder in ("_ops", "_savepoints")
        for path in (tmp_path / folder).rglob("*")
        if path.is_file()
    )
    assert b"FAIL" in b"".join(bodies)
    assert b"dataQualityAssertions" in b"".join(bodies)
    assert '"level":"debug"' in said.getvalue()
    require_clean(told.out, told.err, said.getvalue(), savepoints.said(made), telemetry.exporter.text())
    require_clean(beside.decode(errors="replace"), b"".join(bodies).decode(), json.dumps(savepoints.to_dict(made)))
    assert VALUE in str(stream.silver().to_pylist())


@pytest.mark.usefixtures("said")
def test_no_process_is_started_with_a_secret_in_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `ps` shows of the driver's children; its JVM's arguments are settings, none of which is a secret."""
    commands: list[list[str]] = []

    class Recorded:
        def __init__(self, command: list[str], **_: Any) -> None:
            commands.append(command)

        def start(self) -> None:
            pass

        def stop(self) -> None:
            pass

    monkeypatch.setattr(operate, "Background", Recorded)
    monkeypatch.setattr(background, "Background", Recorded)
    path = written(tmp_path, described(tmp_path))
    pipeline: Pipeline = load_pipeline(path)
    monkeypatch.setattr(Telemetry, "open", classmethod(lambda *_: Telemetry(pipeline)))
    monkeypatch.setattr(Telemetry, "close", lambda _: None)
    with operate.operated(path, pipeline.model_copy(update={"lineage": small_pipeline(tmp_path).lineage})):
        assert len(commands) == 2
    require_clean(json.dumps(commands), json.dumps(STREAMING))
    assert not [name for name in STREAMING if re.search(SECRET_NAMES, name) and "redaction" not in name]


@pytest.mark.parametrize(
    "name",
    [
        "kafka.sasl.jaas.config",
        "kafka.ssl.keystore.password",
        "kafka.ssl.key.password",
        "kafka.ssl.keystore.key",
        "kafka.ssl.truststore.password",
        "kafka.sasl.oauthbearer.token.endpoint.url",
        "spark.hadoop.fs.s3a.secret.key",
        "spark.hadoop.fs.s3a.access.key",
        "spark.hadoop.fs.s3a.session.token",
        "spark.executorEnv.AWS_SECRET_ACCESS_KEY",
    ],
)
def test_spark_shows_no_such_setting(name: str) -> None:
    assert re.search(SECRET_NAMES, name)
    assert re.search(STREAMING["spark.sql.redaction.options.regex"].replace("|(?i)url", "|url"), name)
