"""Great Expectations itself, as the judge of our judge: unexpected counts of a suite over one Spark frame."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class Oracle:
    """An ephemeral context, with nothing persisted, sent or drawn."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the package are not ours to mend
            import great_expectations as gx

            self._gx = gx
            self._context = gx.get_context(mode="ephemeral")
            self._context.variables.progress_bars = {"globally": False}
            source = self._context.data_sources.add_spark("oracle", persist=False)
            asset = source.add_dataframe_asset("frame")
            self._batch = asset.add_batch_definition_whole_dataframe("whole")

    def load(self, document: dict[str, Any]) -> Any:
        """The suite as Great Expectations loads it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._gx.ExpectationSuite(**document)

    def unexpected_counts(self, frame: DataFrame, document: dict[str, Any]) -> dict[str, int]:
        """rule_id -> `unexpected_count`, for a suite whose expectations all carry `meta.rule_id`.

        A count over no rows at all is null in Spark and None in the result: no row is unexpected.
        """
        results = self.results(frame, document)
        return {rule_id: result.result["unexpected_count"] or 0 for rule_id, result in results.items()}

    def results(self, frame: DataFrame, document: dict[str, Any]) -> dict[str, Any]:
        """rule_id -> the package's own result."""
        suite = self.load({**document, "name": uuid.uuid4().hex})
        assert len(suite.expectations) == len(document["expectations"])
        with warnings.catch_warnings(), quick(frame.sparkSession):
            warnings.simplefilter("ignore")
            # Not kept: the package cannot store the quantiles that it finds.
            batch = self._batch.get_batch(batch_parameters={"dataframe": frame})
            outcome = batch.validate(suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 0})
        for result in outcome.results:
            info = result.exception_info
            nested = [info] if "raised_exception" in info else info.values()
            # An input on which it fails is a fault of the generator.
            assert not any(each["raised_exception"] for each in nested), info
        return {result.expectation_config.meta["rule_id"]: result for result in outcome.results}


@contextmanager
def quick(spark: SparkSession) -> Iterator[None]:
    """Interpret expressions instead of compiling them: for a few rows that takes a tenth of the time."""
    settings = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
    before = {name: spark.conf.get(name) for name in settings}
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            spark.conf.set(name, str(value))
