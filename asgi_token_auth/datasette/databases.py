"""Datasette's databases as stores and sources see them."""

# Datasette's functions have no types.
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from datasette.utils import sqlite_timelimit

from asgi_token_auth.databases.protocol import Database, Dialect, Found, Parameters, Result, Steps
from asgi_token_auth.databases.rows import answer
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.databases.sqlite.database import (
    DIALECT,
    columns_statement,
    run_here,
    run_many_steps,
    value_refused,
)
from asgi_token_auth.databases.steps import drive_here
from asgi_token_auth.datasette.version import IS_1_0
from asgi_token_auth.errors import StorageError
from asgi_token_auth.secrets.store import SecretStore
from asgi_token_auth.signing import MANAGED_PREFIX, SecretInput
from asgi_token_auth.storage.store import TableStore
from asgi_token_auth.tokens.store import TokenStore

T = TypeVar("T")

#: Until Datasette has started: it prepares its internal database then, and plugins attach theirs.
WaitForStart = Callable[[], Awaitable[None]]


class _WaitsForStart(TableStore):
    """A store in one of Datasette's databases, which are complete only once Datasette has started."""

    _wait_for_start: WaitForStart

    async def ensure_ready(self) -> None:
        """Wait for Datasette before anything is locked: its startup hooks may use this store too."""
        if not self.ready:
            await self._wait_for_start()
            await super().ensure_ready()


class AttachedTokenStore(_WaitsForStart, TokenStore):
    """Managed tokens there."""

    def __init__(
        self,
        database: Database,
        *,
        secret: SecretInput,
        wait_for_start: WaitForStart,
        prefix: str = MANAGED_PREFIX,
        record_addresses: bool = False,
        max_expires_after: int | None = None,
    ) -> None:
        super().__init__(
            database,
            secret=secret,
            prefix=prefix,
            record_addresses=record_addresses,
            max_expires_after=max_expires_after,
        )
        self._wait_for_start = wait_for_start


class AttachedSecretStore(_WaitsForStart, SecretStore):
    """Encrypted secrets there."""

    def __init__(
        self, database: Database, *, encryption_key: str | Sequence[str] | None, wait_for_start: WaitForStart
    ) -> None:
        super().__init__(database, encryption_key=encryption_key)
        self._wait_for_start = wait_for_start


def attached_file(
    path: str, *, journal_mode: Literal["wal", "keep"] | None = None, wal_index: bool | None = None
) -> SQLite:
    """A file that Datasette has open too: never created here, its journal mode left alone unless it is ``"wal"``."""
    mode: Literal["wal"] | None = "wal" if journal_mode == "wal" else None
    return SQLite(path, journal_mode=mode, create=False, wal_index=wal_index is not False)


class AttachedDatabase:
    """A database through Datasette's own connections, which know the SQL functions of its plugins.

    In-memory databases exist on those connections only. Their reads go through the writing connection too,
    because memory with a shared cache refuses to read what is being written.
    """

    dialect: Dialect = DIALECT

    def __init__(self, database: Any, wait_for_start: WaitForStart) -> None:
        self._database = database
        self._wait_for_start = wait_for_start
        self.name: str = f"Datasette's database {database.name}"

    async def open(self) -> None:
        """Wait for Datasette."""
        await self._wait_for_start()

    async def close(self) -> None:
        """Nothing: Datasette closes it."""

    async def query(self, sql: str, parameters: Parameters, *, timeout: float = 5.0) -> Result:
        """Run one reading statement in one of Datasette's threads."""

        def run(connection: sqlite3.Connection) -> Result:
            with sqlite_timelimit(connection, timeout * 1000):
                cursor = connection.execute(sql, parameters)
                rows = [tuple(row) for row in cursor.fetchall()]
            return Result(tuple(column[0] for column in cursor.description or ()), rows)

        try:
            # Datasette's threads may all be busy, which the limit inside one of them cannot see.
            async with asyncio.timeout(timeout * 2):
                return await self._run(run, reads=True)
        except TimeoutError as error:
            raise StorageError(f"{self.name}: no answer within {timeout:g} seconds.") from error

    async def columns(self, sql: str, parameters: Parameters, *, timeout: float = 5.0) -> tuple[str, ...]:
        """The names of the columns that a SELECT returns."""
        return (await self.query(*columns_statement(sql, parameters), timeout=timeout)).columns

    async def transaction(self, steps: Steps[T]) -> T:
        """Run ``steps`` on Datasette's writing connection."""

        def run(connection: sqlite3.Connection) -> T:
            if IS_1_0:
                return drive_here(steps, partial(run_here, connection))
            with connection:
                return drive_here(steps, partial(run_here, connection))

        return await self._run(run, reads=False)

    async def run_many(self, sql: str, parameters: Sequence[Parameters]) -> None:
        """Run one writing statement with each of ``parameters``, all of them or none."""
        with value_refused(self.name):
            await self.transaction(run_many_steps(sql, parameters))

    def qualified(self, table: str) -> str:
        """The name of ``table`` as statements must say it."""
        return table

    def lookup(self, table: str, columns: str) -> UncachedLookup:
        """A query for one row, asked anew each time."""
        return UncachedLookup(self, f"select {columns} from {table} where id = :id")

    async def _run(self, function: Callable[[sqlite3.Connection], T], *, reads: bool) -> T:
        through_writer = self._database.is_memory or not reads
        execute = self._database.execute_write_fn if through_writer else self._database.execute_fn
        try:
            result: T = await execute(function)
        except sqlite3.Error as error:
            raise StorageError(f"{self.name}: {error}.") from error
        except RuntimeError as error:
            if not getattr(self._database, "_closed", False):
                raise
            raise StorageError(f"{self.name}: Datasette has closed it; make a new Datasette.") from error
        return result


class UncachedLookup:
    """Rows by id from a database that cannot tell cheaply whether it has changed."""

    def __init__(self, database: AttachedDatabase, sql: str) -> None:
        self._database = database
        self._sql = sql

    def version(self) -> None:
        """It cannot be told."""

    def fetch_now(self, row_id: int) -> None:
        """Datasette's own thread has to be waited for."""

    async def fetch(self, row_id: int) -> Found:
        """The row as it is now."""
        rows = (await self._database.query(self._sql, {"id": row_id}, timeout=1.0)).rows
        return answer(None, rows[0] if rows else None)
