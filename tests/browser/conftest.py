"""A dashboard that follows a hot table in the making, and a headless Chromium to look at it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.hot_table import HotTable, Load, Writer

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Site:
    """A running dashboard and the table that it follows."""

    url: str
    table: HotTable
    writer: Writer
    log: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def chromium() -> str | None:
    """Chromium's program: $CHROMIUM, or the first of its usual names on the path."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium here: install it, or name its program in $CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    table = HotTable(folder / "gold" / "feature_events_by_feature_1s").create()
    writer = Writer(table, Load(400)).backfill(700).start()
    port, log = free_port(), folder / "dashboard.log"
    command = [sys.executable, "-m", "streamlit", "run", "dashboard/serve.py", "--server.port", str(port)]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*command, "--", "conf/feature_events.yaml"],
            cwd=ROOT,
            env={**os.environ, "LAKEHOUSE_ROOT": str(folder)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"http://127.0.0.1:{port}/"
            wait_for(url)
            yield Site(url, table, writer, log)
        finally:
            server.terminate()
            server.wait(20)
            writer.stop()


def wait_for(url: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{url}_stcore/health", timeout=2):  # noqa: S310 - our own server
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the dashboard did not start within {seconds:.0f} s")


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """A fresh session at desktop size; the stream flows again afterwards."""
    context = browser.new_context(viewport={"width": 1280, "height": 1400}, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()
    site.writer.held.clear()
