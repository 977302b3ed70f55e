"""The live page: what is chosen lives in the URL, the board refreshes by itself, the badge goes on ageing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.scriptrunner_utils.script_run_context import ThreadState

from dashboard import charts, components
from lakehouse.serving.questions import Question, label

if TYPE_CHECKING:
    from dashboard.alarms import Alarms
    from dashboard.feed import Feed
    from dashboard.frame import Frame
    from dashboard.pace import Pace
    from lakehouse.serving.snapshot import Snapshot

REFRESH = {"250ms": 0.25, "500ms": 0.5, "1s": 1.0, "5s": 5.0}
MAX_URL_VALUES = 50
"""Values of one filter taken from the URL, which anyone can write."""
_FROM, _TO = "from", "to"
"""In the URL, of a zoom: seconds since 1970 UTC."""
_ACT = "_act"
"""In the session: what the viewer did on the board, until a whole run follows it."""
_EVERY = "_every_s"
"""In the session: the interval that the page's timer was set for."""
_LAST_SECOND = 253_402_300_800
"""The year 10000."""


@dataclass(frozen=True, slots=True)
class Controls:
    """What the viewer has chosen; no question where the range that they zoomed to is held no longer."""

    question: Question | None
    refresh_s: float
    paused: bool


@dataclass(frozen=True, slots=True)
class Live:
    """A rollup's page: its feed, and what it shares with all pages."""

    feed: Feed
    frame: Frame
    alarms: Alarms
    pace: Pace


def titles(feeds: tuple[Feed, ...]) -> list[str]:
    """What the navigation calls each rollup's page: Live, and by what where there are several."""
    return ["Live"] if len(feeds) == 1 else [f"Live {feed.rollup.replace('_', ' ')}" for feed in feeds]


def show(page: Live, title: str) -> None:
    """Draw the page of one hot table."""
    snapshot = page.feed.follower.snapshot
    page.frame.head(title, f"gold/{page.feed.table}")
    _follow(st.session_state.pop(_ACT, {}), page.feed)
    controls = _controls(page.feed, snapshot)
    if controls.paused:
        st.session_state.setdefault("held", (page.feed.follower.snapshot, _now_ms()))
    else:
        st.session_state.pop("held", None)
    every_s = st.session_state[_EVERY] = page.pace.interval(controls.refresh_s)
    timer_s = page.pace.timer(_session(), every_s)
    st.fragment(_board, run_every=None if controls.paused else timer_s)(page, controls)


def refuse(message: str) -> None:
    """Say why there is nothing to show; the words are an error's own, shown as text."""
    st.error("The dashboard cannot start.")
    st.code(message, language=None, wrap_lines=True)


def _controls(feed: Feed, snapshot: Snapshot) -> Controls:
    dimensions = snapshot.shape.dimensions
    with st.container(key="bar", horizontal=True, vertical_alignment="bottom"):
        span = st.segmented_control(
            "Range",
            list(feed.scale.ranges),
            default=feed.scale.usual,
            required=True,
            key="range",
            bind="query-params",
            on_change=_unzoom,
        )
        filters = tuple(_filter(snapshot, index, name) for index, name in enumerate(dimensions))
        split = "none"
        if feed.layout.wanted.stacks:
            split = st.segmented_control(
                "Split",
                ["none", *dimensions],
                default=dimensions[0],
                required=True,
                key="split",
                bind="query-params",
            )
        refresh = st.segmented_control(
            "Refresh", list(REFRESH), default="250ms", required=True, key="refresh", bind="query-params"
        )
        paused = st.toggle("Pause", key="pause", bind="query-params", help="`?` shows the keys of this page")
    asked = Question(feed.scale.ranges[span], filters, None if split == "none" else split)
    return Controls(_zoomed(feed, asked), REFRESH[refresh], bool(paused))


def _zoomed(feed: Feed, asked: Question) -> Question | None:
    """The question over the range in the URL, where there is one; None where that is held no longer."""
    ends = [st.query_params.get(name, "") for name in (_FROM, _TO)]
    if not all(end.isdecimal() and int(end) < _LAST_SECOND for end in ends):
        return asked
    zoom = feed.scale.zoomed(int(ends[0]), int(ends[1]), time.time())
    if zoom is None:
        return None
    return Question(zoom.range, asked.filters, asked.split, zoom.end, zoom.compared)


