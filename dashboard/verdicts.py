"""The Quality page's figures of one pipeline, shared by all sessions and made at most every few seconds."""

from __future__ import annotations

import shlex
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from dashboard import panels, wording
from dashboard.held import Held
from dashboard.panels import marked
from lakehouse import storage
from lakehouse.chain import describe
from lakehouse.quality.suite import load_suite
from lakehouse.serving.journal import batches
from lakehouse.serving.refused import SCANNED_ROWS, Wish, newest
from lakehouse.serving.standing import newest_report, versions, watched
from lakehouse.transforms.contract import printable, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dashboard.panels import Cell, Mood, Panel
    from dashboard.pulse import Pulse
    from lakehouse.config.models import Pipeline
    from lakehouse.serving.journal import Entry
    from lakehouse.serving.refused import Refused, Search
    from lakehouse.serving.standing import Report, Version, Watched

EVERY_S = 10.0
HOURS = {"15m": 0.25, "1h": 1.0, "6h": 6.0}
ROWS = 50
"""Rows that the browser lists."""
SAMPLE = 1_000
"""Of the newest refused rows, so many are counted by rule."""
_RULES = 6
"""Rules with a colour of their own; the rest is one."""
_POINTS = 60


class Verdicts:
    """What the pipeline's suite says of its rows."""

    def __init__(self, pipeline: Pipeline, pulse: Pulse) -> None:
        self.pipeline = pipeline
        self._pulse = pulse
        self._quarantine = storage.layer_url(pipeline.root, "quarantine", pipeline.name)
        self._sample = Held(lambda: newest(self._quarantine, Wish(), SAMPLE), EVERY_S)
        self._watched = {hours: Held(partial(self._observed, hours), EVERY_S) for hours in HOURS.values()}
        self._report = Held(lambda: newest_report(pipeline.root, pipeline.name), EVERY_S)
        self._versions = Held(lambda: versions(pipeline.root, pipeline.name), EVERY_S)

    def _observed(self, hours: float) -> list[Watched]:
        return watched(self.pipeline.root, self.pipeline.name, datetime.now(UTC) - timedelta(hours=hours))

    @property
    def report(self) -> Report | None:
        """The newest run of Great Expectations."""
        return self._report.get()

    def rules(self) -> list[str]:
        """Rules that can be chosen: the suite's own, and those that refused one of the newest rows."""
        suite = [one.rule_id for one in load_suite(self.pipeline.quality.suite).in_stream("quarantine")]
        return [*suite, *sorted(set(self._sample.get().counts) - set(suite))]

    def board(self, hours: float, config: str) -> bytes:
        """Tiles, charts and the table of rules."""
        silver = self._pulse.view().entries.get(f"silver/{self.pipeline.name}", ())
        if not batches(silver):
            return panels.encode_waiting("Nothing was judged yet", f"Start the pipeline with: lakehouse run {config}")
        seen, sample = self._watched[hours].get(), self._sample.get()
        found = [
            self._tiles(silver, seen, sample),
            self._refusals(silver),
            _failures(seen, hours),
            self._by_rule(seen, sample),
        ]
        foot = (
            "Passing: rows of the newest commits that came to silver. By rule: what the stream observed, by the minute."
            f" Of quarantine at most {SCANNED_ROWS:,} of the newest rows are read. Times are UTC."
        )
        return panels.encode(found, foot=foot)

    def search(self, wish: Wish) -> Search:
        """The newest refused rows that meet a wish."""
        return self._sample.get() if wish == Wish() else newest(self._quarantine, wish, ROWS)

    def listing(self, search: Search) -> bytes:
        """The browser's rows."""
        rows: list[list[Cell]] = [
            [
                f"{row.partition}:{row.offset}",
                wording.moment(row.at.timestamp() * 1000),
                ", ".join(rule for rule, _ in row.reasons),
                printable(row.reasons[0][1]) if row.reasons else "",
                _beginning(row),
            ]
            for row in search.rows[:ROWS]
        ]
        looked = f"{search.scanned:,} rows looked at"
        rest = "all that could match" if search.whole else "the newest ones; narrow the time to see older ones"
        columns = ("record", "Kafka time", "rules", "first reason", "value")
        grid = panels.table(
            "refused", "Quarantine", columns, rows, caption=f"{looked}: {rest}", empty="No refused row meets this"
        )
        return panels.encode([grid])

    def history(self) -> bytes:
        """The suites that judged, with their differences."""
        rows: list[list[Cell]] = []
        for version in self._versions.get():
            rows += _version(version)
        columns = ("suite", "since", "judged", "change")
        return panels.encode([panels.table("suites", "Suites", columns, rows, caption="newest first")])

    def _tiles(self, silver: tuple[Entry, ...], seen: list[Watched], sample: Search) -> Panel:
        kept, refused = self._counts(batches(silver))
        latest = {one.rule_id: one for one in seen}
        unmet = [one.rule_id for one in latest.values() if one.success is False]
        report = self.report
        total = kept + refused
        share = kept / total if total else None
        failed = "" if report is None else f"{len(report.unmet)} of {report.expectations} unmet"
        return panels.tiles(
            [
                panels.tile("pass", "Passing now", wording.percent(share), note=f"of the last {total:,} rows"),
                panels.tile("refused", "In quarantine", wording.count(sample.total), note="rows"),
                panels.tile(
                    "unmet",
                    "Unmet over a batch",
                    str(len(unmet)),
                    note=", ".join(unmet) or "of the observed expectations",
                    mood="bad" if unmet else "good",
                ),
                panels.tile(
                    "report",
                    "Newest report",
                    "none" if report is None else f"{report.run_at:%H:%M}",
                    note="lakehouse quality run" if report is None else f"{report.run_at:%Y-%m-%d}, {failed}",
                    mood="bad" if report and report.unmet else "",
                ),
            ]
        )

    def _counts(self, entries: list[Entry]) -> tuple[int, int]:
        name = self.pipeline.name
        works = [entry.work for entry in entries if entry.work is not None]
        kept = sum(work.rows.get(f"silver/{name}", 0) for work in works)
        return kept, sum(work.rows.get(f"quarantine/{name}", 0) for work in works)

    def _refusals(self, silver: tuple[Entry, ...]) -> Panel:
        entries = batches(silver)
        first, last = entries[0].at_ms, max(entries[-1].at_ms, entries[0].at_ms + 1)
        step = (last - first) / 1000 / _POINTS
        groups: list[list[Entry]] = [[] for _ in range(_POINTS)]
        for entry in entries:
            groups[min(_POINTS - 1, int((entry.at_ms - first) / 1000 / step))].append(entry)
        counts = map(self._counts, groups)
        shares = [round(100 * refused / (kept + refused), 3) if kept + refused else None for kept, refused in counts]
        caption = f"the last {len(entries):,} batches"
        return panels.chart(
            "share", "Rows refused", "%", {"refused": shares}, start=first / 1000, step=step, caption=caption
        )

    def _by_rule(self, seen: list[Watched], sample: Search) -> Panel:
        failed: Counter[str] = Counter()
        judged: Counter[str] = Counter()
        for one in seen:
            failed[one.rule_id] += one.failed or 0
            judged[one.rule_id] += one.evaluated
        latest = {one.rule_id: one for one in seen}
        suite = {one.rule_id: one for one in load_suite(self.pipeline.quality.suite).expectations}
        examples = {rule: message for row in reversed(sample.rows) for rule, message in row.reasons}
        rows: list[list[Cell]] = []
        for rule in sorted(judged, key=lambda rule: (-failed[rule], rule)):
            severity = suite[rule].severity if rule in suite else "contract"
            share = failed[rule] / judged[rule] if judged[rule] else None
            if latest[rule].success is not None:
                met = latest[rule].success
                value = f"{'met' if met else 'unmet'}: {latest[rule].value}"
                rows.append([rule, severity, marked(value, "" if met else "bad"), wording.NONE, wording.NONE, ""])
                continue
            mood: Mood = "bad" if failed[rule] and severity != "warning" else "warn" if failed[rule] else ""
            rows.append(
                [
                    rule, severity, marked(wording.count(failed[rule]), mood), wording.percent(share),
                    wording.count(sample.counts.get(rule, 0)), printable(examples.get(rule, "")),
                ]
            )  # fmt: skip
        columns = ("rule", "severity", "failed", "share", "of the newest refused", "for example")
        caption = f"{sample.scanned:,} refused rows looked at"
        return panels.table(
            "rules", "Rules", columns, rows, right=("failed", "share", "of the newest refused"), caption=caption,
            empty="Nothing was observed in this range; a minute's figures come when it is over",
        )  # fmt: skip


