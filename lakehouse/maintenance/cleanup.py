"""Checkpoints of a table's log, and the clean-up of commits that no reader needs any more.

Commits are deleted oldest first, one by one. Whatever instruction a kill hits, what is left is a run of versions
without a gap up to the newest one, with a checkpoint in it that is ahead of everything deleted. Newest first would
leave a gap behind old versions that look readable, and a reader that follows the log by name would walk into it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import obstore
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse.errors import TableError
from lakehouse.sinks.delta_log import last_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lakehouse.maintenance.view import TableView

_VERSIONED = re.compile(r"(?P<version>[0-9]{20})\.(?P<kind>json|crc|checkpoint\..*parquet)")
_WHOLE = "checkpoint.parquet"


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of a table's log. `modified_ms` is ms since 1970 UTC, by the store's clock."""

    version: int
    kind: str
    modified_ms: int

    @property
    def path(self) -> str:
        """Relative to the table."""
        return f"_delta_log/{self.version:020d}.{self.kind}"


def list_log(view: TableView) -> list[LogFile]:
    """The files of a log that belong to a version, oldest version first."""
    found = []
    for chunk in obstore.list(view.store, "_delta_log"):
        for entry in chunk:
            match = _VERSIONED.fullmatch(entry["path"].rpartition("/")[2])
            if match:
                modified = int(entry["last_modified"].timestamp() * 1_000)
                found.append(LogFile(int(match["version"]), match["kind"], modified))
    return sorted(found, key=lambda file: (file.version, file.kind))


def checkpoint_due(view: TableView, every: int, *, ahead: int = 0) -> bool:
    """Whether the newest checkpoint is `every` commits or more behind, once `ahead` more are made."""
    return view.version + ahead - last_checkpoint(view.store) >= every


def write_checkpoint(view: TableView) -> int:
    """Write the checkpoint of the view's version; that version.

    Raises:
        TableError: delta-rs cannot write it.
    """
    try:
        view.table.create_checkpoint()
    except (DeltaError, OSError) as error:
        raise TableError(
            f"the checkpoint cannot be written: {error}",
            where=f"table {view.name}, version {view.version}",
            remedy="nothing is lost; the next pass tries again",
        ) from error
    return view.version


def expired(files: Iterable[LogFile], *, head: int, hint: int, before_ms: int) -> list[LogFile]:
    """The files that may go, in the order in which they must.

    That is everything before the newest checkpoint that is

    * of a version committed before `before_ms`, so that every version since can still be read;
    * not after the pipeline's last batch at version `head`, whose commit and all later ones stay;
    * not after the checkpoint that `_last_checkpoint` names (`hint`), where readers begin.
    """
    known = sorted(files, key=lambda file: (file.version, file.kind))
    committed = {file.version: file.modified_ms for file in known if file.kind == "json"}
    cut = max(
        (
            file.version
            for file in known
            if file.kind == _WHOLE
            and file.version <= min(head, hint)
            and committed.get(file.version, before_ms) < before_ms
        ),
        default=0,
    )
    return [file for file in known if file.version < cut]


def clean_up(
    view: TableView, files: list[LogFile], *, before_ms: int, keep_on: Callable[[], bool] = lambda: True
) -> list[LogFile]:
    """Delete what `expired` names, oldest first, while `keep_on` says so; what was deleted.

    Raises:
        TableError: the checkpoint that would be the oldest version left cannot be read; nothing is deleted.
    """
    if view.settled is None:
        return []
    gone = expired(files, head=view.settled, hint=last_checkpoint(view.store), before_ms=before_ms)
    if not gone:
        return []
    _require_readable(view, min(file.version for file in files if file.version > gone[-1].version))
    deleted = []
    for file in gone:
        if not keep_on():
            break
        # Another maintainer may have been quicker.
        with suppress(FileNotFoundError):
            obstore.delete(view.store, file.path)
        deleted.append(file)
    return deleted


def _require_readable(view: TableView, version: int) -> None:
    try:
        DeltaTable(view.url, version=version)
    except (DeltaError, OSError) as error:
        raise TableError(
            f"the checkpoint of version {version} cannot be read: {error}",
            where=f"table {view.name}",
            remedy="the log is left as it is; delete that checkpoint, and the next pass writes another",
        ) from error
