"""How a pipeline stands by its suite: failures by rule over time, the suites that judged, the newest report. No JVM."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from lakehouse import storage
from lakehouse.errors import TableError, first_line
from lakehouse.quality.archive import FOLDER, Archive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lakehouse.quality.archive import Use

MOST_WINDOWS = 360
"""Files of observations read at most, the newest: six hours by the minute, at about 1 ms each."""
_COLUMNS = ["window_start", "window_end", "rule_id", "evaluated", "failed", "value", "success"]


@dataclass(frozen=True, slots=True)
class Watched:
    """One rule over one window: rows judged, rows that failed (None for an aggregate), or the aggregate's value."""

    start: datetime
    end: datetime
    rule_id: str
    evaluated: int
    failed: int | None
    value: str | None
    success: bool | None


@dataclass(frozen=True)
class Report:
    """A run of Great Expectations over the tables, as its results table has it."""

    run_id: str
    run_at: datetime
    suite_sha256: str
    expectations: int
    unmet: tuple[str, ...]
    page: str


@dataclass(frozen=True)
class Version:
    """One suite of a pipeline's history, and how it differs from the one before: `+ rule`, `− rule`, `~ rule: …`."""

    use: Use
    name: str
    rules: int
    changes: tuple[str, ...]


def watched(root: str, pipeline: str, since: datetime) -> list[Watched]:
    """What was observed since a moment, oldest first; of more than `MOST_WINDOWS` files only the newest.

    Raises:
        TableError: the table cannot be read.
    """
    url = storage.quality_url(root, pipeline, "observed")
    try:
        table = DeltaTable(url)
        files = pa.table(table.get_add_actions(flatten=True)).select(["path", "modification_time"]).to_pylist()
        young = [file for file in files if _moment(file["modification_time"]) >= since]
        newest = {file["path"] for file in sorted(young, key=lambda file: file["modification_time"])[-MOST_WINDOWS:]}
        dataset = table.to_pyarrow_dataset()
        rows: list[dict[str, Any]] = []
        for fragment in dataset.get_fragments():
            if fragment.path in newest:
                rows += fragment.to_table(columns=_COLUMNS, use_threads=False).to_pylist()
    except TableNotFoundError:
        return []
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise _unreadable("the observations", url, error) from error
    found = [
        Watched(
            row["window_start"], row["window_end"], row["rule_id"], row["evaluated"], row["failed"], row["value"],
            row["success"],
        )
        for row in rows
        if row["window_end"] >= since
    ]  # fmt: skip
    return sorted(found, key=lambda one: (one.start, one.rule_id))


def newest_report(root: str, pipeline: str) -> Report | None:
    """The last run of `lakehouse quality run`; reads the results table's newest file alone, which holds one run.

    Raises:
        TableError: the table cannot be read.
    """
    url = storage.quality_url(root, pipeline, "results")
    try:
        table = DeltaTable(url)
        files = pa.table(table.get_add_actions(flatten=True)).select(["path", "modification_time"]).to_pylist()
        if not files:
            return None
        newest = max(files, key=lambda file: file["modification_time"])["path"]
        fragment = next(one for one in table.to_pyarrow_dataset().get_fragments() if one.path == newest)
        columns = ["run_id", "run_at", "suite_sha256", "rule_id", "success"]
        rows = fragment.to_table(columns=columns)
        rows = rows.filter(pc.equal(rows["run_at"], pc.max(rows["run_at"]))).to_pylist()
    except TableNotFoundError:
        return None
    except (DeltaError, OSError, pa.ArrowException, StopIteration) as error:
        raise _unreadable("the reports", url, error) from error
    run = rows[0]
    return Report(
        run_id=run["run_id"],
        run_at=run["run_at"],
        suite_sha256=run["suite_sha256"],
        expectations=len(rows),
        unmet=tuple(row["rule_id"] for row in rows if not row["success"]),
        page=f"{storage.resolve_root(root)}/_quality/{pipeline}/{run['run_id']}/index.html",
    )


def versions(root: str, pipeline: str) -> tuple[Version, ...]:
    """Every suite that judged the pipeline's rows, the newest first, each with its difference from the one before.

    Raises:
        SuiteError: a suite of the history is missing or altered.
        TableError: the history cannot be read.
    """
    if storage.find_store(f"{storage.resolve_root(root)}/{FOLDER}") is None:
        return ()  # the archive would make the folder, and a page writes nothing
    archive = Archive(root)
    found: list[Version] = []
    before: Mapping[str, Any] | None = None
    for use in archive.uses(pipeline):
        suite = archive.load(use.suite_sha256)
        rules = {one.rule_id: _told(suite.document["expectations"][one.index]) for one in suite.expectations}
        found.append(Version(use, suite.name, len(rules), () if before is None else differences(before, rules)))
        before = rules
    return tuple(reversed(found))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """What changed from one suite to the next, rule by rule: `+` added, `−` gone, `~` with what it was and is."""
    added = [f"+ {rule}" for rule in after if rule not in before]
    gone = [f"− {rule}" for rule in before if rule not in after]
    changed = [
        f"~ {rule}: {key} {before[rule].get(key, 'none')} → {after[rule].get(key, 'none')}"
        for rule in after
        if rule in before
        for key in sorted({*before[rule], *after[rule]})
        if before[rule].get(key) != after[rule].get(key)
    ]
    return (*added, *gone, *changed)


def _told(expectation: Mapping[str, Any]) -> dict[str, Any]:
    """What of an expectation decides verdicts or reports, flat."""
    meta = expectation.get("meta") or {}
    return {
        "type": expectation.get("type"),
        "severity": expectation.get("severity", "critical"),
        **({"stream": meta["stream"]} if "stream" in meta else {}),
        **expectation.get("kwargs", {}),
    }


def _moment(modified_ms: object) -> datetime:
    return (
        datetime.fromtimestamp(modified_ms / 1000, UTC)
        if isinstance(modified_ms, int)
        else datetime.max.replace(tzinfo=UTC)
    )


def _unreadable(what: str, url: str, error: Exception) -> TableError:
    return TableError(f"{what} cannot be read: {first_line(error)}", where=url, remedy="the page tries again by itself")
