"""Great Expectations itself as the judge of rows at rest, within bounded memory.

It counts: nothing is persisted, no row is returned, and the metrics of one domain are bundled in one Spark job. Which
rows failed is asked of the compiled rules (`samples`), in one pass; the package would scan twice for each expectation.
Only types that no compiled rule can answer are sampled by the package itself.
"""

from __future__ import annotations

import copy
import json
import uuid
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.quality.like import as_regex
from lakehouse.quality.mistakes import Mistake
from lakehouse.quality.suite import fail_at
from lakehouse.reports.package import (
    DataContextConfig,
    ExpectationConfiguration,
    ExpectationSuiteValidationResult,
    ExpectationValidationResult,
    InMemoryStoreBackendDefaults,
    gx,
)
from lakehouse.reports.population import POSITION
from lakehouse.reports.samples import SAMPLES, Sample

if TYPE_CHECKING:
    from collections.abc import Collection

    from pyspark.sql import DataFrame

    from lakehouse.quality.suite import Expectation, Suite

_COUNTS = {"result_format": "BASIC", "partial_unexpected_count": 0}
_SAMPLES = {
    "result_format": "SUMMARY",
    "partial_unexpected_count": SAMPLES,
    "unexpected_index_column_names": list(POSITION),
    "return_unexpected_index_query": False,
}


@dataclass(frozen=True)
class Finding:
    """What Great Expectations found for one expectation.

    Attributes:
        expectation: of the suite.
        success: whether it is met; False where it could not be judged.
        evaluated: rows that it speaks of, missing values included; None for types that count no rows.
        unexpected: rows that fail; None for types that count no rows.
        percent: `unexpected` of the rows with a value, in percent.
        observed: the observed value of other types, as JSON.
        error: why it could not be judged.
    """

    expectation: Expectation
    success: bool
    evaluated: int | None
    unexpected: int | None
    percent: float | None
    observed: str | None
    error: str | None

    @property
    def critical(self) -> bool:
        """Whether the report fails by it: one that could not be judged counts as critical, as in the package."""
        return not self.success and (self.expectation.severity == "critical" or self.error is not None)


