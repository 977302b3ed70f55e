"""Every error this project raises on purpose, each with what happened, where, and what to do.

* LakehouseError                 exit 1
  x ConfigError                  exit 2    a file or an argument is wrong; nothing was read or written
    + SuiteError                           an expectation suite cannot be loaded or compiled
  x EnvironmentProblem           exit 2    Java or the jars are missing on this machine
  x SourceUnavailable            exit 75   Kafka cannot be reached now; trying again can help
    + RegistryUnavailable                  the schema registry cannot be reached now
  x StorageUnavailable           exit 75   the tables' store cannot be reached now; trying again can help
  x StorageError                 exit 1    the tables' store refuses this program, or cannot hold tables
  x SourceError                  exit 1    the topic is not what the tables remember, or cannot be read
    + OtherTopic                           the pipeline's file names another topic than the tables do
    + TopicRecreated                       another topic stands under the name that the tables remember
    + TopicTruncated                       the topic ends before the tables do
    + RecordsExpired                       retention removed records before they were read
  x ChainError                   exit 1    offsets of a batch do not follow those in a table's last commit
    + SecondDriver                         another driver of the same pipeline runs or was quicker
  x CheckpointError              exit 1    Spark's checkpoint and the tables disagree, or it is damaged
    + CheckpointDamaged                    a file of it is missing or cannot be read
    + StaleCheckpoint                      an old copy: this pipeline's, but from another time than the tables
    + ForeignCheckpoint                    it belongs to another query
  x TableError                   exit 1    a Delta table is not the one expected, or cannot be used
    + UnknownHistory                       it holds data, and no commit says which offsets it covers
    + TableDamaged                         its log or its data files are incomplete
    + TableLost                            it is gone, or has missed batches, while the others went on
    + SchemaChanged                        the event's fields have changed in a way that the policy refuses
  x QualityError                 exit 1    a batch does not meet an expectation that stops the pipeline
  x DeliveryError                exit 1    a receiver did not take a notification
  x ReconcileError               exit 1    topic and tables cannot be compared
  x TooStale                     exit 75   the tables are further behind than the question allows
  x TooSlow                      exit 75   a question was not answered within the time that it had
  x TooBusy                      exit 75   as many questions as may be at once are being answered already
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


class RegistryUnavailable(SourceUnavailable):
    """The schema registry cannot be reached now, and records may be of schemas that only it knows."""


class StorageUnavailable(LakehouseError):
    """The tables' store cannot be reached now. Nothing is lost; a later start goes on where the tables end."""

    exit_code = 75
    retriable = True


class StorageError(LakehouseError):
    """The tables' store refuses this program, has no such bucket, or cannot hold tables."""


class SourceError(LakehouseError):
    """The topic is not the one that the tables remember: gone, made anew, or trimmed by retention."""


class OtherTopic(SourceError):
    """The pipeline's file names another topic than the one whose records the tables hold."""


class TopicRecreated(SourceError):
    """The topic was deleted and made anew: the same name and offsets mean other records."""


class TopicTruncated(SourceError):
    """The topic ends before the tables do: records that were read are no longer there."""


class RecordsExpired(SourceError):
    """Retention removed records before they were read."""


class ChainError(LakehouseError):
    """The offsets of a batch do not follow those in the last commit of a table."""


class SecondDriver(ChainError):
    """Another driver of the same pipeline runs, or committed first."""


class CheckpointError(LakehouseError):
    """Spark's checkpoint is damaged, or it and the tables tell different histories."""


class CheckpointDamaged(CheckpointError):
    """A file of the checkpoint is missing or cannot be read."""


class StaleCheckpoint(CheckpointError):
    """The checkpoint is this pipeline's, but from another time than the tables."""


class ForeignCheckpoint(CheckpointError):
    """The checkpoint belongs to another query than the tables."""


class TableError(LakehouseError):
    """A Delta table is missing, damaged, or not the one that was expected."""


class UnknownHistory(TableError):
    """A table holds data, and none of its commits says which Kafka offsets it covers."""


class TableDamaged(TableError):
    """A table's log or data files are incomplete."""


class TableLost(TableError):
    """A table is gone, or has missed batches, while the pipeline's other tables went on."""


class SchemaChanged(TableError):
    """The event's fields are not those that the tables were made for, and `evolution` refuses the change."""


class QualityError(LakehouseError):
    """A batch does not meet an expectation whose `meta.stream` is `fail`. Nothing of it was committed."""


class DeliveryError(LakehouseError):
    """A receiver did not take a notification. The message never holds the receiver's address."""


class ReconcileError(LakehouseError):
    """Topic and tables cannot be compared."""


class TooStale(LakehouseError):
    """The tables are further behind than the question allows; later they may not be."""

    exit_code = 75
    retriable = True


class TooSlow(LakehouseError):
    """A question was not answered within the time that it had; a narrower one may be, or the same one later."""

    exit_code = 75
    retriable = True


class TooBusy(LakehouseError):
    """As many questions as may be at once are being answered or wait already."""

    exit_code = 75
    retriable = True


def first_line(error: BaseException | str) -> str:
    """What an error of another library says, without its stack; its type where it says nothing."""
    found = (line.strip() for line in str(error).splitlines() if line.strip())
    return next(found, type(error).__name__ if isinstance(error, BaseException) else "no message")[:300]
