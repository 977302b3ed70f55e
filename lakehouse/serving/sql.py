"""SQL over the tables by DuckDB, in this process: no JVM, no server, nothing downloaded, nothing written.

Every table is pinned to the version that it has when the connection is made, so that all parts of a query see
the same rows however the pipeline goes on. After the views are made the connection is locked: it reads the live
files of the tables and nothing else on the machine.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lakehouse.errors import ConfigError, LakehouseError, TableError, first_line
from lakehouse.rollups.partials import GRAIN_US
from lakehouse.serving.grid import render_grid
from lakehouse.serving.history import History, hold, read_part
from lakehouse.serving.rollup_views import groups, is_gold, statement
from lakehouse.serving.sketch_functions import register
from lakehouse.serving.tables import LAYERS, find_tables
from lakehouse.storage import layer_url

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from lakehouse.serving.history import Held, Part
    from lakehouse.serving.rollup_views import Group

_READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
"""What the parser makes of SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE and EXPLAIN."""
_HARMLESS_FEATURES = {"timestampNtz"}
"""Reader features under which the rows of a table are still just the rows of its live files."""
_GLOB = re.compile(r"[*?\[\]{}]")
_NO_TABLE = re.compile(r'Table with name "?(?P<name>.+?)"? does not exist')
_PREFIX = re.compile(r"^[\w -]+ Error: (?:Python exception occurred while executing the UDF: \w+: )?")
_ORDER = ("silver", "gold", "quarantine", "bronze")
"""Where a name without a schema is looked for."""


@dataclass
class _Catalog:
    """What became of each table: its view's name, or why it has none."""

    views: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    opened: dict[str, DeltaTable] = field(default_factory=dict)


def connect(root: str) -> duckdb.DuckDBPyConnection:
    """A locked connection with a schema per layer and a view per table, such as `silver.feature_events`.

    Each rollup has a view of its merged history beside those of its tables, such as `gold.by_feature`. Damaged tables
    have no view. Beside DuckDB's own functions there are those of `sketch_functions`. Times are shown in UTC. The
    caller closes it.

    Raises:
        ConfigError: the root is neither a folder nor an s3:// URL.
        TableError: the root cannot be listed.
    """
    return _open(root)[0]


def query(root: str, sql: str, limit: int | None = None, *, only: Collection[str] | None = None) -> pa.Table:
    """The answer to one reading statement, at most `limit` rows of it.

    Args:
        root: folder or s3:// URL of the tables.
        sql: the statement.
        limit: rows at most; all by default.
        only: the tables that it names, such as `gold.orders`, where a caller knows: no other is opened.

    Raises:
        ConfigError: the statement cannot be read, does not fit the tables, or would do more than read.
        TableError: a table that it names is damaged, or a file vanished meanwhile.
    """
    connection, catalog = _open(root, only)
    try:
        _require_reading(connection, sql)
        connection.execute("BEGIN TRANSACTION READ ONLY")  # EXPLAIN ANALYZE would otherwise run what it explains
        relation = connection.sql(sql)
        return (relation if limit is None else relation.limit(limit)).to_arrow_table()
    except duckdb.Error as error:
        problem = _explain(error, catalog)
    finally:
        connection.close()
    raise problem


def render(answer: pa.Table) -> str:
    """The rows as text for a terminal; bytes are shown by their number."""
    if answer.column_names == ["explain_key", "explain_value"]:
        return "\n".join(answer["explain_value"].to_pylist())
    rows = [[_text(value) for value in row.values()] for row in answer.to_pylist(maps_as_pydicts=None)]
    right = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in answer.schema.types]
    count = f"{answer.num_rows} row{'' if answer.num_rows == 1 else 's'}"
    return f"{render_grid(answer.column_names, rows, right=right)}\n({count})"


def _open(root: str, only: Collection[str] | None = None) -> tuple[duckdb.DuckDBPyConnection, _Catalog]:
    tables = [(layer, name) for layer, name in find_tables(root) if only is None or f"{layer}.{name}" in only]
    connection = duckdb.connect()
    catalog = _Catalog()
    register(connection)
    connection.execute("SET TimeZone = 'UTC'")
    for layer in LAYERS:
        connection.execute(f"CREATE SCHEMA {layer}")
    # Coarser grains are opened before finer ones, so that none covers more of its source than is seen of it.
    for layer, name in sorted(tables, key=lambda table: -GRAIN_US.get(table[1].rpartition("_")[2], 0)):
        _add_view(connection, catalog, layer, name, layer_url(root, layer, name))
    if only is None:
        _add_rollups(connection, catalog, tables)
    catalog.views.sort(key=lambda view: (LAYERS.index(view.split(".", 1)[0]), view))
    _lock(connection, catalog.files)
    return connection, catalog


