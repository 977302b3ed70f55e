"""The live dashboard: `streamlit run dashboard/app.py -- conf/feature_events.yaml`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import streamlit as st

# `streamlit run` puts the script's own folder on the path; the packages lie beside it.
if (_ROOT := str(Path(__file__).resolve().parent.parent)) not in sys.path:
    sys.path.insert(0, _ROOT)

from dashboard.components import load_code
from dashboard.feed import Feed, open_feeds
from dashboard.views import live
from lakehouse.config.loader import load_pipeline
from lakehouse.errors import LakehouseError

DEFAULT_CONFIG = "conf/feature_events.yaml"


@st.cache_resource(show_spinner=False)
def feeds(config: str) -> tuple[Feed, ...]:
    """The followers of this process; every session gets the same ones."""
    return open_feeds(load_pipeline(Path(config)))


def main() -> None:
    """One page per rollup of the pipeline that the command line names."""
    config = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_CONFIG
    st.set_page_config(page_title="Live", layout="wide", initial_sidebar_state="collapsed")
    load_code()
    try:
        found = feeds(config)
    except LakehouseError as error:
        live.refuse(str(error))
        return
    if not found:
        live.refuse(f"{config} has no rollup, so there is nothing to show.\n  to do: add one under `rollups`")
        return
    pages = [
        st.Page(partial(live.show, feed, config), title=feed.table, url_path=feed.table, default=index == 0)
        for index, feed in enumerate(found)
    ]
    st.navigation(pages, position="hidden" if len(pages) == 1 else "top").run()


main()
