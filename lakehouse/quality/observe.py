"""What a batch looked like: how many rows failed each rule, and the statistics that the suite asks for.

Made in the tasks of the one pass from the Arrow rows they hold anyway, merged on the driver, merged again into
windows of time. Nothing here knows Spark. An observation is small, whatever the batch: counts, moments and sketches.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import datasketches
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.quality.aggregates import needs
from lakehouse.quality.reasons import COUNTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lakehouse.quality.aggregates import Aggregate
    from lakehouse.quality.suite import Suite

_KLL_K, _HLL_LG_K = 200, 12
_INT64 = 2.0**63
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ColumnStatistics:
    """Mergeable statistics of one column.

    Attributes:
        present: values that are not null.
        total, mean, m2: sum, mean and sum of squared deviations.
        smallest, largest: extremes, NaN above all numbers as in Spark; None without values.
        kll, hll: serialised sketches.
    """

    present: int = 0
    total: float = 0
    mean: float = 0.0
    m2: float = 0.0
    smallest: Any = None
    largest: Any = None
    kll: bytes | None = None
    hll: bytes | None = None

    def merge(self, other: ColumnStatistics) -> ColumnStatistics:
        """The statistics of both columns' values together."""
        present = self.present + other.present
        delta = other.mean - self.mean
        share = other.present / present if present else 0.0
        return ColumnStatistics(
            present=present,
            total=self.total + other.total,
            mean=self.mean + delta * share,
            m2=self.m2 + other.m2 + delta * delta * self.present * share,
            smallest=_smaller(self.smallest, other.smallest),
            largest=_larger(self.largest, other.largest),
            kll=_merged(self.kll, other.kll, _merge_kll),
            hll=_merged(self.hll, other.hll, _merge_hll),
        )


@dataclass(frozen=True)
class Observation:
    """What some rows looked like.

    Attributes:
        records: all rows.
        rows: those that fit the contract, which is those that the suite judged.
        refused: rows that went to quarantine, whatever the reason.
        failures: rule id → rows that failed it; rules of the contract included.
        first: rule id → (partition, offset) of one such row, for the rules of `Wanted.located`.
        columns: column → its statistics over `rows`.
        late: valid rows that reached Kafka long after they happened.
    """

    records: int = 0
    rows: int = 0
    refused: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    first: dict[str, tuple[int, int]] = field(default_factory=dict)
    columns: dict[str, ColumnStatistics] = field(default_factory=dict)
    late: int = 0

    def merge(self, other: Observation) -> Observation:
        """Both together."""
        columns = dict(self.columns)
        for name, statistics in other.columns.items():
            columns[name] = columns[name].merge(statistics) if name in columns else statistics
        return Observation(
            self.records + other.records,
            self.rows + other.rows,
            self.refused + other.refused,
            dict(Counter(self.failures) + Counter(other.failures)),
            other.first | self.first,
            columns,
            self.late + other.late,
        )

    def to_bytes(self) -> bytes:
        """For the way from a task to the driver."""
        columns = {name: {key: _plain(value) for key, value in vars(of).items()} for name, of in self.columns.items()}
        counts = [self.records, self.rows, self.refused, self.late]
        return json.dumps([*counts, self.failures, self.first, columns]).encode()

    @classmethod
    def from_bytes(cls, body: bytes) -> Observation:
        """What `to_bytes` made."""
        records, rows, refused, late, failures, first, columns = json.loads(body)
        return cls(
            records,
            rows,
            refused,
            failures,
            {rule_id: (partition, offset) for rule_id, (partition, offset) in first.items()},
            {
                name: ColumnStatistics(**{key: _typed(value) for key, value in of.items()})
                for name, of in columns.items()
            },
            late,
        )

    def measure(self, aggregate: Aggregate) -> tuple[Any, bool]:
        """(value, whether it lies inside its limits). The value is a list for quantiles, None where there is none."""
        if aggregate.statistic == "quantiles":
            values = self._quantiles(aggregate)
            return values, all(limits.hold(value) for limits, value in zip(aggregate.limits, values, strict=True))
        value = self._value(aggregate)
        if isinstance(value, float) and math.isnan(value):
            value = None  # as in Great Expectations
        return value, aggregate.limits[0].hold(value)

    def _value(self, aggregate: Aggregate) -> Any:  # noqa: ANN401, C901, PLR0911 - one short case for each statistic
        if aggregate.column is None:
            return self.rows
        of = self.columns.get(aggregate.column, ColumnStatistics())
        match aggregate.statistic:
            case "share_present":
                return of.present / self.rows if self.rows else None
            case "distinct":
                return _distinct(of)
            case "share_distinct":
                return min(1.0, _distinct(of) / of.present) if of.present else 0
            case _ if not of.present:
                return None
            case "max":
                return of.largest
            case "min":
                return of.smallest
            case "mean":
                return of.mean
            case "sum":
                return of.total
            case "stdev":
                return math.sqrt(of.m2 / (of.present - 1)) if of.present > 1 else None
            case _:
                return _median(of)

    def _quantiles(self, aggregate: Aggregate) -> list[float | None]:
        of = self.columns.get(aggregate.column or "", ColumnStatistics())
        if of.kll is None:
            return [None for _ in aggregate.quantiles]
        sketch = datasketches.kll_doubles_sketch.deserialize(of.kll)
        empty = sketch.is_empty()
        # Inclusive ranks, as Spark's approximate quantiles have them.
        return [None if empty else float(sketch.get_quantile(rank, True)) for rank in aggregate.quantiles]


