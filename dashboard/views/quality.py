"""The Quality page: how many rows pass, which rules fail, the refused rows, the suites and the newest report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import components
from dashboard.verdicts import HOURS, ROWS, replay_command
from lakehouse import quarantine
from lakehouse.errors import LakehouseError
from lakehouse.serving.refused import Wish

if TYPE_CHECKING:
    from datetime import datetime

    from dashboard.alarms import Alarms
    from dashboard.frame import Frame
    from dashboard.verdicts import Verdicts
    from lakehouse.serving.standing import Report

TITLE = "Quality"
REFRESH_S = 10.0
ANY = "any rule"
_LONGEST = 200
"""Characters of a filter taken from the URL, which anyone can write."""


def show(verdicts: Verdicts, frame: Frame, alarms: Alarms) -> None:
    """Draw the page."""
    frame.head(TITLE, "how good the rows are", alarms)
    with st.container(key="bar", horizontal=True, vertical_alignment="bottom"):
        chosen = st.segmented_control(
            "Range", list(HOURS), default="1h", required=True, key="hours", bind="query-params"
        )
    try:
        st.fragment(_board, run_every=REFRESH_S)(verdicts, frame.config, HOURS[chosen])
        _browser(verdicts, frame.config)
        components.panels(verdicts.history(), name="suites")
        _report(verdicts.report)
    except LakehouseError as error:
        st.error("A part of this page cannot be read now.")
        st.code(str(error), language=None, wrap_lines=True)


def _board(verdicts: Verdicts, config: str, hours: float) -> None:
    components.panels(verdicts.board(hours, config), name="quality")


def _browser(verdicts: Verdicts, config: str) -> None:
    """Refused rows, chosen by filters that live in the URL; one of them with its bytes; how to replay them."""
    with st.container(key="filters", horizontal=True, vertical_alignment="bottom"):
        rule = st.selectbox("Rule", [ANY, *verdicts.rules()], key="rule", bind="query-params", width=260)
        since = st.text_input(
            "Since", key="since", bind="query-params", placeholder="2h, or 2026-01-31T12:00", max_chars=40, width=210
        )
        until = st.text_input("Until", key="until", bind="query-params", placeholder="now", max_chars=40, width=210)
        where = st.text_input(
            "Where", key="where", bind="query-params", placeholder="field=value", max_chars=_LONGEST, width=240
        )
    try:
        wish = Wish(
            rule=None if rule in (ANY, None) else rule,
            since=_moment(since),
            until=_moment(until),
            where=tuple(quarantine.parse_where([where] if where else []).items()),
        )
    except LakehouseError as error:
        st.warning(str(error))
        return
    search = verdicts.search(wish)
    components.panels(verdicts.listing(search), name="refused")
    if not search.rows:
        return
    left, right = st.columns(2)
    with left:
        records = [f"{row.partition}:{row.offset}" for row in search.rows[:ROWS]]
        asked = st.query_params.get("record", "")[:40]
        if _is_record(asked) and asked not in records:
            records.insert(0, asked)
        record = st.selectbox("Record", records, key="record", bind="query-params", width=260)
        st.code(_shown(verdicts, record), language=None, wrap_lines=True, height=420)
    with right:
        st.caption(
            "What a replay of these rows would do, without doing it. `--repair` names a function that mends values."
        )
        st.code(replay_command(config, wish), language="sh", wrap_lines=True)


def _is_record(text: str) -> bool:
    partition, separator, offset = text.partition(":")
    return bool(separator) and partition.isdecimal() and offset.isdecimal()


def _shown(verdicts: Verdicts, record: str) -> str:
    """One record as `lakehouse quarantine show` prints it: bytes in hexadecimal digits, no control character."""
    partition, _, offset = record.partition(":")
    try:
        return str(quarantine.find(verdicts.pipeline, int(partition), int(offset)))
    except LakehouseError as error:
        return str(error)


def _moment(text: str) -> datetime | None:
    return quarantine.parse_moment(text) if text else None


def _report(report: Report | None) -> None:
    """The newest Data Docs: the page itself where it lies on this machine, else where it is."""
    if report is None:
        return
    with st.container(key="docs", horizontal=True, vertical_alignment="center"):
        path = Path(report.page)
        if not report.page.startswith("s3://") and path.is_file():
            st.download_button(
                "Newest report",
                path.read_bytes,
                file_name=f"{report.run_id}.html".replace(":", "-"),
                mime="text/html",
                on_click="ignore",
            )
        st.code(report.page, language=None)
