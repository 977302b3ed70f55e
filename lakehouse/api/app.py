"""The HTTP API of one pipeline: what may be asked, and what is sent back.

    GET /v1/health                      whether the tables can be read, and when the last batch came
    GET /v1/tables                      the pipeline's tables
    GET /v1/rollups                     dimensions, metrics and grains, with the error of each sketch
    GET /v1/rollups/NAME/answer?…       an answer, as JSON or Arrow
    GET /v1/rollups/NAME/explain?…      what would answer it
    GET /v1/rollups/NAME/revisions      what came late within the last minutes
    GET /openapi.json                   all of this for programs

An answer is that of certain versions of tables. Its ETag says so, and a client that has it already is told as much
before anything is read.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from lakehouse.api import questions
from lakehouse.api.guard import LOOPBACK, Guard
from lakehouse.api.lanes import Lane
from lakehouse.api.openapi import ARROW, JSON, document
from lakehouse.api.problems import Problem, problem_of, unexpected
from lakehouse.errors import ConfigError, LakehouseError, TableError
from lakehouse.schemas import gold_schema
from lakehouse.serving.history import grains_of
from lakehouse.serving.query import EVENTS, REVISED, Measure, Query, Rollups
from lakehouse.serving.tables import list_tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from lakehouse.config.models import Pipeline
    from lakehouse.serving.query import Answer, Prospect
    from lakehouse.serving.tables import TableInfo

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What the server takes upon itself.

    Attributes:
        deadline_s: of a question, waiting included.
        heavy_rows: a question that has to read more rows than this is heavy, and goes into a lane of its own.
        light, heavy: (answered at once, waiting) in each lane.
        most_rows: of an answer.
    """

    deadline_s: float = 10.0
    heavy_rows: int = 2_000_000
    light: tuple[int, int] = (4, 64)
    heavy: tuple[int, int] = (1, 8)
    most_rows: int = 100_000


def application(pipeline: Pipeline, *, hosts: Collection[str] = LOOPBACK, limits: Limits | None = None) -> ASGIApp:
    """The API as an ASGI application.

    Args:
        pipeline: whose rollups are asked.
        hosts: names by which the server may be asked.
        limits: what it takes upon itself.
    """
    api = _Api(pipeline, limits or Limits())
    routes = [
        Route(path, api.serving(answer))
        for path, answer in (
            ("/v1/health", api.health),
            ("/v1/tables", api.tables),
            ("/v1/rollups", api.rollups),
            ("/v1/rollups/{rollup}/answer", api.answer),
            ("/v1/rollups/{rollup}/explain", api.explain),
            ("/v1/rollups/{rollup}/revisions", api.revisions),
            ("/openapi.json", api.openapi),
        )
    ]
    handlers = {HTTPException: _refused, Exception: lambda _, __: unexpected().response()}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=api.lifespan)
    app.router.redirect_slashes = False
    return Guard(app, hosts)


def _refused(_: Request, error: Exception) -> Response:
    """A refusal of the routes or of a handler; the former say no more than a status."""
    status = HTTPStatus(error.status_code) if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND
    said = error.detail if isinstance(error, HTTPException) else status.phrase
    detail = said if said != status.phrase else "there is nothing at this path"
    return Problem(status, detail, "see /openapi.json").response()


