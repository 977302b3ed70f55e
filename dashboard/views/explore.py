"""The Explore page: any measures of a rollup, split, filtered and ranked; the SQL, the rows behind it, and exports."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import streamlit as st

from lakehouse.errors import LakehouseError
from lakehouse.serving.explore import (
    NULL,
    SKETCHES_MINUTES,
    Slice,
    measures,
    rows_statement,
    statement,
    to_csv,
    to_parquet,
)
from lakehouse.serving.questions import label
from lakehouse.serving.sql import query

if TYPE_CHECKING:
    from dashboard.alarms import Alarms
    from dashboard.feed import Feed
    from dashboard.frame import Frame
    from lakehouse.config.models import Pipeline

TITLE = "Explore"
RANGES = {"5m": 5, "15m": 15, "1h": 60, "6h": 360, "24h": 1440}
TOPS = ["10", "25", "100", "1000"]
GRID_S = 10
"""Ranges begin and end on a grid, so that viewers of the same question share its answer for so long."""
ANSWERS = 64
TALLEST = 25
"""Rows that are shown in full height; more scroll."""
NO_ROWS = "no rows"
MAX_URL_VALUES = 50
_LONGEST_URL = 200


def show(pipeline: Pipeline, feeds: tuple[Feed, ...], frame: Frame, alarms: Alarms) -> None:
    """Draw the page. All that is chosen lives in the URL."""
    frame.head(TITLE, "any question to the rollups", alarms)
    by_rollup = {feed.rollup: feed for feed in feeds}
    with st.container(key="bar", horizontal=True, vertical_alignment="bottom"):
        name = st.segmented_control(
            "Rollup", list(by_rollup), default=feeds[0].rollup, required=True, key="rollup", bind="query-params"
        )
        chosen = st.segmented_control(
            "Range", list(RANGES), default="15m", required=True, key="last", bind="query-params"
        )
        top = st.segmented_control("Top", TOPS, default="10", required=True, key="top", bind="query-params")
    picked = _measures_and_split(pipeline, name, RANGES[chosen])
    wanted = _slice(pipeline, by_rollup[name], RANGES[chosen], int(top), picked)
    if not wanted.measures:
        st.info("Choose a measure.")
        return
    sql = statement(wanted)
    try:
        began = time.perf_counter()
        answer = ask(pipeline.root, sql, f"gold.{wanted.table}")
        took_ms = (time.perf_counter() - began) * 1000
        _answer(answer, wanted, took_ms)
        with st.expander("The SQL", key="sql"):
            st.code(sql, language="sql", wrap_lines=True)
        _rows(pipeline, wanted, answer)
    except LakehouseError as error:
        st.warning("This question cannot be answered now.")
        st.code(str(error), language=None, wrap_lines=True)


@st.cache_data(ttl=60, max_entries=ANSWERS, show_spinner="Asking the tables")
def ask(root: str, sql: str, table: str) -> pa.Table:
    """The answer to a statement; kept for a minute, which its text, with the times in it, does not outlive."""
    return query(root, sql, only=(table,))


def _measures_and_split(pipeline: Pipeline, name: str, minutes: int) -> tuple[list[str], list[str]]:
    rollup = pipeline.rollups[name]
    offered = [one.name for one in measures(rollup) if not one.sketch or minutes <= SKETCHES_MINUTES]
    # Keys name the rollup: a widget whose options change under it would lose its value.
    with st.container(key="choice", horizontal=True, vertical_alignment="bottom"):
        picked = st.multiselect(
            "Measures", offered, default=offered[:3], key=f"measures_{name}", bind="query-params", width=460
        )
        split = st.multiselect(
            "Split by",
            rollup.dimensions,
            default=rollup.dimensions[:1],
            key=f"split_{name}",
            bind="query-params",
            width=300,
        )
    if minutes > SKETCHES_MINUTES:
        st.caption("Quantiles and distinct counts are offered for ranges up to 1 h: they merge a sketch per second.")
    return picked, split


def _slice(pipeline: Pipeline, feed: Feed, minutes: int, top: int, picked: tuple[list[str], list[str]]) -> Slice:
    shape = feed.follower.shape
    snapshot = feed.follower.snapshot
    with st.container(key="filters", horizontal=True, vertical_alignment="bottom"):
        filters = tuple(
            (name, _filter(name, [label(value) for value in snapshot.values[index]]))
            for index, name in enumerate(shape.dimensions)
        )
    known = {one.name: one for one in measures(pipeline.rollups[feed.rollup])}
    end = datetime.fromtimestamp(time.time() // GRID_S * GRID_S + GRID_S, UTC)
    start = datetime.fromtimestamp(end.timestamp() - minutes * 60, UTC)
    chosen = tuple(known[name] for name in picked[0])
    return Slice(feed.table, chosen, tuple(picked[1]), filters, start, end, top)


def _filter(name: str, seen: list[str]) -> tuple[str, ...]:
    """A dimension's filter; values that only the URL knows are kept."""
    key = f"only_{name}"
    options = {*seen, *(text[:_LONGEST_URL] for text in st.query_params.get_all(key)[:MAX_URL_VALUES])}
    options.update(st.session_state.get(key, []))
    title = f"Only {name.replace('_', ' ')}"
    return tuple(st.multiselect(title, sorted(options), key=key, bind="query-params", placeholder="All", width=230))


