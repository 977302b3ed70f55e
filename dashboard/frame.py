"""What every page has at its top: the pipeline's name, the way to the other pages, the alerts, and room for a state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
import streamlit as st

from dashboard import components

if TYPE_CHECKING:
    from streamlit.navigation.page import StreamlitPage

    from dashboard.alarms import Alarms

_BARE = "<style>.st-key-nav, .st-key-bar { display: none !important; }</style>"
_ALERTS_S = 5.0


@dataclass
class Frame:
    """The pages of the site; filled once they are known.

    Attributes:
        pipeline: its name.
        config: path of the pipeline's file, as it was given.
        pages: in the order of the navigation.
    """

    pipeline: str
    config: str
    pages: tuple[StreamlitPage, ...] = ()

    def head(self, title: str, about: str, alarms: Alarms | None = None) -> None:
        """Draw the top of the page named `title`. `?kiosk=1` leaves out what is operated.

        Its two empty places are filled by the page's own parts: with the alerts that `alarms` knows of, or by a board.
        """
        if st.query_params.get("kiosk") == "1":
            st.html(_BARE)
        with st.container(key="head", horizontal=True, horizontal_alignment="distribute"):
            # Names match `[a-z][a-z0-9_]*`: the config refuses anything else, so nothing here needs escaping.
            st.html(f'<div class="lh-title"><h1>{self.pipeline}</h1><span>{about}</span></div>')
            with st.container(key="nav", horizontal=True, width="content"):
                for page in self.pages:
                    # The key of the page that is open gives it its colour.
                    with st.container(key="here" if page.title == title else None, width="content"):
                        st.page_link(page, label=page.title)
            st.html('<div class="lh-state"><div class="lh-alerts-place"></div><div class="lh-badge-place"></div></div>')
        if alarms is not None:
            with st.container(key="alerts"):
                st.fragment(_alerts, run_every=_ALERTS_S)(alarms)


def _alerts(alarms: Alarms) -> None:
    components.alerts(orjson.dumps(alarms.told()))
