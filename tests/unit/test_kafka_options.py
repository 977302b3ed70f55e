from __future__ import annotations

import pytest

from lakehouse.errors import ConfigError
from lakehouse.kafka_options import librdkafka_options

JAAS = "org.apache.kafka.common.security.scram.ScramLoginModule required "


def test_scram_over_tls_is_carried_over() -> None:
    options = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": JAAS + r'username="svc" password="a\"b\\c;";',
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": "/etc/kafka/ca.pem",
        "ssl.endpoint.identification.algorithm": "",
        "max.partition.fetch.bytes": "1048576",
        "client.id": "silver",
    }
    assert librdkafka_options(options) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "svc",
        "sasl.password": 'a"b\\c;',
        "ssl.ca.location": "/etc/kafka/ca.pem",
        "ssl.endpoint.identification.algorithm": "none",
        "client.id": "silver",
    }


def test_client_certificates_are_carried_over() -> None:
    pem = {"ssl.keystore.type": "PEM", "ssl.keystore.location": "/me.pem", "ssl.key.password": "x"}
    assert librdkafka_options(pem) == {
        "ssl.certificate.location": "/me.pem",
        "ssl.key.location": "/me.pem",
        "ssl.key.password": "x",
    }
    inline = {"ssl.keystore.certificate.chain": "CHAIN", "ssl.keystore.key": "KEY", "ssl.truststore.certificates": "CA"}
    assert librdkafka_options(inline) == {"ssl.certificate.pem": "CHAIN", "ssl.key.pem": "KEY", "ssl.ca.pem": "CA"}
    store = {"ssl.keystore.type": "pkcs12", "ssl.keystore.location": "/me.p12", "ssl.keystore.password": "x"}
    assert librdkafka_options(store) == {"ssl.keystore.location": "/me.p12", "ssl.keystore.password": "x"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"ssl.truststore.location": "/trust.jks"}, "ssl.truststore.type"),
        ({"ssl.truststore.location": "/trust.p12", "ssl.truststore.type": "PKCS12"}, "ssl.truststore.type"),
        ({"ssl.keystore.location": "/me.jks"}, "ssl.keystore.type"),
        ({"sasl.login.callback.handler.class": "Secret"}, "sasl.login.callback.handler.class"),
        ({"sasl.jaas.config": "com.sun.security.auth.module.Krb5LoginModule required Secret;"}, "sasl.jaas.config"),
    ],
)
def test_security_that_cannot_be_carried_over_is_refused(options: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        librdkafka_options(options)
    assert caught.value.where == f"source.options.{named}"
    assert "Secret" not in str(caught.value)
