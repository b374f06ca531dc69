"""Which database a key of the block means, and which tables are not for Datasette's own pages."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from asgi_token_auth.config.block import Configuration
from asgi_token_auth.config.databases import database_by_dsn
from asgi_token_auth.databases.address import is_dsn, is_of_another_kind
from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.databases.sqlite.search_index import index_tables
from asgi_token_auth.datasette.databases import AttachedDatabase, attached_file
from asgi_token_auth.datasette.startup import ensure_started
from asgi_token_auth.datasette.version import IS_1_0
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.secrets.store import DEFAULT_TABLE as SECRETS_TABLE
from asgi_token_auth.tokens.store import DEFAULT_TABLE as TOKENS_TABLE

logger: Final = logging.getLogger("asgi_token_auth")

_TOKENS_TABLES: Final = (
    TOKENS_TABLE,
    f"{TOKENS_TABLE}_events",
    f"{TOKENS_TABLE}_migrations",
    f"{TOKENS_TABLE}_requests",
    *index_tables(TOKENS_TABLE),
)
_SECRETS_TABLES: Final = (SECRETS_TABLE, f"{SECRETS_TABLE}_migrations", f"{SECRETS_TABLE}_requests")

#: By table: what is stored there, and what whoever runs SQL on it would read.
_READABLE: Final = {
    TOKENS_TABLE: ("tokens", "descriptions, actors and digests"),
    SECRETS_TABLE: ("secrets", "names, notes and encrypted values"),
}


class Attachments:
    """The databases that one Datasette's block names: attached to it, given to ``wrap_datasette``, or by a DSN."""

    def __init__(self, datasette: Any, configuration: Configuration) -> None:
        self._datasette = datasette
        self._configuration = configuration
        self._wait_for_start = partial(ensure_started, datasette)
        #: Databases that are not Datasette's, by the names or DSNs that the block has for them.
        self._others: dict[str, Database] = {}

    def add(self, databases: Mapping[str, Database]) -> None:
        """Databases that the block may name besides Datasette's own."""
        self._others.update(databases)

    def for_tokens(self) -> Database:
        """The database of managed tokens.

        Raises:
            ConfigurationError: it is missing or cannot hold tokens.
        """
        return self._for_store(self._configuration.manage_tokens_database, "manage_tokens_database", "tokens")

    def for_secrets(self) -> Database:
        """The database of secrets.

        Raises:
            ConfigurationError: it is missing or cannot hold secrets.
        """
        return self._for_store(self._configuration.secrets_database, "secrets.database", "secrets")

    def for_query(self) -> Database:
        """The database of the custom query.

        Raises:
            ConfigurationError: it is missing.
        """
        name = self._configuration.query_database
        if (other := self._other(name, "query.database")) is not None:
            return other
        attached = self._datasette.get_database() if name is None else self._attached(name, "query.database")
        return AttachedDatabase(attached, self._wait_for_start)

    def notice_of_tokens(self) -> str | None:
        """What a page of managed tokens must say where they will not last."""
        return self._notice(self._configuration.manage_tokens_database, "manage_tokens_database", "tokens")

    def notice_of_secrets(self) -> str | None:
        """What a page of secrets must say where they will not last."""
        return self._notice(self._configuration.secrets_database, "secrets.database", "secrets")

    def protected_tables(self) -> list[tuple[str, tuple[str, ...]]]:
        """Names of databases, and the tables in each that are not for Datasette's own pages."""
        configuration = self._configuration
        found: list[tuple[str, tuple[str, ...]]] = []
        if configuration.manage_tokens and not configuration.expose_token_tables:
            found += [(name, _TOKENS_TABLES) for name in self._names_of(configuration.manage_tokens_database)]
        if configuration.encryption_keys:
            found += [(name, _SECRETS_TABLES) for name in self._names_of(configuration.secrets_database)]
        return found

    async def warn_where_sql_may_be_run(self) -> None:
        """Warn where people may run SQL on a database with protected tables."""
        for database, tables in self.protected_tables():
            # With --crossdb the SQL of _memory reads the attached files too.
            readers = [database, *(["_memory"] if self._datasette.crossdb else [])]
            if any([await self._may_run_sql(name) for name in readers]):
                stored, read = _READABLE[tables[0]]
                logger.warning(
                    "the database %s holds the %s, and people may run SQL on it: they would read %s, which open "
                    "nothing. Set allow_sql for that database, or keep the %s in one of their own that nobody may "
                    "query",
                    database,
                    stored,
                    read,
                    stored,
                )

    def _for_store(self, name: str | None, key: str, stored: str) -> Database:
        if (other := self._other(name, key)) is not None:
            self._warn_of_file_options(other.name)
            return other
        if name is None:
            internal = self._datasette.get_internal_database()
            if internal.is_temp_disk:
                logger.warning(
                    "%s %s are in Datasette's temporary internal database: they are lost at a restart and "
                    "not shared by workers. Start Datasette with --internal, or set %s",
                    "managed" if stored == "tokens" else "encrypted",
                    stored,
                    key,
                )
            return self._file(internal.path)
        attached = self._attached(name, key)
        if attached.is_memory:
            self._warn_of_file_options(name)
            return AttachedDatabase(attached, self._wait_for_start)
        if not attached.is_mutable:
            raise ConfigurationError(
                f"{key}: {name} is attached as immutable and cannot hold {stored}; attach it without -i."
            )
        return self._file(attached.path)

    def _file(self, path: str) -> SQLite:
        configuration = self._configuration
        return attached_file(path, journal_mode=configuration.journal_mode, wal_index=configuration.wal_index)

    def _warn_of_file_options(self, database: str) -> None:
        for key in ("journal_mode", "wal_index"):
            if getattr(self._configuration, key) is not None:
                logger.warning("%s has no effect on %s, which is no file that Datasette has attached", key, database)

    def _other(self, name: str | None, key: str) -> Database | None:
        """A database that is not Datasette's: one given to ``wrap_datasette``, or a DSN in place of a name."""
        if name is None:
            return None
        if name not in self._others and is_dsn(name):
            # One object for all who name it, because it has connections of its own.
            self._others[name] = database_by_dsn(name, key)
        return self._others.get(name)

    def _attached(self, name: str, key: str) -> Any:
        if name not in self._datasette.databases:
            known = ", ".join(sorted({*self._datasette.databases, *self._others})) or "none"
            # A connection string in the wrong place may hold a password.
            shown = "of this name" if is_of_another_kind(name) else repr(name)
            raise ConfigurationError(f"{key}: no database {shown} is attached; attached: {known}.")
        return self._datasette.databases[name]

    def _notice(self, name: str | None, key: str, stored: str) -> str | None:
        if name is not None or not self._datasette.get_internal_database().is_temp_disk:
            return None
        return (
            f"These {stored} are kept in Datasette's temporary internal database: they are lost when the server stops. "
            f"Start Datasette with --internal, or set {key}."
        )

    def _names_of(self, name: str | None) -> list[str]:
        """All names of what the block calls ``name``, or of the internal database.

        One file, or one database in memory, may be attached several times.
        """
        databases = self._datasette.databases
        if name in self._others or is_dsn(name):
            # Given to wrap_datasette, or by a DSN; what is a file may be attached besides.
            other = self._others.get(name or "")
            path = str(other.path) if isinstance(other, SQLite) else None
            return [known for known, database in databases.items() if _same_file(database.path, path)]
        meant = self._datasette.get_internal_database() if name is None else databases.get(name)
        return [known for known, database in databases.items() if meant is not None and _same_database(database, meant)]

    async def _may_run_sql(self, database: str) -> bool:
        for actor in (None, {"id": "asgi-token-auth-start"}):
            if IS_1_0:
                from datasette.resources import DatabaseResource

                allowed = await self._datasette.allowed(
                    action="execute-sql", resource=DatabaseResource(database), actor=actor
                )
            else:
                allowed = all(
                    [
                        await self._datasette.permission_allowed(actor, action, database, default=True)
                        for action in ("view-database", "execute-sql")
                    ]
                )
            if allowed:
                return True
        return False


def _same_database(one: Any, other: Any) -> bool:
    if one is other or (one.memory_name is not None and one.memory_name == other.memory_name):
        return True
    return _same_file(one.path, other.path)


def _same_file(one: str | None, other: str | None) -> bool:
    try:
        return one is not None and other is not None and Path(one).samefile(other)
    except OSError:
        return False
