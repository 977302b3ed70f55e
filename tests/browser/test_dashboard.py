"""The live page as a person sees it: it fills, refreshes, filters, pauses, ages, and suits both themes."""

from __future__ import annotations

import io
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageChops
from playwright.sync_api import expect

from benchmarks.event_to_pixel import Change, Result, measure, shown, summary
from tests.hot_table import FEATURES, Event, partials

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.conftest import Site

READY = "#lakehouse-frame:not([data-version='-1'])[data-version]"


def open_page(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector(READY, state="attached")


def frame(page: Page) -> dict[str, Any]:
    """The machine-readable state of what is on the screen."""
    found: dict[str, Any] = page.evaluate("() => ({...document.getElementById('lakehouse-frame').dataset})")
    return found


def leaders(page: Page) -> list[str]:
    return page.locator("#lh-panel-leaderboard-2 tbody td:first-child").all_inner_texts()


def test_tiles_charts_and_leaders_are_filled_without_errors(page: Page, site: Site) -> None:
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    open_page(page, site.url)
    for name in ("events", "errors-event", *(f"latency_ms_kll-{rank}" for rank in (50, 95, 99)), "users_hll"):
        expect(page.locator(f"#lh-tile-{name} strong")).to_have_text(re.compile(r"^[\d.,]+$"))
    assert set(FEATURES) <= set(leaders(page))
    for path in page.locator("path.lh-line").all():
        assert (path.get_attribute("d") or "").startswith("M")
    expect(page.locator("[data-testid=stException]")).to_have_count(0)
    expect(page.locator("[data-testid=stHeader]")).to_be_hidden()
    assert problems == []
    assert "Traceback" not in site.log.read_text()


def test_it_refreshes_in_place(page: Page, site: Site) -> None:
    # Two features, both always shown: of all twelve, those that are drawn by name change while the table is young.
    open_page(page, f"{site.url}?range=1m&feature=search&feature=checkout")
    expect(page.get_by_role("radiogroup", name="Split")).to_be_visible()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)
    first = int(frame(page)["version"])
    replaced = page.evaluate(
        """() => new Promise((done) => {
            const parts = [...document.querySelectorAll('.lh-line, .lh-tile strong, .lh-leaders tr')];
            setTimeout(() => done(parts.filter((part) => !part.isConnected).length), 3000);
        })"""
    )
    assert replaced == 0, "parts are updated, not made anew"
    assert int(frame(page)["version"]) > first


def test_an_unchanged_version_is_not_redrawn(page: Page, site: Site) -> None:
    open_page(page, site.url)
    site.writer.held.set()
    page.wait_for_timeout(1200)
    drawn = frame(page)["drawnMs"]
    page.wait_for_timeout(700)
    after = frame(page)
    assert after["drawnMs"] == drawn or int(after["ageMs"]) >= 3000
    assert int(after["ageMs"]) > 700


DATA = (
    ".st-key-head", ".lh-value", ".lh-change", ".lh-note", ".lh-spark", ".lh-stage", ".lh-legend", ".lh-leaders tbody",
)  # fmt: skip
"""What may differ from one refresh to the next."""


BUSY = """() => {
    const slow = document.querySelector('.lh-slow'), board = document.querySelector('.lh-board');
    const top = board.getBoundingClientRect().top;
    slow.textContent = 'Every 500 ms instead of 250 ms: the machine is busy, with 12 viewers.';
    slow.hidden = false;
    const moved = board.getBoundingClientRect().top - top;
    slow.hidden = true;
    return moved;
}"""


def test_refreshes_change_nothing_but_data_and_a_zoom_ends_them(page: Page, site: Site) -> None:
    open_page(page, f"{site.url}?range=1m&feature=search&feature=checkout")
    expect(page.locator("#lh-panel-heatmap-1 path.lh-rank-0")).to_be_visible()
    # The browser loads the code of the controls by itself; the board may be there before.
    for name in ("Range", "Split", "Refresh"):
        expect(page.get_by_role("radiogroup", name=name)).to_be_visible()
    for name in ("Feature", "Region"):
        expect(page.get_by_role("combobox", name=name)).to_be_visible()
    expect(page.get_by_text("Pause", exact=True)).to_be_visible()
    page.wait_for_load_state("networkidle")
    page.evaluate("document.fonts.ready")
    # What a busy machine is said to do comes and goes beside the data, here as well.
    assert page.evaluate(BUSY) == 0, "the page moves for a word about the machine"
    shots = []
    # Hidden, not masked: a mask is as wide as the number below it.
    hidden = f"{', '.join(DATA)} {{ visibility: hidden !important }}"
    for _ in range(4):
        version = int(frame(page)["version"])
        shots.append(page.screenshot(style=hidden, animations="disabled"))
        page.wait_for_function(
            "(seen) => +document.getElementById('lakehouse-frame').dataset.version > seen", arg=version
        )
    first, *others = (Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots)
    changed = [ImageChops.difference(first, other).getbbox() for other in others]
    assert changed == [None] * 3, "pixels outside of the data have changed"
    box = page.locator("#lh-panel-series-0 svg[role=group]").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 90)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 90, steps=3)
    page.mouse.up()
    expect(page.locator(".lh-zoom")).to_be_visible()
    page.wait_for_url(re.compile(r"[?&]from=\d+&to=\d+"))
    assert 10 <= float(frame(page)["minutes"]) * 60 <= 30
    page.keyboard.press("Escape")
    expect(page.locator(".lh-zoom")).to_be_hidden()
    page.wait_for_url(lambda url: "from=" not in url)
    assert "feature=search" in page.url


