"""Replays, exactly once: rows that a later judgement accepted go from quarantine to silver and gold.

A replay is decided by one put-if-absent: its plan, `_replays/NAME/<number>.json`, names every row that was judged and
the files for silver and gold, which wait beside it, out of reach of any vacuum. From then on it *will* happen: whoever
comes next, this process or another, carries it out, and each table takes each number once, because the commit that
does it also sets the table's `txn` of `APP_ID` to that number, in the one put-if-absent that makes it a version.
Silver and gold come first, so that at no moment a record is in no table; quarantine follows: accepted rows leave it,
refused ones gain an entry in `_attempts`.

A replay's commit carries no batch, so the pipeline's chain of offsets steps over it as over maintenance.
docs/adr/0017-replay-by-plan.md says why it is built this way.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from obstore.exceptions import AlreadyExistsError

from lakehouse.errors import TableError, TableLost
from lakehouse.schemas import TIMESTAMP, VERDICT
from lakehouse.sinks.delta_log import ENGINE, Actions, TableLog, commit_info, table_exists
from lakehouse.sinks.files import conform, write_file
from lakehouse.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from lakehouse.chain import Add
    from lakehouse.config.models import Pipeline

APP_ID = "lakehouse.replay"
"""`appId` of the `txn` that holds the number of the last replay in a table."""
OUTCOMES = pa.schema(
    [
        ("_topic", pa.string()),
        ("_partition", pa.int32()),
        ("_offset", pa.int64()),
        ("_ingested_at", TIMESTAMP),
        ("errors", pa.list_(VERDICT)),
    ]
)
"""What became of each judged row: `errors` is null where it was accepted."""

_FORMAT = 1
_READERS = 8
_FILES_AT_ONCE = 64
_ROWS_PER_FILE = 200_000

Action = dict[str, Any]
Position = tuple[str, int, int]
"""Topic, partition, offset."""
Key = tuple[str, int, int, int]
"""A row of quarantine: its position, and when it came there (µs since 1970), since a topic that was made anew has
other records at the same positions."""


@dataclass(frozen=True)
class Plan:
    """One replay, decided.

    Attributes:
        number: 1, 2, … in the order in which the pipeline's replays were decided.
        id: how its user calls it.
        token: tells two plans of one number apart, and names the folder with the plan's files.
        at: when it was decided, ISO 8601, UTC.
        suite_sha256: fingerprint of the suite that judged.
        repair: name of the function that repaired the values; repair_sha256: of its source; None without one.
        accepted: rows that go to silver; refused: rows that stay.
        adds: silver and each gold table → the files that it receives.
    """

    number: int
    id: str
    token: str
    at: str
    suite_sha256: str
    repair: str | None
    repair_sha256: str | None
    accepted: int
    refused: int
    adds: dict[str, list[Add]]


class Replays:
    """The replays of one pipeline: what was decided, and carrying it out."""

    def __init__(self, root: str, pipeline: Pipeline) -> None:
        self._root = root
        self._folder = f"_replays/{pipeline.name}/"
        self._store = open_store(root)
        self._quarantine = f"quarantine/{pipeline.name}"
        gold = [f"gold/{name}" for name, _, _ in pipeline.rollup_tables()]
        self._named = {f"silver/{pipeline.name}", self._quarantine, *gold}
        # Half of the time for which maintenance leaves a file alone that no commit names.
        self._fresh_ms = round(pipeline.maintenance.retention.total_seconds() * 500)

    def plans(self) -> list[Plan]:
        """Every replay that was decided, in order.

        Raises:
            TableError: a plan is damaged, or of a later format.
        """
        return [self._read(path) for path in self._paths()]

    def touched(self, number: int) -> set[str]:
        """The tables that the replay `number` belongs into; none for number 0."""
        if not number:
            return set()
        return {*self._read(self._path(number)).adds, self._quarantine}

    def behind(self) -> tuple[Plan, list[str]] | None:
        """The last plan and the tables that it has not reached yet; None where it is in all of them.

        Raises:
            TableError: a table or a plan cannot be read.
        """
        plan = self._last()
        if plan is None:
            return None
        present = [name for name in self._into(plan) if table_exists(f"{self._root}/{name}")]
        left = [name for name in present if last_replay(open_table(self._root, name)) < plan.number]
        return (plan, left) if left else None

    def require_none(self) -> None:
        """Refuse replays whose tables are gone: new tables would take the last one for theirs.

        Raises:
            TableLost: there are any.
        """
        if paths := self._paths():
            raise TableLost(
                f"{len(paths)} replays of quarantine are recorded, but the tables hold no batch",
                where=f"{self._root}/{self._folder}",
                remedy="restore the tables from a backup; or `lakehouse recover` moves them aside, to begin anew",
            )

    def _last(self) -> Plan | None:
        paths = self._paths()
        return self._read(paths[-1]) if paths else None

    def _into(self, plan: Plan) -> list[str]:
        """The plan's tables in the order in which they take it, without any that left the pipeline and is gone."""
        names = [*plan.adds, self._quarantine]
        return [name for name in names if name in self._named or table_exists(f"{self._root}/{name}")]

    def _path(self, number: int) -> str:
        return f"{self._folder}{number:020d}.json"

    def _paths(self) -> list[str]:
        found = obstore.list_with_delimiter(self._store, self._folder)["objects"]
        return sorted(path for entry in found if (path := entry["path"]).endswith(".json"))

    def _read(self, path: str) -> Plan:
        try:
            raw = orjson.loads(bytes(obstore.get(self._store, path).bytes()))
            if raw.pop("format") != _FORMAT:
                raise TableError(
                    "the plan of a replay was written by a later version",
                    where=f"{self._root}/{path}",
                    remedy="run the version of this project that wrote it, or a later one",
                )
            return Plan(**raw)
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise TableError(
                f"the plan of a replay cannot be read: {error}",
                where=f"{self._root}/{path}",
                remedy="restore the file from a backup; nothing was written",
            ) from error

    def stage(self, token: str) -> str:
        """Root of the files of the plan `token`, laid out as under the tables' own root."""
        return f"{self._root}/{self._folder}{token}"

    def decide(self, plan: Plan, outcomes: pa.Table) -> bool:
        """Make the plan the pipeline's next replay; False where another one has its number.

        The plan's rows have to be chosen after `finish` had carried out every plan before it: then all of them are
        still in quarantine, since nothing but a replay moves rows out of it.

        Args:
            plan: its files stand under `stage`.
            outcomes: in the shape of `OUTCOMES`, a row for each that was judged.
        """
        path = self._path(plan.number)
        buffer = pa.BufferOutputStream()
        pq.write_table(outcomes, buffer, compression="zstd")
        obstore.put(self._store, self._outcomes_path(plan), buffer.getvalue().to_pybytes())
        body = orjson.dumps({"format": _FORMAT, **asdict(plan)})
        try:
            obstore.put(self._store, path, body, mode="create")
        except AlreadyExistsError:
            if self._read(path).token != plan.token:  # else our own, where the store's first answer was lost
                obstore.delete(self._store, self._outcomes_path(plan))
                return False
        return True

    def discard(self, token: str) -> None:
        """Delete the files of a plan that was not decided, or is in every table; its outcomes stay as its history."""
        for entry in obstore.list(self._store, f"{self._folder}{token}/").collect():
            with suppress(FileNotFoundError):  # another process that finished the plan may be at it too
                obstore.delete(self._store, entry["path"])

    def outcomes(self, plan: Plan) -> dict[Key, list[Any] | None]:
        """Every row that the plan judged → the reasons against it; None where it was accepted."""
        rows = read_parquet(self._store, self._outcomes_path(plan))
        return dict(zip(_keys(rows), rows["errors"].to_pylist(), strict=True))

    def _outcomes_path(self, plan: Plan) -> str:
        return f"{self._folder}{plan.token}.parquet"

    def finish(self, *, without: Collection[str] = ()) -> int:
        """Carry out whatever was decided and is not yet in every table; the number of the last replay.

        Only the last one can be unfinished: none is decided before those ahead of it are done.

        Args:
            without: tables that are about to join the pipeline, behind every replay so far.

        Raises:
            TableError: a table or a plan cannot be read, or another writer changed a table's columns.
        """
        plan = self._last()
        if plan is None:
            return 0
        for name in self._into(plan):
            if name == self._quarantine:
                self._commit(name, plan, partial(self._without_accepted, plan))
            elif name not in without:
                self._commit(name, plan, partial(self._moved, plan, name, plan.adds[name]))
        self.discard(plan.token)
        return plan.number

    def _commit(self, name: str, plan: Plan, actions_for: Callable[[DeltaTable], Actions]) -> None:
        """Bring the plan into one table, once; `actions_for` a state of it are made anew where the state moved on."""
        while True:
            table = open_table(self._root, name)
            if last_replay(table) >= plan.number:
                return
            began_ms = time.time_ns() // 1_000_000
            try:
                actions = actions_for(table)
            except FileNotFoundError as error:
                if open_table(self._root, name).version() > table.version():
                    continue  # another process finished the plan and discarded its files, or a file was replaced
                raise TableError(
                    f"a file that replay {plan.id} needs is gone: {error}",
                    where=f"{self._root}/{self._folder} and table {name}",
                    remedy="restore it from a backup; the replay goes on where it stopped",
                ) from error
            log = TableLog(name, open_store(f"{self._root}/{name}"), table.version(), None, table.schema())
            if log.commit([*_head(plan, actions), *actions], partial(self._admits, plan, actions, began_ms)):
                return

    def _admits(self, plan: Plan, actions: Actions, began_ms: int, interposed: Actions) -> bool:
        """Whether the actions still hold behind a commit that came between; if not, they are made anew.

        They do not where that commit is this very replay, by another process; where it removed a file that they
        remove; and where so much time has passed that a vacuum may take the files that they add.

        Raises:
            TableError: the commit changed the table's columns or protocol.
        """
        if any("metaData" in action or "protocol" in action for action in interposed):
            raise TableError(
                "another writer changed the table's columns or protocol meanwhile",
                where=f"a table of {self._root}",
                remedy="stop the other writer and replay again",
            )
        removed = {path for action in interposed if (path := action.get("remove", {}).get("path"))}
        return (
            all(_replay_number(action) < plan.number for action in interposed)
            and not any(action.get("remove", {}).get("path") in removed for action in actions)
            and commit_info(interposed).get("timestamp", 0) <= began_ms + self._fresh_ms
        )

    def _moved(self, plan: Plan, name: str, adds: list[Add], _: DeltaTable) -> Actions:
        """The plan's files, put into the table's folder just before the commit that names them."""
        for add in adds:
            # Not a copy of the store's own: on a local disk that is a link as old as the file, and vacuum goes by age.
            place = f"{name}/{add['path']}"
            try:
                body = obstore.get(self._store, f"{self._folder}{plan.token}/{place}").bytes()
            except FileNotFoundError:
                # The plan was in every table, and a recovery has set this table's commit aside as torn.
                body = obstore.get(self._store, place).bytes()
            obstore.put(self._store, place, bytes(body))
        return [{"add": add} for add in adds]

    def _without_accepted(self, plan: Plan, table: DeltaTable) -> Actions:
        """Quarantine's files that hold judged rows, replaced by such without the accepted ones."""
        outcomes = self.outcomes(plan)
        schema = pa.schema(table.schema().to_arrow())
        attempt = {
            "replay_id": plan.id,
            "suite_sha256": plan.suite_sha256,
            "repair": plan.repair,
            "repair_sha256": plan.repair_sha256,
            "at": datetime.fromisoformat(plan.at),
        }
        actions: Actions = []
        waiting: list[pa.Table] = []

        def flush() -> None:
            rows = pa.concat_tables(waiting)
            actions.append({"add": write_file(self._root, self._quarantine, rows, "_timestamp")})
            waiting.clear()

        for file, rows in self._files_with(table, outcomes):
            kept = _after(conform(rows, schema), outcomes, attempt)
            actions.append(_remove(file))
            if kept.num_rows:
                waiting.append(kept)
            if sum(part.num_rows for part in waiting) >= _ROWS_PER_FILE:
                flush()
        if waiting:
            flush()
        return actions

    def _files_with(self, table: DeltaTable, wanted: dict[Key, Any]) -> Iterator[tuple[dict[str, Any], pa.Table]]:
        """Live files that hold any of the wanted rows, a few at a time."""
        store = open_store(f"{self._root}/{self._quarantine}")
        offsets: dict[int, list[int]] = {}
        for _, partition, offset, _ in wanted:
            offsets.setdefault(partition, []).append(offset)
        ordered = {partition: np.sort(np.array(of, dtype=np.int64)) for partition, of in offsets.items()}
        files = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        possible = [file for file in files if _may_hold(file, ordered)]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="quarantine") as pool:
            for first in range(0, len(possible), _FILES_AT_ONCE):
                some = possible[first : first + _FILES_AT_ONCE]
                tables = pool.map(lambda file: read_parquet(store, file["path"]), some)
                for file, rows in zip(some, tables, strict=True):
                    if any(key in wanted for key in _keys(rows)):
                        yield file, rows


