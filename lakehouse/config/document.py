"""A YAML file as plain data that remembers where each value stands.

Scalars follow YAML 1.2's core schema, as editors do: only true and false are booleans (`NO` is text), and a
date is text. Tags are refused. Aliases work; merge keys (`<<`) do not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from lakehouse.config.interpolation import interpolate
from lakehouse.config.problems import KeyPath, Problem, as_error, dotted
from lakehouse.config.yaml_errors import explain, unprintable
from lakehouse.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_MOST_VALUES = 50_000
"""Aliases of aliases can make a few lines stand for billions of values; no pipeline has this many."""
_DEEPEST = 50
_SHOWN = 60
"""Characters of a wrong value that a message quotes."""
_TAG = "tag:yaml.org,2002:"


_OPTIONS, _CHANNELS, _RECEIVER = ("source", "options"), ("alerts", "notify"), ("lineage", "to")
_OPEN = ("kind", "topic", "path")
"""Keys of a channel or receiver whose values may be shown."""


def may_be_secret(path: KeyPath) -> bool:
    """Whether `${file:…}` may stand at `path`."""
    below = len(path) > len(_OPTIONS)
    return below and (path[:2] == _OPTIONS or (path[:2] in (_CHANNELS, _RECEIVER) and path[-1] in ("url", "token")))


def is_hidden(path: KeyPath) -> bool:
    """Whether the value at `path` is never shown: a secret, or what may be one that stands a level too high."""
    return path[:2] == _OPTIONS or (path[:2] in (_CHANNELS, _RECEIVER) and path[-1] not in _OPEN)


class _Loader(yaml.SafeLoader):
    """Splits YAML into nodes; what a plain scalar is, is decided by the resolvers below alone."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - the attribute that PyYAML reads


