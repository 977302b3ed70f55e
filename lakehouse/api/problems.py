"""What a request is told when it gets no answer: a JSON problem (RFC 9457), whose words hold nothing of the request."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

from lakehouse.errors import ConfigError, LakehouseError, TableError, TooBusy, TooSlow, TooStale

if TYPE_CHECKING:
    from collections.abc import Mapping

MEDIA_TYPE = "application/problem+json"
_RETRY_S = 1
"""Seconds after which a request that came at a bad time may come again."""


@dataclass(frozen=True)
class Problem:
    """Why there is no answer.

    Attributes:
        status: HTTP's status.
        detail: what is wrong, in a sentence.
        remedy: what to do about it.
        headers: that go with it.
    """

    status: HTTPStatus
    detail: str
    remedy: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The body. `type` is `about:blank`: the status says which problem it is."""
        told = {"type": "about:blank", "title": self.status.phrase, "status": int(self.status), "detail": self.detail}
        return told | ({"remedy": self.remedy} if self.remedy else {})

    def response(self) -> Response:
        """The response that tells of it."""
        headers: Mapping[str, str] = {"cache-control": "no-store", **dict(self.headers)}
        return Response(orjson.dumps(self.to_dict()), self.status, headers, MEDIA_TYPE)


_LATER = (("retry-after", str(_RETRY_S)),)
_STATUS: tuple[tuple[type[LakehouseError], HTTPStatus, bool], ...] = (
    (ConfigError, HTTPStatus.BAD_REQUEST, False),
    (TooStale, HTTPStatus.SERVICE_UNAVAILABLE, True),
    (TooBusy, HTTPStatus.SERVICE_UNAVAILABLE, True),
    (TooSlow, HTTPStatus.GATEWAY_TIMEOUT, False),
)


def problem_of(error: LakehouseError) -> Problem:
    """An error as a problem. Where the tables are is told to the log, and to nobody outside."""
    if isinstance(error, TableError):
        detail = "the tables cannot be read now, or there are none yet"
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, "see the server's log", _LATER)
    for kind, status, later in _STATUS:
        if isinstance(error, kind):
            return Problem(status, error.what, error.remedy, _LATER if later else ())
    return unexpected()


def unexpected() -> Problem:
    """Something that should never happen; the log has it."""
    detail = "the server could not make the answer"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail, "see the server's log")