def replay_command(config: str, wish: Wish) -> str:
    """The dry run of a replay of what a wish means; a shell's words, each quoted where it has to be."""
    words = ["lakehouse", "quarantine", "replay", config]
    if wish.rule:
        words += ["--rule", wish.rule]
    for option, moment in (("--since", wish.since), ("--until", wish.until)):
        if moment is not None:
            words += [option, moment.isoformat(timespec="seconds")]
    for field, value in wish.where:
        words += ["--where", f"{field}={value}"]
    return shlex.join(words)


def _failures(seen: list[Watched], hours: float) -> Panel:
    """Failures per second over time, the rules with most of them by name."""
    totals: Counter[str] = Counter()
    for one in seen:
        totals[one.rule_id] += one.failed or 0
    named = [rule for rule, failed in totals.most_common(_RULES) if failed]
    rest = any(failed for rule, failed in totals.items() if rule not in named)
    end = max((one.end.timestamp() for one in seen), default=0.0)
    first = min((one.start.timestamp() for one in seen), default=0.0)
    # A range that is hardly begun would show its data as a sliver at the right edge.
    start = max(end - hours * 3600, first)
    step = max((end - start) / _POINTS, 1.0)
    series = {rule: [0.0] * _POINTS for rule in [*named, *(["other"] if rest else [])]}
    for one in seen:
        if one.failed:
            values = series[one.rule_id if one.rule_id in named else "other"]
            for index, share in _spread(one, start, step):
                values[index] += one.failed * share / step
    rounded = {rule: [round(value, 3) for value in values] for rule, values in series.items()}
    return panels.chart(
        "failures", "Failures per second by rule", "/s", rounded, start=start, step=step, stacked=True,
        caption="as observed", empty="No row failed in this range",
    )  # fmt: skip


