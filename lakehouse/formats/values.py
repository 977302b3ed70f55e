"""From the bytes of a record's value to the event's fields, by the format of the source."""

from __future__ import annotations

from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql import types as T

from lakehouse.formats.decode import Decode, connect
from lakehouse.schemas import RESCUED
from lakehouse.transforms.contract import MISFIT
from lakehouse.transforms.parse import parse_json

if TYPE_CHECKING:
    from collections.abc import Collection

    from pyspark.sql import DataFrame

    from lakehouse.config.models import Source


_SPARK: dict[str, T.DataType] = {
    "string": T.StringType(),
    "integer": T.IntegerType(),
    "long": T.LongType(),
    "double": T.DoubleType(),
    "boolean": T.BooleanType(),
    "timestamp": T.TimestampType(),
    "date": T.DateType(),
}


def read_values(records: DataFrame, source: Source) -> DataFrame:
    """Add a column per field (null where missing or of another type), and `_fits`.

    `_fits` says whether the value is one event whose fields have their types, the required ones among them. With other
    formats than JSON, `_rescued_data` holds what it has besides, and `_misfit` says what does not fit.

    Args:
        records: as `parse.position` leaves them.
        source: the fields and the format.

    Raises:
        RegistryUnavailable: the format needs a schema registry, which does not answer.
        ConfigError: the registry refuses the user, or is none.
    """
    fields = {name: field.type for name, field in source.fields.items()}
    read = parse_json(records, fields) if source.format == "json" else _decoded(records, source)
    present = [F.col(name).isNotNull() for name, field in source.fields.items() if field.required]
    return read.withColumn("_fits", reduce(and_, present, F.col("_fits"))) if present else read


def _decoded(records: DataFrame, source: Source) -> DataFrame:
    connect(source).require()
    added = [T.StructField(name, _SPARK[field.type]) for name, field in source.fields.items()]
    added += [T.StructField("_fits", T.BooleanType())]
    added += [T.StructField(name, T.StringType()) for name in (MISFIT, RESCUED)]
    return records.mapInArrow(Decode(source), T.StructType([*records.schema.fields, *added]))


def without_spare_bytes(judged: DataFrame, raw: Collection[str]) -> DataFrame:
    """The columns `raw` only for rows that are refused: on their way to Python they would double the others."""
    return judged.withColumns({name: F.when(F.col("_refused"), F.col(name)) for name in raw})
