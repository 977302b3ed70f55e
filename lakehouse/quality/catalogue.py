"""Every core expectation type of Great Expectations (1.24): what it means in the stream and in the report.

The facts come from the package's own classes and Spark metrics; a test compares this list with the
installed package, so a new or renamed type is noticed. Nothing here imports Spark or Great Expectations.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lakehouse.quality.aggregates import APPROXIMATE, OBSERVED, STATISTICS


class Family(Enum):
    """How an expectation type can be judged. The value is the word used in docs and messages."""

    ROW = "row"
    LIKE = "like"
    PYTHON = "python"
    SQL_ONLY = "sql only"
    STATISTIC = "statistic"
    WINDOW = "window"
    SCHEMA = "schema"
    AGGREGATE = "aggregate"
    QUERY = "query"
    RETIRED = "retired"


@dataclass(frozen=True)
class FamilyNote:
    """What a family means: in the stream, in the report, and why."""

    stream: str
    report: str
    why: str


NOTES: dict[Family, FamilyNote] = {
    Family.ROW: FamilyNote(
        "judges each row",
        "counts the same rows over the whole table",
        "one row is enough, and Great Expectations' own condition is a Spark column",
    ),
    Family.LIKE: FamilyNote(
        "judges each row",
        "counts the same rows, by the regular expression that says the same",
        "Great Expectations has no Spark code for LIKE, but each pattern has an equal among regular expressions",
    ),
    Family.PYTHON: FamilyNote(
        "not judged",
        "judged",
        "it runs a Python parser on each row, and no Spark function accepts exactly the same texts",
    ),
    Family.SQL_ONLY: FamilyNote(
        "refused",
        "refused",
        "Great Expectations has no Spark code for it",
    ),
    Family.STATISTIC: FamilyNote(
        "not judged",
        "judged",
        "a row is compared with the mean or the quantiles of all rows, which no micro-batch knows",
    ),
    Family.WINDOW: FamilyNote(
        "not judged", "judged", "a row is compared with other rows, which may be in another micro-batch"
    ),
    Family.SCHEMA: FamilyNote(
        "checked before the first row: a critical one that is not met stops the start",
        "judged",
        "it speaks of silver's columns and types, which the pipeline file fixes for every row",
    ),
    Family.AGGREGATE: FamilyNote(
        "not judged",
        "judged",
        "it speaks of the whole table, and what a batch would have to keep for it has no bound",
    ),
    Family.QUERY: FamilyNote("not judged", "judged", "it is an SQL query over the whole table"),
    Family.RETIRED: FamilyNote("refused", "refused", "Great Expectations keeps only its name: the class cannot be run"),
}


@dataclass(frozen=True)
class ExpectationType:
    """One core type.

    Attributes:
        name: as it stands in a suite, such as `expect_column_values_to_not_be_null`.
        family: how it can be judged.
        required: kwargs that Great Expectations insists on.
        optional: its other kwargs, without those that every type has (`COMMON_KWARGS`).
        meaning: what it demands, in one sentence.
        on_spark: whether Great Expectations can judge it on Spark at all.
    """

    name: str
    family: Family
    required: tuple[str, ...]
    optional: tuple[str, ...]
    meaning: str
    on_spark: bool = True

    @property
    def judges_rows(self) -> bool:
        """Whether the stream can judge each row by it."""
        return self.family in (Family.ROW, Family.LIKE)

    @property
    def in_stream(self) -> str:
        """What it does in the stream, in a few words."""
        if self.name in OBSERVED:
            return "observed over each batch and each minute" + (", approximately" if self.approximate else "")
        return NOTES[self.family].stream if self.on_spark else "refused"

    @property
    def approximate(self) -> bool:
        """Whether the stream observes it by a sketch."""
        return STATISTICS.get(self.name) in APPROXIMATE

    @property
    def in_report(self) -> str:
        """What it does in the report, in a few words."""
        return NOTES[self.family].report if self.on_spark else "refused"

    @property
    def why(self) -> str:
        """The reason for `in_stream` and `in_report`."""
        if self.family is Family.QUERY and not self.on_spark:
            return "Great Expectations runs it on SQL databases only, since it reads a second table"
        if self.name in OBSERVED:
            return "it speaks of many rows; what it needs of each batch is small and can be merged"
        return NOTES[self.family].why


COMMON_KWARGS = frozenset({"batch_id", "catch_exceptions", "result_format", "windows"})
"""Kwargs that any type may carry; they shape the report and decide no verdict."""

_CONDITION = ("row_condition", "condition_parser")
_MAP = ("mostly", *_CONDITION)
_BOUNDS = ("min_value", "max_value", "strict_min", "strict_max")
_PAIR = ("column_A", "column_B")


def _column(family: Family, name: str, meaning: str, *optional: str, needs: tuple[str, ...] = ()) -> ExpectationType:
    """A type that looks at each value of one column."""
    return ExpectationType(
        f"expect_column_{name}",
        family,
        ("column", *needs),
        (*_MAP, *optional),
        meaning,
        on_spark=family is not Family.SQL_ONLY,
    )


def _aggregate(name: str, meaning: str, *optional: str, needs: tuple[str, ...] = ()) -> ExpectationType:
    """A type that looks at one number or set made from a whole column."""
    return ExpectationType(
        f"expect_column_{name}", Family.AGGREGATE, ("column", *needs), (*_CONDITION, *optional), meaning
    )


def _retired(name: str) -> ExpectationType:
    return ExpectationType(name, Family.RETIRED, (), (), "A stub of an older release.", on_spark=False)


_ROW = Family.ROW
_TYPES: tuple[ExpectationType, ...] = (
    _column(_ROW, "values_to_not_be_null", "The value is present."),
    _column(_ROW, "values_to_be_null", "The value is missing."),
    _column(_ROW, "values_to_be_in_set", "The value is one of a set.", needs=("value_set",)),
    _column(_ROW, "values_to_not_be_in_set", "The value is none of a set.", needs=("value_set",)),
    _column(_ROW, "values_to_be_between", "The value lies between two bounds.", *_BOUNDS),
    _column(_ROW, "value_lengths_to_be_between", "The text's length lies between two bounds.", *_BOUNDS),
    _column(_ROW, "value_lengths_to_equal", "The text has one exact length.", needs=("value",)),
    _column(_ROW, "values_to_match_regex", "Some part of the text matches a regular expression.", "regex"),
    _column(
        _ROW,
        "values_to_not_match_regex",
        "No part of the text matches a regular expression.",
        needs=("regex",),
    ),
    _column(
        _ROW,
        "values_to_match_regex_list",
        "The text matches any, or all, of several regular expressions.",
        "match_on",
        needs=("regex_list",),
    ),
    _column(
        _ROW,
        "values_to_not_match_regex_list",
        "The text matches none of several regular expressions.",
        needs=("regex_list",),
    ),
    ExpectationType(
        "expect_column_pair_values_a_to_be_greater_than_b",
        _ROW,
        _PAIR,
        (*_MAP, "or_equal", "ignore_row_if"),
        "The first value is greater than the second.",
    ),
    ExpectationType(
        "expect_column_pair_values_to_be_equal",
        _ROW,
        _PAIR,
        (*_MAP, "ignore_row_if"),
        "Both values are equal; two missing values are equal too.",
    ),
    ExpectationType(
        "expect_column_pair_values_to_be_in_set",
        _ROW,
        (*_PAIR, "value_pairs_set"),
        (*_MAP, "ignore_row_if"),
        "The two values together are one of a set of pairs.",
    ),
    ExpectationType(
        "expect_multicolumn_sum_to_equal",
        _ROW,
        ("column_list", "sum_total"),
        (*_MAP, "ignore_row_if"),
        "The values of several columns add up to a total; a missing value counts as 0.",
    ),
    ExpectationType(
        "expect_multicolumn_values_to_be_equal",
        _ROW,
        ("column_list",),
        (*_MAP, "ignore_row_if"),
        "Several columns hold the same value.",
    ),
    ExpectationType(
        "expect_select_column_values_to_be_unique_within_record",
        _ROW,
        ("column_list",),
        (*_MAP, "ignore_row_if"),
        "No two of several columns hold the same value in one row.",
    ),
    _column(
        Family.PYTHON,
        "values_to_match_strftime_format",
        "The text parses with a strftime format.",
        needs=("strftime_format",),
    ),
    _column(Family.PYTHON, "values_to_be_json_parseable", "The text is JSON."),
    _column(Family.PYTHON, "values_to_match_json_schema", "The text meets a JSON Schema.", needs=("json_schema",)),
    _column(
        Family.LIKE,
        "values_to_match_like_pattern",
        "The text matches a LIKE pattern.",
        "escape",
        needs=("like_pattern",),
    ),
    _column(
        Family.LIKE,
        "values_to_not_match_like_pattern",
        "The text does not match a LIKE pattern.",
        "escape",
        needs=("like_pattern",),
    ),
    _column(
        Family.LIKE,
        "values_to_match_like_pattern_list",
        "The text matches any, or all, of several LIKE patterns.",
        "match_on",
        "escape",
        needs=("like_pattern_list",),
    ),
    _column(
        Family.LIKE,
        "values_to_not_match_like_pattern_list",
        "The text matches none of several LIKE patterns.",
        "escape",
        needs=("like_pattern_list",),
    ),
    _column(Family.SQL_ONLY, "values_to_be_dateutil_parseable", "Python's dateutil can parse the text."),
    _column(
        Family.STATISTIC,
        "value_z_scores_to_be_less_than",
        "The value is less than some standard deviations from the mean.",
        needs=("threshold", "double_sided"),
    ),
    _column(
        Family.STATISTIC,
        "values_to_not_be_outliers",
        "The value lies inside the range that most values keep.",
        "method",
        "multiplier",
    ),
    _column(Family.WINDOW, "values_to_be_unique", "No value occurs twice in the table."),
    _column(Family.WINDOW, "values_to_be_increasing", "Each value is greater than the one before it.", "strictly"),
    _column(Family.WINDOW, "values_to_be_decreasing", "Each value is less than the one before it.", "strictly"),
    ExpectationType(
        "expect_compound_columns_to_be_unique",
        Family.WINDOW,
        ("column_list",),
        (*_MAP, "ignore_row_if"),
        "No combination of several columns occurs twice in the table.",
    ),
    _column(Family.SCHEMA, "values_to_be_of_type", "The column has a type.", needs=("type_",)),
    _column(Family.SCHEMA, "values_to_be_in_type_list", "The column has one of several types.", "type_list"),
    ExpectationType(
        "expect_column_to_exist", Family.SCHEMA, ("column",), ("column_index",), "The table has the column."
    ),
    ExpectationType(
        "expect_column_type_to_be",
        Family.SCHEMA,
        ("column", "type_"),
        (),
        "The column is declared with a type.",
    ),
    ExpectationType(
        "expect_table_column_count_to_be_between",
        Family.SCHEMA,
        (),
        ("min_value", "max_value"),
        "The number of columns lies between two bounds.",
    ),
    ExpectationType(
        "expect_table_column_count_to_equal",
        Family.SCHEMA,
        ("value",),
        (),
        "The table has a number of columns.",
    ),
    ExpectationType(
        "expect_table_columns_to_match_set",
        Family.SCHEMA,
        (),
        ("column_set", "exact_match"),
        "The table has these columns, in any order.",
    ),
    ExpectationType(
        "expect_table_columns_to_match_ordered_list",
        Family.SCHEMA,
        (),
        ("column_list",),
        "The table has these columns, in this order.",
    ),
    _aggregate("max_to_be_between", "The largest value lies between two bounds.", *_BOUNDS),
    _aggregate("min_to_be_between", "The smallest value lies between two bounds.", *_BOUNDS),
    _aggregate("mean_to_be_between", "The mean lies between two bounds.", *_BOUNDS),
    _aggregate("median_to_be_between", "The median lies between two bounds.", *_BOUNDS),
    _aggregate("stdev_to_be_between", "The standard deviation lies between two bounds.", *_BOUNDS),
    _aggregate("sum_to_be_between", "The sum lies between two bounds.", *_BOUNDS),
    _aggregate(
        "quantile_values_to_be_between",
        "Each quantile lies in its range.",
        "allow_relative_error",
        needs=("quantile_ranges",),
    ),
    _aggregate(
        "most_common_value_to_be_in_set",
        "The most common value is one of a set.",
        "ties_okay",
        needs=("value_set",),
    ),
    _aggregate("distinct_values_to_be_in_set", "Every distinct value is one of a set.", needs=("value_set",)),
    _aggregate("distinct_values_to_contain_set", "The distinct values include a whole set.", needs=("value_set",)),
    _aggregate("distinct_values_to_equal_set", "The distinct values are exactly a set.", needs=("value_set",)),
    _aggregate("unique_value_count_to_be_between", "The number of distinct values has bounds.", *_BOUNDS),
    _aggregate("proportion_of_unique_values_to_be_between", "The share of distinct values has bounds.", *_BOUNDS),
    _aggregate("proportion_of_non_null_values_to_be_between", "The share of present values has bounds.", *_BOUNDS),
    _aggregate(
        "kl_divergence_to_be_less_than",
        "The distribution stays near a reference.",
        "partition_object",
        "threshold",
        "internal_weight_holdout",
        "tail_weight_holdout",
        "bucketize_data",
        "min_value",
        "max_value",
    ),
    ExpectationType(
        "expect_table_row_count_to_be_between",
        Family.AGGREGATE,
        (),
        (*_BOUNDS, *_CONDITION),
        "The number of rows lies between two bounds.",
    ),
    ExpectationType(
        "expect_table_row_count_to_equal",
        Family.AGGREGATE,
        ("value",),
        _CONDITION,
        "The table has a number of rows.",
    ),
    ExpectationType(
        "unexpected_rows_expectation", Family.QUERY, ("unexpected_rows_query",), (), "A query finds no row."
    ),
    ExpectationType(
        "expect_query_results_to_match_comparison",
        Family.QUERY,
        ("base_query", "comparison_data_source_name", "comparison_query"),
        ("mostly",),
        "Two queries, on two databases, give the same rows.",
        on_spark=False,
    ),
    ExpectationType(
        "expect_table_row_count_to_equal_other_table",
        Family.QUERY,
        ("other_table_name",),
        _CONDITION,
        "Two tables have the same number of rows.",
        on_spark=False,
    ),
    _retired("expect_column_bootstrapped_ks_test_p_value_to_be_greater_than"),
    _retired("expect_column_chisquare_test_p_value_to_be_greater_than"),
    _retired("expect_column_parameterized_distribution_ks_test_p_value_to_be_greater_than"),
    _retired("expect_column_pair_cramers_phi_value_to_be_less_than"),
    _retired("expect_multicolumn_values_to_be_unique"),
)

CATALOGUE: dict[str, ExpectationType] = {entry.name: entry for entry in _TYPES}
"""All core types by name, the 17 that judge rows first."""


def markdown() -> str:
    """The page `docs/expectations.md`: one table row per type.

    `python -m lakehouse.quality.catalogue > docs/expectations.md` writes it anew; a test fails where the
    page and this module differ.
    """
    heads = ("Type", "Class", "Demands", "In the stream", "In the report", "Why")
    rows = [(f"`{e.name}`", e.family.value, e.meaning, e.in_stream, e.in_report, e.why) for e in _TYPES]
    table = [heads, ("---",) * len(heads), *rows]
    return _INTRODUCTION + "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in table)


_INTRODUCTION = """\
# Expectations

