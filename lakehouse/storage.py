"""The folder or bucket that holds a pipeline's tables, and where each table lies in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.store import LocalStore, S3Store

from lakehouse.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore.store import ObjectStore


def resolve_root(root: str) -> str:
    """An absolute path without a trailing slash, or the s3:// URL as it is.

    Raises:
        ConfigError: for another scheme than s3.
    """
    if root.startswith("s3://"):
        return root.rstrip("/")
    if "://" in root:
        raise ConfigError(f"the root {root!r} is neither a folder nor an s3:// URL", remedy="set `root` to one of both")
    return str(Path(root).expanduser().resolve())


def open_store(url: str) -> ObjectStore:
    """A store whose paths are relative to `url`: a local folder (made where missing) or an s3:// prefix.

    Credentials and endpoint come from the usual AWS_* environment variables.
    """
    if url.startswith("s3://"):
        return S3Store.from_url(url)
    return LocalStore(url, mkdir=True)


def find_store(url: str) -> ObjectStore | None:
    """`open_store` for those who only read: makes no folder; None where a local one does not exist."""
    if not url.startswith("s3://") and not Path(url).is_dir():
        return None
    return open_store(url)


def room(root: str) -> tuple[int, int] | None:
    """(bytes left, bytes in all) of the disk that holds the root; None over an object store or without the folder."""
    if "://" in root or not Path(resolve_root(root)).is_dir():
        return None
    usage = shutil.disk_usage(resolve_root(root))
    return usage.free, usage.total


def move(root: str, path: str, to: str) -> None:
    """Move a file or folder within a root; both paths are relative to it.

    On a local disk this is one rename. In a bucket each object is moved by itself, so that a move that was cut
    short leaves a rest, which the same call moves too.
    """
    if root.startswith("s3://"):
        store = open_store(root)
        for name in [entry["path"] for listed in obstore.list(store, prefix=path) for entry in listed]:
            obstore.rename(store, name, f"{to}{name.removeprefix(path)}")
        return
    target = Path(root) / to
    target.parent.mkdir(parents=True, exist_ok=True)
    (Path(root) / path).rename(target)


def spark_url(url: str) -> str:
    """The same place in the words of Hadoop's file systems."""
    return url.replace("s3://", "s3a://", 1)


def layer_url(root: str, layer: str, table: str) -> str:
    """Where a table lies: `<root>/<layer>/<table>`."""
    return f"{resolve_root(root)}/{layer}/{table}"


def quality_url(root: str, pipeline: str, kind: str) -> str:
    """Where a table about a pipeline's quality lies; `kind` is `observed`, `results` or `drift`."""
    return f"{resolve_root(root)}/_quality/{pipeline}_{kind}"


def checkpoint_url(root: str, pipeline: str) -> str:
    """Where Spark keeps the pipeline's checkpoint."""
    return f"{resolve_root(root)}/_checkpoints/{pipeline}"


def storage_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The AWS_* variables, which executors on other machines need as well."""
    return {name: value for name, value in environ.items() if name.startswith("AWS_")}
