"""Names of Spark's types, as expectations write them, without Spark. A test holds them against the package."""

from __future__ import annotations

SPARK_TYPES: dict[str, tuple[str, ...]] = {
    "string": ("StringType", "AtomicType", "DataType"),
    "integer": ("IntegerType", "IntegralType", "NumericType", "AtomicType", "DataType"),
    "long": ("LongType", "IntegralType", "NumericType", "AtomicType", "DataType"),
    "double": ("DoubleType", "FractionalType", "NumericType", "AtomicType", "DataType"),
    "boolean": ("BooleanType", "AtomicType", "DataType"),
    "timestamp": ("TimestampType", "DatetimeType", "AtomicType", "DataType"),
    "date": ("DateType", "DatetimeType", "AtomicType", "DataType"),
    "verdicts": ("ArrayType", "DataType"),
}
"""Type in a pipeline file → names of its class and base classes in `pyspark.sql.types`."""

KNOWN_TYPES = frozenset(name for names in SPARK_TYPES.values() for name in names) | {
    *("ByteType", "ShortType", "FloatType", "DecimalType", "BinaryType", "MapType", "StructType", "NullType"),
    *("CharType", "VarcharType", "TimestampNTZType", "VariantType"),
}
