"""The live dashboard: `streamlit run dashboard/app.py -- conf/feature_events.yaml`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

# `streamlit run` puts the script's own folder on the path; the packages lie beside it.
if (_ROOT := str(Path(__file__).resolve().parent.parent)) not in sys.path:
    sys.path.insert(0, _ROOT)

from dashboard.access import admitted
from dashboard.alarms import Alarms
from dashboard.components import load_code
from dashboard.feed import Feed, open_feeds
from dashboard.frame import Frame
from dashboard.pace import Pace
from dashboard.pulse import Pulse
from dashboard.verdicts import Verdicts
from dashboard.views import explore, live, quality
from dashboard.views import pipeline as pipeline_page
from lakehouse import embedded, storage
from lakehouse.config.loader import load_pipeline
from lakehouse.errors import LakehouseError
from lakehouse.serving import beacon

if TYPE_CHECKING:
    from lakehouse.config.models import Pipeline
    from lakehouse.serving.follower import Follower

DEFAULT_CONFIG = "conf/feature_events.yaml"


@dataclass(frozen=True)
class Site:
    """What all sessions of this process share."""

    pipeline: Pipeline
    feeds: tuple[Feed, ...]
    pulse: Pulse
    verdicts: Verdicts
    alarms: Alarms
    pace: Pace


@st.cache_resource(show_spinner=False)
def site(config: str) -> Site:
    """The followers and journals of this process; every session gets the same ones."""
    storage.adopt_secret_files()
    pipeline = load_pipeline(Path(config), embedded.environment())
    alarms = Alarms(pipeline)
    pulse = Pulse(pipeline, alarms)
    followers: dict[str, Follower] = {}
    if pipeline.metrics.dashboard:
        # Before the followers: where the port is taken, the next session tries again, and none of theirs is left over.
        beacon.serve(pipeline.metrics.dashboard, pipeline.name, followers)
    feeds = open_feeds(pipeline)
    followers |= {f"gold/{feed.table}": feed.follower for feed in feeds}
    pace = Pace(cpu=lambda: time.process_time() - sum(feed.follower.cpu_s for feed in feeds))
    return Site(pipeline, feeds, pulse, Verdicts(pipeline, pulse), alarms, pace)


def main() -> None:
    """Live (a page per rollup of the pipeline that the command line names) and the pages about the pipeline."""
    config = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_CONFIG
    st.set_page_config(page_title="Live", layout="wide", initial_sidebar_state="collapsed")
    if not admitted():
        return
    load_code()
    try:
        found = site(config)
    except LakehouseError as error:
        live.refuse(str(error))
        return
    if not found.feeds:
        live.refuse(f"{config} has no rollup, so there is nothing to show.\n  to do: add one under `rollups`")
        return
    frame = Frame(found.pipeline.name, config)
    titles = live.titles(found.feeds)
    frame.pages = (
        *(
            st.Page(
                partial(live.show, live.Live(feed, frame, found.alarms, found.pace), title),
                title=title,
                url_path=feed.table,
                default=index == 0,
            )
            for index, (feed, title) in enumerate(zip(found.feeds, titles, strict=True))
        ),
        st.Page(
            partial(explore.show, found.pipeline, found.feeds, frame, found.alarms),
            title=explore.TITLE,
            url_path="explore",
        ),
        st.Page(
            partial(pipeline_page.show, found.pulse, frame, found.alarms),
            title=pipeline_page.TITLE,
            url_path="pipeline",
        ),
        st.Page(partial(quality.show, found.verdicts, frame, found.alarms), title=quality.TITLE, url_path="quality"),
    )
    st.navigation(list(frame.pages), position="hidden").run()


main()
