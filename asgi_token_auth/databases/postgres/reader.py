"""The connection on which one event loop reads the rows that verification asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from asgi_token_auth.databases.postgres.failures import ERRORS
from asgi_token_auth.databases.postgres.server import REUSE_TIMEOUT, Server, close_connection
from asgi_token_auth.databases.postgres.shared_reads import SharedReads
from asgi_token_auth.databases.protocol import Found
from asgi_token_auth.databases.rows import answer
from asgi_token_auth.errors import StorageError


class Reader:
    """The connection of one event loop for one query."""

    def __init__(self, server: Server, sql: str) -> None:
        self._server = server
        self._sql = sql
        self.connection: Any = None
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        #: Set when its pool is closed or was left to the parent process: it may be asked nothing more.
        self.ended = False
        self.reads: SharedReads[Found] = SharedReads(self._read, answer(None, None))

    async def _read(self, row_ids: Collection[int], deadline: float) -> Mapping[int, Found]:
        ids = f"{{{','.join(map(str, row_ids))}}}"
        connection = self.connection
        if connection is not None and not connection.is_closed():
            # It may have died unnoticed, so it gets only a part of the time, and its failure is not the last word.
            left = min(deadline - asyncio.get_running_loop().time(), REUSE_TIMEOUT)
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
                self.connection = await self._server.connect()
                return self._found(await self.connection.fetch(self._sql, ids))
        except TimeoutError as error:
            self._drop()
            raise StorageError(f"{self._server.name}: no answer within a second.") from error
        except ERRORS as error:
            self._drop()
            raise self._server.failure(error) from error
        except BaseException:
            self._drop()
            raise

    def _found(self, rows: Sequence[Any]) -> Mapping[int, Found]:
        if rows[0][0] and not self._server.allow_stale_reads:
            raise self._server.standby_error()
        return {row[1]: answer(None, row[1:]) for row in rows if row[1] is not None}

    def _drop(self) -> None:
        if self.connection is not None:
            self._server.close_soon(self.connection)
            self.connection = None

    async def close(self) -> None:
        """End the connection when everybody has an answer."""
        await self.reads.close()
        if self.connection is not None:
            await close_connection(self.connection)
            self.connection = None
