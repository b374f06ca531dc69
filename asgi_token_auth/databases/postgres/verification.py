"""Rows by id for verification, in reads that requests share."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asgi_token_auth.databases.postgres.connections import KEPT_PATIENCE, say_goodbye
from asgi_token_auth.databases.postgres.failures import ERRORS
from asgi_token_auth.databases.protocol import Found
from asgi_token_auth.databases.rows import answer
from asgi_token_auth.databases.shared_reads import SharedReads
from asgi_token_auth.errors import StorageError

if TYPE_CHECKING:
    from asgi_token_auth.databases.postgres.database import Postgres


class PostgresLookup:
    """Rows by id, never older than the request that asks for them."""

    def __init__(self, database: Postgres, table: str, columns: str) -> None:
        self._database = database
        # The one that was asked last, which where there is one event loop is the right one. Only the pool keeps it.
        self._latest: Callable[[], Reader | None] = lambda: None
        # The outer join answers even where there is no such row, so that every answer says who gave it. The ids come as
        # text because for an array asyncpg first asks the server what that is, in a query that finds the operators of
        # whoever may make them in a schema of the search path. In this one there is nothing but PostgreSQL's own.
        self._sql = (
            f"select pg_catalog.pg_is_in_recovery(), {columns} from (select 1) as one "
            f"left join {table} as found on found.id operator(pg_catalog.=) any(cast($1::text as bigint[]))"
        )

    def version(self) -> None:
        """It cannot be told without asking the server, which might as well answer with the row."""

    def fetch(self, row_id: int) -> Awaitable[Found]:
        """The row as it is now, from a read that begins after this call."""
        reader = self._latest()
        if reader is None or reader.ended or reader.loop is not asyncio.get_running_loop():
            readers = self._database.pool().readers
            if (reader := readers.get(self._sql)) is None:
                reader = readers[self._sql] = Reader(self._database, self._sql)
            self._latest = weakref.ref(reader)
        return reader.reads.ask(row_id)


class Reader:
    """The connection of one event loop for one query."""

    def __init__(self, database: Postgres, sql: str) -> None:
        self._database = database
        self._sql = sql
        self.connection: Any = None
        self.loop = asyncio.get_running_loop()
        #: Set when its pool is closed or was left to the parent process: it may be asked nothing more.
        self.ended = False
        self.reads: SharedReads[Found] = SharedReads(self._read, answer(None, None))

    async def _read(self, row_ids: Collection[int], deadline: float) -> Mapping[int, Found]:
        ids = f"{{{','.join(map(str, row_ids))}}}"
        connection = self.connection
        if connection is not None and not connection.is_closed():
            # It may have died unnoticed, so it gets only a part of the time, and its failure is not the last word.
            left = min(deadline - asyncio.get_running_loop().time(), KEPT_PATIENCE)
            try:
                return self._found(await connection.fetch(self._sql, ids, timeout=left))
            except (StorageError, *ERRORS):
                pass
            except BaseException:
                self._drop()
                raise
        self._drop()
        try:
            async with asyncio.timeout_at(deadline):
                self.connection = await self._database.connect()
                return self._found(await self.connection.fetch(self._sql, ids))
        except TimeoutError as error:
            self._drop()
            raise StorageError(f"{self._database.name}: no answer within a second.") from error
        except ERRORS as error:
            self._drop()
            raise self._database.failure(error) from error
        except BaseException:
            self._drop()
            raise

    def _found(self, rows: Sequence[Any]) -> Mapping[int, Found]:
        if rows[0][0] and not self._database.allow_stale_reads:
            raise self._database.is_standby()
        return {row[1]: answer(None, row[1:]) for row in rows if row[1] is not None}

    def _drop(self) -> None:
        if self.connection is not None:
            self._database.let_go(self.connection)
            self.connection = None

    async def close(self) -> None:
        """End the connection when everybody has an answer."""
        await self.reads.close()
        if self.connection is not None:
            await say_goodbye(self.connection)
            self.connection = None