One suite in Great Expectations' own format has two meanings. In the **stream** each row is judged as it
arrives: a rule is one Spark column, and a row that fails goes to quarantine, or is tagged. In the **report**
Great Expectations itself judges the whole table, at rest and at a fixed version. Both count the same rows as
unexpected, which a test proves with generated rows. This page lists all core types of Great Expectations 1.24;
it is made from `lakehouse/quality/catalogue.py`.

## What a failing row meets with

| `severity` | In the stream | `meta.stream` that says the same |
| --- | --- | --- |
| `critical` (the default) | the row goes to quarantine, with the reason in `_errors` | `quarantine` |
| `warning` | the row is kept, with the reason in `_warnings` | `tag` |
| `info` | the row is kept; failures are only counted | `metric` |

`meta.stream` overrides the severity. `fail` stops the pipeline before the batch with such a row is committed, and
the next start goes on with that batch; `off` leaves an expectation to the report. `meta.rule_id` names the rule in
every verdict; without it the name is made of columns and type, such as `latency_ms:values_to_be_between`.
`meta.stream: quarantine` or `tag` on a type that is not judged per row is an error, and so is a type that is
refused. `lakehouse quality explain SUITE` says of each expectation what it means.

Expectations about a whole column are **observed**: over each batch, in the runner's JSON lines, and over each
minute, in the Delta table `_quality/NAME_observed`, with the failures of every rule. `meta.stream: fail` on them
stops the pipeline at a batch that does not meet them. Expectations about columns and types speak of silver; a
critical one that is not met stops the start, others are said in the log.

