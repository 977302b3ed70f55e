"""A quarantined record is compared with the topic's by a fingerprint of its key, value and headers."""

from __future__ import annotations

from itertools import combinations

from lakehouse.reconcile import _fingerprint

RECORDS = [
    (None, None, []),
    (b"", None, []),
    (None, b"", []),
    (b"a", b"b", []),
    (b"ab", b"", []),
    (b"", b"ab", []),
    (b"a", b"b", [("h", None)]),
    (b"a", b"b", [("h", b"")]),
    (b"a", b"b", [("", b"h")]),
    (b"a", b"b", [("h", b"1"), ("h", b"2")]),
    (b"a", b"b", [("h", b"2"), ("h", b"1")]),
    (b"a", b"b", [("h", b"1"), ("i", b"2")]),
    (b"a", b"b1:h", []),
]


def test_records_that_differ_in_any_part_have_other_fingerprints() -> None:
    for one, other in combinations(RECORDS, 2):
        assert _fingerprint(*one) != _fingerprint(*other), (one, other)


def test_equal_records_have_equal_fingerprints_whatever_holds_their_headers() -> None:
    assert _fingerprint(b"k", b"v", [("h", b"1")]) == _fingerprint(b"k", b"v", (("h", b"1"),))