def test_filters_live_in_the_url(page: Page, site: Site) -> None:
    open_page(page, f"{site.url}?range=1m&feature=search&region=eu-west")
    expect(page.locator("#lh-panel-leaderboard-2 tbody tr")).to_have_count(1)
    assert leaders(page) == ["search"]
    assert frame(page)["minutes"] == "1"
    page.get_by_role("radio", name="15m").click()
    page.wait_for_selector("#lakehouse-frame[data-minutes='15']", state="attached")
    page.wait_for_url(re.compile("range=15m"))
    assert "feature=search" in page.url
    page.reload()
    page.wait_for_selector("#lakehouse-frame[data-minutes='15']", state="attached")
    assert leaders(page) == ["search"]


def test_pause_holds_the_page_still(page: Page, site: Site) -> None:
    open_page(page, site.url)
    page.get_by_text("Pause", exact=True).click()
    expect(page.locator("#lh-badge")).to_contain_text("Paused")
    page.wait_for_timeout(800)
    held, rate = frame(page)["version"], page.locator("#lh-tile-events strong").inner_text()
    page.wait_for_timeout(2000)
    assert frame(page)["version"] == held
    assert page.locator("#lh-tile-events strong").inner_text() == rate
    assert site.table.version > int(held)
    page.get_by_text("Pause", exact=True).click()
    page.wait_for_function("(held) => +document.getElementById('lakehouse-frame').dataset.version > +held", arg=held)


def test_the_badge_ages_when_data_stops_and_recovers(page: Page, site: Site) -> None:
    open_page(page, f"{site.url}?range=1m")
    badge = page.locator("#lh-badge")
    expect(badge).to_have_attribute("data-state", "fresh", timeout=60_000)
    green = badge.evaluate("(e) => getComputedStyle(e).borderColor")
    site.writer.held.set()
    expect(badge).to_have_attribute("data-state", "late", timeout=10_000)
    amber = badge.evaluate("(e) => getComputedStyle(e).borderColor")
    expect(badge).to_have_attribute("data-state", "stale", timeout=10_000)
    red = badge.evaluate("(e) => getComputedStyle(e).borderColor")
    assert len({green, amber, red}) == 3
    first = int(frame(page)["ageMs"])
    page.wait_for_timeout(1000)
    assert int(frame(page)["ageMs"]) >= first + 800
    site.writer.held.clear()
    expect(badge).to_have_attribute("data-state", "fresh", timeout=60_000)


def test_the_badge_ages_on_without_the_server(page: Page, site: Site) -> None:
    open_page(page, site.url)
    page.context.set_offline(True)
    site.writer.held.set()
    first = int(frame(page)["ageMs"])
    page.wait_for_timeout(1500)
    assert int(frame(page)["ageMs"]) >= first + 1000


def test_strings_from_data_are_text(page: Page, site: Site) -> None:
    name = "<img src=x onerror='window.broken=1'><b>bold</b>"
    site.table.append(partials([Event(time.time(), name, "eu-west", user) for user in range(50)]))
    open_page(page, site.url)
    expect(page.locator("#lh-panel-leaderboard-2 tbody td:first-child", has_text="onerror")).to_have_count(1)
    assert name in leaders(page)
    assert page.evaluate("window.broken") is None
    expect(page.locator(".lh-board img, .lh-board td b")).to_have_count(0)


def test_a_value_that_appears_later_can_be_chosen(page: Page, site: Site) -> None:
    open_page(page, site.url)
    site.table.append(partials([Event(time.time(), "late-comer", "eu-west")]))
    expect(page.locator("#lh-panel-leaderboard-2 tbody td:first-child", has_text="late-comer")).to_have_count(1)
    page.get_by_role("combobox", name="Feature").click()
    page.get_by_role("option", name="late-comer").click()
    expect(page.locator("#lh-panel-leaderboard-2 tbody tr")).to_have_count(1)
    page.wait_for_url(re.compile("feature=late-comer"))


