"""Asks a Kafka cluster about its topics and makes or removes them. Each call connects, answers and lets go.

Where no broker answers, every function gives up after `TIMEOUT_S`. Options carry the names that Kafka's Java
clients use (`security.protocol`, `sasl.jaas.config`); see `kafka_options`.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from confluent_kafka.cimpl import NewTopic

from lakehouse.errors import LakehouseError, SourceError, SourceUnavailable
from lakehouse.kafka_options import librdkafka_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future

T = TypeVar("T")

_Spec: Any = OffsetSpec  # its constructors carry no types

TIMEOUT_S = 4.0
"""Longest wait of one call, seconds. A broker that is there answers within milliseconds."""
_ITERATIONS = 8192
"""Rounds of SHA-512 that a stored password costs its guesser: twice Kafka's least."""
_PAUSE_S = 0.05
"""Between two questions about a topic that is being made, whose leaders are not known everywhere yet."""

SILENT = logging.getLogger("lakehouse.librdkafka")
"""Takes librdkafka's own lines, which repeat what the errors here say; set its level to see them."""
SILENT.setLevel(logging.CRITICAL)

_SEE_ACCOUNT = (
    "check the account and its password in source.options; after a change of the password start again with the new one"
)
_SEE_CERTIFICATES = (
    "check that the truststore holds the authority that signed the broker's certificate, that the certificate names"
    " the address in source.servers and, where the broker asks for yours, that it trusts who signed that"
)
_REFUSED = {
    KafkaError._AUTHENTICATION: _SEE_ACCOUNT,  # noqa: SLF001 - librdkafka's own error codes start with an underscore
    KafkaError.SASL_AUTHENTICATION_FAILED: _SEE_ACCOUNT,
    KafkaError._SSL: _SEE_CERTIFICATES,  # noqa: SLF001
    KafkaError.TOPIC_AUTHORIZATION_FAILED: (
        "let the account read the topic (Read), or for a load make and write to it (Create, Write)"
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: (
        "let the account write to the topic (Write), or for administration take one that may alter the cluster"
    ),
}
"""Code of an answer that trying again does not mend → what does."""
_ABSENT = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}  # noqa: SLF001
)
_PASSING = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError._NOENT,  # noqa: SLF001 - librdkafka's "no leaders found"
    }
)
"""What a broker answers while a topic is being made or its leader changes; gone a moment later."""
_NO_ID = frozenset({"AAAAAAAAAAAAAAAAAAAAAA", "None", ""})
"""How a topic without an id is described: Kafka's id of zeros in Base64."""
AWAY = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NOT_CONTROLLER,
        *_PASSING,
    }
)


@dataclass(frozen=True)
class TopicState:
    """What a cluster says about a topic at one moment.

    Attributes:
        topic_id: Kafka's id of it; None from clusters that know none (before Kafka 2.8).
        offsets: partition → (earliest offset that is kept, offset that the next record gets).
    """

    topic_id: str | None
    offsets: dict[int, tuple[int, int]]


def create_topic(
    bootstrap: str,
    topic: str,
    partitions: int,
    *,
    config: Mapping[str, str] | None = None,
    replication: int = -1,
    client_options: Mapping[str, str] | None = None,
) -> bool:
    """Make a topic and wait until every partition has a leader. False where it existed already.

    Args:
        bootstrap: host:port, or several separated by commas.
        topic: its name.
        partitions: how many; an existing topic keeps its own number.
        config: topic settings by Kafka's names, such as `retention.ms`.
        replication: copies of each partition; -1 takes the cluster's default.
        client_options: how to connect.

    Raises:
        SourceUnavailable: no broker answers.
        SourceError: the cluster refuses the topic.
    """
    admin = _connect(bootstrap, client_options)
    request = NewTopic(topic, partitions, replication_factor=replication, config=dict(config or {}))
    try:
        _ask(lambda: _result(admin.create_topics([request], request_timeout=TIMEOUT_S), admin), admin, bootstrap, topic)
    except _ExistsError:
        return False
    _ask(
        lambda: _offsets_of(admin, topic, range(partitions), _Spec.latest()),
        admin,
        bootstrap,
        topic,
        await_it=True,
    )
    return True


def delete_topic(bootstrap: str, topic: str, *, client_options: Mapping[str, str] | None = None) -> bool:
    """Remove a topic and its records. False where there was none.

    Raises:
        SourceUnavailable: no broker answers.
        SourceError: the cluster refuses.
    """
    admin = _connect(bootstrap, client_options)
    try:
        _ask(lambda: _result(admin.delete_topics([topic], request_timeout=TIMEOUT_S), admin), admin, bootstrap, topic)
    except _AbsentError:
        return False
    return True


def topic_partitions(bootstrap: str, topic: str, client_options: Mapping[str, str] | None = None) -> list[int]:
    """Numbers of the topic's partitions, ascending.

    Raises:
        SourceUnavailable: no broker answers.
        SourceError: there is no such topic, or it may not be read.
    """
    admin = _connect(bootstrap, client_options)
    return _partitions(_describe(admin, bootstrap, topic))


