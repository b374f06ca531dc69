"""The connections of one event loop."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

from asgi_token_auth.databases.postgres.failures import ERRORS
from asgi_token_auth.databases.postgres.reader import Reader
from asgi_token_auth.databases.postgres.server import REUSE_TIMEOUT, Server, close_connection
from asgi_token_auth.errors import StorageError

#: Seconds after which a pooled connection is asked whether it still works before it is used.
_CHECK_AFTER: Final = 5.0


class Pool:
    """The pooled connections of one event loop, and what verifies on it."""

    def __init__(self, server: Server, size: int) -> None:
        self._server = server
        self._size = size
        self._idle: list[tuple[Any, float]] = []
        self._turn = asyncio.Semaphore(size)
        self._ended = False
        # Where a server sends no lifespan events, nothing else tells that the event loop ends.
        self._keeper = asyncio.get_running_loop().create_task(self._until_the_end())
        self.writing: asyncio.Lock = asyncio.Lock()
        self.readers: dict[str, Reader] = {}

    async def take(self, *, checked: bool, turn: float) -> Any:
        """A connection that nobody else uses, to be given back.

        Args:
            checked: one that has just answered.
            turn: seconds to wait while all are in use.

        Raises:
            StorageError: all stayed in use, or the server is not the primary.
        """
        try:
            async with asyncio.timeout(turn):
                await self._turn.acquire()
        except TimeoutError as error:
            raise StorageError(
                f"{self._server.name}: all {self._size} connections are busy; raise pool_size, if that is usual, as "
                "an argument or in the DSN."
            ) from error
        try:
            loop = asyncio.get_running_loop()
            while self._idle:
                connection, since = self._idle.pop()
                if connection.is_closed():
                    continue
                if (not checked and loop.time() - since < _CHECK_AFTER) or await self._works(connection):
                    return connection
                # What has ended this one has probably ended all of them, and each would cost its time.
                for other, _ in self._idle:
                    self._server.close_soon(other)
                self._idle.clear()
            return await self._server.connect()
        except BaseException:
            self._turn.release()
            raise

    async def give_back(self, connection: Any, *, keep: bool) -> None:
        """Keep a connection for others, or end it."""
        self._turn.release()
        if self._ended:
            # No other task would live to do it.
            await close_connection(connection)
        elif keep:
            self._idle.append((connection, asyncio.get_running_loop().time()))
        else:
            self._server.close_soon(connection)
            # It may be what lies between, so none of the others is used before it has answered.
            self._idle = [(other, -math.inf) for other, _ in self._idle]

    async def _works(self, connection: Any) -> bool:
        """Whether it may be used. It is ended otherwise."""
        works = False
        try:
            async with asyncio.timeout(REUSE_TIMEOUT):
                standby = await connection.fetchval("select pg_catalog.pg_is_in_recovery()")
            works = not standby or self._server.allow_stale_reads
        except (*ERRORS, TimeoutError):
            pass
        finally:
            # Also when whoever wanted it is gone.
            if not works:
                self._server.close_soon(connection)
        return works

    async def close(self) -> None:
        """End every connection, those in use when they are given back."""
        # Not left to the keeper: a task that is cancelled before its first step does nothing at all.
        await self._end()
        self._keeper.cancel()
        await asyncio.wait([self._keeper])

    async def _until_the_end(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            # Cancelled with everything else, because the event loop ends and nobody has closed the database. It waits
            # only for tasks that it knew by then, and the others let go of their connections in new ones.
            await asyncio.sleep(0)
            await self._end()
            await self._server.wait_closed()

    async def _end(self) -> None:
        self._ended = True
        idle, self._idle = self._idle, []
        readers, self.readers = self.readers, {}
        for reader in readers.values():
            reader.ended = True
        await asyncio.gather(
            *(close_connection(connection) for connection, _ in idle), *(reader.close() for reader in readers.values())
        )