class AtRest:
    """One suite, judged over one frame."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._document = _document(suite)
        with _quiet():
            # Without its own site of docs, for which it would make a temporary folder at each start.
            stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
            self._context = gx.get_context(
                mode="ephemeral", project_config=DataContextConfig(store_backend_defaults=stores)
            )
            self._context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
            source = self._context.data_sources.add_spark("lakehouse", persist=False)
            asset = source.add_dataframe_asset(suite.name)
            self._batch = asset.add_batch_definition_whole_dataframe("rows")
            # The package leaves out what it cannot load, and goes on.
            loaded = gx.ExpectationSuite(**self._document).expectations
        known = {(expectation.meta or {}).get("rule_id") for expectation in loaded}
        for expectation in suite.expectations:
            if expectation.rule_id not in known:
                mistake = Mistake("Great Expectations cannot load it", "see the type's kwargs in its documentation")
                fail_at(suite.source, expectation.index, expectation.type, mistake)

    def judge(self, rows: DataFrame) -> tuple[tuple[Finding, ...], ExpectationSuiteValidationResult]:
        """Judge every row.

        Args:
            rows: with the columns that the suite reads and `POSITION`.

        Returns:
            A finding per expectation in the suite's order, and the package's own result in the same order.
        """
        rule_ids = [expectation.rule_id for expectation in self._suite.expectations]
        try:
            result = self._run(rows, rule_ids, _COUNTS)
        except Exception:  # noqa: BLE001 - the package raises what it will; who it was is found below
            result = ExpectationSuiteValidationResult(success=False, results=[], suite_name=self._suite.name)
        by_rule = {_rule_id(found): found for found in result.results}
        # What crashes takes along what was bundled with it, or everything: each such one is judged alone.
        for rule_id in rule_ids:
            if rule_id not in by_rule or _error(by_rule[rule_id]):
                by_rule[rule_id] = self._judge_alone(rows, rule_id)
        result.results = [by_rule[expectation.rule_id] for expectation in self._suite.expectations]
        return tuple(map(_finding, self._suite.expectations, result.results)), result

    def sample(self, rows: DataFrame, rule_ids: Collection[str]) -> dict[str, tuple[Sample, ...]]:
        """Some unexpected rows of each of these expectations, at two or more Spark jobs each."""
        if not rule_ids:
            return {}
        found = self._run(rows, rule_ids, _SAMPLES).results
        return {
            _rule_id(one): tuple(map(_sample, (one.result.get("partial_unexpected_index_list") or [])[:SAMPLES]))
            for one in found
        }

    def _judge_alone(self, rows: DataFrame, rule_id: str) -> Any:  # noqa: ANN401 - the package has no types
        """One expectation, whose result is not kept: the package cannot store what some find, such as quantiles."""
        try:
            [item] = [item for item in self._document["expectations"] if item["meta"]["rule_id"] == rule_id]
            with _quiet():
                suite = gx.ExpectationSuite(**{**self._document, "expectations": [item], "name": uuid.uuid4().hex})
                batch = self._batch.get_batch(batch_parameters={"dataframe": rows})
                parameters = dict(self._suite.document.get("suite_parameters") or {})
                return batch.validate(suite, result_format=_COUNTS, expectation_parameters=parameters).results[0]
        except Exception as error:  # noqa: BLE001 - as above
            config = ExpectationConfiguration(type=item["type"], kwargs=item["kwargs"], meta=item["meta"])
            info = {
                "raised_exception": True,
                "exception_message": str(error) or repr(error),
                "exception_traceback": None,
            }
            return ExpectationValidationResult(
                success=False, expectation_config=config, result={}, meta={}, exception_info=info
            )

    def _run(
        self, rows: DataFrame, rule_ids: Collection[str], result_format: dict[str, Any]
    ) -> ExpectationSuiteValidationResult:
        wanted = [item for item in self._document["expectations"] if item["meta"]["rule_id"] in rule_ids]
        with _quiet():
            # A name of its own: the package keeps suites and definitions by name.
            name = uuid.uuid4().hex
            suite = self._context.suites.add(
                gx.ExpectationSuite(**{**self._document, "expectations": wanted, "name": name})
            )
            definition = gx.ValidationDefinition(name=name, data=self._batch, suite=suite)
            outcome = self._context.validation_definitions.add(definition).run(
                batch_parameters={"dataframe": rows},
                expectation_parameters=dict(self._suite.document.get("suite_parameters") or {}),
                result_format=result_format,
            )
        outcome.suite_name = self._suite.name
        return outcome


def _document(suite: Suite) -> dict[str, Any]:
    """The suite's file with every rule id written down and without kwargs that would let results grow with the data."""
    document = {key: value for key, value in suite.document.items() if key not in ("id", "suite_parameters")}
    expectations = copy.deepcopy(document["expectations"])
    for item, expectation in zip(expectations, suite.expectations, strict=True):
        item["meta"] = {**(item.get("meta") or {}), "rule_id": expectation.rule_id}
        item["type"], kwargs = as_regex(item["type"], item.get("kwargs", {}))
        item["kwargs"] = {
            key: value for key, value in kwargs.items() if key not in ("result_format", "catch_exceptions", "batch_id")
        }
        for key in ("id", "success_on_last_run", "rendered_content", "expectation_context"):
            item.pop(key, None)
    return {**document, "expectations": expectations}


def _sample(indexed: dict[str, Any]) -> Sample:
    values = {name: None if value is None else str(value) for name, value in indexed.items() if name not in POSITION}
    topic, partition, offset = (indexed[name] for name in POSITION)
    return Sample((topic, partition, offset), values)


def _rule_id(found: Any) -> str:  # noqa: ANN401 - the package has no types
    return str(found.expectation_config.meta["rule_id"])


def _finding(expectation: Expectation, found: Any) -> Finding:  # noqa: ANN401
    result = found.result or {}
    counts_rows = "element_count" in result
    unexpected = (result.get("unexpected_count") or 0) if counts_rows else None
    percent = result.get("unexpected_percent")
    observed = result.get("observed_value")
    return Finding(
        expectation=expectation,
        success=bool(found.success),
        evaluated=result.get("element_count") if counts_rows else None,
        unexpected=unexpected,
        percent=None if percent is None else float(percent),
        observed=None if observed is None else json.dumps(observed, default=str),
        error=_error(found),
    )


def _error(found: Any) -> str | None:  # noqa: ANN401
    """The first exception's message. The package nests them by metric for some types and not for others."""
    info = found.exception_info or {}
    nested = [info] if "raised_exception" in info else list(info.values())
    messages = [each.get("exception_message") for each in nested if each.get("raised_exception")]
    return str(messages[0]).strip().splitlines()[0][:500] if messages and messages[0] else None


class _quiet(warnings.catch_warnings):  # noqa: N801 - used like a function
    """Deprecations inside the package are not the user's to mend."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
