"""The folder or bucket that holds a pipeline's tables, and where each table lies in it."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, S3Store

from lakehouse.errors import ConfigError, EnvironmentProblem, LakehouseError, StorageError, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping

    from obstore.store import ObjectStore

_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_PROOF = "_put_if_absent"
"""An object that is put twice at most: whether the store refuses the second is what every commit rests on."""
_CONNECT_S, _REQUEST_S = 3.0, 30.0
_PATIENCE_S = 20.0
"""For how long a request that failed is tried again before its error is told; the client's own default is 3 minutes."""
_ATTEMPTS = 6
_READER_S = 3.0
_QUOTED = "obstore.exceptions."
"""How Spark quotes an error of the store that a task met."""
_SEE_CREDENTIALS = "check the AWS_* variables or the role of this machine, and what it may do in the bucket"


def is_remote(url: str) -> bool:
    """Whether this is a place in a bucket rather than a folder of this machine."""
    return url.startswith("s3://")


def resolve_root(root: str) -> str:
    """An absolute path without a trailing slash, or the s3:// URL as it is.

    Raises:
        ConfigError: for another scheme than s3.
    """
    if is_remote(root):
        return root.rstrip("/")
    if "://" in root:
        raise ConfigError(f"the root {root!r} is neither a folder nor an s3:// URL", remedy="set `root` to one of both")
    return str(Path(root).expanduser().resolve())


def open_store(url: str) -> ObjectStore:
    """A store whose paths are relative to `url`: a local folder (made where missing) or an s3:// prefix.

    Credentials and endpoint come from the usual AWS_* environment variables.
    """
    if is_remote(url):
        return _bucket(url, _CONNECT_S, _REQUEST_S, _PATIENCE_S, *sorted(storage_environment().items()))
    return LocalStore(url, mkdir=True)


def open_reader(url: str) -> ObjectStore:
    """`open_store` of a bucket for those who look again by themselves: a request fails within seconds."""
    return _bucket(url, _READER_S, _READER_S, 0, *sorted(storage_environment().items()))


def reader_options(url: str) -> dict[str, str] | None:
    """The patience of `open_reader` in the words of delta-rs; None for a folder."""
    if not is_remote(url):
        return None
    patience = f"{_READER_S:g}s"
    return {"timeout": patience, "connect_timeout": patience, "retry_timeout": patience, "max_retries": "0"}


@lru_cache(maxsize=256)
def _bucket(url: str, connect_s: float, request_s: float, patience_s: float, *environment: tuple[str, str]) -> S3Store:
    """One client for each place and environment, so that its connections serve every batch."""
    return S3Store.from_url(
        url,
        client_options={
            "connect_timeout": timedelta(seconds=connect_s),
            "timeout": timedelta(seconds=request_s),
            # Options that are given here replace the environment's.
            "allow_http": dict(environment).get("AWS_ALLOW_HTTP", "").lower() in ("1", "true"),
        },
        retry_config={"max_retries": _ATTEMPTS if patience_s else 0, "retry_timeout": timedelta(seconds=patience_s)},
    )


def find_store(url: str) -> ObjectStore | None:
    """`open_store` for those who only read: makes no folder; None where a local one does not exist."""
    if not is_remote(url) and not Path(url).is_dir():
        return None
    return open_store(url)


def room(root: str) -> tuple[int, int] | None:
    """(bytes left, bytes in all) of the disk that holds the root; None over an object store or without the folder."""
    if "://" in root or not Path(resolve_root(root)).is_dir():
        return None
    usage = shutil.disk_usage(resolve_root(root))
    return usage.free, usage.total


def require_reachable(root: str) -> None:
    """See whether a bucket can be listed; a folder says at its first file whether it can be written.

    Raises:
        StorageUnavailable: it does not answer.
        StorageError: there is no such bucket, or it refuses this program.
    """
    if is_remote(root):
        with explaining(root):
            next(iter(obstore.list(open_reader(root), chunk_size=1)), None)


def require_put_if_absent(root: str) -> None:
    """Refuse a bucket whose store would let two writers commit one version.

    Raises:
        StorageUnavailable: it does not answer.
        StorageError: there is no such bucket, it refuses this program, or it overwrites what was to be put only
            where it is absent.
    """
    if not is_remote(root):
        return
    store = open_store(root)
    with explaining(root):
        try:
            obstore.put(store, _PROOF, b"", mode="create")
            obstore.put(store, _PROOF, b"", mode="create")
        except AlreadyExistsError:
            return
    raise StorageError(
        "the store overwrites an object that was to be put only where it is absent (If-None-Match: *)",
        where=f"{root}/{_PROOF}",
        remedy="take a store that honours conditional writes: with this one two drivers could overwrite each other",
    )


