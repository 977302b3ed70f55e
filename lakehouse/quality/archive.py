"""Every suite that ever judged a pipeline's rows, kept in the root by fingerprint, and which rows it judged.

    _suites/<sha256>.json          the suite's file, put before the first batch that it judges
    _suites/uses/NAME/<n>.json     from which offsets on the pipeline NAME was judged by which suite

A use is noted after the first batch that a suite judged was committed, so that of two drivers only the one whose
commit was accepted is remembered. A crash in between is made good at the next start, from that commit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError

from lakehouse.chain import describe
from lakehouse.errors import SuiteError, TableError
from lakehouse.quality.suite import Suite, parse_suite
from lakehouse.storage import open_store, resolve_root

if TYPE_CHECKING:
    from lakehouse.chain import Batch, Offsets
    from lakehouse.config.models import Pipeline

FOLDER = "_suites"


@dataclass(frozen=True)
class Use:
    """A stretch of a pipeline's records that one suite judged.

    Attributes:
        suite_sha256: the suite's fingerprint.
        start: offsets of the first record, inclusive; a partition that is not named begins at 0.
        end: offsets where the next suite took over, exclusive; None for the suite in use.
        noted_at: when the first batch was committed, UTC.
        batch_id: of that batch; query_id: of its query.
    """

    suite_sha256: str
    start: Offsets
    end: Offsets | None
    noted_at: datetime
    query_id: str
    batch_id: int


class Archive:
    """The suites under one root."""

    def __init__(self, root: str) -> None:
        self._url = f"{resolve_root(root)}/{FOLDER}"
        self._store = open_store(self._url)
        self._noted: dict[str, str] = {}

    @classmethod
    def of(cls, root: str, suite: Suite, head: Batch | None) -> Archive:
        """The archive at a start: the suite in use is kept, and the use that `head`, the last batch, began is noted."""
        archive = cls(root)
        archive.keep(suite)
        if head is not None:
            archive.note(head)
        return archive

    def keep(self, suite: Suite) -> None:
        """Store the suite's file under its fingerprint, unless it is there."""
        path = f"{suite.sha256}.json"
        try:
            obstore.head(self._store, path)
        except FileNotFoundError:
            self._put(path, suite.document)

    def load(self, sha256: str) -> Suite:
        """The suite with this fingerprint.

        Raises:
            SuiteError: it is not in the root, or its file no longer has this fingerprint.
        """
        where = f"{self._url}/{sha256}.json"
        try:
            text = bytes(obstore.get(self._store, f"{sha256}.json").bytes()).decode()
        except FileNotFoundError as error:
            raise SuiteError(
                f"no suite with the fingerprint {sha256} is kept in the root",
                where=where,
                remedy="take the file from version control and put it there",
            ) from error
        suite = parse_suite(text, source=where)
        if suite.sha256 != sha256:
            raise SuiteError(
                f"the file judges by other rules than its name says: its fingerprint is {suite.sha256}",
                where=where,
                remedy="restore the file; if it is whole, an older release of this project wrote it",
            )
        return suite

    def note(self, batch: Batch) -> None:
        """Note that `batch`, which was just committed or is the tables' last, begins a stretch, if it does.

        Costs nothing for a batch of the suite that was noted last.
        """
        if self._noted.get(batch.pipeline) == batch.suite_sha256:
            return
        self._noted[batch.pipeline] = batch.suite_sha256
        uses = self._entries(batch.pipeline)
        last = uses[-1] if uses else None
        went_back = last is not None and _before(batch.start, _offsets(last["start"]))
        if last is not None and last["suite_sha256"] == batch.suite_sha256 and not went_back:
            return
        entry = {
            "suite_sha256": batch.suite_sha256,
            "start": batch.start,
            "noted_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "query_id": batch.query_id,
            "batch_id": batch.batch_id,
        }
        self._put(_use_path(batch.pipeline, len(uses)), entry)

    def uses(self, pipeline: str) -> tuple[Use, ...]:
        """Which suite judged which of the pipeline's records, from the first on."""
        entries: list[dict[str, Any]] = []
        for entry in self._entries(pipeline):
            # A restore went back to before these: what they had judged has left the tables.
            start = _offsets(entry["start"])
            entries = [*(kept for kept in entries if _before(_offsets(kept["start"]), start)), entry]
        starts = [_offsets(entry["start"]) for entry in entries]
        ends = [*starts[1:], None][: len(starts)]
        return tuple(
            Use(
                entry["suite_sha256"],
                start,
                end,
                datetime.fromisoformat(entry["noted_at"]),
                entry["query_id"],
                entry["batch_id"],
            )
            for entry, start, end in zip(entries, starts, ends, strict=True)
        )

    def _entries(self, pipeline: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        while True:
            path = _use_path(pipeline, len(entries))
            try:
                entries.append(json.loads(bytes(obstore.get(self._store, path).bytes())))
            except FileNotFoundError:
                return entries
            except json.JSONDecodeError as error:
                raise TableError(
                    f"the history of suites cannot be read: {error}",
                    where=f"{self._url}/{path}",
                    remedy="restore the file from a backup",
                ) from error

    def _put(self, path: str, value: object) -> None:
        try:
            obstore.put(self._store, path, json.dumps(value, ensure_ascii=False, indent=1).encode(), mode="create")
        except AlreadyExistsError:
            return


def _before(earlier: Offsets, later: Offsets) -> bool:
    """Whether the second has gone on from the first in any partition."""
    return any(
        offset > earlier.get(topic, {}).get(partition, 0)
        for topic, of in later.items()
        for partition, offset in of.items()
    )


def history(pipeline: Pipeline) -> tuple[Use, ...]:
    """Which suite judged which of the pipeline's records, from the first on."""
    return Archive(pipeline.root).uses(pipeline.name)


def render_history(uses: tuple[Use, ...]) -> str:
    """A line per stretch, for people."""
    if not uses:
        return "no batch was judged yet"
    return "\n".join(
        f"{use.suite_sha256}  since {use.noted_at:%Y-%m-%d %H:%M:%S} UTC, batch {use.batch_id}: from"
        f" {describe(use.start)}" + (f" up to {describe(use.end)}" if use.end else ", in use")
        for use in uses
    )


def _use_path(pipeline: str, number: int) -> str:
    return f"uses/{pipeline}/{number:08d}.json"


def _offsets(raw: dict[str, dict[str, int]]) -> Offsets:
    return {topic: {int(partition): offset for partition, offset in of.items()} for topic, of in raw.items()}
