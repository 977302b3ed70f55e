"""A secured broker: who may do what, what the refused are told, and the same reconciliation as with an open one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lakehouse import broker as embedded
from lakehouse import kafka_admin
from lakehouse.broker_security import BROKER, Proof, Security
from lakehouse.config.loader import load_pipeline
from lakehouse.errors import ConfigError, SourceError
from lakehouse.kafka_options import librdkafka_options
from lakehouse.load.plan import Load
from lakehouse.load.producer import produce
from lakehouse.topic import read_range
from lakehouse.validation import validate_pipeline
from tests.integration.stack import CONFIG, Stack
from tests.loads import FEATURE_EVENTS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakehouse.broker import Broker

TOPIC = "feature_events"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("secured")
    try:
        yield embedded.start(folder, port=embedded.free_port(), secure=True)
    finally:
        embedded.stop(folder)


def servers(broker: Broker, proof: Proof) -> str:
    assert broker.tls_bootstrap is not None
    return broker.bootstrap if proof == "scram" else broker.tls_bootstrap


def send(broker: Broker, options: dict[str, str], proof: Proof, seed: int) -> None:
    load = Load(FEATURE_EVENTS, rate=2_000, count=400, seed=seed, bad_share=0.1, shape="flat", partitions=2)
    start_at = datetime.now(UTC) - timedelta(seconds=1)
    report = produce(load, servers(broker, proof), TOPIC, start_at=start_at, client_options=options)
    assert (report.acked, report.failed) == (400, 0)


def configured(folder: Path, broker: Broker, security: Security, proof: Proof) -> Path:
    """The shipped pipeline with the account's options as `lakehouse broker account` prints them."""
    shipped: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    shipped["root"] = str(folder / "tables")
    shipped["source"] |= {"servers": servers(broker, proof), "options": security.option_lines("pipeline", proof)}
    shipped["quality"]["suite"] = str(CONFIG.parent / shipped["quality"]["suite"])
    shipped["trigger"] = {"kind": "available_now"}
    file = folder / f"{proof}.yaml"
    file.write_text(yaml.safe_dump(shipped))
    return file


def test_password_and_certificate_bring_every_record_and_the_refused_are_told_why(
    spark: SparkSession,
    secured: Broker,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka_admin, "TIMEOUT_S", 60.0)  # a refusal ends a wait at once; a busy machine does not
    security = embedded.put_account(secured, "producer", writes=[TOPIC])
    embedded.put_account(secured, "pipeline", reads=[TOPIC])
    embedded.put_account(secured, "stranger")
    total = 0
    for number, proof in enumerate[Proof](("scram", "certificate")):
        send(secured, security.client_options("producer", proof), proof, seed=number)
        total += 400
        file = configured(tmp_path, secured, security, proof)
        report = validate_pipeline(file, os.environ)
        assert report.ok, str(report)
        stack = Stack(spark, secured.bootstrap, TOPIC, tmp_path / "tables")
        pipeline = load_pipeline(file, os.environ)
        stack.pipeline = lambda pipeline=pipeline, **_: pipeline  # type: ignore[method-assign,misc]
        stack.catch_up()
        found = stack.reconcile()
        assert found.ok, str(found)
        assert found.records == total

    # A rotated password: the old one is refused, the new one is taken.
    old = security.client_options("pipeline", "scram")
    embedded.put_account(secured, "pipeline")
    with pytest.raises(SourceError, match=r"[Aa]uthentication") as caught:
        kafka_admin.topic_state(secured.bootstrap, TOPIC, old)
    assert "password" in str(caught.value.remedy)
    with pytest.raises(SourceError, match=r"[Aa]uthentication"):
        next(read_range(secured.bootstrap, TOPIC, {0: 0}, {0: 1}, librdkafka_options(old)))
    assert len(kafka_admin.offsets(secured.bootstrap, TOPIC, security.client_options("pipeline", "scram"))) == 2

    # An authority that did not sign the broker's certificate; and no certificate at all.
    foreign = Security.make(tmp_path)
    untrusting = security.client_options("pipeline", "certificate") | {
        "ssl.truststore.location": str(foreign.folder / "ca.pem")
    }
    for options in (untrusting, without_certificate(security)):
        with pytest.raises(SourceError, match="refuses this client") as caught:
            kafka_admin.topic_state(servers(secured, "certificate"), TOPIC, options)
        assert "truststore" in str(caught.value.remedy)

    # An account that nobody allowed anything, and one that may only read.
    with pytest.raises(SourceError, match="refuses this client") as caught:
        kafka_admin.topic_state(secured.bootstrap, TOPIC, security.client_options("stranger", "scram"))
    assert "Read" in str(caught.value.remedy)
    with pytest.raises(SourceError, match="refuses this client") as caught:
        send(secured, security.client_options("pipeline", "scram"), "scram", seed=9)
    assert "Write" in str(caught.value.remedy)

    # Nobody sees a password: not in what was logged, not in the tables' own logs.
    said = caplog.text + "".join(log.read_text() for log in tmp_path.rglob("_delta_log/*.json"))
    assert not any(file.read_text() in said for file in (security.folder / "accounts").glob("*.password"))


def without_certificate(security: Security) -> dict[str, str]:
    options = security.client_options(BROKER, "certificate")
    return {name: value for name, value in options.items() if "keystore" not in name}


def test_secrets_are_their_owners_alone_and_a_secured_broker_stays_secured(secured: Broker) -> None:
    security = Security.of(secured.folder)
    assert security is not None
    for path in [security.folder, *security.folder.rglob("*")]:
        rights = stat.S_IMODE(path.stat().st_mode)
        assert rights & 0o077 == 0 or path.name == "ca.pem", path
    assert embedded.start(secured.folder) == secured
    assert embedded.start(secured.folder, secure=True) == secured
    with pytest.raises(ConfigError, match="cannot be the name"):
        embedded.put_account(secured, "../evil")
