"""From a Kafka record to typed fields, in Spark Columns.

Parsing is permissive: no record is dropped and none raises. A record that does not fit is only marked here;
`transforms.contract` says why, outside Spark's plan, where the few such records cost little and the many good
ones nothing. (Reasons built as Columns made the plan so large that planning it took longer than running it:
docs/adr/0009-reasons-outside-the-plan.md.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql import types as T

from lakehouse.transforms.contract import ESCAPED_PAIR, HALF_PAIR, LARGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from pyspark.sql import Column, DataFrame

_TEXT = T.StringType()
_READ_AS: dict[str, T.DataType] = {
    "string": _TEXT,
    "integer": T.IntegerType(),
    "long": T.LongType(),
    "double": T.DoubleType(),
    "boolean": T.BooleanType(),
    # Spark's own reading of times takes any number for seconds (and lets it overflow), `12:00` for today's noon,
    # and `"20000"` for a count of days. Read as text, they can be held to one form first.
    "timestamp": _TEXT,
    "date": _TEXT,
}
_DAY = r"^\d{4}-\d{2}-\d{2}"
_ZONE = r"(?:Z|[+-]\d{2}(?::?\d{2})?)"
_MOMENT = rf"{_DAY}(?:[T ]\d{{2}}:\d{{2}}:\d{{2}}(?:\.\d{{1,9}})?{_ZONE}?)?\z"
_DAY_LENGTH = len("2026-01-31")
_FIRST_DAY, _DAY_AFTER_LAST = "0001-01-01", "+10000-01-01"
"""Years with four digits, which every reader of the tables can hold (Python none else)."""
_CORRUPT = "_corrupt_record"
_STRICT = {
    "mode": "PERMISSIVE",
    # NaN and Infinity are not JSON; read as numbers they would pass a minimum.
    "allowNonNumericNumbers": "false",
    "allowSingleQuotes": "false",
}
_OPTIONS = _STRICT | {"columnNameOfCorruptRecord": _CORRUPT}


def position(records: DataFrame) -> DataFrame:
    """Kafka's columns under their names in the tables; columns that have such a name (`_…`) already go on as they are.

    `_headers` is JSON text from here to the task: `lakehouse.sinks.headers` says why.

    No column here or below may hold the batch's own time: as a literal it would be part of the generated code,
    which Spark would then compile anew for every micro-batch and never warm up.
    """
    return records.select(
        F.col("topic").alias("_topic"),
        F.col("partition").alias("_partition"),
        F.col("offset").alias("_offset"),
        F.col("timestamp").alias("_timestamp"),
        F.col("key").alias("_key"),
        F.col("value").alias("_value"),
        F.to_json("headers").alias("_headers"),
        *(name for name in records.columns if name.startswith("_")),
    )


def parse_json(records: DataFrame, fields: Mapping[str, str]) -> DataFrame:
    """Add one column per field, and `_fits`: whether the value is one JSON object whose fields have their types.

    Args:
        records: as `position` leaves them.
        fields: name → type, a key of `schemas.ARROW_TYPES`.

    Returns:
        records plus the fields (null where missing or of another type) plus `_fits` (boolean, never null).
    """
    schema = T.StructType(
        [T.StructField(name, _READ_AS[kind]) for name, kind in fields.items()]
        + [T.StructField(_CORRUPT, T.StringType())]
    )
    value = F.when(F.length("_value") <= LARGEST, F.col("_value").cast("string"))
    event, text = F.col("_event"), F.col("_text")
    # Step by step, so that nothing is read twice: what later columns need more than once is a column by itself.
    # `from_json` stands in one step alone, because Spark leaves a step that has it out of its compiled loop.
    parsed = records.select(
        *records.columns, F.from_json(value, schema, _OPTIONS).alias("_event"), _is_one_object(value).alias("_alone")
    )
    read = {name: _READ[kind](event[name]) if kind in _READ else event[name] for name, kind in fields.items()}
    opened = parsed.select(
        *parsed.columns, value.alias("_text"), *(column.alias(name) for name, column in read.items())
    )
    within = {name: _WITHIN[kind](F.col(name)) for name, kind in fields.items() if kind in _WITHIN}
    typed = {name: F.when(within[name], F.col(name)) if name in within else F.col(name) for name in fields}
    fits = event.isNotNull() & event[_CORRUPT].isNull() & F.is_valid_utf8(text) & F.col("_alone") & _is_text(text)
    for name, let_in in within.items():
        fits &= event[name].isNull() | F.coalesce(let_in, F.lit(False))
    return opened.select(
        *records.columns,
        *(column.alias(name) for name, column in typed.items()),
        F.coalesce(fits, F.lit(False)).alias("_fits"),
    )


def with_timeliness(parsed: DataFrame, *, event_time: str, max_future: timedelta) -> DataFrame:
    """Add `_timely`: whether the event has a time, and one that is not too far ahead of its Kafka timestamp."""
    limit = F.col("_timestamp") + F.expr(f"INTERVAL {max_future.total_seconds():.3f} SECONDS")
    return parsed.withColumn("_timely", F.coalesce(F.col(event_time) <= limit, F.lit(False)))


def _is_one_object(text: Column) -> Column:
    """True where the text holds a JSON object and nothing else.

    Spark's reader takes the first of several documents and drops the rest without a word. An object whose first
    closing brace is its last character can hold no second one; the others are read in full, as an element of two
    arrays. One count would not do: a text that closes the array itself (`{}],[{}`) has the same count in both.
    (Nor would trimming: Spark's `btrim` takes eight bytes of memory for each byte of the text.)

    `json_array_length` would count as well, but its reader and table of names are one for the whole JVM: after one
    record with many names of equal hash, it raises on others and the query is dead. `from_json` has its own in
    each task, and takes whatever its reader raises for a misfit.
    """
    # Bytes, not characters: those Spark would count from the text's beginning.
    certain = text.startswith("{") & (F.octet_length(F.substring_index(text, "}", 1)) == F.octet_length(text) - 1)
    alone, followed = (
        F.array_size(F.from_json(F.concat(F.lit("["), text, F.lit(end)), T.ArrayType(T.StringType()), _STRICT))
        for end in ("]", ",0]")
    )
    one = F.coalesce((alone == 1) & (followed == 2), F.lit(False))  # noqa: PLR2004 - the object, and the 0
    return certain | (text.rlike(r"^[ \t\r\n]*\{") & one)


def _is_text(text: Column) -> Column:
    """True unless an escape in the JSON stands for half a character, for which Spark would store `?`."""
    # Most texts have no escape of this kind at all, and are looked through once.
    suspicious = text.contains(r"\u") & (text.contains(r"\ud") | text.contains(r"\uD"))
    return ~suspicious | ~F.regexp_replace(text, ESCAPED_PAIR, " ").rlike(HALF_PAIR)


def _moment(text: Column) -> Column:
    """ISO 8601: a day, or a day and a time, with an offset or in UTC; null for anything else."""
    spelled = (
        F.when(F.octet_length(text) == _DAY_LENGTH, F.concat(text, F.lit("T00:00:00Z")))
        .when(text.endswith("Z") | text.rlike(rf"{_ZONE}\z"), text)
        .otherwise(F.concat(text, F.lit("Z")))
    )
    return F.when(text.rlike(_MOMENT), spelled.try_cast("timestamp"))


def _date(text: Column) -> Column:
    return F.when(text.rlike(rf"{_DAY}\z"), text.try_cast("date"))


def _has_four_digits(moment: Column) -> Column:
    first, end = (F.lit(f"{day}T00:00:00Z").cast("timestamp") for day in (_FIRST_DAY, _DAY_AFTER_LAST))
    return (moment >= first) & (moment < end)


def _is_of_our_era(day: Column) -> Column:
    return day >= F.lit(_FIRST_DAY).cast("date")


def _is_finite(number: Column) -> Column:
    """False for a number such as 1e400, which is read as infinity."""
    return F.abs(number) < float("inf")


_READ: dict[str, Callable[[Column], Column]] = {"timestamp": _moment, "date": _date}
"""Types that Spark's reader takes as text: how that is read."""
_WITHIN: dict[str, Callable[[Column], Column]] = {
    "timestamp": _has_four_digits,
    "date": _is_of_our_era,
    "double": _is_finite,
}
"""Types of which more can be read than the contract lets in: what it lets in. Null where the value is."""