_Loader.add_implicit_resolver(f"{_TAG}null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(f"{_TAG}int", re.compile(r"[-+]?[0-9]{1,30}$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


_READ: dict[str, Callable[[str], Any]] = {
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": lambda text: float(re.sub(r"\.(?=[a-zA-Z])", "", text)),
}


class Mark(NamedTuple):
    """A place in the file, both counted from 1."""

    line: int
    column: int


@dataclass
class Document:
    """A parsed file.

    Attributes:
        file: as the caller named it.
        data: what it holds; a scalar whose `${…}` could not be replaced holds an empty text.
        values: where each value begins; keys: where the key of each value in a mapping begins.
        raw: the text of each scalar as it stands in the file, before `${…}` was replaced.
        problems: what was wrong already.
        spoilt: values that have a problem, so that a later check need not complain of them again.
    """

    file: Path
    data: dict[str, Any] = field(default_factory=dict)
    values: dict[KeyPath, Mark] = field(default_factory=dict)
    keys: dict[KeyPath, Mark] = field(default_factory=dict)
    raw: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    spoilt: set[KeyPath] = field(default_factory=set)

    def problem(self, path: KeyPath, what: str, remedy: str, *, at_key: bool = False) -> Problem:
        """A problem with the value at `path` (or its key), placed as near to it as the file goes."""
        places = self.keys if at_key else self.values
        mark = places.get(path)
        for depth in range(len(path), -1, -1):
            mark = mark or self.keys.get(path[:depth]) or self.values.get(path[:depth])
        line, column = mark or Mark(1, 1)
        return Problem(line, column, dotted(path), what, remedy)

    def at(self, path: KeyPath) -> object:
        """The value at `path`; None where there is none."""
        value: Any = self.data
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def show(self, path: KeyPath) -> str:
        """The value at `path` for a message: as it stands in the file, cut, and never a secret."""
        value = self.at(path)
        if value is None:
            return "empty"
        if isinstance(value, dict | list):
            return "a group of keys" if isinstance(value, dict) else "a list"
        if is_hidden(path):
            return "a value that is kept secret"
        text = self.raw.get(path, "")
        text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        return f'"{text}"' if isinstance(value, str) else text


def read_document(file: Path, env: Mapping[str, str]) -> Document:
    """Parse a YAML file whose top level is a mapping.

    Raises:
        ConfigError: it cannot be read, or is not YAML, or holds something else than keys and values. Problems
            that leave the rest readable are in `Document.problems` instead.
    """
    text = _read(file)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        problem = explain(error, text)
    except yaml.reader.ReaderError as error:
        problem = unprintable(text, error.position)
    except RecursionError:
        problem = Problem(1, 1, "", "the file is nested too deeply", f"at most {_DEEPEST} levels are read")
    else:
        if node is None:
            raise ConfigError("the file is empty", where=str(file), remedy="docs/configuration.md shows a whole one")
        document = Document(file)
        _Builder(document, env).build_root(node)
        return document
    # Outside the except clauses: the parser's own error quotes the file, which may hold a secret.
    raise as_error(file, [problem])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        beside = sorted(path.name for path in file.parent.glob("*.y*ml")) if file.parent.is_dir() else []
        remedy = f"in {file.parent} there are: {', '.join(beside)}" if beside else "correct the path"
        problem = ConfigError(f"there is no file {file}", remedy=remedy)
    except IsADirectoryError:
        beside = sorted(path.name for path in file.glob("*.y*ml"))
        remedy = f"name a file in it: {', '.join(beside)}" if beside else "name a YAML file"
        problem = ConfigError(f"{file} is a folder", remedy=remedy)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = ConfigError("the file is not UTF-8 text", where=f"{file}, line {line}", remedy="save it as UTF-8")
    except OSError as error:
        problem = ConfigError(f"the file cannot be read: {error.strerror}", where=str(file), remedy="check its rights")
    raise problem


class _Builder:
    """Turns nodes into data and notes where each value stands."""

    def __init__(self, document: Document, env: Mapping[str, str]) -> None:
        self.document = document
        self.env = env
        self.folder = document.file.parent
        self.left = _MOST_VALUES
        self.open: set[int] = set()

    def build_root(self, node: yaml.Node) -> None:
        if not isinstance(node, yaml.MappingNode):
            self._note(
                node,
                (),
                "the file is not made of keys and values",
                "begin with `name: …`; see docs/configuration.md",
            )
            raise as_error(self.document.file, self.document.problems)
        self.document.data = self._mapping(node, ())

    def _build(self, node: yaml.Node, path: KeyPath) -> Any:  # noqa: ANN401 - whatever the file holds
        self.left -= 1
        self.document.values[path] = Mark(node.start_mark.line + 1, node.start_mark.column + 1)
        if self.left < 0 or len(path) > _DEEPEST or id(node) in self.open:
            self._note(node, path, "the file repeats or nests its parts without end", "use fewer aliases (`*name`)")
            raise as_error(self.document.file, [self.document.problems[-1]])
        self.open.add(id(node))
        try:
            match node:
                case yaml.MappingNode():
                    return self._mapping(node, path)
                case yaml.SequenceNode():
                    return [self._build(item, (*path, index)) for index, item in enumerate(node.value)]
                case _:
                    return self._scalar(node, path)
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._note(key, path, "a key has to be a word", "write `key: value`; put text with braces in quotes")
                continue
            here = (*path, key.value)
            if key.value in found:
                first = self.document.keys[here].line
                self._note(
                    key,
                    here,
                    f"the key {key.value} stands here twice",
                    f"keep one; the first is in line {first}",
                )
                continue
            self.document.keys[here] = Mark(key.start_mark.line + 1, key.start_mark.column + 1)
            found[key.value] = self._build(value, here)
        return found

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:  # noqa: ANN401 - whatever the file holds
        self.document.raw[path] = node.value
        kind = node.tag.removeprefix(_TAG)
        if kind == "str":
            return self._text(node, path)
        if kind in _READ:
            try:
                return _READ[kind](node.value)
            except ValueError:
                self._note(node, path, f"this is no {kind}, as its tag says", "remove the tag")
                return ""
        self._note(node, path, f"the tag {node.tag} means nothing here", "remove the tag")
        return ""

    def _text(self, node: yaml.Node, path: KeyPath) -> str:
        text, faults = interpolate(
            node.value,
            self.env,
            folder=self.folder,
            secrets_allowed=may_be_secret(path),
        )
        for fault in faults:
            self._note(node, path, fault.what, fault.remedy)
        return text

    def _note(self, node: yaml.Node, path: KeyPath, what: str, remedy: str) -> None:
        mark = node.start_mark
        self.document.problems.append(Problem(mark.line + 1, mark.column + 1, dotted(path), what, remedy))
        self.document.spoilt.add(path)
