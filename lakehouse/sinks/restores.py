"""Restores: all tables of a pipeline come back to a savepoint, by commits, exactly once.

A restore is decided by one put-if-absent of its plan, `_savepoints/NAME/_restores/<number>.json`. From then on it
*will* happen: whoever opens the tables next, this process or a start of the pipeline, carries it out
(`Restores.finish`), and each table takes each number once, since the commit that does it also sets the table's `txn` of
`APP_ID` to that number.

No history is deleted. A table's commit removes the files that it has gained since and adds those that it has lost; it
carries a batch without records that ends where the savepoint does, so that the chain of offsets goes on from there. The
checkpoint is set aside first: it stands elsewhere, and a start goes on where the tables end.
docs/adr/0031-savepoints.md says why it is built this way.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import obstore
import orjson
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from obstore.exceptions import AlreadyExistsError

from lakehouse import storage
from lakehouse.chain import COMMIT_KEY, Batch, encode
from lakehouse.errors import TableDamaged, TableError
from lakehouse.retirement import RETIRED_APP_ID
from lakehouse.rollups.cover import COVER_KEY, Cover
from lakehouse.sinks.delta_log import ENGINE, Actions, TableLog, parse_actions, table_exists
from lakehouse.sinks.savepoints import live_adds
from lakehouse.storage import commit_path

if TYPE_CHECKING:
    from lakehouse.chain import Add

APP_ID = "lakehouse.restore"
"""`appId` of the `txn` that holds the number of the last restore in a table."""
_DONE = ".done"
_FORMAT = 1
_LOOK_BACK = 1_000
"""Commits in which the restore of a source is searched: after it come only those of maintenance."""


@dataclass(frozen=True)
class Target:
    """What a table is to hold.

    Attributes:
        adds: files that it held at the savepoint.
        retired_ms: as in `SavedTable`.
        source: of a derived table, the table that it is derived from; None for others.
        derived: of a derived table, files made of what it had yet to take in.
        whole_from: of a derived table, as in `Cover`.
    """

    adds: list[Add]
    retired_ms: int | None = None
    source: str | None = None
    derived: tuple[Add, ...] = ()
    whole_from: int | None = None


@dataclass(frozen=True)
class RestorePlan:
    """One restore, decided.

    Attributes:
        number: 1, 2, … in the order in which the pipeline's restores were decided.
        savepoint: its name.
        batch: without records; ends where the savepoint does, and is every table's last one afterwards.
        targets: table → what it is to hold; a derived one comes after its source.
    """

    number: int
    savepoint: str
    batch: Batch
    targets: dict[str, Target]


class Restores:
    """The restores of one pipeline under a resolved root."""

    def __init__(self, root: str, pipeline: str) -> None:
        self._root, self._pipeline = root, pipeline
        self._folder = f"_savepoints/{pipeline}/_restores"

    def next_number(self) -> int:
        """Of the restore that is decided next."""
        paths = self._paths()
        return int(paths[-1].rpartition("/")[2].removesuffix(".json")) + 1 if paths else 1

    def decide(self, plan: RestorePlan) -> bool:
        """Make the plan the pipeline's next restore; False where another one has its number."""
        body = {"format": _FORMAT, **asdict(plan), "batch": plan.batch.to_json()}
        try:
            obstore.put(
                storage.open_store(self._root),
                self._path(plan.number),
                orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS),
                mode="create",
            )
        except AlreadyExistsError:
            return False
        return True

    def pending(self) -> RestorePlan | None:
        """The last restore where it is not in every table yet."""
        paths = self._paths()
        if not paths or self._done(paths[-1]):
            return None
        return self._read(paths[-1])

    def kept(self, table: str) -> set[str]:
        """Paths of a table's files that an unfinished restore still needs."""
        plan = self.pending()
        target = plan.targets.get(table) if plan else None
        return {add["path"] for add in (*target.adds, *target.derived)} if target else set()

    def finish(self) -> RestorePlan | None:
        """Carry out whatever was decided and is not in every table yet; what that was.

        Only for the holder of the driver's lock, and before anyone reads where the tables stand.

        Raises:
            TableError: a table or the plan cannot be read, or a table that the plan names is gone.
        """
        plan = self.pending()
        if plan is None:
            return None
        self._set_checkpoint_aside()
        for name in plan.targets:
            if table_exists(f"{self._root}/{name}"):
                self._commit(name, plan)
        # Not told by the tables alone: one that is made anew later knows of no restore, and must not be given this one.
        obstore.put(storage.open_store(self._root), f"{self._path(plan.number)}{_DONE}", b"")
        return plan

    def _set_checkpoint_aside(self) -> None:
        path, place = f"_checkpoints/{self._pipeline}", storage.machine_root(self._root)
        store = storage.find_store(f"{place}/{path}")
        if store is not None and any(obstore.list(store)):
            storage.move(place, path, f"_set_aside/{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}/{path}")

    def _done(self, path: str) -> bool:
        try:
            obstore.head(storage.open_store(self._root), f"{path}{_DONE}")
        except FileNotFoundError:
            return False
        return True

    def _commit(self, name: str, plan: RestorePlan) -> None:
        """Bring the plan into one table, once; made anew where another commit came between."""
        url = f"{self._root}/{name}"
        while last_restore(url) < plan.number:
            table, store = _opened(url, name), storage.open_store(url)
            actions = self._actions(name, plan, live_adds(store, name, table.version()))
            retired_ms = table.transaction_version(RETIRED_APP_ID)
            if retired_ms is not None:
                actions.insert(1, _txn(RETIRED_APP_ID, plan.targets[name].retired_ms or 0))
            log = TableLog(name, store, table.version(), None, table.schema())
            log.commit(actions, lambda _: False)

    def _actions(self, name: str, plan: RestorePlan, live: list[Add]) -> Actions:
        target = plan.targets[name]
        wanted = {unquote(add["path"]): add for add in (*target.adds, *target.derived)}
        present = {unquote(add["path"]): add for add in live}
        now_ms = time.time_ns() // 1_000_000
        gone = {"deletionTimestamp": now_ms, "dataChange": True, "extendedFileMetadata": True, "partitionValues": {}}
        adds = [add | {"dataChange": True} for path, add in wanted.items() if path not in present]
        removes = [
            {"path": add["path"], "size": add["size"], **gone} for path, add in present.items() if path not in wanted
        ]
        info: dict[str, Any] = {
            "timestamp": now_ms,
            "operation": "RESTORE",
            "operationParameters": {"savepoint": plan.savepoint, "number": str(plan.number)},
            "operationMetrics": {"numRemovedFiles": str(len(removes)), "numRestoredFiles": str(len(adds))},
            "isBlindAppend": False,
            "engineInfo": ENGINE,
        }
        if target.source is None:
            info |= {COMMIT_KEY: plan.batch.to_json(), "userMetadata": encode(plan.batch)}
        else:
            info[COVER_KEY] = self._cover(target, plan).to_json()
        return [
            {"commitInfo": info},
            _txn(APP_ID, plan.number),
            *({"remove": remove} for remove in removes),
            *({"add": add} for add in adds),
        ]

    def _cover(self, target: Target, plan: RestorePlan) -> Cover:
        """A derived table covers its source up to the source's own restore: what came before is in `derived`."""
        assert target.source is not None, "only a derived table has a cover"  # noqa: S101 - see the caller
        url = f"{self._root}/{target.source}"
        table, store = _opened(url, target.source), storage.open_store(url)
        newest = table.version()
        for version in range(newest, max(-1, newest - _LOOK_BACK), -1):
            where = f"table {target.source}, version {version}"
            actions = parse_actions(bytes(obstore.get(store, commit_path(version)).bytes()), where=where)
            if any(_is_of(action, plan.number) for action in actions):
                return Cover(target.source, str(table.metadata().id), version, target.whole_from)
        raise TableDamaged(
            f"the commit of restore {plan.number} is not among the last {_LOOK_BACK}",
            where=f"table {target.source}",
            remedy="restore the table's log from a backup, then restore the savepoint again",
        )

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:020d}.json"

    def _paths(self) -> list[str]:
        store = storage.find_store(f"{self._root}/{self._folder}")
        if store is None:
            return []
        entries = [entry["path"] for listed in obstore.list(store) for entry in listed]
        return sorted(f"{self._folder}/{path}" for path in entries if path.endswith(".json"))

    def _read(self, path: str) -> RestorePlan:
        where = f"{self._root}/{path}"
        try:
            raw = orjson.loads(bytes(obstore.get(storage.open_store(self._root), path).bytes()))
            if raw.pop("format") != _FORMAT:
                raise TableError(
                    "the plan of a restore was written by a later version",
                    where=where,
                    remedy="run the version of this project that wrote it, or a later one",
                )
            raw["batch"] = Batch.from_json(raw["batch"], where=where)
            raw["targets"] = {
                name: Target(**of | {"derived": tuple(of["derived"])}) for name, of in raw["targets"].items()
            }
            return RestorePlan(**raw)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise TableError(
                f"the plan of a restore cannot be read: {error}",
                where=where,
                remedy="restore the file from a backup; nothing was written",
            ) from error


