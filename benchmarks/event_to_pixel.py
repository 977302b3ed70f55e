"""Measures event → pixel: from the sending of an event to the moment its effect is on a viewer's screen.

A marker is `--burst` events of one feature and region, made at the moment they are sent. The page is opened in
headless Chromium with a filter on that pair, so that the tile "n events" counts next to nothing else. A
MutationObserver in the page notes when that visible number changes, by the same machine's clock; a marker is
on the screen with the change that brings the increase since its sending to `--burst`. Markers go out one at a
time with a random pause, so that they do not keep step with triggers, polls or refreshes.

    python -m benchmarks.event_to_pixel --url http://127.0.0.1:8501 --bootstrap localhost:9092 \
        --topic feature_events --feature subscription --region ap-south --burst 25
    python -m benchmarks.event_to_pixel --url … --hot-table data/gold/feature_events_by_feature_1s

The second form measures commit → pixel alone: it makes that table itself, with a background of other pairs,
and commits each marker to it directly. The dashboard has to be running on the same root.

Where the pair has events of its own, a burst has to be larger than what they add within a second. A marker
that is not on the screen within `--timeout` seconds is counted as missed, never left out in silence.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from playwright.sync_api import Page

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
COUNTER = "#lh-tile-events .lh-note"
"""The visible text `n events`: the exact number of events in the range under the page's filters."""
LOOK_S = 0.05
"""How often this process collects what the page has noted; the times are the page's own."""

OBSERVE = """(selector) => {
  const target = document.querySelector(selector);
  const now = () => performance.timeOrigin + performance.now();
  const read = () => Number(target.textContent.replace(/[^0-9]/g, ''));
  window.changes = [{ dom: now(), painted: now(), events: read() }];
  new MutationObserver(() => {
    const change = { dom: now(), painted: null, events: read() };
    window.changes.push(change);
    requestAnimationFrame(() => setTimeout(() => { change.painted = now(); }, 0));
  }).observe(target, { childList: true, characterData: true, subtree: true });
}"""


@dataclass(frozen=True)
class Change:
    """The visible count changed. Times are ms since 1970 UTC; `painted` is after the frame that shows it."""

    dom: float
    painted: float | None
    events: int


@dataclass(frozen=True)
class Result:
    """One marker: when its first event was handed over, and how long until all of it was visible, ms."""

    sent_ms: float
    dom_ms: float | None
    painted_ms: float | None


class Send(Protocol):
    """Sends one marker of so many events and returns when its making began, ms since 1970 UTC."""

    def __call__(self, burst: int) -> float:
        """Send `burst` events; the answer is when their making began."""
        ...


def shown(changes: Sequence[Change], sent_ms: float, burst: int) -> Change | None:
    """The change that completes a marker: the increases since its sending reach `burst`.

    Only increases count, because the range leaves old events behind as it moves on.
    """
    before = [change for change in changes if change.dom <= sent_ms]
    count = before[-1].events if before else 0
    gained = 0
    for change in changes:
        if change.dom <= sent_ms:
            continue
        gained += max(0, change.events - count)
        count = change.events
        if gained >= burst:
            return change
    return None


def measure(
    page: Page, send: Send, *, markers: int, burst: int, timeout_s: float, pause: Callable[[], float]
) -> list[Result]:
    """Send the markers one after another and note when each is on the screen.

    Args:
        page: a page of the dashboard, filtered to the markers' feature and region.
        send: sends one marker.
        markers: how many.
        burst: events per marker.
        timeout_s: after so long a marker is missed.
        pause: seconds between a marker on the screen and the next one.
    """
    page.wait_for_selector(COUNTER, state="attached")
    page.evaluate(OBSERVE, COUNTER)
    results = []
    for _ in range(markers):
        page.wait_for_timeout(pause() * 1000)
        results.append(_one(page, send, burst, timeout_s))
    return results


