"""What a suite costs the whole stack: freshness and CPU of a pipeline with 50 rules, against the same one with none.

    python -m benchmarks.many_rules [--rate 30000] [--seconds 60] [--warm-up 60] [--rules 50] [--json FILE]

The two are measured one after the other, each on a stack of its own (`lakehouse.bench.latency`). Throughput is said
by what limits it: CPU seconds of the pipeline's processes per million events.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import yaml

from lakehouse.bench.latency import LatencyReport, measure

CONF = Path("conf/feature_events.yaml")
AT_REST = {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 0}, "meta": {"rule_id": "rows"}}
"""A suite has to have an expectation. This one is the report's alone: the stream does not judge by it."""
PATTERNS = (r"^\d+\.\d+\.\d+\z", r"^[0-9]", r"\.", r"^[^ ]+\z")


def main() -> None:
    """Measure both and print what the rules cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=30_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm-up", type=float, default=60)
    parser.add_argument("--rules", type=int, default=50)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (0, arguments.rules):
            report = measure(
                write_pipeline(Path(folder), count),
                rate=arguments.rate,
                seconds=arguments.seconds,
                warm_up=arguments.warm_up,
                partitions=2,
                bad_share=0.0,
                stop=threading.Event(),
            )
            found[count] = figures(report)
            print(f"{count:>3} rules: {found[count]}", flush=True)
    none, many = found[0], found[arguments.rules]
    cost = {
        "p99_ms": round(many["p99_ms"] - none["p99_ms"], 1),
        "p50_ms": round(many["p50_ms"] - none["p50_ms"], 1),
        "cpu_share": round(many["cpu_s_per_million"] / none["cpu_s_per_million"] - 1, 4),
    }
    print(f"{arguments.rules} rules cost: {cost}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rate": arguments.rate, "found": found, "cost": cost}, indent=2) + "\n")


def figures(report: LatencyReport) -> dict[str, float]:
    """Of the table that is worst in p99, and of the pipeline's processes."""
    worst = max(
        (table for table in report.tables.values() if table.events), key=lambda table: table.percentiles_ms["p99"]
    )
    return {
        "p50_ms": worst.percentiles_ms["p50"],
        "p99_ms": worst.percentiles_ms["p99"],
        "cpu_s_per_million": report.cpu_s_per_million["pipeline"],
    }


def write_pipeline(folder: Path, count: int) -> Path:
    """The shipped pipeline with a suite of so many rules that every event passes, and the load beside it."""
    suite = folder / f"suite-{count}.json"
    suite.write_text(
        json.dumps({"name": f"rules_{count}", "meta": {}, "expectations": [AT_REST, *islice(rules(), count)]})
    )
    raw: dict[str, Any] = yaml.safe_load(CONF.read_text())
    raw["quality"]["suite"] = str(suite)
    path = folder / CONF.name
    path.write_text(yaml.safe_dump(raw))
    loads = folder / "loads"
    loads.mkdir(exist_ok=True)
    (loads / CONF.name).write_text((CONF.parent / "loads" / CONF.name).read_text())
    return path


def rules() -> Any:  # noqa: ANN401 - an endless iterator of expectations
    """Rules of every cheap and costly kind in turn, none like another."""
    texts = ("event_id", "feature", "action", "session_id", "region", "app_version", "status")
    numbers = ("user_id", "latency_ms", "amount")
    for turn, column in enumerate(cycle(texts)):
        number = numbers[turn % len(numbers)]
        yield _rule("expect_column_values_to_not_be_null", f"present_{turn}", column=column)
        yield _rule("expect_column_value_lengths_to_be_between", f"length_{turn}", column=column, min_value=1,
                    max_value=200 + turn)  # fmt: skip
        yield _rule("expect_column_values_to_be_between", f"range_{turn}", column=number, min_value=-turn - 1.0,
                    max_value=1e12 + turn)  # fmt: skip
        yield _rule("expect_column_values_to_not_be_in_set", f"never_{turn}", column=column,
                    value_set=[f"never-{turn}", f"nor-{turn}"])  # fmt: skip
        if column == "app_version":
            for at, pattern in enumerate(PATTERNS):
                yield _rule("expect_column_values_to_match_regex", f"like_{turn}_{at}", column=column, regex=pattern)


def _rule(kind: str, rule_id: str, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - of any expectation
    return {"type": kind, "kwargs": kwargs, "severity": "critical", "meta": {"rule_id": rule_id}}


if __name__ == "__main__":
    main()
