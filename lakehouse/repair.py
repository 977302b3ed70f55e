"""A user's repair function: `bytes -> bytes | None`, applied to the value of each row that is replayed."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.errors import ConfigError
from lakehouse.transforms.contract import quote

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


@dataclass(frozen=True)
class Repair:
    """A function that mends values.

    Attributes:
        name: as the user gave it, `MODULE:FUNCTION`.
        sha256: of the module's source, so that a row's lineage says which version of it was used.
        function: the function.
    """

    name: str
    sha256: str
    function: Callable[[bytes], bytes | None]

    def apply(self, value: bytes) -> bytes | dict[str, Any]:
        """The mended value; or the reason, in the shape of `schemas.VERDICT`, why there is none."""
        try:
            mended = self.function(value)
        except Exception as error:  # noqa: BLE001 - whatever a user's function raises speaks of this row alone
            return _reason("failed", f"{self.name} failed: {type(error).__name__}: {quote(str(error))}")
        if mended is None:
            return _reason("declined", f"{self.name} knows no repair for this value")
        if not isinstance(mended, bytes):
            return _reason("type", f"{self.name} returned {type(mended).__name__}, not bytes or None")
        return mended


def load_repair(name: str) -> Repair:
    """Import `MODULE:FUNCTION`, where MODULE is a module's dotted name or a path that ends in `.py`.

    Raises:
        ConfigError: it cannot be imported, or is not a function.
    """
    place, _, function_name = name.rpartition(":")
    if not place or not function_name:
        raise ConfigError(
            f"{name!r} names no repair function", remedy="write MODULE:FUNCTION or path/to/file.py:FUNCTION"
        )
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else _by_name(place)
    except Exception as error:
        raise ConfigError(
            f"{place} cannot be imported: {type(error).__name__}: {error}",
            where=f"repair {name}",
            remedy="see that the file exists and imports without an error; a module is also sought in this folder",
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        found = sorted(known for known, what in vars(module).items() if callable(what) and not known.startswith("_"))
        raise ConfigError(
            f"{place} has no function {function_name}", where=f"repair {name}", remedy=f"its functions are {found}"
        )
    source = Path(module.__file__ or "")
    digest = hashlib.sha256(source.read_bytes() if source.is_file() else b"").hexdigest()
    return Repair(name, digest, function)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(path)
    spec = importlib.util.spec_from_file_location(f"_lakehouse_repair_{path.stem}", path)
    assert spec is not None, "a path that ends in .py has a loader"  # noqa: S101 - checked by the caller
    assert spec.loader is not None, "a path that ends in .py has a loader"  # noqa: S101 - checked by the caller
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _by_name(module: str) -> ModuleType:
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds texts
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    return importlib.import_module(module)


def _reason(kind: str, message: str) -> dict[str, Any]:
    return {
        "rule_id": f"repair.{kind}",
        "type": f"repair_{kind}",
        "columns": [],
        "severity": "critical",
        "message": message,
        "value": None,
        "suite_sha256": None,
    }
