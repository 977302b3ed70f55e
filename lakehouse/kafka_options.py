"""Translates Kafka client options from the Java names, which a pipeline file uses, to librdkafka's.

A pipeline gives each option once, by the name that Spark's Kafka source knows. The Python side
(administration and the load) must connect with the same security, so a security option that has no
counterpart is an error, never dropped. Options that only tune a Java consumer mean nothing here and are left
out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lakehouse.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECURITY_PREFIXES = ("security.", "sasl.", "ssl.")
_SAME_NAME = frozenset(
    {
        "client.id",
        "sasl.kerberos.service.name",
        "sasl.mechanism",
        "security.protocol",
        "ssl.key.password",
    }
)
_OTHER_NAME = {
    "ssl.truststore.certificates": "ssl.ca.pem",
    "ssl.keystore.certificate.chain": "ssl.certificate.pem",
    "ssl.keystore.key": "ssl.key.pem",
}
_STORES = frozenset(
    f"ssl.{store}.{part}" for store in ("truststore", "keystore") for part in ("type", "location", "password")
)
_JAAS_PAIR = re.compile(r'(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"')


def librdkafka_options(options: Mapping[str, str]) -> dict[str, str]:
    """The options that connect a librdkafka client as the given Java options connect Spark.

    Raises:
        ConfigError: a security option cannot be carried over; the message never holds its value.
    """
    found: dict[str, str] = {}
    for name, value in options.items():
        if name in _SAME_NAME:
            found[name] = value
        elif name in _OTHER_NAME:
            found[_OTHER_NAME[name]] = value
        elif name == "sasl.jaas.config":
            found |= _credentials(value)
        elif name == "ssl.endpoint.identification.algorithm":
            found[name] = value or "none"
        elif name.startswith(_SECURITY_PREFIXES) and name not in _STORES:
            raise ConfigError(
                f"The Kafka option {name} has no counterpart outside Java.",
                where=f"source.options.{name}",
                remedy=f"express it with one of: {', '.join(sorted(_SAME_NAME | set(_OTHER_NAME)))}",
            )
    return found | _truststore(options) | _keystore(options)


def _credentials(jaas: str) -> dict[str, str]:
    r"""User and password of a PLAIN or SCRAM login module: `… required username="u" password="p\"w";`."""
    pairs = {name: re.sub(r"\\(.)", r"\1", value) for name, value in _JAAS_PAIR.findall(jaas)}
    if not {"username", "password"} <= set(pairs):
        raise ConfigError(
            "Only PLAIN and SCRAM logins, with a username and a password in double quotes, are understood.",
            where="source.options.sasl.jaas.config",
            remedy='write: …security.scram.ScramLoginModule required username="…" password="…";',
        )
    return {"sasl.username": pairs["username"], "sasl.password": pairs["password"]}


def _truststore(options: Mapping[str, str]) -> dict[str, str]:
    location = options.get("ssl.truststore.location")
    if location is None:
        return {}
    _require_type(options, "ssl.truststore.type", {"PEM"})
    return {"ssl.ca.location": location}


def _keystore(options: Mapping[str, str]) -> dict[str, str]:
    location = options.get("ssl.keystore.location")
    if location is None:
        return {}
    if _require_type(options, "ssl.keystore.type", {"PEM", "PKCS12"}) == "PEM":
        # Java wants the key and the chain in one file; librdkafka asks for each and reads its part.
        return {"ssl.certificate.location": location, "ssl.key.location": location}
    return {
        "ssl.keystore.location": location,
        "ssl.keystore.password": options.get("ssl.keystore.password", ""),
    }


def _require_type(options: Mapping[str, str], name: str, readable: set[str]) -> str:
    kind = options.get(name, "JKS").upper()
    if kind not in readable:
        raise ConfigError(
            f"A key store of type {kind} can be read by Java only.",
            where=f"source.options.{name}",
            remedy=f"convert it and set {name} to {' or '.join(sorted(readable))}",
        )
    return kind