## Values from a table

    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "region", "value_set": []},
     "meta": {"values_from": {"path": "regions.csv", "column": "code", "version": "5f3a09c1"}}}

The values are read when the suite is loaded and put into `value_set`. `path` is relative to the suite; `version`
is the number of a version of a Delta table, or the first digits (at least 8) of a CSV file's SHA-256. `type` says
what a CSV column holds: `string` (the default), `long`, `double` or `boolean`. A file that changed without the
suite is an error. A set holds at most 1,000 values.

## The report

`lakehouse quality run PIPELINE [--from T] [--to T] [--last 1h] [--run-id ID] [--json]`, or `spark-submit
jobs/validate.py PIPELINE` with the same options, judges silver and the quarantined records that fit the contract,
at versions of one batch. It writes `_quality/NAME/RUN/index.html` and appends to the Delta table
`_quality/NAME_results`, once per run id. Exit codes: 0 passed; 1 a critical expectation failed, or stream and
report count differently; 2 wrong config.

Refused rows count. A critical expectation therefore fails by the first of them, unless `mostly` says which share
of good rows is enough.

`lakehouse quality suites PIPELINE` lists the suites that judged a pipeline's rows; they are kept under `_suites`.
`lakehouse quality recheck PIPELINE` judges every row again by the suite that judged it; exit 1 if a verdict
differs.

