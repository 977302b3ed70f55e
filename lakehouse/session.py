"""The only place that builds a SparkSession."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any

import pyspark
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from lakehouse.class_archive import ClassArchive, class_archive, class_path
from lakehouse.jars import ensure_jars, jar_folder
from lakehouse.java import find_java
from lakehouse.socket_folder import socket_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

_JVM_END_S = 60.0
"""Within which a JVM ends; the one that writes its class archive takes 5 to 15 s."""
_LOG4J = Path(__file__).with_name("log4j2.properties")

SECRET_NAMES = r"(?i)secret|password|passwd|token|access[.]?key|jaas|credential|keystore[.]key"  # noqa: S105 - names
"""Names of settings and options whose values are secret, for Spark."""

STREAMING = {
    "spark.sql.session.timeZone": "UTC",
    # Re-optimising tiny micro-batches at run time costs more than it can win.
    "spark.sql.adaptive.enabled": "false",
    # The one pass has no shuffle; Spark's default of 200 is for those that do.
    "spark.sql.shuffle.partitions": "2",
    # The checkpoint's files are checked against the tables' own commits instead.
    "spark.sql.streaming.checkpoint.fileChecksum.enabled": "false",
    # Kafka's own metadata tells about new data; waiting between looks only adds to latency.
    "spark.sql.streaming.pollingDelay": "5ms",
    "spark.sql.streaming.metricsEnabled": "false",
    "spark.sql.streaming.numRecentProgressUpdates": "20",
    # A method beyond 8 000 bytes of bytecode is not compiled by a JVM that nobody told to; Spark then splits the code.
    "spark.sql.codegen.hugeMethodLimit": "8000",
    # Every micro-batch's plan is written out as text for a UI that nobody looks at: the shortest form is enough.
    "spark.sql.ui.explainMode": "simple",
    "spark.sql.maxPlanStringLength": "256",
    # What Spark shows as stars wherever it shows settings or the options of a source: Kafka's logins among them.
    "spark.redaction.regex": SECRET_NAMES,
    "spark.sql.redaction.options.regex": f"{SECRET_NAMES}|(?i)url",
    # For error messages of interactive work, every Column and DataFrame call tells the JVM where it was made: half of
    # the round trips with which a query is described.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    # Rows go to Python in batches that are full at either bound; by rows alone, 50 000 large ones are gigabytes.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
    "spark.sql.execution.arrow.maxBytesPerBatch": str(32 * 2**20),
    "spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled": "true",
    # The steps of a plan as objects, which every micro-batch can go through (`streaming.prepared`).
    "spark.sql.execution.usePartitionEvaluator": "true",
    # Over TCP, Spark holds back a task's rows until Python has acknowledged what came before, and Python's kernel waits
    # 40 ms with that (docs/adr/0037-unix-sockets-to-python.md).
    "spark.python.unix.domain.socket.enabled": "true",
}
"""Settings that every pipeline runs with, each unless spark-submit or spark-defaults says otherwise."""

LOCAL = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "1g",
    # This JVM is told to (`_COMPILE_ALL`). What Spark splits, it writes anew in every task: with 50 rules, 40 ms each.
    "spark.sql.codegen.hugeMethodLimit": "65535",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    # A checkpoint on a local disk: Hadoop's own file system forks a `chmod` for each file where its native
    # library is missing, some 35 ms each (docs/adr/0008-local-checkpoint.md).
    "spark.hadoop.fs.file.impl": "com.globalmentor.apache.hadoop.fs.BareLocalFileSystem",
    "spark.sql.streaming.checkpointFileManagerClass": (
        "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
    ),
}
"""Settings of a session that runs in this process, over those of `STREAMING`."""
_COMPILE_ALL = "-XX:-DontCompileHugeMethods"

DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # A log is read in this many tasks; Delta's default of 50 is for logs of millions of files.
    "spark.databricks.delta.snapshotPartitions": "2",
}
"""What Spark needs to read tables by Delta's own reader. A pipeline reads none, and its plans are spared the rules."""


