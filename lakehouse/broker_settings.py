"""Settings of the embedded broker: Kafka's own, and those of its log."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HOST = "127.0.0.1"
NODE_ID = 1
LOG = "broker.log"


def server_properties(
    folder: Path, port: int, controller_port: int, secured: Mapping[str, object] | None = None
) -> str:
    """Kafka's settings for one node that answers quickly and keeps little besides the data.

    Args:
        folder: where it keeps its data and its log.
        port: where clients connect.
        controller_port: where it finds its controller, itself.
        secured: what a secured broker has instead of the open listener (`broker_security`).
    """
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.voters": f"{NODE_ID}@{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "log.dirs": folder / "kafka",
        # A broker that was killed counts as alive until this is over, and its successor waits that long.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 1000,
        # A misspelt topic must be an error, not a new topic.
        "auto.create.topics.enable": "false",
        "num.partitions": 4,
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        # A load left running must not fill the disk: 4 GiB a partition, a day, whichever comes first.
        "log.retention.bytes": 4 * 1024**3,
        "log.retention.hours": 24,
        "log.segment.bytes": 256 * 1024**2,
        # The cleaner's buffer is taken from the heap at the start; its 128 MiB suit thousands of topics.
        "log.cleaner.dedupe.buffer.size": 8 * 1024**2,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "num.recovery.threads.per.data.dir": 2,
        **(secured or {}),
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def log_settings(folder: Path) -> str:
    """Log4j's settings: warnings of everything and the milestones of the server, 3 files of 10 MB at most."""
    log = escape(str(folder / LOG))
    return f"""\
<Configuration status="ERROR" shutdownHook="disable">
  <Appenders>
    <RollingFile name="file" fileName="{log}" filePattern="{log}.%i">
      <PatternLayout pattern="%d{{ISO8601}} %p %m (%c{{1}})%n"/>
      <Policies><SizeBasedTriggeringPolicy size="10 MB"/></Policies>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Logger name="kafka.server.KafkaRaftServer" level="INFO"/>
    <Logger name="kafka.server.BrokerServer" level="INFO"/>
    <Logger name="kafka.log.LogManager" level="INFO"/>
    <Root level="WARN"><AppenderRef ref="file"/></Root>
  </Loggers>
</Configuration>
"""
