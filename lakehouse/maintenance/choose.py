"""Which files to rewrite next: a pure function of what is live.

Files climb tiers. The stream writes tier 0; a rewrite of ten or more files of one tier makes a file of the next. So a
row is rewritten once per tier, a table of n files has about log10(n) tiers, and fewer than ten files wait in each. A
file of half the target size or more is full and climbs no further.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lakehouse.maintenance.view import LiveFile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

FAN_IN = 10
"""Files of one tier that make a rewrite worth while: rows are rewritten log10(files) times."""
MAX_FILES = 1_000
"""Files of one rewrite at most, which bounds the work of a first pass over an old table."""


@dataclass(frozen=True)
class Limits:
    """What bounds the choice.

    Attributes:
        target: size up to which files are merged, bytes.
        min_age_ms: files of the stream that are younger are left alone.
        overlapping: whether files that hold the same windows should end up together: for partial aggregates.
    """

    target: int
    min_age_ms: int
    overlapping: bool = False


@dataclass(frozen=True)
class Run:
    """The files of one rewrite, oldest first, and the tier of what they become."""

    files: tuple[LiveFile, ...]
    tier: int

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(file.size for file in self.files)


def choose(files: Iterable[LiveFile], limits: Limits, now_ms: int, *, but: Collection[str] = ()) -> Run | None:
    """The next run, from the lowest tier that has enough files; None where nothing is worth a rewrite.

    Args:
        files: every live file of the table.
        limits: sizes and ages.
        now_ms: ms since 1970 UTC.
        but: paths that must not be touched.
    """
    live = [file for file in files if file.path not in but and "%" not in file.path]
    tiers: dict[int, list[LiveFile]] = {}
    for file in live:
        settled = file.tier > 0 or file.modified_ms <= now_ms - limits.min_age_ms
        if settled and file.size < limits.target // 2:
            tiers.setdefault(file.tier, []).append(file)
    for tier, waiting in sorted(tiers.items()):
        if len(waiting) >= FAN_IN:
            oldest = _up_to_target(sorted(waiting, key=lambda file: (file.modified_ms, file.path)), limits.target)
            run = Run(tuple(oldest), tier + 1)
            return _with_overlapping(run, live) if limits.overlapping else run
    return None


def _up_to_target(files: list[LiveFile], target: int) -> list[LiveFile]:
    """The first files that together stay below the target; at least two, since none is larger than half of it."""
    taken: list[LiveFile] = []
    total = 0
    for file in files[:MAX_FILES]:
        total += file.size
        if total > target:
            break
        taken.append(file)
    return taken


def _with_overlapping(run: Run, live: list[LiveFile]) -> Run:
    """The run, and rewritten files that hold some of its windows, so that late partials meet the row they belong to.

    They may be full. Together they are no larger than the run: a rewrite then at most doubles, and a large file is
    only rewritten once as much has gathered beside it.
    """
    span = _span(run.files)
    if span is None:
        return run
    chosen, left = {file.path for file in run.files}, run.bytes
    joined: list[LiveFile] = []
    for file in sorted(live, key=lambda file: (-file.modified_ms, file.path)):
        if file.path in chosen or file.tier < run.tier or file.window is None or file.size > left:
            continue
        if file.window[0] <= span[1] and file.window[1] >= span[0]:
            joined.append(file)
            left -= file.size
    return replace(run, files=(*run.files, *joined), tier=max([run.tier, *(file.tier for file in joined)]))


def _span(files: Iterable[LiveFile]) -> tuple[int, int] | None:
    windows = [file.window for file in files if file.window is not None]
    return (min(first for first, _ in windows), max(last for _, last in windows)) if windows else None


def simulate(files: Iterable[LiveFile], limits: Limits, now_ms: int) -> tuple[list[Run], list[LiveFile]]:
    """What a pass would rewrite, and about which files would be live after it. Nothing is read or written."""
    left, runs = list(files), []
    while run := choose(left, limits, now_ms):
        runs.append(run)
        gone = {file.path for file in run.files}
        count = -(-run.bytes // limits.target)
        rows = sum(file.rows or 0 for file in run.files)
        outputs = [
            LiveFile(f"{len(runs)}-{n}", run.bytes // count, rows // count, now_ms, run.tier, _span(run.files))
            for n in range(count)
        ]
        left = [file for file in left if file.path not in gone] + outputs
    return runs, left
