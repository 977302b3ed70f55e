"""`lakehouse validate`: what is looked at, and what an unreachable broker means."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from lakehouse import kafka_admin, validation
from lakehouse.config.loader import load_pipeline
from lakehouse.errors import SourceError, SourceUnavailable
from lakehouse.schemas import silver_schema
from lakehouse.sinks.delta_log import TableLog
from lakehouse.validation import validate_pipeline

if TYPE_CHECKING:
    from pathlib import Path

PIPELINE = """\
name: clicks
root: {root}
source:
  servers: broker:9092
  topic: clicks
  options: {{client.id: x}}
  fields: {{at: timestamp, page: string}}
event_time: {{column: at}}
quality: {{suite: suite.json}}
rollups: {{by_page: {{dimensions: [page]}}}}
"""
NOT_NULL = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "page"}}


def write(folder: Path, root: str | Path, *expectations: object) -> Path:
    suite = {"name": "s", "expectations": list(expectations) or [NOT_NULL]}
    (folder / "suite.json").write_text(json.dumps(suite))
    file = folder / "clicks.yaml"
    file.write_text(PIPELINE.format(root=root))
    return file


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """A broker with the topic, which notes what it was asked."""
    asked: list[tuple[object, ...]] = []

    def topic_partitions(*question: object) -> list[int]:
        asked.append(question)
        return [0, 1]

    monkeypatch.setattr(kafka_admin, "topic_partitions", topic_partitions)
    return asked


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def topic_partitions(*_: object) -> list[int]:
        raise error

    monkeypatch.setattr(kafka_admin, "topic_partitions", topic_partitions)


def detail(report: validation.ValidationReport, name: str) -> str:
    return next(check.detail for check in report.checks if check.name == name)


def statuses(report: validation.ValidationReport) -> dict[str, str]:
    return {check.name: check.status for check in report.checks}


def test_a_right_pipeline_can_be_started_and_nothing_is_written(
    tmp_path: Path, broker: list[tuple[object, ...]]
) -> None:
    file = write(tmp_path, tmp_path / "data" / "deep")

    report = validate_pipeline(file, {})

    made = "silver/clicks, quarantine/clicks, gold/clicks_by_page_1s"
    assert set(statuses(report).values()) == {"ok"}
    assert broker == [("broker:9092", "clicks", {"client.id": "x"})]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clicks.yaml", "suite.json"]
    assert str(report) == "\n".join(
        [
            "ok      pipeline file: 2 fields of topic clicks to " + made,
            "ok      suite: s: 1 expectations judge rows, 0 only the report",
            f"ok      root: {tmp_path}/data/deep can be made in {tmp_path}",
            "ok      fields: no table yet",
            "ok      Kafka options: client.id",
            "ok      topic: clicks at broker:9092, 2 partitions",
            f"{file} can be started",
        ]
    )


def test_the_report_is_json(tmp_path: Path) -> None:
    whole = json.loads(json.dumps(validate_pipeline(write(tmp_path, tmp_path), {}).to_dict()))
    assert whole["ok"] is True
    assert whole["checks"][2] == {"name": "root", "status": "ok", "detail": str(tmp_path)}


def test_offline_the_topic_is_not_asked_for(tmp_path: Path, broker: list[tuple[object, ...]]) -> None:
    report = validate_pipeline(write(tmp_path, tmp_path), {}, online=False)
    assert statuses(report)["topic"] == "skipped"
    assert report.ok
    assert broker == []


def test_a_broker_that_does_not_answer_is_a_warning_unless_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(SourceUnavailable("no broker answers"), monkeypatch)
    file = write(tmp_path, tmp_path)

    lenient = validate_pipeline(file, {})
    strict = validate_pipeline(file, {}, require_broker=True)

    assert (statuses(lenient)["topic"], lenient.ok) == ("warning", True)
    assert lenient.checks[-1].detail == "not checked: no broker answers"
    assert (statuses(strict)["topic"], strict.ok) == ("error", False)


def test_an_absent_topic_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(SourceError("there is no topic"), monkeypatch)
    report = validate_pipeline(write(tmp_path, tmp_path), {})
    assert (statuses(report)["topic"], report.ok) == ("error", False)
    assert str(report).endswith("cannot be started")


def test_it_says_what_the_next_start_does_to_the_tables(tmp_path: Path) -> None:
    file = write(tmp_path, tmp_path / "data")
    schema = silver_schema(load_pipeline(file, {}).source.fields)
    TableLog.open(f"{tmp_path}/data/silver/clicks", "silver/clicks", schema)
    assert detail(validate_pipeline(file, {}), "fields") == "as silver/clicks has them"
    whole = file.read_text()
    file.write_text(whole.replace("page: string}", "page: string, size: integer}"))
    changes = "the next start changes silver/clicks: size is new (integer)"
    assert detail(validate_pipeline(file, {}), "fields") == changes
    file.write_text(whole.replace("at: timestamp,", "at: timestamp, size: {type: long, required: true},"))
    report = validate_pipeline(file, {})
    assert statuses(report)["fields"] == "error"
    assert "size is required, while rows from before may lack it" in detail(report, "fields")


def test_after_a_wrong_file_nothing_else_is_looked_at(tmp_path: Path, broker: list[tuple[object, ...]]) -> None:
    file = write(tmp_path, tmp_path)
    file.write_text(file.read_text().replace("topic:", "topik:"))

    report = validate_pipeline(file, {})

    assert list(statuses(report).values()) == ["error", *["skipped"] * 5]
    assert "did you mean topic?" in report.checks[0].detail
    assert broker == []


@pytest.mark.parametrize(
    "expectation",
    [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "pag"}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "page", "min_value": 0}},
        {"type": "expect_column_values_to_be_betwixt", "kwargs": {"column": "page"}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"colum": "page"}},
    ],
)
def test_a_suite_that_does_not_fit_is_an_error(tmp_path: Path, expectation: object) -> None:
    report = validate_pipeline(write(tmp_path, tmp_path, NOT_NULL, expectation), {}, online=False)
    assert statuses(report)["suite"] == "error"
    assert "expectations[1]" in report.checks[1].detail


def test_a_missing_suite_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, tmp_path)
    (tmp_path / "suite.json").unlink()
    report = validate_pipeline(file, {}, online=False)
    assert statuses(report)["suite"] == "error"
    assert str(tmp_path / "suite.json") in report.checks[1].detail


def test_a_root_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    report = validate_pipeline(write(tmp_path, tmp_path / "data" / "deep"), {}, online=False)
    assert statuses(report)["root"] == "error"
    assert f"{tmp_path}/data is not a folder" in report.checks[2].detail


def test_a_root_without_the_right_to_write_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere, whatever the mode says
    report = validate_pipeline(write(tmp_path, tmp_path / "data"), {}, online=False)
    assert f"{tmp_path} cannot be written" in report.checks[2].detail


def test_a_root_that_delta_rs_would_misread_is_an_error(tmp_path: Path) -> None:
    report = validate_pipeline(write(tmp_path, f"'{tmp_path}/data[1]'"), {}, online=False)
    assert statuses(report)["root"] == "error"


def test_a_bucket_is_left_for_the_first_start(tmp_path: Path) -> None:
    assert statuses(validate_pipeline(write(tmp_path, "s3://b/p"), {}, online=False))["root"] == "skipped"


def test_kafka_options_that_cannot_be_carried_over_are_an_error(
    tmp_path: Path, broker: list[tuple[object, ...]]
) -> None:
    file = write(tmp_path, tmp_path)
    file.write_text(file.read_text().replace("client.id: x", "sasl.jaas.config: canary-7f3a"))
    report = validate_pipeline(file, {})
    assert (statuses(report)["Kafka options"], statuses(report)["topic"]) == ("error", "skipped")
    assert "canary-7f3a" not in str(report)
    assert broker == []
