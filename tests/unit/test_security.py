"""Paths, names and texts from outside: none leaves its folder, becomes a statement, or grows without bound."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from lakehouse import storage
from lakehouse.config.loader import load_pipeline
from lakehouse.errors import ConfigError, LakehouseError, SourceError
from lakehouse.serving.query import Measure, Query, Rollups, parse_filters
from lakehouse.serving.sql import query
from lakehouse.streaming.query import explain
from tests.maintained import START_S, Stream
from tests.pipelines import small_pipeline

PROJECT = Path(__file__).parent.parent.parent
HOSTILE = [
    "../../etc/passwd",
    "..",
    "a/b",
    "a\\b",
    "'; DROP TABLE silver; --",
    "x\x00y",
    "<script>alert(1)</script>",
    "=cmd()",
    "A" * 300,
    "",
    " ",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        small_pipeline(tmp_path, name=name)
    raw = small_pipeline(tmp_path).model_dump(mode="json")
    raw["source"]["options"] = {}
    topic = f"{name}/" if name == ".." else name  # a topic's name is in no path; this one Kafka itself refuses
    for change in (
        {"rollups": {name: raw["rollups"]["by_page"]}},
        {"source": raw["source"] | {"topic": topic}},
        {"source": raw["source"] | {"fields": raw["source"]["fields"] | {name: "string"}}},
    ):
        with pytest.raises(ValidationError):
            small_pipeline(tmp_path, **change)


@pytest.mark.parametrize("root", ["file:///etc", "http://host/x", "s3a://bucket/x", "gs://bucket"])
def test_a_root_is_a_folder_or_a_bucket(root: str) -> None:
    with pytest.raises(ConfigError):
        storage.resolve_root(root)


def test_a_secret_stays_where_secrets_may_stand(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("canary")
    text = (PROJECT / "conf" / "feature_events.yaml").read_text()
    suite = PROJECT / "expectations" / "feature_events.json"
    text = text.replace("../expectations/feature_events.json", str(suite))
    file = tmp_path / "pipeline.yaml"
    file.write_text(text.replace("topic: feature_events", f"topic: ${{file:{tmp_path}/secret}}"))
    with pytest.raises(LakehouseError) as caught:
        load_pipeline(file, {})
    assert "canary" not in str(caught.value)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    stream = Stream(tmp_path_factory.mktemp("tables"))
    stream.send(20, at_s=START_S)
    return str(stream.root)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_parquet('{root}/../**')",
        "COPY (SELECT 1) TO '{root}/x.csv'",
        "SELECT 1; DROP VIEW silver.clicks",
        "ATTACH '{root}/x.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT getenv('PATH')",
        "PRAGMA database_list; SELECT 1",
    ],
)
def test_sql_reads_the_tables_and_nothing_else(root: str, sql: str) -> None:
    before = sorted(Path(root).rglob("*"))
    with pytest.raises(LakehouseError) as caught:
        query(root, sql.format(root=root))
    assert "root:x:0" not in str(caught.value)
    assert sorted(Path(root).rglob("*")) == before


@pytest.mark.parametrize("text", [*HOSTILE[:5], "nothing=1", "page; DROP TABLE x=1", "page' OR '1'='1"])
def test_a_question_is_made_of_names_that_exist(text: str, tmp_path: Path) -> None:
    """`lakehouse ask`: dimensions and metrics are looked up; what is not there is refused, and no text is run."""
    pipeline = small_pipeline(tmp_path)
    with pytest.raises(ConfigError):
        parse_filters(pipeline, "by_page", [text])
    with pytest.raises(ConfigError):
        Rollups(pipeline).ask(Query(rollup="by_page", measures=(Measure(text),), start_us=0, end_us=1_000_000))


def test_a_value_of_a_question_stays_a_value(tmp_path: Path) -> None:
    value = "x' OR 1=1 --"
    assert parse_filters(small_pipeline(tmp_path), "by_page", [f"page={value}"]) == (("page", frozenset({value})),)


@pytest.mark.parametrize(
    ("told", "mend"),
    [
        ("org.apache.kafka.common.errors.SaslAuthenticationException: Authentication failed", "password"),
        ("org.apache.kafka.common.errors.SslAuthenticationException: SSL handshake failed", "truststore"),
        ("org.apache.kafka.common.errors.TopicAuthorizationException: Not authorized to access topics: [t]", "Read"),
    ],
)
def test_what_kafka_refuses_while_the_query_runs_is_said_with_what_mends_it(told: str, mend: str) -> None:
    error = explain(RuntimeError(f"[STREAM_FAILED] java.util.concurrent.ExecutionException: {told}"))
    assert isinstance(error, SourceError)
    assert mend in str(error.remedy)


def test_the_settings_of_a_secured_cluster_are_sparks_own() -> None:
    lines = (PROJECT / "conf" / "spark-secured.conf").read_text().splitlines()
    settings = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    assert settings["spark.authenticate"] == settings["spark.network.crypto.enabled"] == "true"
    assert settings["spark.network.crypto.saslFallback"] == settings["spark.ui.enabled"] == "false"
    assert settings["spark.network.crypto.cipher"] == "AES/GCM/NoPadding"
    assert settings["spark.io.encryption.enabled"] == "true"
    assert settings["spark.authenticate.secret.file"].startswith("/run/secrets/")
    assert not any("secret " in line for line in lines if not line.startswith("#"))
