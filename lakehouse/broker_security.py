"""Certificates, accounts and settings of an embedded broker that admits nobody without a proof of who they are.

A secured broker has a folder `security` beside its data; one without that folder is open:

    ca.pem, ca.key           the authority that signs for this broker alone
    broker.pem               the broker's own key and certificate, also its administrator's
    accounts/NAME.password   password of an account, for SCRAM
    accounts/NAME.jaas       the same as Kafka's option `sasl.jaas.config`
    accounts/NAME.pem        key and certificate of the account, for mutual TLS

Whoever reads this folder is the broker: it and every key in it are for its owner's eyes only.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lakehouse.broker_settings import HOST
from lakehouse.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

Proof = Literal["scram", "certificate"]
"""How a client says who it is: by a password that never crosses the wire, or by a certificate."""

MECHANISM = "SCRAM-SHA-512"
BROKER = "broker"
"""Principal of the broker itself, the only one that no access rule holds back."""

_FOLDER = "security"
_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required"
_ACCOUNT = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VALID_FOR = timedelta(days=365)
_BACKDATED = timedelta(hours=1)
"""A client whose clock is behind takes a new certificate as well."""


@dataclass(frozen=True)
class Security:
    """The security of one broker's folder.

    Attributes:
        folder: where its certificates and accounts are.
    """

    folder: Path

    @classmethod
    def of(cls, broker_folder: Path) -> Security | None:
        """That of a broker; None where it is open."""
        folder = broker_folder.resolve() / _FOLDER
        return cls(folder) if (folder / "broker.pem").is_file() else None

    @classmethod
    def make(cls, broker_folder: Path) -> Security:
        """That of a broker, made where it is open: an authority and the broker's certificate."""
        found = cls.of(broker_folder)
        if found is not None:
            return found
        made = cls(broker_folder.resolve() / _FOLDER)
        (made.folder / "accounts").mkdir(parents=True, exist_ok=True, mode=0o700)
        made.folder.chmod(0o700)
        made._make_authority()
        _write(made.folder / "broker.pem", made._certified(BROKER))
        return made

    def add_account(self, name: str) -> str:
        """Write a new password and a new certificate for an account, new or not; returns the password.

        Raises:
            ConfigError: the name cannot be an account's.
        """
        if not _ACCOUNT.fullmatch(name) or name == BROKER:
            raise ConfigError(
                f"{name!r} cannot be the name of an account.",
                remedy=f"use lower-case letters, digits, _ and -, beginning with a letter; {BROKER} is taken",
            )
        password = secrets.token_urlsafe(32)
        _write(self._account(name, "password"), password.encode())
        _write(self._account(name, "jaas"), f'{_LOGIN} username="{name}" password="{password}";'.encode())
        _write(self._account(name, "pem"), self._certified(name))
        return password

    def client_options(self, account: str, proof: Proof) -> dict[str, str]:
        """Kafka's options for a client with this account, by the names that a pipeline file uses.

        Raises:
            ConfigError: there is no such account.
        """
        options = self.option_lines(account, proof)
        if proof == "scram":
            options["sasl.jaas.config"] = self._account(account, "jaas").read_text()
        return options

    def option_lines(self, account: str, proof: Proof) -> dict[str, str]:
        """The same as a person writes them into a pipeline file: the password stays in its file.

        Raises:
            ConfigError: there is no such account.
        """
        pem = self.folder / "broker.pem" if account == BROKER else self._account(account, "pem")
        if not pem.is_file():
            raise ConfigError(
                f"The broker has no account {account}.", where=str(pem), remedy=f"lakehouse broker account {account}"
            )
        trust = {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(self.folder / "ca.pem")}
        if proof == "scram":
            return {
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": MECHANISM,
                "sasl.jaas.config": f"${{file:{self._account(account, 'jaas')}}}",
                **trust,
            }
        return {
            "security.protocol": "SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(pem),
            **trust,
        }

    def server_settings(self, port: int, tls_port: int, controller_port: int) -> dict[str, object]:
        """What the broker's settings have in place of the open listener's.

        Args:
            port: where clients connect with a password, over TLS.
            tls_port: where clients and the broker itself connect with a certificate.
            controller_port: where the broker finds its controller, itself.
        """
        listeners = {"SASL_SSL": port, "SSL": tls_port}
        addresses = {name: f"{name}://{HOST}:{number}" for name, number in listeners.items()}
        return {
            "listeners": ",".join([*addresses.values(), f"CONTROLLER://{HOST}:{controller_port}"]),
            "advertised.listeners": ",".join(addresses.values()),
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:SSL",
            "inter.broker.listener.name": "SSL",
            "sasl.enabled.mechanisms": MECHANISM,
            f"listener.name.sasl_ssl.{MECHANISM.lower()}.sasl.jaas.config": f"{_LOGIN};",
            # A client that proves itself by a password needs no certificate; everyone else does, the broker too.
            "ssl.client.auth": "required",
            "listener.name.sasl_ssl.ssl.client.auth": "none",
            "ssl.enabled.protocols": "TLSv1.3,TLSv1.2",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.folder / "broker.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.folder / "ca.pem",
            "ssl.principal.mapping.rules": r"RULE:^CN=([^,]+).*$/$1/,DEFAULT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:{BROKER}",
            "allow.everyone.if.no.acl.found": "false",
        }

    def _account(self, name: str, part: str) -> Path:
        return self.folder / "accounts" / f"{name}.{part}"

    def _make_authority(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name("lakehouse embedded broker")
        certificate = (
            _certificate(subject, subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write(self.folder / "ca.key", _private(key))
        _write(self.folder / "ca.pem", certificate.public_bytes(Encoding.PEM), mode=0o644)

    def _certified(self, principal: str) -> bytes:
        """A new key and its certificate, in one file as Java wants them."""
        authority = x509.load_pem_x509_certificate((self.folder / "ca.pem").read_bytes())
        signer = load_pem_private_key((self.folder / "ca.key").read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey), "this authority's key is made above"  # noqa: S101
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _certificate(_name(principal), authority.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
        )
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if principal == BROKER:
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return _private(key) + builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _VALID_FOR)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file in one step; it never exists with wider rights than `mode`."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    fresh.replace(path)
