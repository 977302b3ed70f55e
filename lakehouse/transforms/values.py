"""From the bytes of a record's value to the event's fields, by the format of the source."""

from __future__ import annotations

from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from lakehouse.transforms.parse import parse_json
from lakehouse.transforms.rescue import MORE

if TYPE_CHECKING:
    from collections.abc import Collection

    from pyspark.sql import DataFrame

    from lakehouse.config.models import Source


def read_values(records: DataFrame, source: Source) -> DataFrame:
    """Add a column per field (null where missing or of another type), `_fits`, and `_more`.

    `_fits` says whether the value is one event whose fields have their types, the required ones among them; `_more`
    whether it may have other fields.

    Args:
        records: as `parse.position` leaves them.
        source: the fields and the format.
    """
    read = parse_json(records, {name: field.type for name, field in source.fields.items()})
    present = [F.col(name).isNotNull() for name, field in source.fields.items() if field.required]
    return read.withColumn("_fits", reduce(and_, present, F.col("_fits"))) if present else read


def without_spare_bytes(judged: DataFrame, raw: Collection[str], *, rescue: bool) -> DataFrame:
    """The columns of the raw record only for rows that need them: on their way to Python they would double the others.

    Args:
        judged: rows with `_refused` and `_more`.
        raw: the columns.
        rescue: whether the value is read again where it may have other fields.
    """
    needed = dict.fromkeys(raw, F.col("_refused"))
    if rescue:
        needed["_value"] |= F.col(MORE)
    return judged.withColumns({name: F.when(wanted, F.col(name)) for name, wanted in needed.items()})
