"""The Pipeline page: rate, batches, lag, tables and errors, as the tables' logs tell."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import components

if TYPE_CHECKING:
    from dashboard.alarms import Alarms
    from dashboard.frame import Frame
    from dashboard.pulse import Pulse

TITLE = "Pipeline"
RANGES = {"1m": 1, "5m": 5}
REFRESH_S = 2.0


def show(pulse: Pulse, frame: Frame, alarms: Alarms) -> None:
    """Draw the page."""
    frame.head(TITLE, "how it runs", alarms)
    with st.container(key="bar", horizontal=True, vertical_alignment="bottom"):
        chosen = st.segmented_control(
            "Range", list(RANGES), default="5m", required=True, key="span", bind="query-params"
        )
    st.fragment(_board, run_every=REFRESH_S)(pulse, frame.config, RANGES[chosen])


def _board(pulse: Pulse, config: str, minutes: int) -> None:
    components.panels(pulse.board(minutes, time.time() * 1000, config), name="pipeline")
