"""CPU that a task takes to decode a record of the shipped load, by format; no JVM, no broker, no registry.

    python -m benchmarks.formats [--records 100000]

The registry's answers are put into the client's memory beforehand. Spark's own part (rows to Python and back) is left
out.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

from lakehouse.config.loader import load_pipeline
from lakehouse.config.models import Registry as Address
from lakehouse.formats.decode import Decode, connect
from lakehouse.formats.encode import encoder
from lakehouse.formats.registry import Registered, Registry
from lakehouse.load.events import BLOCK, Generator

PIPELINE = Path(__file__).parents[1] / "conf" / "feature_events.yaml"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    arguments = parser.parse_args()
    shipped = load_pipeline(PIPELINE, {})
    generator = Generator.beside(PIPELINE, shipped)
    now_ms = int(time.time() * 1_000)
    events: list[bytes] = []
    for block in range(-(-arguments.records // BLOCK)):
        events += generator.render(generator.draw(1, block, 2_000), np.full(BLOCK, now_ms, dtype=np.int64))
    for kind in ("avro", "protobuf"):
        address = Address(url=f"http://{kind}.invalid")
        source = shipped.source.model_copy(update={"format": kind, "registry": address})

        def register(self: Registry, _: str, sort: str, text: str) -> int:
            self._known[1] = Registered(1, sort, text)
            return 1

        with mock.patch.object(Registry, "register", register):
            encode = encoder(source)
        values = [encode(event) for event in events]
        connect(source)
        batches = [
            pa.RecordBatch.from_pydict({"_value": pa.array(values[first : first + 10_000], pa.binary())})
            for first in range(0, len(values), 10_000)
        ]
        taken = min(_cpu_s(source, batches) for _ in range(5))
        size = sum(len(value or b"") for value in values) / len(values)
        print(f"{kind}: {taken / len(values) * 1e6:.2f} µs of CPU a record, {size:.0f} bytes each")


def _cpu_s(source: Any, batches: list[pa.RecordBatch]) -> float:  # noqa: ANN401 - a Source
    began = time.process_time()
    for found in Decode(source)(iter(batches)):
        if found["_fits"].null_count or not all(found["_fits"].to_pylist()):
            raise ValueError(found["_misfit"].drop_null().slice(0, 1))
    return time.process_time() - began


if __name__ == "__main__":
    main()
