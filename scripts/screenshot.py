"""Takes the pictures of README and docs of a running demo: python scripts/screenshot.py URL, in light and in dark.

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
    "live": ("", "#lh-tile-events"),
    "explore": ("explore", "[data-testid=stDataFrame]"),
    "pipeline": ("pipeline", "#lh-tile-rate"),
    "quality": ("quality?hours=15m", "#lh-tile-pass"),
}
"""Name of the picture → path of the page, and what has to be there before it is taken."""
SETTLED_MS = 4_000
"""From the first tiles to a page whose chart and leaderboard are drawn too."""


def main(url: str) -> None:
    """Save `docs/images/PAGE-SCHEME.png` for each page and both colour schemes."""
    FOLDER.mkdir(exist_ok=True)
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
            for name, (path, sign) in PAGES.items():
                page.goto(f"{url.rstrip('/')}/{path}")
                page.locator(sign).first.wait_for(timeout=60_000)
                page.wait_for_timeout(SETTLED_MS)
                page.screenshot(path=FOLDER / f"{name}-{scheme}.png")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
