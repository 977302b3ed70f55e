"""What the producer knows about every record that it sent: a file of fixed-size entries, read at the end.

As in Jepsen, an outcome that the producer never learnt is `INFO`: such a record may be in the topic or not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from confluent_kafka import Message

ENTRY = np.dtype([
    ("sequence", "<i8"),
    ("offset", "<i8"),
    ("partition", "<i4"),
    ("outcome", "u1"),
    ("kind", "u1"),
    ("sha256", "V32"),
])  # fmt: skip
"""One record: its sequence number (also in its header), where it stands (-1 where unknown), and its value's hash."""

SEQUENCE_HEADER = "sequence"
"""Header of every record: its sequence number, 8 bytes, big-endian."""


class Outcome(IntEnum):
    """What the producer learnt."""

    ACKED = 1
    INFO = 2
    ABORTED = 3
    """Part of a transaction that was aborted, or left open until the broker aborts it: nobody may ever see it."""


class Kind(IntEnum):
    """Why the record was sent."""

    PLAIN = 0
    DUPLICATE = 1
    CLOCK = 2
    TRANSACTION = 3


def hash_of(value: bytes | None) -> bytes:
    """SHA-256 of a value; zeros for Kafka's null, which is not the empty value."""
    return bytes(32) if value is None else hashlib.sha256(value).digest()


def numbered(sequence: int) -> list[tuple[str, str | bytes | None]]:
    """The headers of the record with this sequence number."""
    return [(SEQUENCE_HEADER, sequence.to_bytes(8, "big"))]


def sequence_of(message: Message) -> int:
    """The sequence number in a record's headers; -1 where it has none."""
    value = dict(message.headers() or ()).get(SEQUENCE_HEADER)
    return int.from_bytes(value, "big") if isinstance(value, bytes) else -1


class LedgerWriter:
    """Appends entries; `flush` puts them on the disk."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._row = np.zeros(1, ENTRY)

    def write(self, sequence: int, sha256: bytes, outcome: Outcome, kind: Kind, partition: int, offset: int) -> None:
        """One record's outcome."""
        self._row[0] = (sequence, offset, partition, outcome, kind, sha256)
        self._file.write(self._row.tobytes())

    def flush(self) -> None:
        """So that a reader sees everything up to here."""
        self._file.flush()

    def close(self) -> None:
        """The last entry was written."""
        self._file.close()


@dataclass(frozen=True)
class Ledger:
    """All entries, in the order in which their outcomes were learnt."""

    entries: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """The ledger of a producer that has ended."""
        return cls(np.fromfile(path, ENTRY))

    def of(self, outcome: Outcome) -> np.ndarray:
        """The entries with this outcome."""
        found: np.ndarray = self.entries[self.entries["outcome"] == outcome]
        return found

    def count(self, kind: Kind) -> int:
        """Records sent for this reason."""
        return int((self.entries["kind"] == kind).sum())