def topic_exists(bootstrap: str, topic: str, client_options: Mapping[str, str] | None = None) -> bool:
    """Whether there is a topic of this name.

    Raises:
        SourceUnavailable: no broker answers.
        SourceError: the topic may not be read.
    """
    try:
        _describe(_connect(bootstrap, client_options), bootstrap, topic)
    except _AbsentError:
        return False
    return True


def topic_id(bootstrap: str, topic: str, client_options: Mapping[str, str] | None = None) -> str:
    """The id that Kafka gave the topic when it was made: a topic made anew under the same name has another.

    Raises:
        SourceUnavailable: no broker answers.
        SourceError: there is no such topic, or it may not be read.
    """
    return str(_describe(_connect(bootstrap, client_options), bootstrap, topic).topic_id)


def topic_state(bootstrap: str, topic: str, client_options: Mapping[str, str] | None = None) -> TopicState:
    """The topic's id and, per partition, what it holds, open transactions included.

    Raises:
        SourceUnavailable: no broker answers.
        SourceError: there is no such topic, or it may not be read.
    """
    admin = _connect(bootstrap, client_options)
    description = _describe(admin, bootstrap, topic)
    topic_id = str(description.topic_id)
    known = None if topic_id in _NO_ID else topic_id
    return TopicState(known, _ranges(admin, bootstrap, topic, _partitions(description)))


def offsets(
    bootstrap: str, topic: str, options: Mapping[str, str] | None = None, *, committed: bool = True
) -> dict[int, tuple[int, int]]:
    """Per partition the earliest offset that is kept, and the offset that the next record gets.

    Args:
        bootstrap: host:port, or several separated by commas.
        topic: its name.
        options: how to connect.
        committed: end before the first record of an open transaction, as a `read_committed` reader does.

    Raises:
        SourceUnavailable: no broker answers.
        SourceError: there is no such topic, or it may not be read.
    """
    admin = _connect(bootstrap, options)
    numbers = _partitions(_describe(admin, bootstrap, topic))
    return _ranges(admin, bootstrap, topic, numbers, committed=committed)


def _ranges(
    admin: _Client, bootstrap: str, topic: str, numbers: list[int], *, committed: bool = False
) -> dict[int, tuple[int, int]]:
    isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    earliest, latest = (
        _ask(partial(_offsets_of, admin, topic, numbers, spec, isolation), admin, bootstrap, topic)
        for spec in (_Spec.earliest(), _Spec.latest())
    )
    return {number: (earliest[number], latest[number]) for number in numbers}


def brokers(bootstrap: str, client_options: Mapping[str, str] | None = None, *, timeout_s: float = TIMEOUT_S) -> int:
    """How many brokers serve; asked of the cluster itself, so a port that merely listens does not count.

    Raises:
        SourceUnavailable: none answers within `timeout_s`.
        SourceError: the cluster refuses the connection.
    """
    admin = _connect(bootstrap, client_options)
    try:
        return len(admin.list_topics(timeout=timeout_s).brokers)
    except KafkaException as error:
        raise _explain(error, bootstrap, None, admin.refusal()) from error


def put_password(bootstrap: str, account: str, password: str, client_options: Mapping[str, str]) -> None:
    """Make an account for SCRAM-SHA-512, or give the one that is there another password.

    Raises:
        SourceUnavailable: no broker answers.
        SourceError: the cluster refuses.
    """
    admin = _connect(bootstrap, client_options)
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS)
    change = UserScramCredentialUpsertion(account, info, password.encode())
    _ask(
        lambda: _result(admin.alter_user_scram_credentials([change], request_timeout=TIMEOUT_S), admin),
        admin,
        bootstrap,
    )


def allow(
    bootstrap: str,
    account: str,
    client_options: Mapping[str, str],
    *,
    reads: Sequence[str] = (),
    writes: Sequence[str] = (),
) -> None:
    """Let an account read topics, or make them and write to them; what it may already, it still may.

    Raises:
        SourceUnavailable: no broker answers.
        SourceError: the cluster refuses.
    """
    read, write, create = AclOperation.READ, AclOperation.WRITE, AclOperation.CREATE
    wanted = [(topic, operation) for topic in writes for operation in (create, write)]
    wanted += [(topic, read) for topic in reads]
    admin = _connect(bootstrap, client_options)
    principal, literal, allowed = f"User:{account}", ResourcePatternType.LITERAL, AclPermissionType.ALLOW
    for topic, operation in wanted:
        rule = AclBinding(ResourceType.TOPIC, topic, literal, principal, "*", operation, allowed)
        _ask(partial(_made, admin, rule), admin, bootstrap, topic)


class _AbsentError(SourceError):
    """The topic does not exist."""


class _ExistsError(SourceError):
    """The topic exists already."""


