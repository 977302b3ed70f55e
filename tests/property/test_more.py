"""No event that holds more than its fields is passed over, however it is written."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.transforms.more import may_hold_more
from lakehouse.transforms.rescue import rescued
from tests.property import examples

KNOWN = ("a", "bc", "d")
TEXTS = st.one_of(
    st.text(max_size=6), st.sampled_from(['"', '":', "\\", '\\"a":', '{"a":1}', "a:b", " :", "é", "\u2028"])
)
NAMES = st.one_of(st.sampled_from([*KNOWN, "A", 'x"a', "ab", "e", ":"]), TEXTS)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
BLANKS = st.sampled_from(["", "", "", " ", "\n", "\t "])


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """A JSON object with names that may come twice, blanks anywhere, and escapes or none."""
    ascii_only = draw(st.booleans())

    def spelled(value: Any) -> str:
        return json.dumps(
            value, ensure_ascii=ascii_only, separators=(draw(BLANKS) + ",", draw(BLANKS) + ":" + draw(BLANKS))
        )

    pairs = [f"{spelled(name)}{draw(BLANKS)}:{draw(BLANKS)}{spelled(value)}" for name, value in draw(PAIRS)]
    return f"{draw(BLANKS)}{{{','.join(pairs)}}}{draw(BLANKS)}".encode(errors="surrogatepass")


@settings(max_examples=examples(500), deadline=None)
@given(st.lists(objects(), max_size=5), st.integers(0, 2))
def test_what_is_kept_is_never_passed_over(values: list[bytes], skipped: int) -> None:
    read = [json.loads(value.decode(errors="surrogatepass")) for value in values]
    fields = pa.table({name: pa.array([_as_text(event.get(name)) for event in read], pa.string()) for name in KNOWN})
    # A slice of a longer array, as batches are.
    array = pa.array([b'{"a":1}'] * skipped + values, pa.binary()).slice(skipped)
    may = may_hold_more(array, fields, KNOWN)
    assert len(may) == len(values)
    for value, event, found in zip(values, read, may.tolist(), strict=True):
        if event.keys() - set(KNOWN) or rescued(value, KNOWN) is not None:
            assert found, value


@settings(max_examples=examples(100), deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(KNOWN), st.one_of(st.none(), st.integers(), st.text(st.characters(codec="ascii"))), max_size=3
    )
)
def test_an_event_as_producers_write_it_is_not_read_again(event: dict[str, Any]) -> None:
    plain = {
        name: value.replace('"', "").replace(" :", ":").replace("\\", "") if isinstance(value, str) else value
        for name, value in event.items()
    }
    fields = pa.table({name: pa.array([_as_text(plain.get(name))], pa.string()) for name in KNOWN})
    for separators in ((",", ":"), (", ", ": ")):
        value = json.dumps(plain, separators=separators).encode()
        assert may_hold_more(pa.array([value]), fields, KNOWN).tolist() == [False]


def _as_text(value: Any) -> str | None:
    return None if value is None else "text"