## From data to rules

`lakehouse quality suggest PIPELINE [--output FILE] [--rows N] [--version V] [--json]` profiles silver and proposes a
suite. It reads one version, a row group at a time: every row up to about `--rows` (200,000 by default), beyond that
whole row groups chosen by a hash of their place, and says how many of how many it looked at. Distinct counts and
quantiles come from HLL and KLL sketches; extremes, value sets, lengths, gaps and uniqueness are exact over the rows
looked at. Each proposal is then judged once more over the same rows by other code, and one that any row breaks is not
proposed. No JVM is started.

| Proposed | Where | Evidence in `meta.evidence` |
| --- | --- | --- |
| present | no row lacks it | rows; 3 / rows, the share that may lack it with 95 % confidence (rule of three) |
| share of present values | some rows lack it | the share; 1,000 rows fall below the bound once in 1,000 (Wilson) |
| type | every field | the declared type |
| value set | at most 50 values, each at least 5 times; not versions, times, addresses | how often the rarest came |
| range | numbers | extremes, quantiles; each bound is as far beyond its extreme as that is from the outer 1 % |
| only `min_value: 0` | whole numbers named `id` or `…_id`, and fields with `pii: true` | rows |
| format | all texts are of one family (UUID, version, digits, …), perhaps behind `ord_` | the family |
| length | other texts: equal where it always is, else up to twice the longest | shortest, longest |
| unique | string or whole number, every row was looked at | rows |
| order of two columns | in no row is it broken; two unrelated numbers would break it at least 20 times | that number |