def last_restore(url: str) -> int:
    """Number of the last restore in a table; 0 where there was none."""
    return _opened(url, url).transaction_version(APP_ID) or 0


def restore_batch(saved: Batch, head: Batch, tables: list[str], number: int, joined: dict[str, int]) -> Batch:
    """The batch without records that a restore commits: it ends where the savepoint's does, and comes after `head`.

    Args:
        saved: the savepoint's batch.
        head: the pipeline's last one, before the restore.
        tables: every table of the pipeline's stream.
        number: of the restore.
        joined: tables that the savepoint does not have → the latest `_ingested_at` of any row before them.
    """
    return replace(
        saved,
        query_id=f"restore-{number}-{head.sequence + 1}",
        batch_id=0,
        start=saved.end,
        adds={name: [] for name in tables},
        sequence=head.sequence + 1,
        past=replace(saved.past, joined=saved.past.joined | joined),
    )


def _txn(app_id: str, version: int) -> dict[str, Any]:
    return {"txn": {"appId": app_id, "version": version, "lastUpdated": time.time_ns() // 1_000_000}}


def _opened(url: str, name: str) -> DeltaTable:
    try:
        return DeltaTable(url)
    except (DeltaError, OSError) as error:
        raise TableError(
            f"the table cannot be opened: {error}", where=f"table {name} at {url}", remedy="see `lakehouse doctor`"
        ) from error


def _is_of(action: dict[str, Any], number: int) -> bool:
    txn = action.get("txn", {})
    return bool(txn.get("appId") == APP_ID and txn.get("version") == number)
