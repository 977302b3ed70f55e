"""The page's own parts. Their code travels once; each refresh sends data only.

A component's inline script is part of every message that mounts it. So one component brings `live.js`, which
registers the drawing functions on the page, and the other two hold one line each that hands data to them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

_HERE = Path(__file__).parent

_CALL = """
export default function ({ data, parentElement }) {
  const draw = () => window.lakehouse.NAME(parentElement, data);
  if (window.lakehouse) draw();
  else window.addEventListener("lakehouse:ready", draw, { once: true });
}
"""


@cache
def _component(name: str) -> ComponentRenderer:
    script = (_HERE / "live.js").read_text("utf-8") if name == "code" else _CALL.replace("NAME", name)
    return st.components.v2.component(f"lakehouse_{name}", js=script, isolate_styles=False)


def load_code() -> None:
    """Bring the drawing functions and the style sheet to the page. Once per full run."""
    st.html(_HERE / "theme.css")
    with st.container(key="code"):
        _component("code")(key="code_parts")


def board(data: bytes) -> None:
    """Tiles, charts and leaderboard."""
    _component("board")(key="board_parts", data=data)


def panels(data: bytes, name: str) -> None:
    """Tiles, charts and tables of a page outside Live; `name` is unique on the page."""
    _component("panels")(key=f"panels_{name}", data=data)


def badge(data: bytes) -> None:
    """The freshness badge."""
    _component("badge")(key="badge_parts", data=data)
