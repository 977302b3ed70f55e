"""A transformation of micro-batches that is planned once, and not once for each of them.

Spark analyses, optimises, plans and writes the code of a streaming query anew for every micro-batch, although no batch
changes any of it. Here the query itself only reads. What is done with its rows is planned before the first batch, and
taken from that plan as what its tasks run: a chain of Spark's `PartitionEvaluatorFactory`s, one for each compiled stage
and each hand-over to Python. Every batch's rows go through that chain. docs/adr/0038-planned-once.md says what this
rests on, and what it is worth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.sql.classic.dataframe import DataFrame as ClassicDataFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame

_STEP = "MapPartitionsWithEvaluatorRDD"
"""Spark's RDD of what one evaluator makes of another RDD's rows. A plan has no other where
`spark.sql.execution.usePartitionEvaluator` is set and nothing is shuffled."""


class Prepared:
    """Applies a transformation to micro-batches.

    Args:
        transform: from each partition's rows by themselves, without a shuffle.
        records: the stream whose batches it will be applied to.

    Raises:
        whatever `transform` and Spark's analysis raise.
    """

    def __init__(self, transform: Callable[[DataFrame], DataFrame], records: DataFrame) -> None:
        empty = records.sparkSession.createDataFrame([], records.schema)
        # Held, and not only for its schema: Spark's counters of the steps live as long as their plan.
        self._planned = transform(empty)
        self._steps = _steps(self._planned, _rows(empty))

    def __call__(self, batch: DataFrame) -> DataFrame:
        """`transform(batch)`.

        Args:
            batch: as Spark hands it to `foreachBatch`.
        """
        rows = _rows(batch)
        for step in self._steps:
            rows = rows.mapPartitionsWithEvaluator(step, rows.elementClassTag())
        session: Any = batch.sparkSession
        schema = self._planned._jdf.schema()  # noqa: SLF001 - pyspark has no other name for what follows
        return ClassicDataFrame(session._jsparkSession.internalCreateDataFrame(rows, schema, False), session)  # noqa: SLF001


def _rows(frame: DataFrame) -> Any:  # noqa: ANN401 - of Java
    """The RDD that a frame without a plan stands for, as those of `foreachBatch` do."""
    return frame._jdf.logicalPlan().rdd()  # noqa: SLF001


def _steps(planned: DataFrame, rows: Any) -> list[Any]:  # noqa: ANN401
    """The evaluator factories that make `planned` of `rows`, in the order in which rows go through them."""
    made = rdd = planned._jdf.queryExecution().executedPlan().execute()  # noqa: SLF001
    steps: list[Any] = []
    while rdd.getClass().getSimpleName() == _STEP:
        factory = rdd.getClass().getDeclaredField("evaluatorFactory")
        factory.setAccessible(True)
        steps.insert(0, factory.get(rdd))
        rdd = rdd.prev()
    if rdd.id() != rows.id():
        needed = "spark.sql.execution.usePartitionEvaluator has to be true, and nothing shuffled"
        message = f"{needed}: not all is made by steps:\n{made.toDebugString()}"
        raise AssertionError(message)
    return steps
