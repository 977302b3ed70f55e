"""Prices and assumptions: every figure that a cost is made of, with its unit, its date and what it rests on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml

from lakehouse.errors import ConfigError, first_line
from lakehouse.quality.mistakes import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_KEYS = ("value", "unit", "set", "basis")
_DIVISORS = frozenset(
    {"event_bytes", "compression", "rollup_ratio", "batch_s", "poll_s", "events_per_spark_node", "viewers_per_process"}
    | {"events_per_druid_node", "events_per_flink_node", "viewers_per_query_node"}
)
"""Inputs that something is divided by, so that they have to be more than 0."""


@dataclass(frozen=True)
class Figure:
    """One input.

    Attributes:
        value: of it; unit: in words.
        set: the day on which it was put down; basis: what it rests on.
    """

    value: float
    unit: str
    set: str
    basis: str


@dataclass(frozen=True)
class Inputs:
    """All of them: name → figure. `inputs["store_gb_month"]` is a value."""

    prices: dict[str, Figure]
    assumptions: dict[str, Figure]

    def __getitem__(self, name: str) -> float:
        return self.figure(name).value

    def figure(self, name: str) -> Figure:
        """A price or an assumption."""
        return self.prices[name] if name in self.prices else self.assumptions[name]

    def having(self, basis: str, **values: float) -> Inputs:
        """The same with other values; `basis` says where they are from."""
        today = date.today().isoformat()  # noqa: DTZ011 - a day on the user's calendar
        changed = {
            name: replace(self.figure(name), value=value, set=today, basis=basis) for name, value in values.items()
        }
        return Inputs(
            {name: changed.get(name, figure) for name, figure in self.prices.items()},
            {name: changed.get(name, figure) for name, figure in self.assumptions.items()},
        )


def load_inputs(path: Path | None = None) -> Inputs:
    """The shipped figures, those in the user's file put over them.

    Args:
        path: a YAML file with `prices` and `assumptions`; each entry is a number, or has `value` and what else the
            shipped ones have.

    Raises:
        ConfigError: the file cannot be read, or names something that is no input, or a value that is no number.
    """
    shipped = yaml.safe_load(files("lakehouse.cost").joinpath("prices.yaml").read_text(encoding="utf-8"))
    inputs = Inputs(
        *({name: _figure(of, "") for name, of in shipped[part].items()} for part in ("prices", "assumptions"))
    )
    if path is None:
        return inputs
    given = _read(path)
    known: dict[str, dict[str, Figure]] = {"prices": dict(inputs.prices), "assumptions": dict(inputs.assumptions)}
    for part, entries in given.items():
        if part not in known or not isinstance(entries, dict):
            raise ConfigError(f"{part!r} is no part of a file of prices", where=str(path),
                              remedy="write prices: and assumptions:, each with names and values")  # fmt: skip
        for name, entry in entries.items():
            if name not in known[part]:
                remedy = did_you_mean(str(name), known[part], "lakehouse/cost/prices.yaml has all names")
                raise ConfigError(f"{part}.{name} is no input", where=str(path), remedy=remedy)
            values = entry if isinstance(entry, dict) else {"value": entry}
            before = known[part][name]
            base = {"unit": before.unit, "set": "no date", "basis": f"{path.name}"}
            figure = _figure(base | values, f"{path}: {part}.{name}")
            if name in _DIVISORS and not figure.value:
                where, remedy = f"{path}: {part}.{name}", "write a number of more than 0"
                raise ConfigError("the value is 0, and something is divided by it", where=where, remedy=remedy)
            known[part][name] = figure
    return Inputs(known["prices"], known["assumptions"])


def _read(path: Path) -> Mapping[str, Any]:
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"the prices cannot be read: {first_line(error)}", where=str(path), remedy="give a YAML file"
        ) from error
    if not isinstance(given, dict):
        raise ConfigError("the prices are no YAML mapping", where=str(path), remedy="write prices: and assumptions:")
    return given


def _figure(entry: Mapping[str, Any], where: str) -> Figure:
    value = entry.get("value")
    unknown = [key for key in entry if key not in _KEYS]
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
    if unknown or not number:
        what = f"unknown key {unknown[0]!r}" if unknown else f"the value is {value!r}"
        raise ConfigError(what, where=where, remedy="write a number of 0 or more, or value, unit, set and basis")
    return Figure(float(value), str(entry["unit"]), str(entry["set"]), str(entry["basis"]))  # type: ignore[arg-type]
