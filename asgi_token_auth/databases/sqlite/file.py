"""A SQLite file: how connections to it are opened and closed, and how it is told from another one."""

# aiosqlite does not say what a thread reports, and has no public name for the thread.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import aiosqlite

from asgi_token_auth.databases.sqlite.companions import Companions, Watch, companions_of, watch, were_replaced
from asgi_token_auth.databases.sqlite.failures import is_busy, sentence, what_it_is
from asgi_token_auth.errors import NO_THREAD, StorageError, is_without_threads

#: Seconds that a lookup waits for another connection's lock, and the first pause of that wait.
LOOKUP_TIMEOUT: Final = 1.0
FIRST_RETRY_PAUSE: Final = 0.0005
#: The same for whoever writes.
WRITE_TIMEOUT: Final = 10.0
# What aiosqlite takes unless it is told otherwise; nothing here reads rows one by one.
_ROWS_AT_ONCE: Final = 64


class File:
    """The file under a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name: str = f"SQLite file {path}"
        self.companions: Watch = watch(path)
        self._closing: set[asyncio.Future[Any]] = set()

    async def connect(self, mode: Literal["rw", "rwc"], *, timeout: float) -> aiosqlite.Connection:
        """A connection with a thread of its own, which waits ``timeout`` seconds for the locks of others."""
        self.check()
        self._check_kind()
        opened: list[sqlite3.Connection] = []

        def connector() -> sqlite3.Connection:
            made = sqlite3.connect(
                self._uri(mode), uri=True, timeout=timeout, isolation_level=None, check_same_thread=False
            )
            opened.append(made)
            return made

        connection = aiosqlite.Connection(connector, _ROWS_AT_ONCE)
        # The thread of a connection that nobody closed would otherwise keep the interpreter from ending.
        connection._thread.daemon = True
        opening = asyncio.ensure_future(_open(connection))
        try:
            await asyncio.shield(opening)
            connection.text_factory = _text_or_bytes
        except asyncio.CancelledError:
            # aiosqlite loses the connection that its thread is about to open. No lock is waited for here.
            with contextlib.suppress(asyncio.CancelledError):
                await _wait_for_threads([opening])
            if opening.cancelled():
                # The event loop is ending, and a thread that reports to it later would die with a traceback.
                if connection._thread.is_alive():
                    connection._thread.join(LOOKUP_TIMEOUT)
                if not connection._thread.is_alive() and opened:
                    opened[0].close()
            elif opening.exception() is None:
                await close_connection(connection)
            raise
        except RuntimeError as error:
            if not is_without_threads(error):
                raise
            raise StorageError(f"{self.name}: {NO_THREAD}") from error
        except sqlite3.Error as error:
            # It ends by itself, at once; a loop that ended earlier would make it die with a traceback.
            connection._thread.join(LOOKUP_TIMEOUT)
            raise self.failure(error) from error
        return connection

    def connect_here(self) -> sqlite3.Connection:
        """A connection for the calling thread that never writes and never waits."""
        self.check()
        self._check_kind()
        try:
            connection = sqlite3.connect(
                self._uri("rw"), uri=True, timeout=0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self.failure(error) from error
        # rw, so that the journal of a crashed writer can be rolled back; query_only, so that nothing is written.
        connection.execute("pragma query_only = 1").fetchall()
        return connection

    def identity(self) -> tuple[int, int, int]:
        """What tells this file, with what stands beside it, from another one under the same path."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise StorageError(f"{self.name} is gone.") from error
        return status.st_dev, status.st_ino, self.companions.losses

    def has_lost(self, companions: Companions, identity: tuple[int, int, int]) -> bool:
        """Whether the file is still the one of ``identity``, and a file that stood beside it is not.

        When the database itself is gone or is another, SQLite copies nothing into it.
        """
        if not were_replaced(companions, companions_of(self.path)):
            return False
        try:
            return self.identity()[:2] == identity[:2]
        except StorageError:
            return False

    def check_process(self) -> None:
        """Raise StorageError in a child of the process that had the file open."""
        if self.path in _inherited_files:
            raise StorageError(
                f"{self.name} was opened before this process was forked: open databases in the worker, not before."
            )

    def check(self) -> None:
        """Raise StorageError where a new connection would not see what other processes see."""
        self.check_process()
        if not self.companions.is_usable():
            raise StorageError(
                f"{self.name}: its -wal or -shm file was deleted or replaced while it was in use. Leave them alone "
                "while anything has it open; start this process again if this does not end by itself."
            )

    def _check_kind(self) -> None:
        # Before SQLite opens it: a pipe would keep its thread, and the process, for ever.
        if (other := what_it_is(self.path)) is not None:
            raise StorageError(f"{self.name}: {other}")

    def _uri(self, mode: str) -> str:
        return f"file:{quote(str(self.path))}?mode={mode}"

    def failure(self, error: Exception) -> StorageError:
        """``error`` in a sentence that says what to do."""
        return StorageError(f"{self.name}: {sentence(error, self.path)}")

    def close_soon(self, connection: aiosqlite.Connection) -> None:
        """Have a connection closed by its thread, without waiting for what it is doing."""
        if (future := connection.stop()) is not None:
            self._closing.add(future)
            future.add_done_callback(self._closing.discard)

    async def wait_closed(self) -> None:
        """Wait until the threads of the connections that are closing have ended."""
        loop = asyncio.get_running_loop()
        # Other threads put theirs in and wait for those themselves; nobody waits in a loop that has ended.
        others = list(self._closing)
        closing = [future for future in others if future.get_loop() is loop]
        self._closing.difference_update(closing, [future for future in others if future.get_loop().is_closed()])
        await _wait_for_threads(closing, timeout=LOOKUP_TIMEOUT)

    def leave_to_parent(self) -> None:
        """In a forked child: refuse from now on."""
        _inherited_files.add(self.path)


async def _open(connection: aiosqlite.Connection) -> aiosqlite.Connection:
    return await connection


async def close_connection(connection: aiosqlite.Connection) -> None:
    """Close ``connection`` and wait for its thread."""
    if (future := connection.stop()) is not None:
        await _wait_for_threads([future])
        future.result()


async def _wait_for_threads(threads: Sequence[asyncio.Future[Any]], *, timeout: float | None = None) -> None:
    """Wait until all these threads have reported, and only then give way to a cancellation.

    A thread that reports to an event loop that has ended dies with a traceback.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    cancelled: asyncio.CancelledError | None = None
    while waiting := [thread for thread in threads if not thread.done()]:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            break
        try:
            await asyncio.wait(waiting, timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def switch_to_wal(connection: aiosqlite.Connection) -> None:
    """Set the journal mode of the file, which stays."""
    deadline = time.monotonic() + WRITE_TIMEOUT
    pause = FIRST_RETRY_PAUSE
    while True:
        try:
            await connection.execute_fetchall("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            # Two processes that switch at once could wait for each other, so SQLite does not wait at all here.
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)


def _text_or_bytes(stored: bytes) -> str | bytes:
    """Text, or the bytes of what is not: one damaged value must not make the rows around it unreadable."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


_inherited_files: set[Path] = set()