def luminance(colour: str) -> float:
    channels = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in channels)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_are_legible(browser: Browser, site: Site, scheme: Any) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 1000})
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        open_page(page, site.url)
        text, card, line = page.evaluate(
            """() => [
                getComputedStyle(document.querySelector('.lh-tile strong')).color,
                getComputedStyle(document.querySelector('.lh-tile')).backgroundColor,
                getComputedStyle(document.querySelector('.lh-line')).stroke,
            ]"""
        )
        assert (luminance(card) > 0.5) == (scheme == "light")
        for colour, least in ((text, 7.0), (line, 3.0)):
            bright, dim = sorted((luminance(colour), luminance(card)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= least
    finally:
        context.close()


def test_a_phone_needs_no_sideways_scrolling(browser: Browser, site: Site) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        open_page(page, site.url)
        too_wide = page.evaluate(
            """() => [...document.querySelectorAll('.lh-card, .st-key-bar, .lh-badge')]
                .filter((part) => part.getBoundingClientRect().right > innerWidth + 1).length"""
        )
        assert too_wide == 0
    finally:
        context.close()


def test_a_click_on_a_leader_filters_and_a_second_one_lets_all_in(page: Page, site: Site) -> None:
    open_page(page, site.url)
    leader = page.locator("#lh-panel-leaderboard-2 td:first-child a", has_text=re.compile("^search$"))
    leader.click()
    page.wait_for_url(re.compile(r"[?&]feature=search\b"))
    expect(page.locator("#lh-panel-leaderboard-2 tbody tr")).to_have_count(1)
    leader.click()
    page.wait_for_url(lambda url: "feature=" not in url)
    expect(page.locator("#lh-panel-leaderboard-2 tbody tr")).not_to_have_count(1)


def test_keys_pause_and_choose_the_range(page: Page, site: Site) -> None:
    open_page(page, site.url)
    # The browser loads the code of the controls by itself; the board may be there before.
    expect(page.locator(".st-key-range button")).to_have_count(4)
    expect(page.locator(".st-key-pause input")).to_have_count(1)
    page.keyboard.press("1")
    page.wait_for_selector("#lakehouse-frame[data-minutes='1']", state="attached")
    page.keyboard.press("p")
    expect(page.locator("#lh-badge")).to_contain_text("Paused")


def test_kiosk_shows_nothing_to_operate(page: Page, site: Site) -> None:
    open_page(page, f"{site.url}?kiosk=1")
    expect(page.locator(".st-key-bar")).to_be_hidden()
    expect(page.locator(".st-key-nav")).to_be_hidden()
    expect(page.locator("#lh-tile-events strong")).to_be_visible()


def test_the_navigation_leads_to_pages_without_a_script_error(page: Page, site: Site) -> None:
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    open_page(page, site.url)
    for title, sign in (
        ("Explore", "[data-testid=stDataFrame]"),
        ("Pipeline", ".lh-waiting"),
        ("Quality", ".lh-waiting >> nth=0"),
        ("Live", "#lh-tile-events strong"),
    ):
        page.locator(".st-key-nav a", has_text=title).click()
        expect(page.locator(sign)).to_be_visible()
    expect(page.locator("[data-testid=stException]")).to_have_count(0)
    assert problems == []
    assert "Traceback" not in site.log.read_text()


def test_event_to_pixel_sees_each_marker(page: Page, site: Site) -> None:
    def send(burst: int) -> float:
        at = time.time()
        site.table.append(partials([Event(at, "marker", "nowhere", user) for user in range(burst)]))
        return at * 1000

    send(1)
    open_page(page, f"{site.url}?feature=marker&region=nowhere&range=15m")
    results = measure(page, send, markers=5, burst=3, timeout_s=20, pause=lambda: 0.1)
    found = summary(results)
    assert found["missed"] == 0
    assert all(0 < (result.dom_ms or 0) <= (result.painted_ms or 0) for result in results)
    expect(page.locator("#lh-tile-events .lh-note")).to_have_text("16 events")


def test_a_marker_is_complete_when_its_increase_is() -> None:
    changes = [Change(at, at + 1, events) for at, events in ((1, 40), (10, 41), (20, 43), (30, 12), (40, 15))]
    assert shown(changes, 5, 1) == changes[1]
    assert shown(changes, 10, 2) == changes[2]
    assert shown(changes, 5, 6) == changes[4], "what leaves the range takes nothing back"
    assert shown(changes, 5, 7) is None
    assert summary([Result(0, 5.0, 6.0), Result(1, None, None)])["missed"] == 1