Every rule is a warning, so a row that fails one is kept and tagged. Read the evidence, then raise the severity. What
silver holds has passed the suite in force: a profile cannot show what that suite refuses. Values of fields with
`pii: true` are not written into the suite.

## A suite against itself

`lakehouse quality lint SUITE [--pipeline PIPELINE] [--json]` looks at every rule and every two of them. Exit codes: 0
nothing found; 1 findings, each with the rules, their places and what to do; 2 the suite cannot be loaded.

| Finding | Means |
| --- | --- |
| duplicate | two rules fail the same rows |
| contradictory | no value passes a rule, or every row with values fails one of two |
| redundant | every row that fails one fails the other, which is no less grave |
| unreachable | a rule that no row can fail, or whose tag no row of silver can carry, since another refuses those rows |
| unknown column, wrong type | with `--pipeline`: a column that no event has, a check that its type cannot meet |

A claim about rows holds for every row, NaN, gaps and rounded integers included; a property test holds claims against
generated rows. That nothing is found proves nothing: what two different regular expressions or conditions in SQL have
in common is not looked at, and texts that a column of numbers might read alike (`01`, `1`) are not told apart.

## Drift

`lakehouse quality drift PIPELINE [--last 15m] [--against 1d] [--share 0.01] [--distance 0.1] [--no-write] [--json]`
holds the last minutes against the day before them, appends each comparison to the Delta table `_quality/NAME_drift`,
and exits 1 if anything drifted. No JVM is started.