def _lock(connection: duckdb.DuckDBPyConnection, files: list[str]) -> None:
    """From here on the connection reads `files` and its views, and its settings cannot be changed back."""
    connection.execute(f"SET search_path = {_quote(','.join(_ORDER))}")
    # A large sort may spill; DuckDB makes this folder when it needs it and removes it.
    connection.execute(f"SET temp_directory = {_quote(tempfile.gettempdir() + '/lakehouse-sql')}")
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET autoload_known_extensions = false")
    connection.execute(f"SET allowed_paths = [{', '.join(map(_quote, files))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _add_view(connection: duckdb.DuckDBPyConnection, catalog: _Catalog, layer: str, name: str, url: str) -> None:
    view = f"{layer}.{name}"
    try:
        table = DeltaTable(url)
        files = _plain_files(table, url)
        rows = _rows_of_files(connection, table, files) if files is not None else _dataset(connection, table, view)
        connection.execute(f"CREATE VIEW {layer}.{_identifier(name)} AS {rows}")
    except (DeltaError, OSError, ValueError, duckdb.Error) as error:
        catalog.damaged[view] = first_line(error)
        return
    catalog.views.append(view)
    catalog.files += files or []
    catalog.opened[view] = table


def _add_rollups(connection: duckdb.DuckDBPyConnection, catalog: _Catalog, tables: list[tuple[str, str]]) -> None:
    """A view for each rollup whose tables could be opened, under its whole name and, where that is clear, its own."""
    pipelines = [name for layer, name in tables if layer == "silver"]
    found = groups(name for layer, name in tables if layer == "gold")
    aliases = Counter(group.alias(pipelines) for group in found)
    for group in found:
        alias = group.alias(pipelines)
        names = [group.name, *([alias] if alias and aliases[alias] == 1 else [])]
        try:
            rows = _rollup(connection, catalog, group)
            for name in names if rows else []:
                if f"gold.{name}" not in catalog.views:
                    connection.execute(f"CREATE VIEW gold.{_identifier(name)} AS {rows}")
                    catalog.views.append(f"gold.{name}")
        except (LakehouseError, DeltaError, OSError, ValueError, duckdb.Error) as error:
            catalog.damaged |= {f"gold.{name}": first_line(error) for name in names}


def _rollup(connection: duckdb.DuckDBPyConnection, catalog: _Catalog, group: Group) -> str | None:
    """The SELECT of a rollup's view; None where a table of it is damaged, or is none of this project's rollups."""
    opened = [(grain, name, catalog.opened.get(f"gold.{name}")) for grain, name in group.tables]
    held = [hold(table, grain, f"gold/{name}") for grain, name, table in reversed(opened) if table is not None]
    finest = opened[0][2]
    if len(held) < len(opened) or finest is None:
        return None
    schema = pa.schema(finest.schema().to_arrow())
    if not is_gold(schema):
        return None
    kept = [each for each in held if each.cover or each.grain == group.tables[0][0]]

    def rows_of(table: Held, parts: Sequence[Part]) -> str:
        source = catalog.opened[table.name.replace("/", ".")]
        url = table.tail.url
        if _plain_files(source, url) is not None:
            files = [str(Path(url) / part.path) for part in parts]
            catalog.files += files
            return _rows_of_files(connection, source, files)
        if parts == table.parts:
            return _dataset(connection, source, f"gold.{table.name} merged")
        name = f"{table.name} as tail"
        connection.register(name, pa.concat_tables(read_part(table, part, schema) for part in parts))
        return f"SELECT * FROM {_identifier(name)}"  # noqa: S608 - quoted

    return statement(History(kept), schema, rows_of)


def _plain_files(table: DeltaTable, url: str) -> list[str] | None:
    """Paths of the live files where their rows are the table's rows, and DuckDB can open them by itself.

    None for s3:// (DuckDB's own client for it is an extension, which would have to be downloaded), partitioned
    tables (whose partition columns are not in the files), deletion vectors and renamed columns.
    """
    protocol = table.protocol()
    features = set(protocol.reader_features or ())
    renamed = protocol.min_reader_version == 2  # noqa: PLR2004 - the version that brought column mapping
    if url.startswith("s3://") or _GLOB.search(url) or table.metadata().partition_columns:
        return None
    if renamed or features - _HARMLESS_FEATURES:
        return None
    paths = pa.table(table.get_add_actions())["path"].to_pylist()
    if any(path.startswith("/") or ":" in path for path in paths):
        return None  # files of another table, as a shallow clone has them
    return [str(Path(url) / unquote(path)) for path in paths]


def _rows_of_files(connection: duckdb.DuckDBPyConnection, table: DeltaTable, files: list[str]) -> str:
    """A SELECT whose columns are the table's, whatever a file lacks: a column added later is null in older files."""
    empty = connection.from_arrow(pa.schema(table.schema().to_arrow()).empty_table())
    columns = list(zip(empty.columns, map(str, empty.types), strict=True))
    if not files:
        nulls = ", ".join(f"CAST(NULL AS {kind}) AS {_identifier(name)}" for name, kind in columns)
        return f"SELECT {nulls} WHERE false"
    wanted = ", ".join(
        f"{_quote(name)}: {{name: {_quote(name)}, type: {_quote(kind)}, default_value: NULL}}" for name, kind in columns
    )
    paths = ", ".join(map(_quote, files))
    return f"SELECT * FROM read_parquet([{paths}], schema = MAP {{{wanted}}})"  # noqa: S608 - quoted above


def _dataset(connection: duckdb.DuckDBPyConnection, table: DeltaTable, view: str) -> str:
    """A SELECT from Arrow's reader, which DuckDB asks only for the columns and rows that a query needs."""
    name = f"{view} as Arrow"
    connection.register(name, table.to_pyarrow_dataset())
    return f"SELECT * FROM {_identifier(name)}"  # noqa: S608 - quoted


def _require_reading(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if not statements:
        raise ConfigError("there is no statement", remedy="write SELECT … FROM silver.…")
    if len(statements) > 1:
        raise ConfigError(f"there are {len(statements)} statements", remedy="ask one at a time")
    if statements[0].type not in _READING:
        raise ConfigError(
            f"{statements[0].type.name} is not allowed: tables are only read here",
            remedy="begin with SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN",
        )


def _explain(error: duckdb.Error, catalog: _Catalog) -> LakehouseError:
    """DuckDB's error in this project's terms."""
    said = str(error)
    missing = _NO_TABLE.search(said)
    if isinstance(error, duckdb.CatalogException) and missing:
        return _no_table(missing["name"], catalog)
    # A file that is gone cannot be told from one that is not allowed but by its name.
    vanished = isinstance(error, duckdb.PermissionException) and any(file in said for file in catalog.files)
    if isinstance(error, duckdb.PermissionException) and not vanished:
        return ConfigError("only the tables can be read, no other file", remedy=_listing(catalog))
    if vanished or isinstance(error, duckdb.IOException):
        return TableError(
            f"a file of a table cannot be read: {first_line(error)}",
            remedy="ask again; maintenance may have removed files of an old version meanwhile",
        )
    if isinstance(error, duckdb.TransactionException):
        return ConfigError("the statement would write: tables are only read here", remedy="ask with SELECT")
    bound = isinstance(error, duckdb.ParserException | duckdb.BinderException | duckdb.CatalogException)
    # Later errors count lines in DuckDB's own rewriting of the statement.
    text = said if bound else said.split("\n\nLINE ", maxsplit=1)[0]
    return ConfigError(_PREFIX.sub("", text).strip(), remedy="correct the statement")


def _no_table(name: str, catalog: _Catalog) -> LakehouseError:
    for view, reason in catalog.damaged.items():
        if name in (view, view.split(".", 1)[1]):
            return TableError(f"the table {view} is damaged: {reason}", remedy="lakehouse doctor explains the damage")
    return ConfigError(f"there is no table {name}", remedy=_listing(catalog))


def _listing(catalog: _Catalog) -> str:
    return f"the tables are {', '.join(catalog.views)}" if catalog.views else "there are no tables under this root yet"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: Any) -> str:  # noqa: ANN401 - any value of a table
    match value:
        case None:
            return ""
        case bytes():
            return f"<{len(value)} bytes>"
        case bool():
            return str(value).lower()
        case _:
            return str(value)
