"""Tests here need a local Spark session, but no broker and no Delta jars."""

from tests.spark_session import spark

__all__ = ["spark"]
