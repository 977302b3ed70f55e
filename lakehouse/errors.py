"""Every error this project raises on purpose, each with what happened, where, and what to do.

* LakehouseError                 exit 1
  x ConfigError                  exit 2    a file or an argument is wrong; nothing was read or written
    + SuiteError                           an expectation suite cannot be loaded or compiled
  x EnvironmentProblem           exit 2    Java or the jars are missing on this machine
  x SourceUnavailable            exit 75   Kafka cannot be reached now; trying again can help
  x SourceError                  exit 1    the topic is not what the tables remember (gone, made anew, trimmed)
  x ChainError                   exit 1    offsets of a batch do not follow those in a table's last commit
  x CheckpointError              exit 1    Spark's checkpoint and the tables disagree, or it is damaged
  x TableError                   exit 1    a Delta table is missing, damaged, or not the one expected
  x QualityError                 exit 1    a batch does not meet an expectation that stops the pipeline
  x ReconcileError               exit 1    topic and tables cannot be compared
"""

from __future__ import annotations

from typing import ClassVar


class LakehouseError(Exception):
    """Root of the tree. `str(error)` is what a person reads; it never needs a traceback beside it.

    Args:
        what: what happened, in one sentence, with the values that matter.
        where: file and line, key, table, or topic and offsets.
        remedy: what to do next.
    """

    exit_code: ClassVar[int] = 1
    retriable: ClassVar[bool] = False

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.remedy:
            lines.append(f"  to do: {self.remedy}")
        return "\n".join(lines)


class ConfigError(LakehouseError):
    """A file or an argument is wrong. Raised before anything is read from Kafka or written."""

    exit_code = 2


class SuiteError(ConfigError):
    """An expectation suite cannot be loaded, or holds an expectation that has no meaning per row."""


class EnvironmentProblem(LakehouseError):
    """This machine lacks something that only its owner can install."""

    exit_code = 2


class SourceUnavailable(LakehouseError):
    """Kafka cannot be reached now. Nothing is lost; a later start goes on where the tables end."""

    exit_code = 75
    retriable = True


class SourceError(LakehouseError):
    """The topic is not the one that the tables remember: gone, made anew, or trimmed by retention."""


class ChainError(LakehouseError):
    """The offsets of a batch do not follow those in the last commit of a table."""


class CheckpointError(LakehouseError):
    """Spark's checkpoint is damaged, or it and the tables tell different histories."""


class TableError(LakehouseError):
    """A Delta table is missing, damaged, or not the one that was expected."""


class QualityError(LakehouseError):
    """A batch does not meet an expectation whose `meta.stream` is `fail`. Nothing of it was committed."""


class ReconcileError(LakehouseError):
    """Topic and tables cannot be compared."""
