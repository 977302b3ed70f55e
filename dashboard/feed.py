"""What all sessions of the dashboard share: one follower per hot table, and the boards already encoded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dashboard.charts import encode_board
from dashboard.layout import layout
from lakehouse.serving.follower import Follower
from lakehouse.serving.questions import Answers, answer
from lakehouse.serving.scale import SCALES
from lakehouse.serving.snapshot import Shape
from lakehouse.storage import layer_url

if TYPE_CHECKING:
    from dashboard.layout import Layout
    from lakehouse.config.models import Pipeline
    from lakehouse.serving.questions import Question
    from lakehouse.serving.scale import Scale
    from lakehouse.serving.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Feed:
    """One rollup's hot table, followed, and the boards that viewers have asked for."""

    title: str
    table: str
    rollup: str
    follower: Follower
    boards: Answers[bytes]
    layout: Layout
    scale: Scale


def open_feeds(pipeline: Pipeline) -> tuple[Feed, ...]:
    """Start following the table of every rollup that the stream writes. The tables need not exist yet."""
    feeds = []
    names = {id(rollup): name for name, rollup in pipeline.rollups.items()}
    for table, _, rollup in pipeline.rollup_tables():
        name, scale = names[id(rollup)], SCALES[rollup.grains[0]]
        shape, page = Shape.of(rollup, pipeline.source.fields), layout(pipeline, name)
        follower = Follower(layer_url(pipeline.root, "gold", table), shape, levels=scale.levels).start()
        feeds.append(Feed(pipeline.name, table, name, follower, Answers(partial(board, page)), page, scale))
    return tuple(feeds)


def board(page: Layout, snapshot: Snapshot, question: Question, now_ms: float) -> bytes:
    """What a page shows of a snapshot, encoded."""
    return encode_board(snapshot, question, answer(snapshot, question, now_ms, page.wanted), page)
