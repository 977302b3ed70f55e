"""Watches that a topic stays the one that the tables remember: at the start, beside the batches, after a failure."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lakehouse import kafka_admin
from lakehouse.errors import SourceError, SourceUnavailable
from lakehouse.streaming.resume import require_same_topic, require_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lakehouse.chain import Batch
    from lakehouse.config.models import Source


class TopicGuard:
    """One topic, as it was at the start of a run.

    Attributes:
        partitions: numbers of its partitions then.
        topic_ids: topic → Kafka's id of it, as each commit records it; empty where the cluster knows none.
    """

    def __init__(self, source: Source, head: Batch | None) -> None:
        """Ask Kafka for the topic and hold it against the tables' last batch.

        Raises:
            SourceUnavailable: Kafka cannot be reached.
            SourceError: the topic is not the one that the tables remember.
        """
        self._servers, self._topic = source.servers, source.topic
        self._options = {name: secret.get_secret_value() for name, secret in source.options.items()}
        state = self._require(head)
        self.partitions = sorted(state.offsets)
        self.topic_ids = {source.topic: state.topic_id} if state.topic_id else {}

    def _require(self, head: Batch | None) -> kafka_admin.TopicState:
        state = kafka_admin.topic_state(self._servers, self._topic, self._options)
        if head is not None:
            require_topic(head, self._topic, state.topic_id, state.offsets)
        return state

    def watch(self) -> None:
        """See whether it is still the same topic; a broker that is away says nothing about that.

        Raises:
            TopicRecreated: another topic stands under its name.
        """
        try:
            topic_id = kafka_admin.topic_id(self._servers, self._topic, self._options)
        except SourceUnavailable:
            return
        require_same_topic(self._topic, self.topic_ids.get(self._topic), topic_id)

    @contextmanager
    def explaining(self, head: Callable[[], Batch | None]) -> Iterator[None]:
        """Where reading the topic fails, say what became of the topic, which Spark's own words leave open."""
        try:
            yield
        except SourceError:
            self.watch()
            self._require(head())
            raise
