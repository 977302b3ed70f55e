"""What a running pipeline logs: text for people or JSON for machines, with the micro-batch, without a secret."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import orjson

from lakehouse import storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lakehouse.config.models import Pipeline

HIDDEN = "********"
_SHORTEST = 6
"""A secret of fewer characters is a word like `true` or `plain`, which log lines have to be able to say."""
_LONG = 16
"""A part of an address with so many characters is no word of its service's, such as `services` or `lineage`."""
_QUOTED = re.compile(r'(username\s*=\s*)?"((?:[^"\\]|\\.)+)"')


class _Current:
    """The micro-batch that this process is writing: commit threads log too, so it is no context variable."""

    batch_id: int | None = None
    secrets: tuple[str, ...] = ()


@contextmanager
def in_batch(batch_id: int) -> Iterator[None]:
    """Lines logged while the body runs carry the micro-batch's number."""
    _Current.batch_id = batch_id
    try:
        yield
    finally:
        _Current.batch_id = None


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time_ms`, `event: log`, `level`, `logger`, `batch_id` and `message`."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one line; a traceback goes into its message."""
        line = {
            "time_ms": round(record.created * 1_000),
            "event": "log",
            "level": record.levelname.lower(),
            "logger": record.name,
            "batch_id": _Current.batch_id,
            "message": redact(super().format(record)),
        }
        return orjson.dumps(line).decode()


class TextFormatter(logging.Formatter):
    """The message alone."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one line."""
        return redact(super().format(record))


def configure(pipeline: Pipeline, *, as_json: bool) -> None:
    """From now on every line that is logged or told as an error is without this pipeline's secrets."""
    _Current.secrets = tuple(sorted(secrets_of(pipeline), key=len, reverse=True))
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter() if as_json else TextFormatter())


def redact(text: str) -> str:
    """The text with stars in the place of every secret."""
    for secret in _Current.secrets:
        text = text.replace(secret, HIDDEN)
    return text


def secrets_of(pipeline: Pipeline) -> set[str]:
    """Every value that must not be told, and the parts of it that a library may tell alone.

    That is what stands in quotes inside of it, as a password in a JAAS line does, the parts of an address that can be
    secret, and the store's credentials in the environment.
    """
    values = {secret.get_secret_value() for secret in pipeline.source.options.values()}
    urls = {of.url.get_secret_value() for of in pipeline.alerts.notify.values() if of.kind != "kafka"}
    if pipeline.lineage.to is not None and pipeline.lineage.to.kind == "http":
        urls.add(pipeline.lineage.to.url.get_secret_value())
        values.add(pipeline.lineage.to.token.get_secret_value())
    values |= storage.secrets()
    values |= urls | set(_quoted(values)) | {part for url in urls for part in _parts(url)}
    return {secret for secret in values if len(secret) >= _SHORTEST}


def _parts(url: str) -> Iterator[str]:
    """What of an address may be secret: login, path and query as wholes, and any long segment or value of them."""
    parsed = urlsplit(url)
    yield from filter(None, (parsed.username, parsed.password, parsed.query))
    yield parsed.path
    for part in (*parsed.path.split("/"), *(value for _, value in parse_qsl(parsed.query))):
        if len(part) >= _LONG:
            yield part


def _quoted(values: Iterable[str]) -> Iterator[str]:
    for value in values:
        for user, text in _QUOTED.findall(value):
            # An account's name is no secret, and may be a word of every other message.
            if not user:
                yield text
                yield re.sub(r"\\(.)", r"\1", text)