def _one(page: Page, send: Send, burst: int, timeout_s: float) -> Result:
    # What went before is of no interest, but the last count is where this marker starts from.
    page.evaluate("() => { window.changes = window.changes.slice(-1); }")
    sent_ms = send(burst)
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        page.wait_for_timeout(LOOK_S * 1000)
        changes = [Change(**change) for change in page.evaluate("() => window.changes")]
        found = shown(changes, sent_ms, burst)
        if found is not None and found.painted is not None:
            return Result(sent_ms, found.dom - sent_ms, found.painted - sent_ms)
    return Result(sent_ms, None, None)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Nearest-rank percentiles, ms, rounded to 0.1."""
    ranked = sorted(values)
    if not ranked:
        return {}
    found = {f"p{q}": round(ranked[math.ceil(len(ranked) * q / 100) - 1], 1) for q in (50, 90, 95, 99)}
    return {"min": round(ranked[0], 1), **found, "max": round(ranked[-1], 1)}


def summary(results: Sequence[Result]) -> dict[str, object]:
    """Counts and percentiles of both moments."""
    return {
        "markers": len(results),
        "missed": sum(result.dom_ms is None for result in results),
        "dom_ms": percentiles([result.dom_ms for result in results if result.dom_ms is not None]),
        "painted_ms": percentiles([result.painted_ms for result in results if result.painted_ms is not None]),
    }


@contextmanager
def kafka(bootstrap: str, topic: str, feature: str, region: str) -> Iterator[Send]:
    """Markers as events of conf/feature_events.yaml, without lingering in the client."""
    from confluent_kafka import Producer  # noqa: PLC0415 - the other mode needs no broker

    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "acks": "all"})

    def send(burst: int) -> float:
        sent_ms = time.time() * 1000
        for _ in range(burst):
            producer.produce(topic, json.dumps(_event(feature, region, sent_ms)).encode())
        producer.flush(30)
        return sent_ms

    yield send
    producer.flush(30)


def _event(feature: str, region: str, at_ms: float) -> dict[str, object]:
    at = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return {
        "event_id": uuid.uuid4().hex,
        "event_time": at.replace("+00:00", "Z"),
        "feature": feature,
        "action": "view",
        "user_id": random.randrange(10_000_000, 10_100_000),  # noqa: S311 - no secret
        "session_id": uuid.uuid4().hex[:16],
        "region": region,
        "app_version": "1.0.0",
        "status": "ok",
        "latency_ms": 12.5,
        "amount": None,
    }


@contextmanager
def hot_table(path: Path, feature: str, region: str, rate: float) -> Iterator[Send]:
    """Markers as commits to a table made here, beside a background of the other pairs, 4 commits a second."""
    from tests.hot_table import Event, HotTable, Load, Writer, partials  # noqa: PLC0415 - only this mode

    table = HotTable(path).create()
    writer = Writer(table, Load(rate, skip=(feature, region))).backfill(700)
    table.append(partials([Event(time.time(), feature, region)]))
    writer.start()

    def send(burst: int) -> float:
        sent_ms = time.time() * 1000
        table.append(partials([Event(sent_ms / 1000, feature, region, user) for user in range(burst)]))
        return sent_ms

    yield send
    writer.stop()


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="the dashboard")
    parser.add_argument("--bootstrap", help="Kafka, host:port")
    parser.add_argument("--topic", default="feature_events")
    parser.add_argument("--hot-table", type=Path, help="make this table and commit markers to it, without Kafka")
    parser.add_argument("--rate", type=float, default=2000, help="background of --hot-table, events a second")
    parser.add_argument("--feature", default="subscription")
    parser.add_argument("--region", default="ap-south")
    parser.add_argument("--markers", type=int, default=100)
    parser.add_argument("--burst", type=int, default=1, help="events per marker")
    parser.add_argument("--refresh", default="250ms", choices=["250ms", "500ms", "1s", "5s"])
    parser.add_argument("--range", default="15m", choices=["1m", "5m", "15m", "60m"])
    parser.add_argument("--timeout", type=float, default=15, help="seconds until a marker is missed")
    parser.add_argument("--chromium", default=os.environ.get("CHROMIUM") or shutil.which("chromium"))
    parser.add_argument("--json", type=Path, help="write every marker and the summary here")
    found = parser.parse_args(argv)
    if (found.bootstrap is None) == (found.hot_table is None):
        parser.error("name either --bootstrap or --hot-table")
    if found.chromium is None:
        parser.error("no Chromium here: install it, or name its program with --chromium")
    return found


def main() -> int:
    """Measure, print percentiles, and write the JSON; 1 where a marker was missed."""
    wanted = arguments()
    query = urlencode(
        {"feature": wanted.feature, "region": wanted.region, "range": wanted.range, "refresh": wanted.refresh}
    )
    sender = (
        hot_table(wanted.hot_table, wanted.feature, wanted.region, wanted.rate)
        if wanted.hot_table
        else kafka(wanted.bootstrap, wanted.topic, wanted.feature, wanted.region)
    )
    with sender as send, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=wanted.chromium, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(f"{wanted.url.rstrip('/')}/?{query}")
        page.wait_for_selector("#lakehouse-frame:not([data-version='-1'])[data-version]", state="attached")
        # The first seconds belong to the loading of the page, not to the path of an event.
        page.wait_for_timeout(3000)
        results = measure(
            page,
            send,
            markers=wanted.markers,
            burst=wanted.burst,
            timeout_s=wanted.timeout,
            pause=lambda: random.uniform(0.2, 0.9),  # noqa: S311 - no secret
        )
        browser.close()
    found = summary(results)
    print(json.dumps(found, indent=2))
    if wanted.json:
        settings = {name: str(value) for name, value in vars(wanted).items() if value is not None}
        wanted.json.write_text(
            json.dumps({"settings": settings, **found, "each": [asdict(result) for result in results]}, indent=2)
        )
    return 1 if found["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
