"""The connections of one event loop that queries share."""

from __future__ import annotations

import asyncio
from typing import Final

import aiosqlite

from asgi_token_auth.databases.sqlite.file import LOOKUP_PATIENCE, File

_KEPT_CONNECTIONS: Final = 4
#: Steps of SQLite's machine (some 0.1 ms of them) between two looks at whether anybody still waits.
_STEPS_BETWEEN_LOOKS: Final = 10_000


class PooledConnection:
    """A connection of a pool, and the file that it was opened on."""

    __slots__ = ("connection", "dropped", "identity")

    def __init__(self, connection: aiosqlite.Connection, identity: tuple[int, int]) -> None:
        self.connection = connection
        self.identity = identity
        self.dropped = False

    def is_dropped(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.dropped


class ReaderPool:
    """A few connections that only read, for one event loop."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._idle: list[PooledConnection] = []
        self._turn = asyncio.Semaphore(_KEPT_CONNECTIONS)
        self._identity = (0, 0)
        self._closed = False

    async def take(self) -> PooledConnection:
        """A connection that nobody else uses, to be given back or dropped."""
        await self._turn.acquire()
        try:
            identity = self._file.identity()
            if identity != self._identity:
                self.abandon()
                self._identity = identity
            if self._idle:
                return self._idle.pop()
            kept = PooledConnection(await self._file.connect("rw", timeout=LOOKUP_PATIENCE), identity)
            try:
                await kept.connection.execute_fetchall("pragma query_only = 1")
                # Stops a statement that begins only after its caller has gone, which interrupt() would miss.
                await kept.connection.set_progress_handler(kept.is_dropped, _STEPS_BETWEEN_LOOKS)
            except BaseException:
                self._file.let_go(kept.connection)
                raise
            return kept
        except BaseException:
            self._turn.release()
            raise

    def give_back(self, kept: PooledConnection) -> None:
        """Keep a connection for others."""
        self._turn.release()
        if self._closed or kept.identity != self._identity:
            self._file.let_go(kept.connection)
        else:
            self._idle.append(kept)

    def drop(self, kept: PooledConnection) -> None:
        """Stop whatever a connection is doing, and close it."""
        self._turn.release()
        kept.dropped = True
        self._file.let_go(kept.connection)

    def retire(self) -> None:
        """Let go of all without waiting: its event loop may have ended."""
        self._closed = True
        self.abandon()

    def abandon(self) -> None:
        """Let go of those that nobody uses."""
        while self._idle:
            self._file.let_go(self._idle.pop().connection)
