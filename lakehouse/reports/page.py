"""The report as one static page: nothing is loaded from elsewhere and no script runs.

Great Expectations' own Data Docs are rendered by the package and set into the page. Its templates put values into
HTML as they are, so every text of its results is escaped before; the page's policy forbids scripts besides.
"""

from __future__ import annotations

import copy
import re
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lakehouse.quality.messages import visible
from lakehouse.reports.package import DefaultJinjaSectionView, ValidationResultsPageRenderer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from great_expectations.core import ExpectationSuiteValidationResult

    from lakehouse.reports.agreement import Agreement
    from lakehouse.reports.run import QualityReport
    from lakehouse.reports.samples import Position, Refused, Sample

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_SCRIPTS = re.compile(r"<script\b.*?</script>", re.DOTALL | re.IGNORECASE)
_POSITION = "Kafka position"


def render(report: QualityReport, verdict: str) -> str:
    """The page.

    Args:
        report: what was found.
        verdict: whether stream and report agree, in one sentence.
    """
    found = report.found
    style = files("lakehouse.reports").joinpath("page.css").read_text()
    known = {record.position for record in found.refused}
    title = f"{escape(report.pipeline)}: data quality, {report.run_at:%Y-%m-%d %H:%M} UTC"
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{style}</style></head><body>",
            f"<header><h1>{title}</h1>{_badge(ok=report.ok)}</header><main>",
            _facts(report),
            _agreement(report, verdict),
            "<h2>Great Expectations</h2>",
            _data_docs(found.result, found.samples, known),
            _refused(found.refused),
            "</main></body></html>",
        ]
    )


def _badge(*, ok: bool) -> str:
    return '<strong class="ok">passed</strong>' if ok else '<strong class="bad">failed</strong>'


def _facts(report: QualityReport) -> str:
    rows = report.found.rows
    unparsed = ", ".join(f"{escape(reason)} {count:,}" for reason, count in rows.unparsed.items())
    facts = {
        "Records": escape(str(report.span)),
        "Versions": ", ".join(f"{layer} {version}" for layer, version in report.versions.items()),
        "Suite": f"{escape(report.suite.name)} <code>{report.suite.sha256[:12]}</code>",
        "Run": f"<code>{escape(report.run_id)}</code>",
        "Judged": f"{rows.judged:,} rows: {rows.silver:,} in silver, {rows.parsed:,} in quarantine",
        "Not judged": f"{sum(rows.unparsed.values()):,} rows in quarantine that do not fit the contract"
        + (f" ({unparsed})" if unparsed else ""),
        "Critical": ", ".join(escape(finding.expectation.rule_id) for finding in report.found.failed) or "none failed",
    }
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in facts.items()) + "</dl>"


def _agreement(report: QualityReport, verdict: str) -> str:
    heads = ("Rule", "Report", "Compiled rule", "Due", "Recorded", "")
    return (
        f'<h2>Stream and report</h2><p class="{"ok" if report.agrees else "bad"}">{escape(verdict)}</p>'
        "<details><summary>Counts of failing rows by rule</summary>"
        "<p>Report: counted by Great Expectations. Compiled rule: counted by the stream's own columns over the same"
        " rows. Due: the same over rows that this suite judged when they came, in the table that keeps the verdict."
        " Recorded: the verdicts in those rows.</p>"
        '<table class="table-sm"><thead><tr>'
        + "".join(f'<th class="number">{head}</th>' if head in heads[1:5] else f"<th>{head}</th>" for head in heads)
        + "</tr></thead><tbody>"
        + "".join(map(_agreement_row, report.found.agreements))
        + "</tbody></table></details>"
    )


def _agreement_row(agreement: Agreement) -> str:
    numbers = (agreement.unexpected, agreement.recounted, agreement.due, agreement.recorded)
    cells = "".join(f'<td class="number">{"–" if number is None else f"{number:,}"}</td>' for number in numbers)
    mark = '<span class="ok">✓</span>' if agreement.ok else '<span class="bad">differs</span>'
    return f"<tr><td>{escape(agreement.rule_id)}</td>{cells}<td>{mark}</td></tr>"


def _data_docs(
    result: ExpectationSuiteValidationResult, samples: Mapping[str, Sequence[Sample]], known: Iterable[Position]
) -> str:
    harmless: Any = copy.deepcopy(result)
    for found in harmless.results:
        found.expectation_config.kwargs = _escaped(found.expectation_config.kwargs)
        found.result = _escaped(found.result)
        found.exception_info = _escaped(dict(found.exception_info or {}))
        rule_id = found.expectation_config.meta["rule_id"]
        if rows := samples.get(rule_id):
            found.result |= _linked(rows, set(known))
    document = ValidationResultsPageRenderer().render(harmless).to_json_dict()
    # The first section repeats the facts above and links into a site that there is none of.
    sections = document["sections"][1:]
    view: Any = DefaultJinjaSectionView()
    html = "".join(
        view.render({"section": section, "section_loop": {"index": number}}) for number, section in enumerate(sections)
    )
    return f'<div class="data-docs">{_SCRIPTS.sub("", html)}</div>'


def _linked(rows: Sequence[Sample], known: set[Position]) -> dict[str, Any]:
    """Samples in the form in which the package tabulates values with their index."""
    indexed = []
    for row in rows:
        _, partition, offset = row.position
        shown = f"{partition}/{offset}"
        link = f'<a href="#{_anchor(row.position)}">{shown}</a>' if row.position in known else shown
        values = {name: "null" if value is None else escape(visible(value)) for name, value in row.values.items()}
        indexed.append({**values, _POSITION: link})
    return {
        "partial_unexpected_list": [tuple(row.values.values()) for row in rows],
        "partial_unexpected_counts": [{"value": number, "count": 1} for number, _ in enumerate(rows)],
        "unexpected_index_list": indexed,
        "unexpected_index_column_names": [_POSITION],
    }


def _refused(records: Sequence[Refused]) -> str:
    if not records:
        return ""
    articles = []
    for record in records:
        topic, partition, offset = record.position
        value = "no value" if record.value is None else escape(visible(record.value.decode(errors="replace")))
        cut = f" (the first of {record.size:,} bytes)" if record.value and record.size > len(record.value) else ""
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in record.reasons)
        articles.append(
            f'<article id="{_anchor(record.position)}"><h3>{escape(topic)}, partition {partition}, offset {offset}</h3>'
            f"<ul>{reasons}</ul><pre>{value}</pre>{cut}</article>"
        )
    return "<h2>Refused records</h2>" + "".join(articles)


def _anchor(position: Position) -> str:
    return escape("-".join(("record", *map(str, position))))


def _escaped(value: Any) -> Any:  # noqa: ANN401 - JSON, and objects of the package that are left alone
    if isinstance(value, str):
        return escape(visible(value))
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_escaped(item) for item in value]
    return value
