"""Properties of generated data.

`make test` runs few examples, the same each time; `make search` runs MORE_EXAMPLES times as many, not seen before.
"""

import os


def examples(number: int) -> int:
    """How many examples a test runs where `make test` runs `number`."""
    return number * int(os.environ.get("MORE_EXAMPLES", "1"))
