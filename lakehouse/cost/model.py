"""The formulas: inputs and a rate → lines, each with its quantity, its price and how it comes about.

A month has 30 days, a gigabyte 10^9 bytes. Nothing here reads a table or a clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lakehouse.config.models import Pipeline
    from lakehouse.cost.inputs import Inputs

MONTH_S = 30 * 86_400.0
MONTH_H = 30 * 24.0
GB = 1e9
Group = Literal["network", "kafka storage", "tables", "requests", "compute", "people"]


@dataclass(frozen=True)
class Line:
    """One line of the bill.

    Attributes:
        name: what is paid for; group: kind of cost.
        quantity: a month; unit: of it.
        price: dollars for each unit; amount: dollars a month.
        why: the formula with its figures.
    """

    name: str
    group: Group
    quantity: float
    unit: str
    price: float
    why: str

    @property
    def amount(self) -> float:
        """Dollars a month."""
        return self.quantity * self.price


@dataclass(frozen=True)
class Shape:
    """What the pipeline's file says that costs.

    Attributes:
        rollups: gold tables; bronze: whether it is kept.
        interval_s: of the trigger, 0 for as fast as it goes.
    """

    rollups: int
    bronze: bool
    interval_s: float

    @classmethod
    def of(cls, pipeline: Pipeline) -> Shape:
        """Of a pipeline's file. The cost is that of an object store, wherever the file's root is now."""
        interval = getattr(pipeline.trigger, "interval", None)
        return cls(
            rollups=sum(1 for _ in pipeline.rollup_tables()),
            bronze=pipeline.tables.bronze,
            interval_s=interval.total_seconds() if interval is not None else 0.0,
        )

    @property
    def tables(self) -> int:
        """Silver, quarantine, gold, and bronze where it is on."""
        return 2 + self.rollups + self.bronze

    def having(self, *, interval_s: float) -> Shape:
        """The same with another trigger."""
        return replace(self, interval_s=interval_s)


def batch_seconds(shape: Shape, inputs: Inputs) -> float:
    """From one batch to the next: the trigger's interval, or how long a batch takes where that is longer."""
    return max(shape.interval_s, inputs["batch_s"])


def puts_per_batch(shape: Shape, inputs: Inputs) -> float:
    """Files and commits of one batch: a file for each partition in silver (and bronze), one in each other table."""
    if inputs["puts_per_batch"]:
        return inputs["puts_per_batch"]
    return (1 + shape.bronze) * inputs["partitions"] + 1 + shape.rollups + shape.tables


def stream_lines(rate: float, inputs: Inputs) -> list[Line]:
    """Kafka: the same whatever reads it."""
    per_s = rate * inputs["event_bytes"]
    month_gb = per_s * MONTH_S / GB
    crossings = (inputs["replication"] - 1) + 2 / 3 + 2 / 3 * inputs["consumer_groups"] * (1 - inputs["follower_fetch"])
    local_gb = per_s * inputs["local_days"] * 86_400 * inputs["replication"] * inputs["disk_headroom"] / GB
    tiered_gb = per_s * inputs["tiered_days"] * 86_400 / GB
    return [
        Line(
            "Kafka between zones",
            "network",
            month_gb * crossings,
            "GB",
            inputs["cross_zone_gb"],
            f"{month_gb:,.0f} GB a month cross a zone {crossings:.2f} times: {inputs['replication'] - 1:.0f} copies,"
            f" 2/3 of sends, 2/3 of reads by {inputs['consumer_groups']:.0f} groups unless in their own zone",
        ),
        Line(
            "Kafka disks",
            "kafka storage",
            local_gb,
            "GB-months",
            inputs["disk_gb_month"],
            f"{inputs['local_days']:g} days x {inputs['replication']:.0f} copies x {inputs['disk_headroom']:g} for"
            " room on the disks",
        ),
        Line(
            "Kafka tiered storage",
            "kafka storage",
            tiered_gb,
            "GB-months",
            inputs["tiered_gb_month"],
            f"{inputs['tiered_days']:g} days, one copy in the object store (KIP-405)",
        ),
        Line(
            "Kafka brokers",
            "compute",
            inputs["brokers"] * MONTH_H,
            "hours",
            inputs["broker_hour"],
            f"{inputs['brokers']:g} nodes, day and night",
        ),
    ]


def lake_lines(shape: Shape, rate: float, inputs: Inputs) -> list[Line]:
    """This pipeline: its tables, their requests, Spark and the dashboard."""
    month_gb = rate * inputs["event_bytes"] * MONTH_S / GB
    copies = 1 + shape.bronze
    rows_gb = month_gb / inputs["compression"] * copies * inputs["retained_months"]
    after = inputs["cold_after_months"]
    cold_gb = (
        0.0 if not after else month_gb / inputs["compression"] * copies * max(0.0, inputs["retained_months"] - after)
    )
    gold_gb = month_gb / inputs["rollup_ratio"] * shape.rollups * inputs["gold_months"]
    kept = "silver and bronze" if shape.bronze else "silver"
    upload_gb = month_gb / inputs["compression"] * copies + month_gb / inputs["rollup_ratio"] * shape.rollups
    lines = [
        Line(
            f"{kept.capitalize()}",
            "tables",
            rows_gb - cold_gb,
            "GB-months",
            inputs["store_gb_month"],
            f"{month_gb:,.0f} GB a month / {inputs['compression']:g} x"
            f" {min(inputs['retained_months'], after or math.inf):g} months" + (" x 2 tables" if shape.bronze else ""),
        ),
        Line(
            f"{kept.capitalize()}, cold",
            "tables",
            cold_gb,
            "GB-months",
            inputs["cold_gb_month"],
            f"what is older than {after:g} months" if after else "no cold tier",
        ),
        Line(
            "Rollups",
            "tables",
            gold_gb,
            "GB-months",
            inputs["store_gb_month"],
            f"{shape.rollups} tables of {month_gb:,.0f} GB a month / {inputs['rollup_ratio']:g},"
            f" {inputs['gold_months']:g} months",
        ),
        Line(
            "Upload", "tables", upload_gb, "GB", inputs["upload_gb"], "where the store takes money for what it is given"
        ),
    ]
    return [*lines, *_request_lines(shape, inputs), *_compute_lines(rate, inputs)]


