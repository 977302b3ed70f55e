"""A client of a Confluent-compatible schema registry: schemas by their id, each asked for once in a process.

`GET /schemas/ids/ID`, and `POST /subjects/SUBJECT/versions` for those who write. Whether a registry does not know an id
or cannot say so is told apart: of the first, records are quarantined; on the second, everyone waits.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from lakehouse.errors import ConfigError, RegistryUnavailable

TIMEOUT_S = 5.0
_UNKNOWN_FOR_S = 10.0
"""How long an id counts as unknown before the registry is asked for it again."""
_CONTENT = "application/vnd.schemaregistry.v1+json"
_NOT_FOUND, _REFUSED, _INVALID = 404, (401, 403), (409, 422)


@dataclass(frozen=True)
class Registered:
    """One schema.

    Attributes:
        id: the registry's number of it.
        kind: `AVRO`, `PROTOBUF` or `JSON`.
        text: the schema; of Protobuf the base64 of a `FileDescriptorProto`.
        references: the schemas that it needs by name, first those that need none.
    """

    id: int
    kind: str
    text: str
    references: tuple[tuple[str, str], ...] = ()


@dataclass
class Registry:
    """One registry.

    Attributes:
        url: http(s)://HOST:PORT, and a path where it has one.
        auth: USER:PASSWORD, or empty.
    """

    url: str
    auth: str = field(default="", repr=False)
    _known: dict[int, Registered] = field(default_factory=dict, repr=False)
    _unknown: dict[int, float] = field(default_factory=dict, repr=False)

    def require(self) -> None:
        """See whether it answers.

        Raises:
            RegistryUnavailable: it does not.
            ConfigError: it refuses the user, or is no registry.
        """
        if self._get("/subjects") is None:
            raise self._no_registry()

    def schema(self, schema_id: int) -> Registered | None:
        """The schema of an id; None where the registry does not know it.

        Raises:
            RegistryUnavailable: it does not answer.
            ConfigError: it refuses the user, or is no registry.
        """
        if schema_id in self._known:
            return self._known[schema_id]
        if time.monotonic() < self._unknown.get(schema_id, 0.0):
            return None
        # Protobuf as a descriptor, which needs no compiler; a registry passes over what it has no other form for.
        found = self._get(f"/schemas/ids/{schema_id}?format=serialized")
        if found is None:
            self._unknown[schema_id] = time.monotonic() + _UNKNOWN_FOR_S
            return None
        made = Registered(schema_id, found.get("schemaType", "AVRO"), found["schema"], self._references(found))
        self._known[schema_id] = made
        return made

    def register(self, subject: str, kind: str, text: str) -> int:
        """The id of a schema, which is made a version of the subject where it is none yet.

        Raises:
            RegistryUnavailable: the registry does not answer.
            ConfigError: it refuses the schema, or the user.
        """
        body = {"schema": text} if kind == "AVRO" else {"schema": text, "schemaType": kind}
        made = self._ask(f"/subjects/{quote(subject, safe='')}/versions", body)
        if made is None:
            raise self._no_registry()
        return int(made["id"])

    def _references(self, found: dict[str, Any]) -> tuple[tuple[str, str], ...]:
        told: dict[str, str] = {}
        for reference in found.get("references") or ():
            subject, version = quote(reference["subject"], safe=""), reference["version"]
            needed = self._get(f"/subjects/{subject}/versions/{version}?format=serialized")
            if needed is not None:
                told |= dict(self._references(needed))
                told[reference["name"]] = needed["schema"]
        return tuple(told.items())

    def _get(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        return self._ask(path, None)

    def _ask(self, path: str, body: dict[str, str] | None) -> Any:  # noqa: ANN401 - any JSON
        """What it answers; None where it knows no such thing."""
        headers = {"Accept": f"{_CONTENT}, application/json"}
        if self.auth:
            headers["Authorization"] = "Basic " + b64encode(self.auth.encode()).decode()
        if body is not None:
            headers["Content-Type"] = _CONTENT
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url.rstrip("/") + path, data, headers)  # noqa: S310 - config: http(s) only
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read(2_000).decode(errors="replace")
            if error.code == _NOT_FOUND:
                return None
            if error.code in _REFUSED:
                raise ConfigError(
                    f"the schema registry refuses the user (HTTP {error.code})",
                    where=self.url,
                    remedy="set source.registry.auth to USER:PASSWORD",
                ) from None
            if error.code in _INVALID:
                raise ConfigError(
                    f"the schema registry refuses the schema: {said}",
                    where=self.url + path,
                    remedy="see the subject's compatibility; a breaking change needs another topic",
                ) from None
            raise self._unavailable(f"HTTP {error.code}") from None
        except (OSError, TimeoutError) as error:
            raise self._unavailable(str(getattr(error, "reason", error))) from None
        except ValueError:
            raise self._no_registry() from None

    def _unavailable(self, what: str) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"the schema registry does not answer: {what}",
            where=self.url,
            remedy="nothing is lost: the pipeline goes on when it is back; is source.registry.url right?",
        )

    def _no_registry(self) -> ConfigError:
        return ConfigError(
            "what answers is no Confluent-compatible schema registry",
            where=self.url,
            remedy="correct source.registry.url; some registries have their compatible API under a path",
        )
