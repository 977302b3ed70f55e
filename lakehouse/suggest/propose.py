"""A profile → expectations that its rows pass, each with what speaks for it, and what was left out and why.

All are warnings: a row that fails one is kept and tagged. Whoever has read the evidence raises the severity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lakehouse.quality.spark_types import SPARK_TYPES
from lakehouse.suggest.formats import CLOSED, format_of
from lakehouse.suggest.profile import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lakehouse.config.models import EventField
    from lakehouse.suggest.profile import ColumnProfile, PairProfile, Profile

FEWEST_ROWS = 100
"""Rows with a value below which nothing is said about them."""
_LARGEST_SET, _FEWEST_EACH, _LONGEST_VALUE = 50, 5, 100
_SURPRISES = 20
"""Rows that would have to break an order by chance before its holding is worth a rule."""
_WINDOW_ROWS = 1_000
_RANKS = (0.01, 0.25, 0.5, 0.75, 0.99)
_GRID = tuple((number + 0.5) / 50 for number in range(50))
_INT64 = 2.0**63


@dataclass(frozen=True)
class Proposal:
    """One expectation.

    Attributes:
        type, kwargs: Great Expectations' own.
        rule_id: unique among the proposals.
        why: the evidence in a sentence.
        evidence: the figures; values of fields that identify a person are not among them.
    """

    type: str
    kwargs: dict[str, Any]
    rule_id: str
    why: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def to_expectation(self) -> dict[str, Any]:
        """As it stands in a suite."""
        return {
            "type": self.type,
            "kwargs": self.kwargs,
            "severity": "warning",
            "meta": {"rule_id": self.rule_id, "evidence": self.evidence},
            "notes": self.why,
        }


@dataclass(frozen=True)
class LeftOut:
    """A rule that might be looked for, and is not proposed."""

    columns: tuple[str, ...]
    rule: str
    why: str


def propose(found: Profile, fields: Mapping[str, EventField], *, whole: bool) -> tuple[list[Proposal], list[LeftOut]]:
    """What the profile speaks for.

    Args:
        found: the profile of some rows.
        fields: the event's fields.
        whole: whether these are all rows; only then can values be seen to be unique.
    """
    proposals: list[Proposal] = []
    left_out: list[LeftOut] = []
    for name, of in fields.items():
        for one in _of_column(name, of, found.columns[name], whole=whole):
            (proposals if isinstance(one, Proposal) else left_out).append(one)  # type: ignore[arg-type]
    for (a, b), pair in found.pairs.items():
        if proposal := _order(a, b, pair, found, fields):
            proposals.append(proposal)
    return proposals, left_out


def _of_column(name: str, of: EventField, column: ColumnProfile, *, whole: bool) -> Iterator[Proposal | LeftOut]:
    yield Proposal(
        "expect_column_values_to_be_of_type",
        {"column": name, "type_": SPARK_TYPES[of.type][0]},
        f"{name}_type",
        f"the pipeline's file declares {name} as {of.type}",
        {"declared": of.type},
    )
    present = column.statistics.present
    if column.rows >= FEWEST_ROWS:
        yield _presence(name, column)
    if present < FEWEST_ROWS:
        yield LeftOut((name,), "any about its values", f"{present:,} rows have a value, fewer than {FEWEST_ROWS}")
        return
    listed = _value_set(name, of, column)
    if isinstance(listed, Proposal):
        yield listed
    else:
        if listed is not None:
            yield listed
        if of.type in NUMBERS:
            yield _range(name, of, column)
        if of.type == "string":
            yield from _text(name, of, column)
    if column.hashes is not None:
        yield _unique(name, column, whole=whole)


def _base(column: ColumnProfile) -> dict[str, Any]:
    return {"rows": column.rows, "nulls": column.nulls, "distinct": column.distinct}


def _presence(name: str, column: ColumnProfile) -> Proposal | LeftOut:
    rows, nulls = column.rows, column.nulls
    if not nulls:
        # Hanley and Lippman-Hand 1983: no case in n, so with 95 % confidence at most 3 in n.
        return Proposal(
            "expect_column_values_to_not_be_null",
            {"column": name},
            f"{name}_present",
            f"none of {rows:,} rows lacks it; with 95 % confidence at most {3 / rows:.2g} of all do",
            {**_base(column), "missing_share_at_most": 3 / rows, "confidence": 0.95},
        )
    share = 1 - nulls / rows
    low = math.floor(max(0.0, _wilson_low(share, min(rows, _WINDOW_ROWS))) * 1_000) / 1_000
    if not low:
        return LeftOut((name,), "a share of present values", f"{share:.2%} of {rows:,} rows have it, too few to tell")
    return Proposal(
        "expect_column_proportion_of_non_null_values_to_be_between",
        {"column": name, "min_value": low},
        f"{name}_share",
        f"{share:.2%} of {rows:,} rows have it; {_WINDOW_ROWS:,} rows fall below {low:.1%} by chance once in 1,000",
        {**_base(column), "present_share": share, "for_rows": _WINDOW_ROWS},
    )


def _wilson_low(share: float, rows: int, z: float = 3.09) -> float:
    """Wilson 1927: the lower end of the score interval, one-sided 99.9 %."""
    middle = share + z * z / (2 * rows)
    spread = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return (middle - spread) / (1 + z * z / rows)


def _value_set(name: str, of: EventField, column: ColumnProfile) -> Proposal | LeftOut | None:
    """None where the column is no candidate."""
    values = column.listed
    if values is None or of.pii or len(values) > _LARGEST_SET:
        return None
    if of.type == "string" and (family := format_of(column.examples)) and family[0] not in CLOSED:
        return None  # there will be more versions, addresses, days
    rare = sorted(str(value) for value, rows in values.items() if rows < _FEWEST_EACH)
    if rare:
        return LeftOut((name,), "a set of values", f"{len(rare)} of {len(values)} values occur fewer than 5 times")
    if any(isinstance(value, str) and len(value) > _LONGEST_VALUE for value in values):
        return LeftOut((name,), "a set of values", f"some are longer than {_LONGEST_VALUE} characters")
    return Proposal(
        "expect_column_values_to_be_in_set",
        {"column": name, "value_set": sorted(values)},
        f"{name}_known",
        f"{column.statistics.present:,} rows hold {len(values)} values, the rarest {min(values.values()):,} times",
        # Good 1953: the share of values never seen is about that of values seen once, of which there are none.
        {**_base(column), "rarest": min(values.values()), "unseen_share_estimate": 0.0},
    )


def _range(name: str, of: EventField, column: ColumnProfile) -> Proposal | LeftOut:
    low, high = float(column.statistics.smallest), float(column.statistics.largest)
    why_not = None
    if not math.isfinite(low) or math.isinf(high):
        why_not = "a value is infinite"
    elif column.nans:
        why_not = f"{column.nans:,} values are NaN, which is above every number"
    elif low == high:
        why_not = "all values are the same"
    elif max(-low, high) >= _INT64 / 4:
        why_not = "the values nearly fill 64 bits"
    if why_not:
        return LeftOut((name,), "a range", why_not)
    whole_numbers = of.type != "double"
    if of.pii or (whole_numbers and _is_id(name)):
        return _not_negative(name, of, column)
    quantiles = column.quantiles(_RANKS)
    # As far again beyond each extreme as it lies from the outer hundredth.
    tails = [max(0.0, quantiles[0] - low), max(0.0, high - quantiles[-1])]
    below, above = (tail or (high - low) / 10 for tail in tails)
    step = 10.0 ** (math.floor(math.log10(high - low)) - 1)
    bounds = [min(low, math.floor((low - below) / step) * step), max(high, math.ceil((high + above) / step) * step)]
    if low >= 0:
        bounds[0] = max(0.0, bounds[0])
    shown = [
        _short(bound, low if first else high, down=first) for bound, first in zip(bounds, (True, False), strict=True)
    ]
    if whole_numbers:
        shown = [math.floor(shown[0]), math.ceil(shown[1])]
    return Proposal(
        "expect_column_values_to_be_between",
        {"column": name, "min_value": shown[0], "max_value": shown[1]},
        f"{name}_range",
        f"{column.statistics.present:,} values lie from {low:g} to {high:g}; each bound is beyond by what the outer 1 %"
        " spans",
        {
            **_base(column),
            "min": low,
            "max": high,
            "quantiles": dict(zip(map(str, _RANKS), quantiles, strict=True)),
            # Of n exchangeable values the next is outside their extremes with probability 2 / (n + 1).
            "next_value_outside_extremes": 2 / (column.statistics.present + 1),
        },
    )


def _not_negative(name: str, of: EventField, column: ColumnProfile) -> Proposal | LeftOut:
    kind = "it identifies a person" if of.pii else "an identifier grows"
    if column.statistics.smallest < 0:
        return LeftOut((name,), "a range", f"{kind}, and some are negative")
    return Proposal(
        "expect_column_values_to_be_between",
        {"column": name, "min_value": 0},
        f"{name}_range",
        f"none of {column.statistics.present:,} values is negative; no upper bound, since {kind}",
        _base(column),
    )


def _short(bound: float, extreme: float, *, down: bool) -> float:
    """Without the noise of binary fractions, and never on the wrong side of the extreme."""
    short = float(f"{bound:.12g}")
    return min(short, extreme) if down else max(short, extreme)


def _is_id(name: str) -> bool:
    return name == "id" or name.endswith("_id")


def _text(name: str, of: EventField, column: ColumnProfile) -> Iterator[Proposal | LeftOut]:
    present, base = column.statistics.present, _base(column)
    shortest, longest = column.shortest or 0, column.longest or 0
    # What all texts of a field that identifies a person begin with may be a part of one person's.
    family = format_of(column.examples)
    if of.pii and family and "," in family[0]:
        family = None
    if family is None:
        yield LeftOut((name,), "a format", "its texts belong to no common family")
    else:
        yield Proposal(
            "expect_column_values_to_match_regex",
            {"column": name, "regex": family[1]},
            f"{name}_format",
            f"all of {present:,} texts are of one family: {family[0]}",
            {**base, "family": family[0]},
        )
    high = longest if shortest == longest else 2 * longest
    low = shortest if shortest == longest else min(1, shortest)
    if not high:
        yield LeftOut((name,), "a length", "all texts are empty")
        return
    yield Proposal(
        "expect_column_value_lengths_to_be_between",
        {"column": name, "min_value": low, "max_value": high},
        f"{name}_length",
        f"{present:,} texts all have {longest} characters"
        if shortest == longest
        else f"{present:,} texts have {shortest} to {longest} characters; twice as many are let in",
        {**base, "shortest": shortest, "longest": longest},
    )


def _unique(name: str, column: ColumnProfile, *, whole: bool) -> Proposal | LeftOut:
    present = column.statistics.present
    if not whole:
        why = f"{present:,} values are all different, but a sample cannot show that of all rows; raise --rows"
        return LeftOut((name,), "uniqueness", why)
    return Proposal(
        "expect_column_values_to_be_unique",
        {"column": name},
        f"{name}_unique",
        f"all {present:,} values are different",
        _base(column),
    )


def _order(a: str, b: str, pair: PairProfile, found: Profile, fields: Mapping[str, EventField]) -> Proposal | None:
    """`larger >= smaller`, where chance would have broken it."""
    if pair.both < FEWEST_ROWS or (pair.less and pair.greater) or pair.both == pair.equal:
        return None
    if any(fields[name].pii or _is_id(name) for name in (a, b)):
        return None
    larger, smaller = (a, b) if pair.greater else (b, a)
    surprises = pair.both * _share_below(found.columns[larger], found.columns[smaller])
    numbers = fields[a].type in NUMBERS
    # The ranges alone explain an order of two numbers that lie apart; times have no such ranges of their own.
    if numbers and surprises < _SURPRISES:
        return None
    by_chance = f"; if the two were unrelated, about {surprises:,.0f} would break it" if numbers else ""
    return Proposal(
        "expect_column_pair_values_a_to_be_greater_than_b",
        {"column_A": larger, "column_B": smaller, "or_equal": True, "ignore_row_if": "either_value_is_missing"},
        f"{larger}_not_below_{smaller}",
        f"in none of {pair.both:,} rows with both is {larger} below {smaller}{by_chance}",
        {
            "rows_with_both": pair.both,
            "equal": pair.equal,
            **({"expected_to_break_if_unrelated": surprises} if numbers else {}),
        },
    )


def _share_below(larger: ColumnProfile, smaller: ColumnProfile) -> float:
    """How often a value of one column lies below one of the other, if drawn independently; from their quantiles."""
    above, below = larger.quantiles(_GRID), smaller.quantiles(_GRID)
    if not above or not below:
        return 0.0
    return sum(x < y for x in above for y in below) / (len(above) * len(below))
