"""Rows by id for verification, in reads that requests share."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable

from asgi_token_auth.databases.postgres.connections import Pool
from asgi_token_auth.databases.postgres.reader import Reader
from asgi_token_auth.databases.postgres.server import Server
from asgi_token_auth.databases.protocol import Found


class PostgresLookup:
    """Rows by id, never older than the request that asks for them."""

    def __init__(self, server: Server, pool: Callable[[], Pool], table: str, columns: str) -> None:
        self._server = server
        self._pool = pool
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

    def fetch_now(self, row_id: int) -> None:
        """The server has to be waited for."""

    def fetch(self, row_id: int) -> Awaitable[Found]:
        """The row as it is now, from a read that begins after this call."""
        reader = self._latest()
        if reader is None or reader.ended or reader.loop is not asyncio.get_running_loop():
            readers = self._pool().readers
            if (reader := readers.get(self._sql)) is None:
                reader = readers[self._sql] = Reader(self._server, self._sql)
            self._latest = weakref.ref(reader)
        return reader.reads.ask(row_id)
