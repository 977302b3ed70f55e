"""How many questions are answered at once, and for how long each may take."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from lakehouse.errors import TooBusy, TooSlow

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Lane:
    """Threads for one kind of work, and a bounded number of places behind them.

    A place is free again when its work has ended, not when whoever asked was told that it takes too long: work that
    goes on still counts, and work that has not begun by then never begins.

    Args:
        name: for messages, such as `heavy`.
        running: how many are worked on at once.
        waiting: how many may wait for that.
        deadline_s: for waiting and work together.
    """

    def __init__(self, name: str, *, running: int, waiting: int, deadline_s: float) -> None:
        self.name = name
        self._places = running + waiting
        self._deadline_s = deadline_s
        self._taken = 0
        self._pool = ThreadPoolExecutor(running, thread_name_prefix=f"api-{name}")

    async def run(self, work: Callable[[float], T]) -> T:
        """What `work` returns.

        Args:
            work: called in another thread with the moment, by `time.monotonic`, at which it should have ended.

        Raises:
            TooBusy: every place is taken.
            TooSlow: the deadline came first.
            LakehouseError: what `work` raises.
        """
        if self._taken >= self._places:
            raise TooBusy(
                f"{self._places} {self.name} questions are being answered or wait, and no more are taken",
                remedy="try again in a moment; shorter ranges and fewer dimensions take less time",
            )
        loop = asyncio.get_running_loop()
        self._taken += 1
        job = self._pool.submit(work, time.monotonic() + self._deadline_s)
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave) if not loop.is_closed() else None)
        waited = asyncio.wrap_future(job)
        done, _ = await asyncio.wait({waited}, timeout=self._deadline_s)
        if not done:
            waited.cancel()  # which ends only work that has not begun
            raise TooSlow(
                f"the question was not answered within {self._deadline_s:g} s",
                remedy="ask for a shorter range, wider windows or fewer dimensions, or try again later",
            )
        return waited.result()

    def _leave(self) -> None:
        self._taken -= 1

    def close(self) -> None:
        """Take no more work; what has begun goes on to its end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
