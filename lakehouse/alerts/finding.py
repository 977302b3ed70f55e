"""An alert after an evaluation, as it is printed, kept in the journal and told to people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakehouse.alerts.conditions import Reading
    from lakehouse.alerts.standings import Standing, Told
    from lakehouse.config.models import AnyAlert


@dataclass(frozen=True, slots=True)
class Finding:
    """What an evaluation found of one alert.

    Attributes:
        pipeline: its name; name: the alert's.
        alert: as in the file.
        standing: where it stands now.
        reading: its condition.
        runbook: where its runbook is.
        at_s: when, seconds since 1970 UTC.
        silenced_until_s: None where it is not silenced.
        changed: whether its state is another than before.
        told: what people have to be told; None for nothing.
    """

    pipeline: str
    name: str
    alert: AnyAlert
    standing: Standing
    reading: Reading
    runbook: str
    at_s: float
    silenced_until_s: float | None = None
    changed: bool = False
    told: Told | None = None

    def __str__(self) -> str:
        quiet = ", silenced" if self.silenced_until_s else ""
        about = f"{self.alert.kind}, {self.alert.severity}{quiet}"
        return f"{self.standing.state:<8}  {self.name} ({about}): {self.reading.summary}"

    def to_row(self) -> dict[str, Any]:
        """In the columns of `schemas.ALERTS_SCHEMA`."""
        return {
            "time": moment(self.at_s),
            "alert": self.name,
            "kind": self.alert.kind,
            "severity": self.alert.severity,
            "state": self.standing.state,
            "since": moment(self.standing.since_s),
            "value": self.reading.value,
            "limit": self.reading.limit,
            "summary": self.reading.summary,
            "runbook": self.runbook,
            "silenced_until": None if self.silenced_until_s is None else moment(self.silenced_until_s),
        }

    def to_dict(self) -> dict[str, Any]:
        """For scripts: the row, with times as ISO 8601 in UTC."""
        return {
            key: value.isoformat() if isinstance(value, datetime) else value for key, value in self.to_row().items()
        }


def moment(at_s: float) -> datetime:
    """Seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(at_s, UTC)
