"""The live page: filters in the URL, a board that refreshes by itself, a badge that goes on ageing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard import charts, components
from lakehouse.serving.questions import Question, label

if TYPE_CHECKING:
    from dashboard.feed import Feed
    from dashboard.frame import Frame
    from lakehouse.serving.snapshot import Snapshot

RANGES = {"1m": 1, "5m": 5, "15m": 15, "60m": 60}
REFRESH = {"250ms": 0.25, "500ms": 0.5, "1s": 1.0, "5s": 5.0}
BADGE_EVERY_S = 1.0
"""The page ages the badge on by itself between these, and takes each board's newest event at once."""
MAX_URL_VALUES = 50
"""Values of one filter taken from the URL, which anyone can write."""


@dataclass(frozen=True, slots=True)
class Controls:
    """What the viewer has chosen."""

    question: Question
    refresh_s: float
    paused: bool


def titles(feeds: tuple[Feed, ...]) -> list[str]:
    """What the navigation calls each rollup's page: Live, and by what where there are several."""
    return ["Live"] if len(feeds) == 1 else [f"Live {feed.rollup.replace('_', ' ')}" for feed in feeds]


def show(feed: Feed, frame: Frame, title: str) -> None:
    """Draw the page of one hot table."""
    snapshot = feed.follower.snapshot
    badge = frame.head(title, f"gold/{feed.table}")
    controls = _controls(snapshot)
    if controls.paused:
        st.session_state.setdefault("held", (feed.follower.snapshot, _now_ms()))
    else:
        st.session_state.pop("held", None)
    with badge:
        st.fragment(_badge, run_every=BADGE_EVERY_S)(feed, controls)
    st.fragment(_board, run_every=None if controls.paused else controls.refresh_s)(feed, frame.config, controls)


def refuse(message: str) -> None:
    """Say why there is nothing to show; the words are an error's own, shown as text."""
    st.error("The dashboard cannot start.")
    st.code(message, language=None, wrap_lines=True)


def _controls(snapshot: Snapshot) -> Controls:
    dimensions = snapshot.shape.dimensions
    with st.container(key="bar", horizontal=True, vertical_alignment="bottom"):
        minutes = st.segmented_control(
            "Range", list(RANGES), default="5m", required=True, key="range", bind="query-params"
        )
        filters = tuple(_filter(snapshot, index, name) for index, name in enumerate(dimensions))
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
        paused = st.toggle("Pause", key="pause", bind="query-params", help="P pauses, 1 to 4 choose the range")
    question = Question(RANGES[minutes], filters, None if split == "none" else split)
    return Controls(question, REFRESH[refresh], bool(paused))


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


def _board(feed: Feed, config: str, controls: Controls) -> None:
    snapshot, now_ms = st.session_state.get("held") or (feed.follower.snapshot, _now_ms())
    if snapshot.version < 0:
        components.board(charts.encode_waiting(snapshot, feed.table, config))
        return
    components.board(feed.boards.get(snapshot, controls.question, now_ms))
    # The filters stand outside of this fragment: only a whole run offers a value that has come up since.
    if not controls.paused and _has_new_values(snapshot):
        st.rerun()


def _has_new_values(snapshot: Snapshot) -> bool:
    return any(
        not st.session_state[f"_options_{name}"].issuperset(map(label, snapshot.values[index]))
        for index, name in enumerate(snapshot.shape.dimensions)
    )


def _badge(feed: Feed, controls: Controls) -> None:
    held = st.session_state.get("held")
    newest = feed.follower.snapshot
    problem = newest.problem.message if newest.problem else None
    components.badge(
        charts.encode_badge(held[0] if held else newest, _now_ms(), paused=controls.paused, problem=problem)
    )


def _now_ms() -> float:
    return time.time() * 1000
