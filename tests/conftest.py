"""What holds for all tests."""

import sys

from tests.spark_session import spark

__all__ = ["spark"]

_MAIN = sys.modules["__main__"]
if not hasattr(_MAIN, "__file__"):
    # The processes of pytest-xdist run no file. From that pyspark concludes that its doctests run, and exits.
    _MAIN.__file__ = __file__
