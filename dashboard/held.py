"""A value that several sessions share and that is made anew only now and then."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Held(Generic[T]):
    """A value that is made at most every so many seconds, whatever the number of askers."""

    def __init__(self, make: Callable[[], T], every_s: float) -> None:
        self._make, self._every_s = make, every_s
        self._lock = threading.Lock()
        self._made: tuple[float, T] | None = None

    def get(self) -> T:
        """The value; one thread makes it, the others wait for that one."""
        with self._lock:
            now = time.monotonic()
            if self._made is None or now - self._made[0] >= self._every_s:
                self._made = (now, self._make())
            return self._made[1]
