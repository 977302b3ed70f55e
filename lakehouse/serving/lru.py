"""Values that were used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """The values used last, up to a total size. Safe between threads.

    Args:
        limit: of the total size.
        size: of a value; 1 by default.
    """

    def __init__(self, limit: int, size: Callable[[V], int] = lambda _: 1) -> None:
        self._limit, self._size = limit, size
        self._found: OrderedDict[K, V] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value, which counts as used; None where it is not there."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
            return self._found.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value; those not used for longest leave for it. One larger than all that may be kept is not."""
        size = self._size(value)
        with self._lock:
            if key in self._found or size > self._limit:
                return
            self._found[key] = value
            self._total += size
            while self._total > self._limit:
                self._total -= self._size(self._found.popitem(last=False)[1])
