"""`${…}` in the text of a pipeline file: environment variables, and secrets from files.

| in the file | becomes |
|---|---|
| `${NAME}` | the environment variable; an error where it is not set |
| `${NAME:-default}` | the variable, or `default` where it is not set or empty |
| `${file:/run/secrets/x}` | the content of the file, without the line break at its end |
| `$$` | a dollar sign |

A `$` that begins none of these, and no name either, stands for itself. Replaced text is not read again.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_DOLLAR = re.compile(r"\$(?:(?P<escape>\$)|\{(?P<inside>[^{}]*)\}|(?P<open>\{)|(?P<bare>[A-Za-z_]\w*))")
_VARIABLE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)
_LARGEST_SECRET = 64 * 1024
"""Bytes. A longer file is no secret, and a device such as /dev/zero has no end."""


class Fault(NamedTuple):
    """Why one `${…}` cannot be replaced, and what to do. Never holds the content of a file."""

    what: str
    remedy: str


def interpolate(text: str, env: Mapping[str, str], *, folder: Path, secrets_allowed: bool) -> tuple[str, list[Fault]]:
    """Replace every `${…}` in `text`.

    Args:
        text: as it stands in the file.
        env: the environment.
        folder: what a relative `${file:…}` is relative to.
        secrets_allowed: whether `${file:…}` may stand here. A secret in a place that is not kept as one would
            end up in logs and commits.

    Returns:
        The text, and a fault for each part that could not be replaced (and is left out of the text).
    """
    faults: list[Fault] = []

    def replace(match: re.Match[str]) -> str:
        found = _value(match, env, folder, secrets_allowed=secrets_allowed)
        if isinstance(found, Fault):
            faults.append(found)
            return ""
        return found

    return _DOLLAR.sub(replace, text), faults


def _value(match: re.Match[str], env: Mapping[str, str], folder: Path, *, secrets_allowed: bool) -> str | Fault:
    if match["escape"]:
        return "$"
    if match["open"]:
        return Fault(
            "a `${` is not closed by `}`",
            "close it, without braces inside; write $${ where the text itself is meant",
        )
    if match["bare"]:
        bare = match["bare"]
        return Fault(f"${bare} is not replaced without braces", f"write ${{{bare}}}, or $${bare} for the text itself")
    inside = match["inside"]
    if inside.startswith("file:"):
        if not secrets_allowed:
            return Fault(
                f"${{{inside}}} would bring a secret to a place where it could be printed",
                "secrets from files may stand only under source.options and as url or token under alerts.notify and"
                " lineage.to;"
                " use an environment variable here",
            )
        return _secret(folder / inside.removeprefix("file:"))
    return _variable(inside, env)


def _variable(inside: str, env: Mapping[str, str]) -> str | Fault:
    match = _VARIABLE.fullmatch(inside)
    if match is None:
        return Fault(
            f"${{{inside}}} cannot be read",
            "write ${NAME}, ${NAME:-default} or ${file:/path}; write $${ where the text itself is meant",
        )
    name, default = match["name"], match["default"]
    value = env.get(name)
    if default is not None:
        return value or default
    if value is not None:
        return value
    close = difflib.get_close_matches(name, env, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return Fault(f"the environment variable {name} is not set", f"set {name}{hint}, or give a default: ${{{name}:-…}}")


def _secret(path: Path) -> str | Fault:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_SECRET + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        return Fault(f"there is no file {path} to take a secret from", "mount the secret, or correct the path")
    except UnicodeDecodeError:
        return Fault(f"the secret in {path} is not UTF-8 text", "store it as text")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        return Fault(f"the secret in {path} cannot be read: {reason}", "name a readable file")
    if len(content) > _LARGEST_SECRET:
        return Fault(f"{path} is larger than 64 KiB, which no secret is", "correct the path")
    text = text.removesuffix("\n").removesuffix("\r")
    return text or Fault(f"the secret in {path} is empty", "write the secret into the file")
