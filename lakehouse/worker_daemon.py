"""Spark's daemon for Python workers, with what the one pass needs already imported when it forks them.

Two workers import pyarrow and the project's modules in the first micro-batch otherwise, a second of CPU each, while
the first records wait. Used where this process starts Spark on this machine (`session`); elsewhere Spark's own daemon
does the same work later.
"""

from pyspark.daemon import manager
from pyspark.sql.pandas import serializers  # noqa: F401 - imported for the workers

from lakehouse.sinks import onepass  # noqa: F401 - imported for the workers

if __name__ == "__main__":
    manager()
