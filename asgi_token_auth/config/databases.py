"""The databases that a configuration may name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

from asgi_token_auth.config.values import kind_of
from asgi_token_auth.databases.address import database_at, is_dsn
from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.errors import ConfigurationError

#: Names, and what they stand for: a path, a DSN or a database.
Databases: TypeAlias = Mapping[str, str | os.PathLike[str] | Database]


def read_databases(
    databases: Databases | None, *, journal_mode: Literal["wal", "keep"] | None = None, wal_index: bool = True
) -> dict[str, Database]:
    """The databases that a block may name.

    Args:
        journal_mode, wal_index: of SQLite files that are given by their paths.

    Raises:
        ConfigurationError: one of them can be none.
    """
    if databases is not None and not isinstance(databases, Mapping):
        raise ConfigurationError(
            'databases: give an object from name to database, for example {"tokens": "tokens.db"}.'
        )
    opened: dict[str, Database] = {}
    for name, given in (databases or {}).items():
        where = f"databases.{name}"
        if isinstance(given, (str, os.PathLike)):
            try:
                mode: Literal["wal"] | None = None if journal_mode == "keep" else "wal"
                opened[name] = database_at(given, journal_mode=mode, wal_index=wal_index)
            except ConfigurationError as error:
                raise ConfigurationError(f"{where}: {error}") from error
        elif hasattr(given, "transaction") and hasattr(given, "lookup"):
            opened[name] = given
        else:
            raise ConfigurationError(f"{where}: must be a path, a PostgreSQL DSN or a Database, not {kind_of(given)}.")
    return opened


def named_database(databases: dict[str, Database], name: str | None, key: str) -> Database:
    """The database that ``key`` of the block names or has the DSN of, or the only one there is.

    Raises:
        ConfigurationError: there is none of that name, or none was named and there are several.
    """
    known = ", ".join(sorted(name for name in databases if not is_dsn(name)))
    if name is None:
        if len(databases) == 1:
            return next(iter(databases.values()))
        if not databases:
            raise ConfigurationError(f'{key}: no database is known; pass databases={{"tokens": "tokens.db"}}.')
        raise ConfigurationError(f"{key}: name one of the databases: {known}.")
    if name in databases:
        return databases[name]
    if is_dsn(name):
        return databases.setdefault(name, database_by_dsn(name, key))
    # The name is not repeated: it may be a connection string with a password, given in the wrong place.
    raise ConfigurationError(
        f"{key}: names no entry of databases=; they are: {known or 'none'}."
        + (" A path belongs there, under a name." if re.search(r"[/\\\\]|[.](?:db|sqlite3?)$", name) else "")
    )


def database_by_dsn(dsn: str, key: str) -> Database:
    """The PostgreSQL database that a key of the block has in place of a name.

    Raises:
        ConfigurationError: naming the key.
    """
    try:
        return database_at(dsn)
    except ConfigurationError as error:
        raise ConfigurationError(f"{key}: {error}") from error
