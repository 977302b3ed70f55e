"""The files of a Delta log as they lie there, for those who look for damage: unlike the sink, they list."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import obstore
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.chain import COMMIT_KEY, Batch
from lakehouse.errors import LakehouseError, first_line
from lakehouse.sinks.delta_log import commit_info, parse_actions, require_whole
from lakehouse.storage import commit_path

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_FILE = re.compile(r"_delta_log/(\d{20})\.(json|checkpoint\.(?:.+\.)?parquet)")
_TAIL, _ENDING = 16_384, 8
"""Bytes of a Parquet file's end that are read first, and of what follows its footer."""
_LAST_CHECKPOINT = "_delta_log/_last_checkpoint"


@dataclass
class LogFiles:
    """What lies in a table's folder.

    Attributes:
        store: the table's folder.
        name: how messages call the table.
        commits: versions with a JSON, ascending.
        checkpoints: version → paths of its Parquet checkpoint, ascending.
        data: path → bytes of every Parquet file outside the log.
        hint: the version that `_last_checkpoint` names; None where there is no such file.
        hint_problem: why that file cannot be used.
    """

    store: ObjectStore
    name: str
    commits: list[int] = field(default_factory=list)
    checkpoints: dict[int, list[str]] = field(default_factory=dict)
    data: dict[str, int] = field(default_factory=dict)
    hint: int | None = None
    hint_problem: str | None = None

    @classmethod
    def scan(cls, store: ObjectStore, name: str) -> LogFiles:
        """List a table's folder, once."""
        found = cls(store, name)
        for listed in obstore.list(store):
            for entry in listed:
                path = entry["path"]
                match = _FILE.fullmatch(path)
                if match and match[2] == "json":
                    found.commits.append(int(match[1]))
                elif match:
                    found.checkpoints.setdefault(int(match[1]), []).append(path)
                elif path.endswith(".parquet") and not path.startswith("_"):
                    found.data[path] = entry["size"]
        found.commits.sort()
        found.checkpoints = dict(sorted(found.checkpoints.items()))
        found._read_hint()
        return found

    def _read_hint(self) -> None:
        try:
            body = bytes(obstore.get(self.store, _LAST_CHECKPOINT).bytes())
        except FileNotFoundError:
            return
        try:
            self.hint = int(orjson.loads(body)["version"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            self.hint_problem = f"cannot be read ({error})"
            return
        if self.hint not in self.checkpoints:
            self.hint_problem = f"names a checkpoint at version {self.hint}, which is not there"

    @property
    def newest(self) -> int:
        """The last version; -1 for an empty log."""
        return max([*self.commits[-1:], *list(self.checkpoints)[-1:]], default=-1)

    def missing(self) -> list[int]:
        """Versions that a reader needs and whose JSON is not there: those after the newest checkpoint."""
        first = max(self.checkpoints, default=-1) + 1
        return sorted(set(range(first, self.newest + 1)) - set(self.commits))

    def actions(self, version: int) -> list[dict[str, Any]]:
        """The actions of one commit.

        Raises:
            TableDamaged: it is torn, empty or cut.
        """
        where = f"table {self.name}, version {version}"
        actions = parse_actions(bytes(obstore.get(self.store, commit_path(version)).bytes()), where=where)
        recorded = commit_info(actions).get(COMMIT_KEY)
        if recorded is not None:
            require_whole(Batch.from_json(recorded, where=where), actions, self.name, where=where)
        return actions

    @property
    def problems(self) -> dict[int, str]:
        """Version → what is wrong with its JSON."""
        return self._read_commits[0]

    def removed(self) -> set[str]:
        """Paths that the log remembers as removed, as far as it can be read: no orphans, vacuum takes them."""
        return self._read_commits[1] | self._removed_in_checkpoint()

    @cached_property
    def _read_commits(self) -> tuple[dict[int, str], set[str]]:
        """(version → what is wrong with its JSON, paths that the readable commits remove)."""
        problems: dict[int, str] = {}
        removed: set[str] = set()
        for version in self.commits:
            try:
                removed.update(action["remove"]["path"] for action in self.actions(version) if "remove" in action)
            except LakehouseError as error:
                problems[version] = error.what
        return problems, removed

    def redundant(self) -> list[tuple[str, str]]:
        """(path, what is wrong) of damaged files that only shorten a reader's way and can go.

        `_last_checkpoint` where it misleads, and the newest checkpoint where it cannot be read and every commit
        since an older one, or since the beginning, is there.
        """
        gone: list[tuple[str, str]] = []
        if self.checkpoints:
            newest, *older = sorted(self.checkpoints, reverse=True)
            parts = self.checkpoints[newest]
            problem = next((problem for part in parts if (problem := self.parquet_problem(part))), None)
            needed = range(max(older, default=-1) + 1, newest + 1)
            if problem and set(needed) <= set(self.commits):
                gone += [(part, f"cannot be read ({problem})") for part in parts]
        if self.hint_problem or (gone and self.hint is not None):
            gone.append((_LAST_CHECKPOINT, self.hint_problem or "names the checkpoint that cannot be read"))
        return gone

    def parquet_problem(self, path: str) -> str | None:
        """Why a Parquet file's footer cannot be read; None where it can."""
        try:
            size = obstore.head(self.store, path)["size"]
            tail = bytes(obstore.get_range(self.store, path, start=max(0, size - _TAIL), end=size)) if size else b""
            # A footer ends with its own length, 4 bytes, and a mark; it is read from the file's end alone.
            length = int.from_bytes(tail[-_ENDING:-4], "little") + _ENDING
            if tail.endswith(b"PAR1") and len(tail) < length <= size:
                tail = bytes(obstore.get_range(self.store, path, start=size - length, end=size))
            pq.read_metadata(io.BytesIO(tail))
        except (pa.ArrowException, OSError) as error:
            return first_line(error)
        return None

    def _removed_in_checkpoint(self) -> set[str]:
        paths: set[str] = set()
        for part in self.checkpoints.get(max(self.checkpoints, default=-1), []):
            if self.parquet_problem(part) is None:
                body = bytes(obstore.get(self.store, part).bytes())
                removes = pq.read_table(io.BytesIO(body), columns=["remove.path"])
                if "remove" in removes.column_names:
                    paths.update(value["path"] for value in removes["remove"].to_pylist() if value and value["path"])
        return paths
