"""How far a dashboard's process is behind the tables that it shows: told by that process, asked by the alerts.

A follower that has just looked at its table's log has the newest version. What is told is how long ago that was, for
the whole process: a follower that fails, a process that stands still and one that is gone are all behind.
"""

from __future__ import annotations

import http.client
import logging
import re
import time
from contextlib import closing
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lakehouse.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from wsgiref.simple_server import WSGIServer

    from lakehouse.serving.follower import Follower

logger = logging.getLogger(__name__)

NAME = "lakehouse_dashboard_behind_seconds"
HELP = "Since a dashboard's process had the newest version of a table; served by that process (`metrics.dashboard`)."
_TIMEOUT_S = 1.0
"""An evaluation of alerts waits no longer for a dashboard that does not answer."""
_SERIES = re.compile(rf"^{NAME}{{[^}}]*}} (\S+)$", re.MULTILINE)


class _Followers(Collector):
    """The figure of each follower at the moment of a scrape."""

    def __init__(self, pipeline: str, followers: Mapping[str, Follower], clock: Callable[[], float]) -> None:
        self._pipeline, self._followers, self._clock = pipeline, followers, clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        behind = GaugeMetricFamily(NAME, HELP, labels=("pipeline", "table"))
        for table, follower in list(self._followers.items()):
            behind.add_metric((self._pipeline, table), max(0.0, self._clock() - follower.current_s))
        yield behind


def serve(
    address: str, pipeline: str, followers: Mapping[str, Follower], *, clock: Callable[[], float] = time.time
) -> WSGIServer:
    """Tell at host:port how far each table's follower is behind, from a thread of its own, until the process ends.

    Raises:
        ConfigError: the port is taken, or the host is none of this machine.
    """
    registry = CollectorRegistry()
    registry.register(_Followers(pipeline, followers, clock))
    host, _, port = address.rpartition(":")
    try:
        server, _ = start_http_server(int(port), host, registry)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"the dashboard cannot tell how far it is behind at {address}: {error}",
            where="metrics.dashboard",
            remedy="stop what listens there, choose another port, or delete the key",
        ) from error
    return server


class Behind:
    """Asks one dashboard's process.

    Args:
        address: host:port, as for `serve`.
        clock: seconds since 1970 UTC.
    """

    def __init__(self, address: str, clock: Callable[[], float]) -> None:
        self._address, self._clock = address, clock
        self._current_s = clock()

    def seconds(self) -> float:
        """Since every table of it was at its newest version; while it does not answer they go on."""
        behind = self._ask()
        now_s = self._clock()
        if behind is not None:
            self._current_s = max(self._current_s, now_s - behind)
        return max(0.0, now_s - self._current_s)

    def _ask(self) -> float | None:
        try:
            with closing(http.client.HTTPConnection(self._address, timeout=_TIMEOUT_S)) as connection:
                connection.request("GET", "/metrics")
                found = _SERIES.findall(connection.getresponse().read().decode())
            return max(map(float, found), default=None)
        except (OSError, ValueError, http.client.HTTPException) as error:
            logger.info("the dashboard at %s does not answer: %s", self._address, type(error).__name__)
            return None
