"""The page's own parts. Their code travels once; each refresh sends data only.

A component's inline script is part of every message that mounts it. So one component brings the files of `browser`,
which register the drawing functions on the page, and the others hold a few lines each that hand data to them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamlit.components.v2.types import ComponentRenderer

_HERE = Path(__file__).parent

_CODE = ("elements", "charts", "tiles", "panels", "board", "state", "start")
"""The files of `browser`, in the order in which they need each other."""
_BOARD = "board_parts"
_CALL = """
export default function ({ data, parentElement, setTriggerValue }) {
  const draw = () => window.lakehouse.NAME(parentElement, data, (act) => setTriggerValue("act", act));
  if (window.lakehouse) draw();
  else window.addEventListener("lakehouse:ready", draw, { once: true });
}
"""


@cache
def _component(name: str) -> ComponentRenderer:
    script = _code() if name == "code" else _CALL.replace("NAME", name)
    return st.components.v2.component(f"lakehouse_{name}", js=script, isolate_styles=False)


def _code() -> str:
    return "\n".join((_HERE / "browser" / f"{part}.js").read_text("utf-8") for part in _CODE)


def load_code() -> None:
    """Bring the drawing functions and the style sheet to the page. Once per full run."""
    st.html(_HERE / "theme.css")
    with st.container(key="code"):
        _component("code")(key="code_parts")


def board(data: bytes, on_act: Callable[[], None]) -> None:
    """Badge, alerts, tiles, charts and leaderboards: a line of JSON for the first two, and one for the rest.

    `on_act` is called when the viewer acts on the board itself; `acted` says what they did.
    """
    _component("board")(key=_BOARD, data=data, on_act_change=on_act)


def acted() -> dict[str, Any]:
    """What the viewer did on the board, inside of its `on_act`."""
    found = st.session_state[_BOARD].get("act")
    return found if isinstance(found, dict) else {}


def panels(data: bytes, name: str) -> None:
    """Tiles, charts and tables of a page outside Live; `name` is unique on the page."""
    _component("panels")(key=f"panels_{name}", data=data)


def alerts(data: bytes) -> None:
    """The alerts at the top of a page outside Live."""
    _component("alerts")(key="alerts_parts", data=data)