class _Api:
    """The handlers; one for all requests."""

    def __init__(self, pipeline: Pipeline, limits: Limits) -> None:
        self._pipeline = pipeline
        self._limits = limits
        self._rollups = Rollups(pipeline)
        self._document = orjson.dumps(document(pipeline))
        (light, light_waiting), (heavy, heavy_waiting) = limits.light, limits.heavy
        self._light = Lane("light", running=light, waiting=light_waiting, deadline_s=limits.deadline_s)
        self._heavy = Lane("heavy", running=heavy, waiting=heavy_waiting, deadline_s=limits.deadline_s)

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Ends the lanes with the server."""
        yield
        self._light.close()
        self._heavy.close()

    def serving(self, handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """The handler, with every expected failure as a problem."""

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except LakehouseError as error:
                if isinstance(error, TableError):
                    log.warning("%s", error)
                return problem_of(error).response()

        return handled

    async def health(self, _: Request) -> Response:
        """Whether every rollup can be read, and when its last batch was committed."""

        def look(_: float) -> dict[str, Any]:
            found = {}
            for name in self._pipeline.rollups:
                prospect = self._rollups.look(Query(name, (Measure(EVENTS),), 0, 1_000_000))
                found[name] = _moment(prospect.batch_ms)
            return found

        return _json({"status": "ok", "last_batch": await self._light.run(look)}, fresh=True)

    async def tables(self, _: Request) -> Response:
        """The pipeline's tables, as their logs describe them; without their place."""
        name = self._pipeline.name
        own = {f"{layer}.{name}" for layer in ("bronze", "silver", "quarantine")}
        own |= {table.replace("/", ".") for rollup in self._pipeline.rollups for _, table in self._grains(rollup)}
        found = await self._light.run(lambda _: list_tables(self._pipeline.root))
        return _json([_table(table) for table in found if f"{table.layer}.{table.name}" in own], fresh=True)

    async def rollups(self, _: Request) -> Response:
        """What can be asked."""
        return _json({name: self._rollup(name) for name in self._pipeline.rollups})

    async def explain(self, request: Request) -> Response:
        """Which tables would answer which part of the range, and how much has to be read."""
        query = self._query(request)
        prospect = await self._light.run(lambda _: self._rollups.look(query))
        told = {
            "uses": [asdict(use) for use in prospect.uses],
            "versions": _versions(prospect.versions),
            "rows_to_read": prospect.rows,
            "cached": prospect.cached,
            "lane": self._lane(prospect).name,
        }
        return _json(told, fresh=True)

    async def revisions(self, request: Request) -> Response:
        """How much came late within the last minutes, by how late, and into which windows."""
        name = self._named(request)
        found = await self._light.run(lambda _: self._rollups.revised(name))
        windows = found.rows.group_by("window_start").aggregate([("events", "sum")]).sort_by("window_start")
        told = {
            "since": _moment(found.since_ms),
            "by_lateness": found.by_lateness(),
            "windows": [
                {"window_start": row["window_start"], "events": row["events_sum"]}
                for row in windows.slice(max(0, windows.num_rows - self._limits.most_rows)).to_pylist()
            ],
        }
        return _json(told, fresh=True)

    async def answer(self, request: Request) -> Response:
        """The answer, or that the client has it already."""
        query, kind = self._query(request), _media_type(request)
        prospect = await self._light.run(lambda _: self._rollups.look(query))
        tag = _tag(query, prospect.versions, kind)
        if tag in _known(request):
            return Response(None, HTTPStatus.NOT_MODIFIED, _caching(tag))
        lane = self._lane(prospect)
        answer, body = await lane.run(lambda until_s: self._answered(query, kind, until_s))
        headers = {
            **_caching(_tag(query, answer.versions, kind)),
            "server-timing": f"answer;dur={1_000 * answer.seconds:.1f}",
            "x-lakehouse-cached": str(answer.cached).lower(),
        }
        return Response(body, HTTPStatus.OK, headers, kind)

    async def openapi(self, _: Request) -> Response:
        """This API for programs."""
        return Response(self._document, media_type=JSON)

    def _answered(self, query: Query, kind: str, until_s: float) -> tuple[Answer, bytes]:
        answer = self._rollups.ask(query, until_s=until_s)
        if answer.rows.num_rows > self._limits.most_rows:
            raise ConfigError(
                f"the answer has {answer.rows.num_rows} rows, and {self._limits.most_rows} are sent at most",
                remedy="ask for a shorter range, wider windows, fewer dimensions or fewer of their values",
            )
        return answer, _arrow(answer) if kind == ARROW else _rendered(answer)

    def _lane(self, prospect: Prospect) -> Lane:
        return self._heavy if prospect.rows > self._limits.heavy_rows else self._light

    def _query(self, request: Request) -> Query:
        return questions.parse(self._pipeline, self._named(request), request.query_params.multi_items())

    def _named(self, request: Request) -> str:
        name: str = request.path_params["rollup"]
        if name not in self._pipeline.rollups:
            known = ", ".join(self._pipeline.rollups) or "none"
            raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no such rollup; the rollups are {known}")
        return name

    def _grains(self, rollup: str) -> list[tuple[str, str]]:
        return grains_of(self._pipeline, rollup)

    def _rollup(self, name: str) -> dict[str, Any]:
        rollup, fields = self._pipeline.rollups[name], self._pipeline.source.fields
        columns = gold_schema(rollup, fields)
        told = {metric.name: dict(columns.field(metric.name).metadata or {}) for metric in rollup.metrics}
        return {
            "dimensions": {each: fields[each].type for each in rollup.dimensions},
            "metrics": {
                EVENTS: {"type": "count", "meaning": "number of events, exact"},
                REVISED: {"type": "count", "meaning": "events of them that came long after their window's end, lately"},
            }
            | {
                name: {"type": "ratio", "meaning": f"{ratio.of} by {ratio.over}"}
                for name, ratio in rollup.ratios.items()
            }
            | {
                metric.name: {"type": metric.type, "meaning": told[metric.name][b"comment"].decode()}
                | ({"error": float(error)} if (error := told[metric.name].get(b"lakehouse.error")) else {})
                for metric in rollup.metrics
            },
            "grains": dict(self._grains(name)),
        }