def _request_lines(shape: Shape, inputs: Inputs) -> list[Line]:
    seconds, puts = batch_seconds(shape, inputs), puts_per_batch(shape, inputs)
    batches = MONTH_S / seconds
    polls = inputs["pollers"] * MONTH_S / inputs["poll_s"]
    reads = polls * inputs["gets_per_poll"] + inputs["pollers"] * batches * inputs["gets_per_batch"]
    every = inputs["compaction_s"]
    passes = MONTH_S / every * shape.tables if every else 0.0
    return [
        Line(
            "Batches: PUT",
            "requests",
            batches * puts / 1_000,
            "1,000",
            inputs["put_1000"],
            f"{batches:,.0f} batches, one every {seconds:g} s, of {puts:g} files and commits",
        ),
        Line(
            "Maintenance: PUT",
            "requests",
            passes * 2 / 1_000,
            "1,000",
            inputs["put_1000"],
            f"{shape.tables} tables every {every:g} s at most: a file and a commit" if every else "none",
        ),
        Line(
            "Maintenance: GET",
            "requests",
            batches * max(0.0, puts - shape.tables) / 1_000 if every else 0.0,
            "1,000",
            inputs["get_1000"],
            "each file of a batch is read once to be merged",
        ),
        Line(
            "Followers: LIST",
            "requests",
            polls * inputs["lists_per_poll"] / 1_000,
            "1,000",
            inputs["list_1000"],
            f"{inputs['pollers']:g} looking every {inputs['poll_s']:g} s, {inputs['lists_per_poll']:g} LIST each time",
        ),
        Line(
            "Followers: GET",
            "requests",
            reads / 1_000,
            "1,000",
            inputs["get_1000"],
            f"{inputs['gets_per_poll']:g} GET each time, {inputs['gets_per_batch']:g} for each batch",
        ),
    ]


def _compute_lines(rate: float, inputs: Inputs) -> list[Line]:
    nodes = max(1, math.ceil(rate / inputs["events_per_spark_node"]))
    processes = max(1, math.ceil(inputs["viewers"] / inputs["viewers_per_process"]))
    return [
        Line(
            "Spark",
            "compute",
            nodes * MONTH_H,
            "hours",
            inputs["spark_hour"],
            f"{_nodes(nodes)} for {rate:,.0f} events/s at {inputs['events_per_spark_node']:,.0f} each",
        ),
        Line(
            "Dashboard",
            "compute",
            processes * MONTH_H,
            "hours",
            inputs["dashboard_hour"],
            f"{_nodes(processes)} for {inputs['viewers']:g} viewers at {inputs['viewers_per_process']:g} each",
        ),
        _people(inputs["people_hours"], inputs),
    ]


def _nodes(count: float) -> str:
    return "1 node" if count == 1 else f"{count:g} nodes"


def _people(hours: float, inputs: Inputs) -> Line:
    return Line("People", "people", hours, "hours", inputs["person_hour"], f"{hours:g} hours a month")


def druid_lines(shape: Shape, rate: float, inputs: Inputs) -> list[Line]:
    """Flink and Druid behind the same Kafka: the clustered reference of Druid's documentation, grown with the load."""
    data = max(inputs["druid_data_nodes"], math.ceil(rate / inputs["events_per_druid_node"]))
    query = max(1, math.ceil(inputs["viewers"] / inputs["viewers_per_query_node"]))
    flink = 1 + math.ceil(rate / inputs["events_per_flink_node"])
    month_gb = rate * inputs["event_bytes"] * MONTH_S / GB
    deep_gb = month_gb / inputs["rollup_ratio"] * shape.rollups * inputs["gold_months"]
    raw_gb = month_gb / inputs["compression"] * inputs["retained_months"]
    hours = (("Druid master", 1, "druid_master_hour"), ("Druid data", data, "druid_data_hour"),
             ("Druid query", query, "druid_query_hour"), ("Metadata store, ZooKeeper", 1, "metadata_hour"),
             ("Flink", flink, "flink_hour"))  # fmt: skip
    return [
        *(
            Line(name, "compute", nodes * MONTH_H, "hours", inputs[price], _nodes(nodes))
            for name, nodes, price in hours
        ),
        Line("Deep storage", "tables", deep_gb, "GB-months", inputs["store_gb_month"], "rollups, as above"),
        Line("Raw events", "tables", raw_gb, "GB-months", inputs["store_gb_month"], "what silver is here"),
        _people(inputs["druid_people_hours"], inputs),
    ]


def total(lines: list[Line]) -> float:
    """Dollars a month."""
    return sum(line.amount for line in lines)
