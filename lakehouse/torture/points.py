"""Named places in the product's code at which a victim can be killed, and the patching that gets it killed there.

The product knows nothing of this: a victim (`lakehouse.torture.victim`, or the simulation in the tests) patches
functions in its own process. A point is one line in `POINTS`. Code that runs in Spark's Python workers is
reached through `TaskPatched`, which takes the place of `OnePass` in the driver and patches the worker in which
it wakes up.
"""

from __future__ import annotations

import functools
import importlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import orjson
import psutil

from lakehouse.sinks.onepass import OnePass

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

VARIABLE = "LAKEHOUSE_TORTURE"
"""Environment variable that carries a victim's orders, as JSON; read here only."""

Die = Callable[[], NoReturn]
Side = Literal["driver", "task", "maintenance"]
"""Which process: the pipeline's driver, a Python worker of Spark, or the child that keeps the tables small."""


@dataclass(frozen=True)
class Point:
    """One place.

    Attributes:
        name: how schedules and reports call it.
        what: what has happened when the victim dies here.
        target: `module:Class.method` of the product.
        when: before or after the call; `among`: in it, when some of its tables are committed.
        side: the process that dies first; the whole tree follows at once.
        most: largest occurrence that a schedule draws.
        only: of the calls, those that count, told by their arguments.
    """

    name: str
    what: str
    target: str
    when: Literal["before", "after", "among"]
    side: Side = "driver"
    most: int = 6
    only: Callable[[tuple[Any, ...]], bool] = lambda _: True


_HANDLER = "lakehouse.streaming.query:Handler.__call__"
_SINK = "lakehouse.sinks.sink:Sink"
_MAINTENANCE = "lakehouse.maintenance"