@dataclass(frozen=True)
class Wanted:
    """What a suite asks of each batch; pickled with the query's plan.

    Attributes:
        columns: column → what is kept of it, as `aggregates.needs` names it.
        located: rules of which one failing row's place is kept.
    """

    columns: tuple[tuple[str, frozenset[str]], ...] = ()
    located: frozenset[str] = frozenset()

    @classmethod
    def by(cls, suite: Suite) -> Wanted:
        """What the suite's aggregates and its rules of the stream `fail` need."""
        columns: dict[str, frozenset[str]] = {}
        for expectation in suite.observed():
            aggregate = expectation.aggregate
            if aggregate is not None and aggregate.column is not None:
                columns[aggregate.column] = columns.get(aggregate.column, frozenset()) | needs(aggregate)
        stopping = frozenset(one.rule_id for one in suite.expectations if one.stream == "fail")
        return cls(tuple(columns.items()), stopping)

    def observe(self, rows: pa.Table, refused: pa.Table) -> Observation:
        """Look at one task's rows.

        Args:
            rows: all of them, with `_fits`, `_warnings`, `_partition`, `_offset`, the fields and, where the suite
                has rules that no verdict records, `COUNTED`.
            refused: those of them that go to quarantine, with every reason in `_errors`.
        """
        looked_at = {"_fits", "_partition", "_offset", COUNTED, *(name for name, _ in self.columns)}
        fitting = rows.select([name for name in rows.column_names if name in looked_at]).filter(rows["_fits"])
        kept = rows["_warnings"].filter(pc.invert(rows["_refused"]))
        failures = Counter(_rule_ids(refused["_errors"])) + Counter(_rule_ids(kept))
        first: dict[str, tuple[int, int]] = {}
        if COUNTED in rows.column_names:
            counted = pc.list_flatten(fitting[COUNTED])
            failures += Counter(_counts(counted))
            for rule_id in self.located & set(failures):
                first[rule_id] = _place(fitting, rule_id)
        columns = {name: statistics(fitting[name], kinds) for name, kinds in self.columns}
        return Observation(rows.num_rows, fitting.num_rows, refused.num_rows, dict(failures), first, columns)


def merge_all(observations: Iterable[Observation]) -> Observation:
    """All of them together."""
    merged = Observation()
    for observation in observations:
        merged = merged.merge(observation)
    return merged


def _rule_ids(reasons: pa.ChunkedArray) -> Mapping[str, int]:
    return _counts(pc.struct_field(pc.list_flatten(reasons), "rule_id"))


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(values).to_pylist()}


def _place(rows: pa.Table, rule_id: str) -> tuple[int, int]:
    counted = rows[COUNTED].combine_chunks()
    number = pc.index(pc.list_flatten(counted), rule_id).as_py()
    row = pc.list_parent_indices(counted)[number].as_py()
    return rows["_partition"][row].as_py(), rows["_offset"][row].as_py()


