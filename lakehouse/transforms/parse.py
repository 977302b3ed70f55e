"""From a Kafka record to typed fields, in Spark Columns.

Parsing is permissive: no record is dropped and none raises. A record that does not fit is only marked here;
`transforms.contract` says why, outside Spark's plan, where the few such records cost little and the many good
ones nothing. (Reasons built as Columns made the plan so large that planning it took longer than running it:
docs/adr/0009-verdict-bits.md.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql import types as T

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from pyspark.sql import Column, DataFrame

_SPARK_TYPES: dict[str, T.DataType] = {
    "string": T.StringType(),
    "integer": T.IntegerType(),
    "long": T.LongType(),
    "double": T.DoubleType(),
    "boolean": T.BooleanType(),
    "timestamp": T.TimestampType(),
    "date": T.DateType(),
}
_CORRUPT = "_corrupt_record"
_OPTIONS = {
    "mode": "PERMISSIVE",
    "columnNameOfCorruptRecord": _CORRUPT,
    # NaN and Infinity are not JSON; read as numbers they would pass a minimum.
    "allowNonNumericNumbers": "false",
    "timeZone": "UTC",
}


def position(records: DataFrame) -> DataFrame:
    """Kafka's columns under their names in the tables; columns that have such a name (`_…`) already go on as they are.

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
        F.col("headers").alias("_headers"),
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
        [T.StructField(name, _SPARK_TYPES[kind]) for name, kind in fields.items()]
        + [T.StructField(_CORRUPT, T.StringType())]
    )
    text = F.col("_value").cast("string")
    event = F.col("_event")
    fits = event.isNotNull() & event[_CORRUPT].isNull() & F.is_valid_utf8(text) & _is_one_object(text)
    return records.withColumn("_event", F.from_json(text, schema, _OPTIONS)).select(
        *records.columns,
        *(event[name].alias(name) for name in fields),
        F.coalesce(fits, F.lit(False)).alias("_fits"),
    )


def with_timeliness(parsed: DataFrame, *, event_time: str, max_future: timedelta) -> DataFrame:
    """Add `_timely`: whether the event has a time, and one that is not too far ahead of its Kafka timestamp."""
    limit = F.col("_timestamp") + F.expr(f"INTERVAL {max_future.total_seconds():.3f} SECONDS")
    return parsed.withColumn("_timely", F.coalesce(F.col(event_time) <= limit, F.lit(False)))


def _is_one_object(text: Column) -> Column:
    """True where the text holds a JSON object and nothing after it.

    Spark's reader takes the first of several documents and drops the rest without a word. An object
    whose first closing brace is its last character can hold no second one; the others are read in full.
    """
    trimmed = F.btrim(text, F.lit(" \t\r\n"))
    certain = F.instr(trimmed, "}") == F.length(trimmed)
    alone = F.json_array_length(F.concat(F.lit("["), trimmed, F.lit("]"))) == 1
    return trimmed.startswith("{") & (certain | (trimmed.endswith("}") & F.coalesce(alone, F.lit(False))))