POINTS = {
    point.name: point
    for point in (
        Point("opening", "a start has found the tables, a half-committed batch is not finished",
              "lakehouse.sinks.sink:find_tables", "after", most=1),
        Point("planned", "offsets/N is written, the job has not begun", _HANDLER, "before"),
        Point("between_files", "a task has written one of its files, not yet all",
              "lakehouse.sinks.onepass:OnePass._written", "after", "task",
              only=lambda arguments: not arguments[1].startswith("bronze/")),
        Point("task_done", "a task has written all its files, its answer is not yet out",
              "lakehouse.sinks.onepass:OnePass._written", "after", "task",
              only=lambda arguments: arguments[1].startswith("bronze/")),
        Point("files_written", "every file is written, no table is committed", f"{_SINK}._commit", "before"),
        Point("between_commits", "the first table and some others have the batch, others not", f"{_SINK}._commit",
              "among"),
        Point("half_put", "a table's version is put, the driver has not heard of it",
              "lakehouse.sinks.delta_log:TableLog._put", "after", most=20),
        Point("committed", "every table has the batch, Spark's commits/N is not written", _HANDLER, "after"),
        Point("rewritten", "maintenance has written merged files, not committed them", f"{_MAINTENANCE}.run:rewrite",
              "after", "maintenance", most=3),
        Point("rewrite_committed", "maintenance has committed merged files",
              "lakehouse.sinks.delta_log:TableLog.rewrite", "after", "maintenance", most=3),
        Point("checkpointed", "maintenance has written a checkpoint of a log, nothing is cleaned up yet",
              f"{_MAINTENANCE}.cleanup:write_checkpoint", "after", "maintenance", most=2),
        Point("cleaning", "log clean-up has deleted some of the commits", "obstore:delete", "after", "maintenance",
              only=lambda arguments: str(arguments[1]).startswith("_delta_log/")),
        Point("vacuuming", "vacuum has deleted some of the files", "obstore:delete", "after", "maintenance",
              only=lambda arguments: not str(arguments[1]).startswith("_delta_log/")),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Orders:
    """What one victim is to do beside its work.

    Attributes:
        point: where it dies; None where it does not by itself.
        nth: at which occurrence.
        subset: for `among`: from it follows which tables get the batch beside the first (`some_of`).
        mutants: faults in the product's code, by name (`lakehouse.torture.mutants`).
        hit: file in which the victim notes that the point was reached.
        pid: root of the process tree that dies.
    """

    point: str | None = None
    nth: int = 1
    subset: int = 0
    mutants: tuple[str, ...] = ()
    hit: str = ""
    pid: int = 0

    def to_json(self) -> str:
        """The value of `VARIABLE`."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def from_environment(cls) -> Orders:
        """The orders of this process's victim."""
        raw = orjson.loads(os.environ.get(VARIABLE, "{}"))
        return cls(**raw | {"mutants": tuple(raw.get("mutants", ()))})


class Patches:
    """Replaced attributes, which `undo` puts back."""

    def __init__(self) -> None:
        self._kept: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:  # noqa: ANN401 - a class or module, and any attribute
        """Replace one attribute."""
        self._kept.append((owner, name, owner.__dict__[name]))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Put every attribute back, the last one first."""
        while self._kept:
            owner, name, value = self._kept.pop()
            setattr(owner, name, value)


def resolve(target: str) -> tuple[Any, str]:
    """`module:Class.method` → (the class, `method`)."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), name


def arm(patches: Patches, orders: Orders, die: Die, *, side: Side) -> None:
    """Patch this process so that it dies at its point, where that lies on this side."""
    if orders.point is None or POINTS[orders.point].side != side:
        return
    point = POINTS[orders.point]
    owner, name = resolve(point.target)
    original = owner.__dict__[name]
    wrapped = (
        _among(original, orders, die) if point.when == "among" else _around(original, point, _Count(orders.nth), die)
    )
    patches.set(owner, name, functools.wraps(original)(wrapped))


class _Count:
    """Tells at the nth call that it is the nth."""

    def __init__(self, nth: int) -> None:
        self._left = nth
        self._lock = threading.Lock()

    def reached(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0


def _around(original: Callable[..., Any], point: Point, count: _Count, die: Die) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - stands in for any function
        due = point.only(arguments) and count.reached()
        if due and point.when == "before":
            die()
        answer = original(*arguments, **named)
        if due:
            die()
        return answer

    return wrapped


def _among(original: Callable[..., Any], orders: Orders, die: Die) -> Callable[..., Any]:
    """At the nth batch the first table and some of the others commit, as they always do; then the victim dies."""
    count = _Count(orders.nth)

    def wrapped(sink: Any, batch: Any) -> Any:  # noqa: ANN401 - Sink._commit
        if not count.reached():
            return original(sink, batch)
        first, *others = sink._logs  # noqa: SLF001 - to stop half-way one has to know the tables
        mask = some_of(orders.subset, len(others))
        chosen = [first, *(name for at, name in enumerate(others) if mask >> at & 1)]
        sink._logs = {name: sink._logs[name] for name in chosen}  # noqa: SLF001 - this sink commits nothing any more
        original(sink, batch)
        return die()

    return wrapped


def some_of(bits: int, things: int) -> int:
    """A mask of some of so many things: never all, maybe none."""
    return bits % ((1 << things) - 1)


@dataclass(frozen=True)
class TaskPatched(OnePass):
    """The one pass of a victim: patches the worker in which it runs, as the driver was."""

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """As `OnePass`, in a process that dies where it has to."""
        _patch_worker(os.getpid())
        yield from super().__call__(batches)


@functools.cache
def _patch_worker(_pid: int) -> None:
    """Once per worker; workers are forks, which inherit what their daemon has cached."""
    orders = Orders.from_environment()
    patches = Patches()
    if orders.mutants:
        from lakehouse.torture import mutants  # noqa: PLC0415 - a worker that has none starts without them

        mutants.apply(patches, orders.mutants, side="task")
    arm(patches, orders, lambda: kill(orders), side="task")


def kill(orders: Orders) -> NoReturn:
    """Note that the point was reached, then SIGKILL the victim's whole tree, this process last."""
    hit = Path(orders.hit)
    try:
        # Several threads or tasks may arrive at once: the first one's note stands.
        with hit.open("xb") as note:
            note.write(orjson.dumps({"time_ms": time.time_ns() // 1_000_000, "pid": os.getpid()}))
    except FileExistsError:
        pass
    end_tree(orders.pid)
    while True:  # a process that has killed itself may still come this far
        time.sleep(1)


def end_tree(pid: int) -> list[psutil.Process]:
    """SIGKILL to a process and all its descendants, this process last. Returns those that were killed."""
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    for process in sorted(tree, key=lambda each: each.pid == os.getpid()):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return tree