def local_session(name: str, *, cores: int | None = None, reads_delta: bool = False) -> SparkSession:
    """A session in this process, on this machine, with Java and the jars found by this project.

    Args:
        name: of the application.
        cores: all by default.
        reads_delta: whether it reads tables, as reports do.

    Raises:
        EnvironmentProblem: where there is no Java 17 or newer, or the jars cannot be fetched.
    """
    settings = _local_settings(cores, _archive().flags(write=False))
    return _build(name, settings | (DELTA if reads_delta else {}))


@contextmanager
def ended_session(name: str, *, cores: int | None = None) -> Iterator[SparkSession]:
    """A `local_session` whose JVM has ended when the body has, and has left an archive of its classes.

    The first one writes the archive, which takes it some seconds once; later ones, `local_session` too, map it.
    """
    archive = _archive()
    spark = _build(name, _local_settings(cores, archive.flags()))
    try:
        yield spark
    finally:
        _end(spark)
        archive.keep()


def _local_settings(cores: int | None, flags: tuple[str, ...]) -> dict[str, str]:
    os.environ["JAVA_HOME"] = str(find_java().parent.parent)
    # Python workers need this environment, not the first python3 on the PATH.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    java_options = (f"-Dlog4j2.configurationFile={_LOG4J.as_uri()}", "-XX:+UseParallelGC", _COMPILE_ALL, *flags)
    return (
        STREAMING
        | LOCAL
        | {
            "spark.master": f"local[{cores or '*'}]",
            "spark.python.daemon.module": "lakehouse.worker_daemon",
            "spark.python.unix.domain.socket.dir": socket_folder(),
            # On the class path of the one JVM there is: what `spark.jars` names is loaded by a class loader of
            # Spark's own, whose classes no archive can hold, and is copied at each start.
            "spark.driver.extraClassPath": class_path(ensure_jars("spark")),
            "spark.driver.extraJavaOptions": " ".join(java_options),
        }
    )


def _archive() -> ClassArchive:
    jars = f"{pyspark.__version__}{os.pathsep}{class_path(ensure_jars('spark'))}"
    return class_archive(jar_folder("spark").parent, "spark", find_java(), jars)


def warm_up(spark: SparkSession) -> None:
    """Have Spark start its Python workers while the driver does something else; the first micro-batch finds them."""

    def run() -> None:
        with suppress(Exception):  # what is wrong will be said by the first micro-batch
            rows = spark.range(0, 64, 1, 2)
            rows.mapInArrow(_through, rows.schema).collect()

    Thread(target=run, name="warm-up", daemon=True).start()


def _through(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    return batches


def _end(spark: SparkSession) -> None:
    """Stop Spark and wait for its JVM, which ends when its standard input does."""
    gateway: Any = spark.sparkContext._gateway  # noqa: SLF001 - pyspark has no other name for its JVM
    spark.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        gateway.proc.wait(_JVM_END_S)
    # A session that is built later in this process starts a JVM of its own.
    SparkContext._gateway = SparkContext._jvm = None  # noqa: SLF001 - as pyspark's own tests do


def submitted_session(name: str, *, reads_delta: bool = False) -> SparkSession:
    """The session of a `spark-submit`, whose own settings win over those here; see `local_session`."""
    given = SparkConf()
    settings = STREAMING | (DELTA if reads_delta else {})
    return _build(name, {key: value for key, value in settings.items() if not given.contains(key)})


def _build(name: str, settings: dict[str, str]) -> SparkSession:
    builder = SparkSession.Builder().appName(name)
    for key, value in settings.items():
        builder = builder.config(key, value)
    handler = signal.getsignal(signal.SIGINT)
    spark = builder.getOrCreate()
    # Spark puts a handler of its own in the place of the caller's, one that ends in a traceback.
    if current_thread() is main_thread():
        signal.signal(signal.SIGINT, handler)
    return spark