@contextmanager
def explaining(root: str) -> Iterator[None]:
    """Say what an error of a bucket's store means to a person, met by this process or by a task of Spark.

    Raises:
        StorageUnavailable: it does not answer.
        StorageError: it refuses.
    """
    try:
        yield
    except LakehouseError:
        raise
    except Exception as error:
        of_store = isinstance(error, BaseError | OSError) or _QUOTED in str(error)
        if not (is_remote(root) and of_store):
            raise
        raise explain(error, root) from error


def explain(error: Exception, root: str) -> LakehouseError:
    """The error of this project for one that a store raised."""
    text = str(error).rpartition(_QUOTED)[2]
    told = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:300]
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or any(
        name in told for name in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")
    ):
        return StorageError("the store refuses this program", where=root, remedy=_SEE_CREDENTIALS)
    if "NoSuchBucket" in str(error) or isinstance(error, FileNotFoundError):
        return StorageError("there is no such bucket", where=root, remedy="make the bucket, or correct `root`")
    if "BadScheme" in str(error):
        remedy = "set AWS_ALLOW_HTTP=true for a store without TLS on this machine; use https everywhere else"
        return StorageError("the store's address is not https", where=root, remedy=remedy)
    return StorageUnavailable(
        f"the tables' store does not answer: {told}",
        where=root,
        remedy="nothing is lost: a new start goes on where the tables end; check AWS_ENDPOINT_URL and the network",
    )


def move(root: str, path: str, to: str) -> None:
    """Move a file or folder within a root; both paths are relative to it.

    On a local disk this is one rename. In a bucket each object is moved by itself, so that a move that was cut
    short leaves a rest, which the same call moves too.
    """
    if is_remote(root):
        store = open_store(root)
        for name in [entry["path"] for listed in obstore.list(store, prefix=path) for entry in listed]:
            obstore.rename(store, name, f"{to}{name.removeprefix(path)}")
        return
    target = Path(root) / to
    target.parent.mkdir(parents=True, exist_ok=True)
    (Path(root) / path).rename(target)


def require_folder(root: str, what: str, remedy: str) -> None:
    """Refuse a bucket where only a folder will do.

    Raises:
        EnvironmentProblem: the root is a bucket.
    """
    if is_remote(root):
        raise EnvironmentProblem(f"{what}, which has no client for S3 here", where=root, remedy=remedy)


def spark_url(url: str) -> str:
    """The same place in the words of Hadoop's file systems."""
    return url.replace("s3://", "s3a://", 1)


def layer_url(root: str, layer: str, table: str) -> str:
    """Where a table lies: `<root>/<layer>/<table>`."""
    return f"{resolve_root(root)}/{layer}/{table}"


def quality_url(root: str, pipeline: str, kind: str) -> str:
    """Where a table about a pipeline's quality lies; `kind` is `observed`, `results` or `drift`."""
    return f"{resolve_root(root)}/_quality/{pipeline}_{kind}"


def machine_root(root: str, environ: Mapping[str, str] = os.environ) -> str:
    """The folder of this machine for what belongs to a process rather than to the data: checkpoint and locks.

    The root itself where that is a folder. Beside a bucket it is `$LAKEHOUSE_STATE/BUCKET/PREFIX`, by default under
    ./data: the tables know by themselves how far they are, so that its loss costs nothing (ADR 33).
    """
    place = resolve_root(root)
    if not is_remote(place):
        return place
    return str(Path(environ.get("LAKEHOUSE_STATE") or "./data").resolve() / "_state" / place.removeprefix("s3://"))


def checkpoint_url(root: str, pipeline: str) -> str:
    """Where Spark keeps the pipeline's checkpoint, on the driver's machine."""
    return f"{machine_root(root)}/_checkpoints/{pipeline}"


def adopt_secret_files(environ: MutableMapping[str, str] = os.environ) -> None:
    """Take credentials from the files that `AWS_…_FILE` variables name, as containers are handed secrets.

    Raises:
        ConfigError: such a file cannot be read, or is empty.
    """
    for name in _CREDENTIALS:
        path = environ.get(f"{name}_FILE")
        if not path:
            continue
        try:
            secret = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise ConfigError(
                f"the file that {name}_FILE names cannot be read: {reason}", where=path, remedy="mount the secret there"
            ) from None
        if not secret:
            raise ConfigError(f"the file that {name}_FILE names is empty", where=path, remedy="write the secret there")
        environ[name] = secret


def secrets(environ: Mapping[str, str] = os.environ) -> set[str]:
    """What must never be told: the values of this process's credentials for the store."""
    return {environ[name] for name in _CREDENTIALS if environ.get(name)}


def storage_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The AWS_* variables, which executors on other machines need as well."""
    return {name: value for name, value in environ.items() if name.startswith("AWS_")}


def commit_path(version: int) -> str:
    """Name of a version's JSON in a Delta table's log, relative to the table."""
    return f"_delta_log/{version:020d}.json"
