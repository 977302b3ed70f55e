"""What holds for all tests."""

import sys

from hypothesis import settings

from tests.spark_session import spark

__all__ = ["spark"]

_MAIN = sys.modules["__main__"]
if not hasattr(_MAIN, "__file__"):
    # The processes of pytest-xdist run no file. From that pyspark concludes that its doctests run, and exits.
    _MAIN.__file__ = __file__

# The same examples in every run: a change passes or fails by what it changed. `make search` looks for new ones.
settings.register_profile("same", derandomize=True, database=None)
settings.register_profile("search", print_blob=True)
settings.load_profile("same")
