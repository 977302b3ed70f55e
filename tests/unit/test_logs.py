"""Log lines as JSON with their micro-batch; no secret and no event value in logs, metrics or `_ops`: canaries."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from lakehouse import logs
from lakehouse.alerts.channels import as_slack, as_webhook
from lakehouse.alerts.evaluator import evaluating
from lakehouse.config.models import Pipeline
from lakehouse.metrics.record import Sample
from lakehouse.metrics.telemetry import Telemetry
from lakehouse.pipeline import Committed
from lakehouse.quality.watch import Outcome
from lakehouse.runner import JsonLines, TextLines
from tests import maintained
from tests.maintained import START_S, Stream
from tests.pipelines import small_pipeline

PASSWORD, TOKEN, VALUE = "canary-password-81", "canary-token-82", "canary-value-83"
ADDRESS = "canary-address-84"
JAAS = f'org.apache.kafka.common.security.scram.ScramLoginModule required username="u" password="{PASSWORD}";'


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    stream, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(stream)
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)
    logs._Current.secrets = ()


def secret_pipeline(root: Path) -> Pipeline:
    source = small_pipeline(root).source.model_dump(mode="json")
    options = {"sasl.jaas.config": JAAS, "ssl.keystore.password": TOKEN, "check.crcs": True}
    alerts = {
        "rules": {"gone": {"kind": "absence", "rollup": "by_page", "window": "30s"}},
        "notify": {"hook": {"kind": "webhook", "url": f"http://127.0.0.1:1/{ADDRESS}"}},
    }
    return small_pipeline(root, source=source | {"options": options}, alerts=alerts)


def test_a_json_line_carries_the_batch_and_no_secret(tmp_path: Path, said: io.StringIO) -> None:
    logs.configure(secret_pipeline(tmp_path), as_json=True)
    logger = logging.getLogger("lakehouse.sinks.sink")
    with logs.in_batch(17):
        logger.warning("login with %s failed; true", PASSWORD)
    logger.warning("%s", JAAS)
    first, second = (json.loads(line) for line in said.getvalue().splitlines())
    assert (first["event"], first["level"], first["logger"]) == ("log", "warning", "lakehouse.sinks.sink")
    assert (first["batch_id"], second["batch_id"]) == (17, None)
    assert first["message"] == f"login with {logs.HIDDEN} failed; true"
    assert PASSWORD not in second["message"]


def test_a_text_line_and_an_error_are_without_secrets_too(tmp_path: Path, said: io.StringIO) -> None:
    logs.configure(secret_pipeline(tmp_path), as_json=False)
    logging.getLogger("x").warning("the store said %s", TOKEN)
    assert said.getvalue() == f"the store said {logs.HIDDEN}\n"
    assert logs.redact(f"error: {PASSWORD}") == f"error: {logs.HIDDEN}"


def test_the_name_of_an_account_is_a_word_like_any_other(tmp_path: Path) -> None:
    source = small_pipeline(tmp_path).source.model_dump(mode="json")
    jaas = f'ScramLoginModule required username = "pipeline" password="{PASSWORD}" other="{TOKEN}";'
    logs.configure(small_pipeline(tmp_path, source=source | {"options": {"sasl.jaas.config": jaas}}), as_json=False)
    try:
        told = logs.redact(f"another driver of this pipeline knows {PASSWORD} and {TOKEN}, and {jaas}")
    finally:
        logs._Current.secrets = ()
    assert told.startswith(f"another driver of this pipeline knows {logs.HIDDEN} and {logs.HIDDEN}")
    assert PASSWORD not in told
    assert TOKEN not in told


def test_canaries_are_found_nowhere(
    tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events = maintained.events

    def with_values(first: int, count: int, *, at_s: float, late: int = 0) -> pa.Table:
        rows = events(first, count, at_s=at_s, late=late)
        planted = pa.array([f"{VALUE}-{number}" for number in range(count)])
        for column in ("id", "page", "status"):
            rows = rows.set_column(rows.column_names.index(column), rows.schema.field(column), planted)
        return rows

    monkeypatch.setattr(maintained, "events", with_values)
    pipeline = secret_pipeline(tmp_path)
    stream = Stream(tmp_path)
    stream.send(8, at_s=START_S)
    assert stream.sink.head is not None
    batch = stream.sink.head
    outcomes = (
        Outcome("ids", 8, failed=2),
        Outcome("largest_id", 8, value=f"{VALUE}-7", success=False, of_events=True),
        Outcome("mean_ms", 8, value=1.5, success=True),
    )
    logs.configure(pipeline, as_json=True)
    telemetry = Telemetry.open(pipeline, sample=lambda _: Sample(START_S, {0: 9}, {"driver": 1}))
    telemetry.committed(batch, outcomes, 1, 0.1, 0.1)
    telemetry.maintained({"table": PASSWORD})  # what cannot be read is said in the log
    logging.getLogger("lakehouse").warning("options are %s", [PASSWORD, JAAS, TOKEN])
    telemetry.close()
    with evaluating(pipeline) as evaluator:
        for found in evaluator.step():
            typer.echo((found, json.dumps(found.to_dict()), as_slack(found), as_webhook(found, "hook")))
    for say in (JsonLines(), TextLines(pipeline)):
        say.started()
        say.committed(Committed(batch, 0.1, 0.1, outcomes, 1))
        say.stopped()

    ops = Path(tmp_path, "_ops")
    found = {path: path.read_bytes() for path in ops.rglob("*") if path.is_file()}
    cells = b"".join(str(pq.read_table(path).to_pylist()).encode() for path in found if path.suffix == ".parquet")
    output = capsys.readouterr()
    assert b"gold/clicks_by_page_1s" in cells, "the record is there to be searched"
    assert "largest_id" in output.out
    assert "gone" in output.out
    assert "was not told" in said.getvalue()
    assert b"gone" in cells
    assert "lakehouse_rule_failed_rows_total" in telemetry.exporter.text()
    told = [telemetry.exporter.text(), said.getvalue(), output.out, output.err]
    for canary in (PASSWORD, TOKEN, VALUE, JAAS, ADDRESS):
        assert not [text for text in told if canary in text], canary
        assert canary.encode() not in cells
        assert not [path for path, body in found.items() if canary.encode() in body]
        assert not [name for _, _, names in os.walk(ops) for name in names if canary in name]
    assert VALUE in str(stream.silver().to_pylist()), "the values are in silver, where they belong"