def statistics(values: pa.ChunkedArray, kinds: frozenset[str]) -> ColumnStatistics:
    """The statistics of one column's values.

    Args:
        values: of any type of a field; nulls are left out.
        kinds: what is kept beside their number, as `aggregates.needs` names it; `moments` and `kll` need numbers.
    """
    values = values.drop_null().combine_chunks()
    found = ColumnStatistics(present=len(values))
    if not len(values):
        return found
    if "extremes" in kinds:
        smallest, largest = _extremes(values)
        found = replace(found, smallest=smallest, largest=largest)
    if kinds & {"moments", "kll"}:
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        small = pa.types.is_floating(values.type) or np.abs(numbers).max() * len(numbers) < _INT64 / 2
        exact = pc.sum(values).as_py() if small else sum(values.to_pylist())
        if "moments" in kinds:
            # Beyond a double's range the deviation is infinite, and needs no warning at each batch.
            with np.errstate(over="ignore", invalid="ignore"):
                mean = float(numbers.mean())
                found = replace(found, total=exact, mean=mean, m2=float(((numbers - mean) ** 2).sum()))
        if "kll" in kinds:
            sketch = datasketches.kll_doubles_sketch(_KLL_K)
            sketch.update(numbers[~np.isnan(numbers)])
            found = replace(found, kll=bytes(sketch.serialize()))
    if "hll" in kinds:
        union = datasketches.hll_sketch(_HLL_LG_K, datasketches.HLL_8)
        for value in values.unique().to_pylist():
            # Texts get a prefix: the library leaves out an empty one.
            union.update(value if isinstance(value, int | float) else f"={value}")
        found = replace(found, hll=bytes(union.serialize_compact()))
    return found


def _extremes(values: pa.Array) -> tuple[Any, Any]:
    """NaN is the largest number to Spark; Arrow leaves it out."""
    if pa.types.is_floating(values.type):
        numbers = values.to_numpy(zero_copy_only=False)
        sound = numbers[~np.isnan(numbers)]
        largest = float("nan") if len(sound) < len(numbers) else float(sound.max())
        return (float(sound.min()) if len(sound) else float("nan")), largest
    extremes = pc.min_max(values)
    return extremes["min"].as_py(), extremes["max"].as_py()


def _smaller(one: Any, other: Any) -> Any:  # noqa: ANN401 - numbers or times, of one kind
    return min((value for value in (one, other) if value is not None), key=_order, default=None)


def _larger(one: Any, other: Any) -> Any:  # noqa: ANN401
    return max((value for value in (one, other) if value is not None), key=_order, default=None)


def _order(value: Any) -> tuple[bool, Any]:  # noqa: ANN401
    """Spark's order: NaN above everything else, infinity included, and equal to itself."""
    nan = isinstance(value, float) and math.isnan(value)
    return nan, None if nan else value


def _median(of: ColumnStatistics) -> float | None:
    """The middle of the two values in the middle, as Great Expectations takes it."""
    if of.kll is None:
        return None
    sketch = datasketches.kll_doubles_sketch.deserialize(of.kll)
    return None if sketch.is_empty() else float(sketch.get_quantile(0.5, True) + sketch.get_quantile(0.5, False)) / 2


def _distinct(of: ColumnStatistics) -> int:
    return round(datasketches.hll_sketch.deserialize(of.hll).get_estimate()) if of.hll else 0


def _merged(one: bytes | None, other: bytes | None, merge: Any) -> bytes | None:  # noqa: ANN401
    if one is None or other is None:
        return one or other
    return bytes(merge(one, other))


def _merge_kll(one: bytes, other: bytes) -> bytes:
    sketch = datasketches.kll_doubles_sketch.deserialize(one)
    sketch.merge(datasketches.kll_doubles_sketch.deserialize(other))
    return bytes(sketch.serialize())


def _merge_hll(one: bytes, other: bytes) -> bytes:
    union = datasketches.hll_union(_HLL_LG_K)
    union.update(datasketches.hll_sketch.deserialize(one))
    union.update(datasketches.hll_sketch.deserialize(other))
    return bytes(union.get_result(datasketches.HLL_8).serialize_compact())


def _plain(value: Any) -> Any:  # noqa: ANN401 - what JSON has no word for, marked by its kind
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"micros": (value - _EPOCH) // timedelta(microseconds=1)}
    if isinstance(value, date):
        return {"day": value.isoformat()}
    return value


def _typed(value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        return value
    [(kind, plain)] = value.items()
    match kind:
        case "bytes":
            return base64.b64decode(plain)
        case "micros":
            return _EPOCH + timedelta(microseconds=plain)
        case _:
            return date.fromisoformat(plain)
