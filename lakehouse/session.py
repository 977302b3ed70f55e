"""The only place that builds a SparkSession."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pyspark import SparkConf
from pyspark.sql import SparkSession

from lakehouse.jars import ensure_jars
from lakehouse.java import find_java

_LOG4J = Path(__file__).with_name("log4j2.properties")

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
    # Python workers stay alive between micro-batches.
    "spark.python.worker.reuse": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
    "spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled": "true",
}
"""Settings that every pipeline runs with, each unless spark-submit or spark-defaults says otherwise."""

LOCAL = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "1g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    # A checkpoint on a local disk: Hadoop's own file system forks a `chmod` for each file where its native
    # library is missing, some 35 ms each (docs/adr/0008-local-checkpoint.md).
    "spark.hadoop.fs.file.impl": "com.globalmentor.apache.hadoop.fs.BareLocalFileSystem",
    "spark.sql.streaming.checkpointFileManagerClass": (
        "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
    ),
}
"""Settings of a session that runs in this process, beside `STREAMING`."""

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
    os.environ["JAVA_HOME"] = str(find_java().parent.parent)
    # Python workers need this environment, not the first python3 on the PATH.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    jars = ensure_jars("spark")
    first = [str(jar) for jar in jars if jar.name.startswith("hadoop-bare-naked-local-fs")]
    settings = (
        STREAMING
        | LOCAL
        | (DELTA if reads_delta else {})
        | {
            "spark.master": f"local[{cores or '*'}]",
            "spark.jars": ",".join(map(str, jars)),
            # Needed before `spark.jars` is read, hence on the class path from the beginning.
            "spark.driver.extraClassPath": os.pathsep.join(first),
            "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={_LOG4J.as_uri()} -XX:+UseParallelGC",
        }
    )
    return _build(name, settings)


def submitted_session(name: str, *, reads_delta: bool = False) -> SparkSession:
    """The session of a `spark-submit`, whose own settings win over those here; see `local_session`."""
    given = SparkConf()
    settings = STREAMING | (DELTA if reads_delta else {})
    return _build(name, {key: value for key, value in settings.items() if not given.contains(key)})


def _build(name: str, settings: dict[str, str]) -> SparkSession:
    builder = SparkSession.Builder().appName(name)
    for key, value in settings.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()
