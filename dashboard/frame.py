"""What every page has at its top: the pipeline's name, the way to the other pages, and room for a state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator
    from streamlit.navigation.page import StreamlitPage

_BARE = "<style>.st-key-nav, .st-key-bar { display: none !important; }</style>"


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

    def head(self, title: str, about: str) -> DeltaGenerator:
        """Draw the top of the page named `title`; the place for its state. `?kiosk=1` leaves out what is operated."""
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
            return st.container(width="content")