class _Client(AdminClient):
    """A client that remembers why it was not let in: its requests then only say that nobody answered."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._refusal: KafkaError | None = None
        super().__init__(settings | {"error_cb": self._note}, logger=SILENT)

    def refusal(self) -> KafkaError | None:
        """The last answer that trying again does not mend."""
        self.poll(0)
        return self._refusal

    def _note(self, error: KafkaError) -> None:
        if is_refusal(error):
            self._refusal = error


def _connect(bootstrap: str, options: Mapping[str, str] | None) -> _Client:
    settings: dict[str, Any] = {
        **librdkafka_options(options or {}),
        "bootstrap.servers": bootstrap,
        "socket.timeout.ms": int(TIMEOUT_S * 1000),
        "socket.connection.setup.timeout.ms": 2000,
        "reconnect.backoff.max.ms": 500,
    }
    try:
        return _Client(settings)
    except KafkaException as error:
        raise SourceError(
            f"The Kafka client refuses its options: {error.args[0].str()}.",
            where=bootstrap,
            remedy="mend source.options in the pipeline file",
        ) from error


def _describe(admin: _Client, bootstrap: str, topic: str) -> Any:  # noqa: ANN401 - an untyped client's object
    return _ask(
        lambda: _result(admin.describe_topics(TopicCollection([topic]), request_timeout=TIMEOUT_S), admin),
        admin,
        bootstrap,
        topic,
    )


def _partitions(description: Any) -> list[int]:  # noqa: ANN401 - an untyped client's object
    return sorted(int(partition.id) for partition in description.partitions)


def _offsets_of(
    admin: AdminClient,
    topic: str,
    numbers: Iterable[int],
    spec: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
) -> dict[int, int]:
    asked = {TopicPartition(topic, number): spec for number in numbers}
    answers = admin.list_offsets(asked, isolation_level=isolation, request_timeout=TIMEOUT_S)
    return {int(partition.partition): int(answer.result().offset) for partition, answer in answers.items()}


def _made(admin: _Client, rule: AclBinding) -> None:
    _result(admin.create_acls([rule], request_timeout=TIMEOUT_S), admin)


def _result(answers: Mapping[Any, Future[T]], admin: _Client) -> T:
    """The one answer; a refusal of this client ends the wait for it at once."""
    (answer,) = answers.values()
    while True:
        try:
            return answer.result(_PAUSE_S)
        except TimeoutError:
            refusal = admin.refusal()
            if refusal is not None:
                raise KafkaException(refusal) from None


def _ask(
    question: Callable[[], T], admin: _Client, bootstrap: str, topic: str | None = None, *, await_it: bool = False
) -> T:
    """Ask until there is an answer, or `TIMEOUT_S` is over.

    Asked again is only what passes: the leaders of a new topic are known a moment later, and with `await_it` its
    name is too.
    """
    deadline = time.monotonic() + TIMEOUT_S
    passing = _PASSING | _ABSENT if await_it else _PASSING
    while True:
        try:
            return question()
        except KafkaException as error:
            if error.args[0].code() not in passing or time.monotonic() > deadline:
                raise _explain(error, bootstrap, topic, admin.refusal()) from error
        time.sleep(_PAUSE_S)


def _explain(
    error: KafkaException, bootstrap: str, topic: str | None, refusal: KafkaError | None = None
) -> LakehouseError:
    """The error of this project that says what librdkafka's code means to a person."""
    reason: KafkaError = error.args[0]
    if refusal is not None and reason.code() in AWAY:
        reason = refusal
    where = f"{bootstrap}, topic {topic}" if topic else bootstrap
    if reason.code() in _ABSENT:
        return _AbsentError(
            f"There is no topic named {topic}.", where=where, remedy="make the topic, or correct its name"
        )
    if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
        return _ExistsError(f"The topic {topic} exists already.", where=where)
    if is_refusal(reason):
        return refused(reason, where)
    if reason.code() in AWAY:
        return SourceUnavailable(
            f"No Kafka broker answers at {bootstrap}.",
            where=where,
            remedy="start the broker (lakehouse broker start), or correct the address",
        )
    return SourceError(f"Kafka answers: {reason.str()}.", where=where, remedy="see the broker's own log")


def is_refusal(error: KafkaError) -> bool:
    """Whether trying again does not mend it.

    A broker that does not trust a certificate lets its client in and then hangs up, which only the text tells. One that
    dies while they shake hands is away, whatever the code says.
    """
    if error.code() == KafkaError._SSL and "isconnected" in error.str():  # noqa: SLF001
        return False
    return error.code() in _REFUSED or _is_alert(error)


def refused(reason: KafkaError, where: str) -> SourceError:
    """What a refusal means to a person, and what they can do."""
    told = reason.str().rstrip(".")
    remedy = _REFUSED.get(reason.code(), _SEE_CERTIFICATES)
    return SourceError(f"Kafka refuses this client: {told}.", where=where, remedy=remedy)


def _is_alert(error: KafkaError) -> bool:
    return error.code() == KafkaError._TRANSPORT and "SSL alert number" in error.str()  # noqa: SLF001