def open_table(root: str, name: str) -> DeltaTable:
    """The newest state of a table.

    Raises:
        TableError: it is missing or damaged.
    """
    try:
        return DeltaTable(f"{root}/{name}")
    except (DeltaError, OSError) as error:
        raise TableError(
            f"the table cannot be opened: {error}", where=f"{root}/{name}", remedy="run the pipeline first"
        ) from error


def last_replay(table: DeltaTable) -> int:
    """Number of the last replay in this state of the table; 0 where there was none."""
    return table.transaction_version(APP_ID) or 0


def reached(number: int) -> Action:
    """The action by which a commit says that the table has every replay up to `number`."""
    return {"txn": {"appId": APP_ID, "version": number, "lastUpdated": time.time_ns() // 1_000_000}}


def positions(rows: pa.Table) -> list[Position]:
    """Where each row stood in Kafka."""
    columns = (rows[name].to_pylist() for name in ("_topic", "_partition", "_offset"))
    return list(zip(*columns, strict=True))


def _keys(rows: pa.Table) -> list[Key]:
    columns = (rows["_topic"], rows["_partition"], rows["_offset"], rows["_ingested_at"].cast(pa.int64()))
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def read_parquet(store: Any, path: str) -> pa.Table:  # noqa: ANN401 - any of obstore's stores
    """The rows of one file."""
    return pq.ParquetFile(pa.BufferReader(pa.py_buffer(obstore.get(store, path).bytes()))).read(use_threads=False)


def _after(rows: pa.Table, outcomes: dict[Key, list[Any] | None], attempt: dict[str, Any]) -> pa.Table:
    """Rows of quarantine once the outcomes hold: without the accepted, with one more attempt at the refused."""
    found = _keys(rows)
    accepted = [key in outcomes and outcomes[key] is None for key in found]
    attempts = [
        [*(before or []), {**attempt, "errors": errors}] if (errors := outcomes.get(key)) is not None else before
        for key, before in zip(found, rows["_attempts"].to_pylist(), strict=True)
    ]
    index = rows.schema.get_field_index("_attempts")
    field = rows.schema.field(index)
    return rows.set_column(index, field, pa.array(attempts, field.type)).filter(pc.invert(pa.array(accepted)))


def _may_hold(file: dict[str, Any], offsets: dict[int, np.ndarray]) -> bool:
    """Whether the file's statistics leave room for any of the offsets; a file without them may hold any row."""
    first, last = file.get("min._offset"), file.get("max._offset")
    lowest, highest = file.get("min._partition"), file.get("max._partition")
    if first is None or last is None or lowest is None or highest is None:
        return True
    return any(
        np.searchsorted(of, last, side="right") > np.searchsorted(of, first, side="left")
        for partition, of in offsets.items()
        if lowest <= partition <= highest
    )


def _remove(file: dict[str, Any]) -> Action:
    return {
        "remove": {
            "path": file["path"],
            "deletionTimestamp": time.time_ns() // 1_000_000,
            "dataChange": True,
            "extendedFileMetadata": True,
            "partitionValues": {},
            "size": file["size_bytes"],
        }
    }


def _head(plan: Plan, actions: Actions) -> Actions:
    now_ms = time.time_ns() // 1_000_000
    told = {"replay": plan.id, "number": plan.number, "suite_sha256": plan.suite_sha256, "repair": plan.repair}
    return [
        {
            "commitInfo": {
                "timestamp": now_ms,
                "operation": "REPLAY",
                "operationParameters": {name: str(value) for name, value in told.items()},
                "isBlindAppend": not any("remove" in action for action in actions),
                "engineInfo": ENGINE,
                "userMetadata": orjson.dumps(told).decode(),
            }
        },
        reached(plan.number),
    ]


def _replay_number(action: Action) -> int:
    txn = action.get("txn", {})
    return int(txn["version"]) if txn.get("appId") == APP_ID else 0