def _spread(one: Watched, start: float, step: float) -> Iterator[tuple[int, float]]:
    """(step, share) of a window over the steps that it reaches into: a window may be wider than they are."""
    first, last = one.start.timestamp(), max(one.end.timestamp(), one.start.timestamp() + 0.001)
    for index in range(max(0, int((first - start) / step)), min(_POINTS, int((last - start) / step) + 1)):
        begin, end = start + index * step, start + (index + 1) * step
        yield index, max(0.0, min(last, end) - max(first, begin)) / (last - first)


def _beginning(row: Refused) -> str:
    if row.value is None:
        return "no value (a tombstone)"
    return f"{quote(row.value.decode(errors='replace'))} ({wording.size(row.size)})"


def _version(version: Version) -> list[list[Cell]]:
    use = version.use
    until = f" up to {describe(use.end)}" if use.end else ", in use"
    head: list[Cell] = [
        f"{version.name} {use.suite_sha256[:12]}",
        f"{use.noted_at:%Y-%m-%d %H:%M:%S}",
        f"from {describe(use.start)}{until}",
        f"{version.rules} expectations" + ("" if version.changes else ", the first"),
    ]
    moods: dict[str, Mood] = {"+": "good", "−": "bad", "~": "warn"}
    return [head, *(["", "", "", marked(change, moods[change[0]])] for change in version.changes)]