| Compared | From | Drifted where |
| --- | --- | --- |
| each rule's share of failing rows | `_quality/NAME_observed` | it is certain to differ by more than `--share` |
| an observed aggregate's values by the minute | `_quality/NAME_observed` | as a distribution |
| records refused, of all | `quarantine`, and events of the first rollup | as a share |
| a rollup's `count` metric, of its events | gold | as a share |
| a rollup's `quantiles` metric | gold's KLL sketches | more than `--distance` of the values moved past some bound |

*Certain* means with a confidence of 99.9 % for each comparison: the interval of Newcombe (1998) for shares; for
distributions their largest distance less Massart's bound (1990) and the sketches' own error. Rows are taken as
independent; an incident of a minute is not, so let `--last` be longer than what passes by itself. Fewer than 30 of
either side are not compared. `lakehouse.quality.drift` has the two comparisons as pure functions.

## What may surprise

These are Great Expectations' own semantics on Spark, kept so that stream and report agree.

* A missing value passes every check but those of presence, of pairs and of several columns. Ask for presence
  with `expect_column_values_to_not_be_null`.
* `mostly` matters to the report only. The stream treats each failing row alike.
* `row_condition` limits an expectation to some rows. It is Spark SQL text, or a serialised Column condition; a
  row for which it is false or null cannot fail. Functions that change from one moment to the next, such as
  `now()`, are refused, because a row that is judged again must meet with the same verdict.
* `ignore_row_if` leaves out rows by default where both values (or all of them) are missing.
* NaN is larger than every number: it passes `min_value` and fails `max_value`.
* A regular expression is Java's and is searched anywhere in the text. `$` also matches before a newline at the
  end; `\\z` does not.
* A null in the `value_set` of `expect_column_values_to_be_in_set` makes every value pass.
* LIKE is case-sensitive, the whole text has to match, and there is no escape character unless `escape` names one.
* Bounds are doubles. An integer beyond 2^53 is compared after rounding.
* A bound on a time is written `2026-01-31` or `2026-01-31T12:00:00Z`; a time without a zone is refused.

## All types
"""

if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())
