"""What all sessions of the dashboard share: one follower per hot table, and the boards already encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboard.charts import encode_board
from lakehouse.serving.follower import Follower
from lakehouse.serving.questions import Answers, answer
from lakehouse.serving.snapshot import Shape
from lakehouse.storage import layer_url

if TYPE_CHECKING:
    from lakehouse.config.models import Pipeline
    from lakehouse.serving.questions import Question
    from lakehouse.serving.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Feed:
    """One rollup's hot table, followed, and the boards that viewers have asked for."""

    title: str
    table: str
    rollup: str
    follower: Follower
    boards: Answers[bytes]


def open_feeds(pipeline: Pipeline) -> tuple[Feed, ...]:
    """Start following the one-second table of every rollup. The tables need not exist yet."""
    feeds = []
    names = {id(rollup): name for name, rollup in pipeline.rollups.items()}
    for table, _, rollup in pipeline.rollup_tables():
        shape = Shape.of(rollup, pipeline.source.fields)
        follower = Follower(layer_url(pipeline.root, "gold", table), shape).start()
        feeds.append(Feed(pipeline.name, table, names[id(rollup)], follower, Answers(_board)))
    return tuple(feeds)


def _board(snapshot: Snapshot, question: Question, now_ms: float) -> bytes:
    return encode_board(snapshot, question, answer(snapshot, question, now_ms))
