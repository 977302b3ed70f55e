"""Tests here compare with generated examples; those on Spark share one local session."""

from tests.spark_session import spark

__all__ = ["spark"]
