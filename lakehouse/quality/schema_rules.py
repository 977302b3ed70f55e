"""Expectations about a table's columns and types, answered from the pipeline's contract before the first row.

The table is silver: what such an expectation says of it, it says of every row at once. Great Expectations compares a
column's type with the classes of `pyspark.sql.types`, base classes included.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lakehouse.quality.mistakes import Mistake
from lakehouse.quality.spark_types import SPARK_TYPES
from lakehouse.quality.suite import fail_at
from lakehouse.schemas import ARROW_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from lakehouse.quality.suite import Expectation, Suite

logger = logging.getLogger(__name__)


def require_schema(suite: Suite, silver: pa.Schema) -> None:
    """Hold the suite's expectations about columns and types against silver's.

    Raises:
        SuiteError: an expectation of the stream `fail` is not met, which is each critical one by default. Others are
            said in the log.
    """
    for expectation, what in broken_by(suite, column_types(silver)):
        mistake = Mistake(f"Silver does not meet it: {what}", "correct the expectation, or source.fields")
        if expectation.stream == "fail":
            fail_at(suite.source, expectation.index, expectation.type, mistake)
        logger.warning("%s: silver does not meet %s: %s", suite.source, expectation.rule_id, what)


def column_types(schema: pa.Schema) -> dict[str, str]:
    """A table's columns in order: name → type, a key of `SPARK_TYPES`."""
    names = {arrow: name for name, arrow in ARROW_TYPES.items()}
    return {field.name: names.get(field.type, "verdicts") for field in schema}


def broken_by(suite: Suite, columns: Mapping[str, str]) -> tuple[tuple[Expectation, str], ...]:
    """The expectations about columns and types that a table does not meet, each with what is so instead.

    Args:
        suite: the suite.
        columns: the table's columns in order: name → type, a key of `SPARK_TYPES`.
    """
    items = suite.document["expectations"]
    told = [
        (expectation, _broken(expectation.type, items[expectation.index].get("kwargs", {}), columns))
        for expectation in suite.expectations
        if expectation.checks_schema
    ]
    return tuple((expectation, what) for expectation, what in told if what is not None)


def _broken(kind: str, kwargs: Mapping[str, object], columns: Mapping[str, str]) -> str | None:  # noqa: PLR0911
    """What is so instead; None where the expectation is met."""
    names = list(columns)
    match kind:
        case "expect_column_to_exist":
            column, index = kwargs["column"], kwargs.get("column_index")
            if isinstance(index, int) and index:  # 0 says nothing to Great Expectations
                met = -len(names) <= index < len(names) and names[index] == column
                return None if met else f"column {index} is not {column}"
            return None if column in columns else f"there is no column {column}"
        case "expect_column_type_to_be" | "expect_column_values_to_be_of_type":
            return _wrong_type(str(kwargs["column"]), [kwargs["type_"]], columns)
        case "expect_column_values_to_be_in_type_list":
            wanted = kwargs.get("type_list")
            return _wrong_type(str(kwargs["column"]), wanted, columns) if isinstance(wanted, list) else None
        case "expect_table_column_count_to_equal":
            return None if len(names) == kwargs["value"] else f"there are {len(names)} columns"
        case "expect_table_column_count_to_be_between":
            low, high = kwargs.get("min_value"), kwargs.get("max_value")
            inside = (low is None or len(names) >= low) and (high is None or len(names) <= high)  # type: ignore[operator]
            return None if inside else f"there are {len(names)} columns"
        case "expect_table_columns_to_match_ordered_list":
            wanted = kwargs.get("column_list")
            return None if wanted in (None, names) else f"the columns are {', '.join(names)}"
        case "expect_table_columns_to_match_set":
            return _unmatched(kwargs, set(names))
        case _:
            message = f"{kind} does not speak of a table's schema"
            raise AssertionError(message)


def _wrong_type(column: str, wanted: Sequence[object], columns: Mapping[str, str]) -> str | None:
    if column not in columns:
        return f"there is no column {column}"
    found = SPARK_TYPES[columns[column]]
    return None if set(found) & set(wanted) else f"{column} is {found[0]}"


def _unmatched(kwargs: Mapping[str, object], names: set[str]) -> str | None:
    wanted = kwargs.get("column_set")
    expected = set(wanted) if isinstance(wanted, list) else set()
    missing, surplus = sorted(expected - names), sorted(names - expected)
    exact = kwargs.get("exact_match")
    if not missing and (not surplus or exact is False):
        return None
    return f"missing {missing}, beyond the set {surplus}" if exact is not False else f"missing {missing}"
