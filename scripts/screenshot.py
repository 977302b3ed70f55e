"""Takes the pictures of README and docs of a running demo, in light and in dark.

    python scripts/screenshot.py URL [PAGE …]

Needs Chromium (its program in $CHROMIUM, or on the path) and a dashboard that shows data, such as that of `make demo`.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parent.parent / "docs" / "images"
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
PAGES = {
    "live": ("", "#lh-panel-heatmap-1 path.lh-rank", 1180),
    "explore": ("explore", "[data-testid=stDataFrame]", 900),
    "pipeline": ("pipeline", "#lh-panel-tables", 1180),
    "quality": ("quality?hours=15m", "#lh-tile-pass", 900),
}
"""Name of the picture → path of the page, what has to be there before it is taken, and how high it is."""
PHONE = ("live-phone", "", "#lh-panel-heatmap-1 path.lh-rank", {"width": 390, "height": 1180})
TIMEOUT_MS = 120_000
SETTLED_MS = 4_000
"""From the first tiles to a page whose chart and leaderboard are drawn too."""


def main(url: str, *wanted: str) -> None:
    """Save `docs/images/PAGE-SCHEME.png` in both colour schemes for each page that is wanted, by default for all."""
    FOLDER.mkdir(exist_ok=True)
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    shots = [(name, path, sign, {"width": 1280, "height": height}) for name, (path, sign, height) in PAGES.items()]
    shots = [shot for shot in (*shots, PHONE) if not wanted or shot[0] in wanted]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        for scheme in ("light", "dark"):
            for name, path, sign, size in shots:
                page = browser.new_page(viewport=size, color_scheme=scheme)
                page.goto(f"{url.rstrip('/')}/{path}", timeout=TIMEOUT_MS)
                page.locator(sign).first.wait_for(timeout=TIMEOUT_MS)
                page.wait_for_timeout(SETTLED_MS)
                page.screenshot(path=FOLDER / f"{name}-{scheme}.png")
                page.close()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
