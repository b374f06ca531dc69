"""The connections of one event loop that queries share."""

from __future__ import annotations

import asyncio
from typing import Final

import aiosqlite

from asgi_token_auth.databases.sqlite.companions import NONE, Companions, companions_of
from asgi_token_auth.databases.sqlite.file import LOOKUP_TIMEOUT, File

_POOL_SIZE: Final = 4
#: Steps of SQLite's machine (some 0.1 ms of them) between two looks at whether anybody still waits.
_STEPS_BETWEEN_CHECKS: Final = 10_000


class PooledConnection:
    """A connection of a pool, and the file that it was opened on."""

    __slots__ = ("companions", "connection", "dropped", "identity")

    def __init__(self, connection: aiosqlite.Connection, identity: tuple[int, int, int]) -> None:
        self.connection: aiosqlite.Connection = connection
        self.identity: tuple[int, int, int] = identity
        self.dropped: bool = False
        #: What stood beside the file after its first use.
        self.companions: Companions = NONE

    def is_dropped(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.dropped


class ReaderPool:
    """A few connections that only read, for one event loop."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._idle: list[PooledConnection] = []
        self._turn = asyncio.Semaphore(_POOL_SIZE)
        self._identity = (0, 0, 0)
        self._closed = False

    async def take(self) -> PooledConnection:
        """A connection that nobody else uses, to be given back or dropped."""
        await self._turn.acquire()
        try:
            identity = self._file.identity()
            if identity != self._identity:
                self.close_idle()
                self._identity = identity
            if self._idle:
                pooled = self._idle.pop()
                if not self._has_lost_companions(pooled):
                    # Its last use may have been what brought them.
                    pooled.companions = companions_of(self._file.path)
                    return pooled
                self._close(pooled)
                identity = self._identity = self._file.identity()
            pooled = PooledConnection(await self._file.connect("rw", timeout=LOOKUP_TIMEOUT), identity)
            try:
                await pooled.connection.execute_fetchall("pragma query_only = 1")
                # Stops a statement that begins only after its caller has gone, which interrupt() would miss.
                await pooled.connection.set_progress_handler(pooled.is_dropped, _STEPS_BETWEEN_CHECKS)
            except BaseException:
                self._file.close_soon(pooled.connection)
                raise
            return pooled
        except BaseException:
            self._turn.release()
            raise

    def give_back(self, pooled: PooledConnection) -> None:
        """Keep a connection for others."""
        self._turn.release()
        if pooled.companions == NONE:
            pooled.companions = companions_of(self._file.path)
        if self._closed or pooled.identity != self._identity:
            self._close(pooled)
        else:
            self._idle.append(pooled)

    def drop(self, pooled: PooledConnection) -> None:
        """Stop whatever a connection is doing, and close it."""
        self._turn.release()
        pooled.dropped = True
        self._close(pooled)

    def close(self) -> None:
        """Close all without waiting: its event loop may have ended."""
        self._closed = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            self._close(self._idle.pop())

    def _has_lost_companions(self, pooled: PooledConnection) -> bool:
        return self._file.has_lost(pooled.companions, pooled.identity)

    def _close(self, pooled: PooledConnection) -> None:
        """Have it closed, without harm to what other processes may have committed."""
        watch = self._file.companions
        if self._has_lost_companions(pooled) and not watch.note_loss(pooled.identity[2], pooled.companions):
            watch.keep_open(pooled.connection)
        else:
            self._file.close_soon(pooled.connection)
