"""Where a test keeps its tables: a SQLite file or a schema of a real PostgreSQL, whichever the test is run with."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Protocol

import pytest

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.databases.sqlite import SQLite
from tests.support import postgres


class Place(Protocol):
    kind: str

    def database(self, name: str = "t") -> Database:
        """The same tables for each call with the same name, through connections of its own as another process has."""
        ...

    def run(self, sql: str, *parameters: object) -> list[Any]:
        """What an operator, or an accident, does from outside. ``?`` for parameters."""
        ...


class SQLitePlace:
    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def database(self, name: str = "t") -> SQLite:
        return SQLite(self.folder / f"{name}.db")

    def run(self, sql: str, *parameters: object) -> list[Any]:
        return run_in(self.database(), sql, *parameters)


class PostgresPlace:
    kind = "postgres"

    def __init__(self, server: postgres.Server, schema: str) -> None:
        self.server = server
        self.schema = schema
        self._made: list[str] = []
        self._schema_of("t")

    def database(self, name: str = "t", **options: Any) -> Postgres:
        return Postgres(self.server.dsn(), schema=self._schema_of(name), **options)

    def run(self, sql: str, *parameters: object) -> list[Any]:
        return run_in(self.database(), sql, *parameters)

    def remove(self) -> None:
        for schema in self._made:
            self.server.run(f'drop schema "{schema}" cascade')

    def _schema_of(self, name: str) -> str:
        schema = f"{self.schema}_{name}"
        if schema not in self._made:
            self.server.run(f'create schema "{schema}"')
            self._made.append(schema)
        return schema


def run_in(database: Database, sql: str, *parameters: object) -> list[Any]:
    """Run one statement, with ``?`` for parameters, on a connection that the database knows nothing of."""
    if isinstance(database, Postgres):
        return postgres.run(f"{database._server._dsn}&search_path={database._schema}", sql, *parameters)
    assert isinstance(database, SQLite)
    connection = sqlite3.connect(database.path, isolation_level=None)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def run_sql(store: TokenStore, sql: str, *parameters: object) -> list[Any]:
    """The same in the database of ``store``."""
    return run_in(store.database, sql, *parameters)


#: For tests of what only SQLite lets happen: any type in any column, files that are copied or replaced.
only_sqlite = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