def _filter(snapshot: Snapshot, index: int, name: str) -> tuple[str, frozenset[Any]]:
    """A dimension's filter. Values that only the URL knows are kept: their first event may still come."""
    by_label: dict[str, Any] = {label(value): value for value in snapshot.values[index]}
    for text in st.query_params.get_all(name)[:MAX_URL_VALUES]:
        by_label.setdefault(text, text)
    # Never fewer options than in the run before: a widget whose options shrink would lose its value.
    for text in st.session_state.get(name, []):
        by_label.setdefault(text, text)
    st.session_state[f"_options_{name}"] = frozenset(by_label)
    chosen = st.multiselect(
        name.replace("_", " ").capitalize(),
        sorted(by_label),
        key=name,
        bind="query-params",
        placeholder="All",
        width=190,
    )
    return name, frozenset(by_label[text] for text in chosen)


def _board(page: Live, controls: Controls) -> None:
    with page.pace.refresh(_session(), controls.refresh_s):
        every_s = page.pace.interval(controls.refresh_s)
        if not controls.paused and every_s != st.session_state[_EVERY]:
            st.session_state[_EVERY] = every_s
            _set_timer(page.pace.timer(_session(), every_s))
        snapshot = _draw(page, controls, every_s)
    # What stands outside of this fragment changes by a whole run only: the controls, a value that has come up since.
    if _ACT in st.session_state or (not controls.paused and _has_new_values(snapshot)):
        st.rerun()


def _set_timer(interval_s: float) -> None:
    """Have the browser refresh this fragment at another interval, by the message with which `st.fragment` began it.

    Streamlit itself says a new `run_every` in a whole run only. That costs as much as several refreshes, in every page
    at once, and the interval changes when there is no room for it.
    """
    context, fragment = get_script_run_ctx(), ThreadState.get().fragment_id
    if context is not None and fragment is not None:
        message = ForwardMsg()
        message.auto_rerun.interval = interval_s
        message.auto_rerun.fragment_id = fragment
        context.enqueue(message)


def _session() -> str:
    context = get_script_run_ctx()
    return context.session_id if context else ""


def _draw(page: Live, controls: Controls, every_s: float) -> Snapshot:
    newest = page.feed.follower.snapshot
    snapshot, now_ms = st.session_state.get("held") or (newest, _now_ms())
    head = charts.encode_badge(
        snapshot,
        _now_ms(),
        paused=controls.paused,
        problem=newest.problem.message if newest.problem else None,
        every_s=every_s,
        chosen_s=controls.refresh_s,
        viewers=page.pace.viewers,
        alerts=page.alarms.told(),
    )
    if snapshot.version < 0:
        body = charts.encode_waiting(snapshot, page.feed.table, page.frame.config)
    elif controls.question is None:
        body = charts.encode_beyond(snapshot, page.feed.scale.levels[-1].keep)
    else:
        body = page.feed.boards.get(snapshot, controls.question, now_ms)
    # The body is made once for all viewers; only its head is this one's own.
    components.board(head + b"\n" + body, on_act=_act)
    return snapshot


def _act() -> None:
    """Keep what the viewer did on the board itself for the next whole run.

    That run may begin with the widgets and the URL as the browser had them a refresh ago, and would take back
    whatever were set here: a click just before a refresh would be lost.
    """
    st.session_state[_ACT] = components.acted()


def _follow(act: dict[str, Any], feed: Feed) -> None:
    """Set what was clicked on as filter, or drawn over as range, before the widgets are made that show it."""
    filtered, zoom = act.get("filter"), act.get("zoom")
    if isinstance(filtered, list) and filtered[0] in feed.follower.shape.dimensions:
        name, value = filtered
        st.session_state[name] = [] if st.session_state.get(name) == [value] else [str(value)]
    if zoom == []:
        _unzoom()
    elif isinstance(zoom, list):
        st.query_params.update({_FROM: str(int(zoom[0])), _TO: str(int(zoom[1]))})


def _unzoom() -> None:
    for name in (_FROM, _TO):
        if name in st.query_params:
            del st.query_params[name]


def _has_new_values(snapshot: Snapshot) -> bool:
    return any(
        not st.session_state[f"_options_{name}"].issuperset(map(label, snapshot.values[index]))
        for index, name in enumerate(snapshot.shape.dimensions)
    )


def _now_ms() -> float:
    return time.time() * 1000
