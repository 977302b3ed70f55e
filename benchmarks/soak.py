"""Holds the Live page open for the refreshes of a working day, and watches the memory of browser and server.

The page refreshes by itself at 250 ms, as fast as it offers; that is what the server sees. The browser gets more: the
messages that arrive are kept, and drawn again in turn, `--redraws` a second, each as a change of everything. So the
refreshes of eight hours at 500 ms (57,600) pass in minutes, and what a redraw leaves behind shows. Nothing else of the
page is changed.

    python -m benchmarks.soak --redraws 40 --refreshes 57600 --json soak.json

Memory is flat where it does not grow with refreshes: the script prints it at every tenth, and the growth from the third
tenth to the last (what comes before is the filling of caches), and ends with 1 where that is more than `--most` MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from benchmarks.event_to_pixel import FLAGS
from benchmarks.viewers import start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.sync_api import CDPSession, Page

    from benchmarks.viewers import Server

PARTS = 10
SETTLED = 3
"""From this part on memory has to be flat."""
KEPT = 24

REDRAW = """([every, kept]) => {
  const own = window.lakehouse.board;
  const seen = [];
  window.redrawn = window.refreshed = 0;
  window.lakehouse.board = (parent, data, act) => {
    window.refreshed += 1;
    seen.push([parent, data, act]);
    if (seen.length > kept) seen.shift();
    own(parent, data, act);
  };
  setInterval(() => {
    if (!seen.length) return;
    own(...seen[window.redrawn % seen.length]);
    window.redrawn += 1;
  }, every);
}"""


@dataclass(frozen=True)
class Sample:
    """Memory after so many refreshes. Heap is what lives after a collection, MiB; nodes are DOM nodes."""

    minutes: float
    redraws: int
    refreshes: int
    heap_mib: float
    nodes: int
    server_mib: float


def sample(page: Page, tools: CDPSession, server: Server, began: float) -> Sample:
    """Collect the browser's garbage and look."""
    tools.send("HeapProfiler.collectGarbage")
    found = {one["name"]: one["value"] for one in tools.send("Performance.getMetrics")["metrics"]}
    redraws, refreshes = page.evaluate("[window.redrawn, window.refreshed]")
    return Sample(
        minutes=round((time.monotonic() - began) / 60, 2),
        redraws=redraws,
        refreshes=refreshes,
        heap_mib=round(found["JSHeapUsedSize"] / 2**20, 2),
        nodes=int(found["Nodes"]),
        server_mib=round(server.mib, 1),
    )


def soak(page: Page, tools: CDPSession, server: Server, wanted: argparse.Namespace) -> list[Sample]:
    """A sample at every tenth of the redraws."""
    page.evaluate(REDRAW, [1_000 / wanted.redraws, KEPT])
    began = time.monotonic()
    samples: list[Sample] = []
    for part in range(1, PARTS + 1):
        page.wait_for_function(
            "(least) => window.redrawn >= least", arg=wanted.refreshes * part / PARTS, timeout=0, polling=500
        )
        samples.append(sample(page, tools, server, began))
        print(json.dumps(asdict(samples[-1])), flush=True)
    return samples


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """From the third tenth to the last, MiB and nodes."""
    first, last = samples[SETTLED - 1], samples[-1]
    return {
        "heap_mib": round(last.heap_mib - first.heap_mib, 2),
        "nodes": last.nodes - first.nodes,
        "server_mib": round(last.server_mib - first.server_mib, 1),
    }


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refreshes", type=int, default=57_600, help="redraws in all: 8 h at 500 ms by default")
    parser.add_argument("--redraws", type=float, default=40, help="a second")
    parser.add_argument("--most", type=float, default=10, help="MiB that heap or server may grow")
    parser.add_argument("--hot-table", type=float, default=500, help="rate of the writer, events a second")
    parser.add_argument("--config", default="conf/feature_events.yaml")
    parser.add_argument("--chromium", default=os.environ.get("CHROMIUM") or shutil.which("chromium"))
    parser.add_argument("--json", type=Path, help="write every sample here")
    found = parser.parse_args(argv)
    if found.chromium is None:
        parser.error("no Chromium here: install it, or name its program with --chromium")
    return found


def main() -> int:
    """Soak, print, and write the JSON; 1 where memory has grown."""
    wanted = arguments()
    with ExitStack() as stack:
        place, server = start(stack, wanted)
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=wanted.chromium, args=list(FLAGS))
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(180_000)
        page.goto(f"http://{place}/?range=5m&refresh=250ms")
        page.wait_for_selector("#lakehouse-frame:not([data-version='-1'])[data-version]", state="attached")
        tools = page.context.new_cdp_session(page)
        tools.send("Performance.enable")
        samples = soak(page, tools, server, wanted)
    grown = growth(samples)
    print(json.dumps({"growth": grown}))
    if wanted.json:
        settings = {name: str(value) for name, value in vars(wanted).items() if value is not None}
        found = {"settings": settings, "growth": grown, "samples": [asdict(one) for one in samples]}
        wanted.json.write_text(json.dumps(found, indent=2))
    return 1 if max(grown["heap_mib"], grown["server_mib"]) > wanted.most else 0


if __name__ == "__main__":
    sys.exit(main())
