"""The table `_quality/NAME_observed`: one row per rule and minute, appended beside the hot path.

A batch's observation is merged into the minute that is being gathered, which then goes into a `Journal`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from lakehouse import storage
from lakehouse.quality.observe import Observation, merge_all
from lakehouse.quality.watch import outcomes, stop_on_failure
from lakehouse.schemas import OBSERVED_SCHEMA
from lakehouse.sinks.journal import Journal
from lakehouse.sinks.onepass import OBSERVED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lakehouse.quality.suite import Suite
    from lakehouse.quality.watch import Outcome
    from lakehouse.sinks.sink import Answer

WINDOW_S = 60.0


@dataclass
class _Window:
    began_s: float
    ended_s: float
    batches: int
    observation: Observation


class Watch:
    """Looks at each batch before it is committed; gathers what it saw and appends it, a window at a time."""

    def __init__(
        self,
        root: str,
        pipeline: str,
        suite: Suite,
        *,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = Journal(table_url(root, pipeline), OBSERVED_SCHEMA, what="a minute of observations")
        self._suite = suite
        self._window_s = window_s
        self._clock = clock
        self._window: _Window | None = None

    def look(self, answers: Iterable[Answer]) -> Observation:
        """What the tasks observed of a batch that is not yet committed.

        Raises:
            QualityError: the batch does not meet an expectation that stops the pipeline.
        """
        observation = merge_all(Observation.from_bytes(body) for name, _, body in answers if name == OBSERVED and body)
        stop_on_failure(self._suite, observation)
        return observation

    def record(self, observation: Observation) -> tuple[Outcome, ...]:
        """Take in a batch that was just committed; what it means by the suite."""
        now = self._clock()
        window = self._window
        if window is not None and now - window.began_s >= self._window_s:
            self._hand_over()
            window = None
        if window is None:
            self._window = _Window(now, now, 1, observation)
        else:
            window.ended_s, window.batches = now, window.batches + 1
            window.observation = window.observation.merge(observation)
        return outcomes(self._suite, observation)

    def close(self) -> None:
        """Append what is gathered and wait for it."""
        self._hand_over()
        self._journal.close()

    def _hand_over(self) -> None:
        if self._window is not None:
            self._journal.append(partial(self._rows, self._window))
            self._window = None

    def _rows(self, window: _Window) -> list[dict[str, Any]]:
        times = {
            "window_start": datetime.fromtimestamp(window.began_s, UTC),
            "window_end": datetime.fromtimestamp(window.ended_s, UTC),
        }
        return [
            {
                **times,
                "batches": window.batches,
                "suite_sha256": self._suite.sha256,
                "rule_id": outcome.rule_id,
                "evaluated": outcome.evaluated,
                "failed": outcome.failed,
                "value": None if outcome.value is None else json.dumps(outcome.value, default=str),
                "success": outcome.success,
            }
            for outcome in outcomes(self._suite, window.observation)
        ]


def table_url(root: str, pipeline: str) -> str:
    """Where the table lies."""
    return storage.quality_url(root, pipeline, "observed")