def _answer(answer: pa.Table, wanted: Slice, took_ms: float) -> None:
    first = wanted.measures[0].name
    if not answer.num_rows:
        st.info("No event in this range meets the filters.")
        return
    most = pc.max(answer[first]).as_py()
    config = (
        {first: st.column_config.ProgressColumn(first, min_value=0, max_value=float(most), format="localized")}
        if wanted.dimensions and most and most > 0
        else {}
    )
    st.dataframe(
        answer,
        hide_index=True,
        column_config=config,
        key="answer",
        height="content" if answer.num_rows <= TALLEST else 640,
    )
    with st.container(key="exports", horizontal=True, vertical_alignment="center"):
        stem = f"{wanted.table}_{wanted.start:%Y%m%dT%H%M%S}"
        for kind, write, mime in (
            ("CSV", to_csv, "text/csv"),
            ("Parquet", to_parquet, "application/vnd.apache.parquet"),
        ):
            name = f"{stem}.{kind.lower()}"
            st.download_button(kind, write(answer), file_name=name, mime=mime, on_click="ignore", key=f"save_{kind}")
        st.caption(
            f"{answer.num_rows:,} rows in {took_ms:.0f} ms · {wanted.start:%H:%M:%S} to {wanted.end:%H:%M:%S} UTC"
        )


def _rows(pipeline: Pipeline, wanted: Slice, answer: pa.Table) -> None:
    """The silver rows behind one row of the answer."""
    if not answer.num_rows:
        return
    choices: dict[str, tuple[str, ...]] = {}
    for row in answer.to_pylist():
        values = tuple(_text(row[name]) for name in wanted.dimensions)
        choices[" · ".join(values) or "all events"] = values
    asked = st.query_params.get("rows", "")[:_LONGEST_URL]
    options = [NO_ROWS, *choices]
    drilled = st.selectbox(
        "Silver rows of",
        options,
        index=options.index(asked) if asked in choices else 0,
        key="rows",
        bind="query-params",
        width=320,
    )
    if drilled not in choices:
        return
    sql = rows_statement(pipeline, wanted, choices[drilled])
    found = ask(pipeline.root, sql, f"silver.{pipeline.name}")
    st.dataframe(found, hide_index=True, key="silver", height=360)
    hidden = [name for name, field in pipeline.source.fields.items() if field.pii]
    left_out = f" Left out, as they identify a person: {', '.join(hidden)}." if hidden else ""
    st.caption(f"The newest {found.num_rows} rows.{left_out}")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return NULL if value is None else str(value)