def _tag(query: Query, versions: tuple[tuple[str, str, int], ...], kind: str) -> str:
    """The ETag of an answer: it depends on the question, the versions and the form, and on nothing else."""
    filters = tuple((name, sorted(map(repr, values))) for name, values in query.filters)
    depends = (query.rollup, query.measures, query.start_us, query.end_us, query.step_us, query.dimensions, filters)
    return f'"{hashlib.blake2b(repr((depends, versions, kind)).encode(), digest_size=16).hexdigest()}"'


def _known(request: Request) -> set[str]:
    """The ETags of answers that the client has."""
    given = request.headers.get("if-none-match", "")
    return {tag.strip().removeprefix("W/") for tag in given.split(",")}


def _caching(tag: str) -> dict[str, str]:
    return {"etag": tag, "cache-control": "private, no-cache", "vary": "accept"}


def _media_type(request: Request) -> str:
    """What the client would rather have of what there is: JSON where it does not say."""
    accepted = request.headers.get("accept", "*/*")
    wanted = [each.split(";", 1)[0].strip().lower() for each in accepted.split(",")]
    if ARROW in wanted and (JSON not in wanted or wanted.index(ARROW) < wanted.index(JSON)):
        return ARROW
    if {"*/*", "application/*", JSON, ""}.intersection(wanted):
        return JSON
    raise HTTPException(
        HTTPStatus.NOT_ACCEPTABLE, f"the answer is to be had as {JSON} or {ARROW}, and in no other form"
    )


def _rendered(answer: Answer) -> bytes:
    told = {
        "rows": answer.rows.to_pylist(),
        "versions": _versions(answer.versions),
        "last_batch": _moment(answer.batch_ms),
    }
    return orjson.dumps(told, option=orjson.OPT_UTC_Z)


def _arrow(answer: Answer) -> bytes:
    told = {"versions": _versions(answer.versions), "last_batch": _moment(answer.batch_ms)}
    rows = answer.rows.replace_schema_metadata({"lakehouse": orjson.dumps(told, option=orjson.OPT_UTC_Z)})
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, rows.schema) as stream:
        stream.write_table(rows)
    return bytes(buffer.getvalue().to_pybytes())


def _versions(versions: tuple[tuple[str, str, int], ...]) -> dict[str, int]:
    return {name: version for name, _, version in versions}


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1_000, UTC)


def _table(table: TableInfo) -> dict[str, Any]:
    """A table without where it is: its error, which may name files, goes to the log."""
    if table.error:
        log.warning("%s.%s: %s", table.layer, table.name, table.error)
    told = asdict(table)
    del told["path"]
    return told | {"error": None if table.error is None else "the table cannot be read; see the server's log"}


def _json(body: Any, *, fresh: bool = False) -> Response:  # noqa: ANN401 - anything that JSON holds
    headers = {"cache-control": "no-store"} if fresh else None
    return Response(orjson.dumps(body, option=orjson.OPT_UTC_Z), headers=headers, media_type=JSON)
