"""Certificates and accounts of a secured broker, held to a TLS handshake; the broker itself is in tests/integration."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from lakehouse import broker
from lakehouse.broker_security import BROKER, Security
from lakehouse.broker_settings import server_properties
from lakehouse.errors import ConfigError


@pytest.fixture
def security(tmp_path: Path) -> Security:
    return Security.make(tmp_path)


def handshake(security: Security, client: ssl.SSLContext, *, name: str = "127.0.0.1") -> str:
    """The principal that a server with the broker's certificate sees, which asks for the client's."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(security.folder / "broker.pem")
    server.load_verify_locations(security.folder / "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    seen: list[object] = []

    def serve(listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
            with server.wrap_socket(connection, server_side=True) as secured:
                seen.append(secured.getpeercert())
                secured.sendall(b"x")
        except OSError as error:
            seen.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=30) as plain,
                client.wrap_socket(plain, server_hostname=name) as secured,
            ):
                secured.recv(1)
        finally:
            thread.join(30)
    (told,) = seen
    if isinstance(told, Exception):
        raise told
    assert isinstance(told, dict)
    return str(dict(part[0] for part in told["subject"])["commonName"])


def trusting(authority: Path, certificate: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    if certificate:
        context.load_cert_chain(certificate)
    return context


def test_an_account_proves_itself_and_strangers_do_not(security: Security, tmp_path: Path) -> None:
    security.add_account("pipeline")
    ours, pem = security.folder / "ca.pem", security.folder / "accounts" / "pipeline.pem"
    assert handshake(security, trusting(ours, pem)) == "pipeline"
    assert handshake(security, trusting(ours, pem), name="localhost") == "pipeline"
    other = Security.make(tmp_path / "other")
    other.add_account("pipeline")
    for client in (
        trusting(ours),
        trusting(ours, other.folder / "accounts" / "pipeline.pem"),
        trusting(other.folder / "ca.pem", pem),
    ):
        with pytest.raises(OSError, match=r"(?i)certificate|alert|reset|eof|closed"):
            handshake(security, client)
    with pytest.raises(OSError, match=r"(?i)hostname|alert"):
        handshake(security, trusting(ours, pem), name="broker.example.com")


def test_making_it_again_keeps_it_and_an_account_again_is_new(security: Security, tmp_path: Path) -> None:
    before = (security.folder / "ca.pem").read_text()
    assert Security.make(tmp_path) == security == Security.of(tmp_path)
    assert (security.folder / "ca.pem").read_text() == before
    first = security.add_account("pipeline")
    assert security.add_account("pipeline") != first
    assert first not in security.client_options("pipeline", "scram")["sasl.jaas.config"]


def test_secrets_are_for_their_owner_and_are_named_by_file(security: Security) -> None:
    password = security.add_account("pipeline")
    for path in [security.folder, *security.folder.rglob("*")]:
        assert path.name == "ca.pem" or stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    told = str(security.option_lines("pipeline", "scram")) + str(security.option_lines("pipeline", "certificate"))
    assert password not in told
    assert "${file:" in told
    settings = server_properties(security.folder.parent, 1, 3, security.server_settings(1, 2, 3))
    assert password not in settings
    assert "PLAINTEXT" not in settings
    assert f"super.users=User:{BROKER}\n" in settings


@pytest.mark.parametrize("name", ["../x", "Pipeline", "", "a b", BROKER, "x" * 64, 'a" password="b'])
def test_an_account_has_a_plain_name(security: Security, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name"):
        security.add_account(name)
    assert list((security.folder / "accounts").iterdir()) == []


def test_an_open_broker_has_no_accounts(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    opened = broker.Broker("127.0.0.1:1", 1, 1, tmp_path, datetime.now(UTC))
    with pytest.raises(ConfigError, match="is open"):
        broker.put_account(opened, "pipeline")
    with pytest.raises(ConfigError, match="no account nobody"):
        Security.make(tmp_path).client_options("nobody", "scram")
