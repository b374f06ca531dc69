"""SQLite files.

Three kinds of connection, each for one purpose. Writes open a connection of their own and close it, so no
lock is ever shared between two of them. Queries run on a few kept connections off the event loop. Lookups,
which stand in the path of every request, run on the event loop's own thread on a connection that never writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote

import aiosqlite

from asgi_token_auth.databases.forks import watch
from asgi_token_auth.databases.protocol import Dialect, Found, Parameters, Result, Row, Steps
from asgi_token_auth.databases.rows import answer
from asgi_token_auth.databases.steps import drive
from asgi_token_auth.databases.trigrams import TrigramIndex
from asgi_token_auth.errors import ConfigurationError, StorageError

T = TypeVar("T")

_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
#: Seconds between looks at whether the path still leads to the file that is open.
_SAME_FILE_INTERVAL: Final = 0.1
#: Seconds that a lookup waits for another connection's lock, and the first pause of that wait.
_LOOKUP_PATIENCE: Final = 1.0
_LOOKUP_PAUSE: Final = 0.0005
_WRITE_PATIENCE: Final = 10.0
_KEPT_CONNECTIONS: Final = 4
#: Steps of SQLite's machine (some 0.1 ms of them) between two looks at whether anybody still waits.
_STEPS_BETWEEN_LOOKS: Final = 10_000
# Python 3.11 has a class outside sqlite3.Error for "only one statement at a time".
_SQLITE_ERRORS: Final = (sqlite3.Error, sqlite3.Warning)

DIALECT: Final = Dialect(
    identity="integer primary key",
    integer="integer",
    blob="blob",
    table_columns="select name from pragma_table_info(:table)",
    like="like",
    text_index=TrigramIndex(),
    indexes_uses=True,
)


class SQLite:
    """A SQLite file.

    Args:
        path: the file. It is created when it is opened and missing, unless ``create`` is false; never again
            after that, so that a deleted file is noticed instead of being replaced by an empty one.
        journal_mode: ``"wal"`` switches the file to WAL when a store first writes to it, so that readers and
            writers do not wait for each other. ``None`` keeps the mode that the file has.
        create: whether a missing file may be created.
    """

    dialect = DIALECT

    def __init__(
        self, path: str | os.PathLike[str], *, journal_mode: Literal["wal"] | None = "wal", create: bool = True
    ) -> None:
        self._path = Path(path).absolute()
        if not Path(path).name or str(path) == ":memory:":
            raise ConfigurationError("SQLite: give the path of a file; a database in memory is lost with its process.")
        self.name = f"SQLite file {self._path}"
        self._journal_mode = journal_mode
        self._create = create
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._lookups: list[_SQLiteLookup] = []
        self._writing = 0
        self._ending: set[asyncio.Future[Any]] = set()
        watch(self)

    def __repr__(self) -> str:
        return f"SQLite({str(self._path)!r})"

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def for_reading(self) -> SQLite:
        """The same file, never created and with its journal mode left alone."""
        return SQLite(self._path, journal_mode=None, create=False)

    async def open(self) -> None:
        """Create the file if that is allowed, set its journal mode and check that it is a database."""
        if sqlite3.sqlite_version_info < (3, 35):
            raise StorageError(f"SQLite 3.35 or newer is needed; Python was built with {sqlite3.sqlite_version}.")
        connection = await self._connect("rwc" if self._create else "rw", timeout=_WRITE_PATIENCE)
        try:
            if self._journal_mode == "wal":
                await _switch_to_wal(connection)
            await connection.execute_fetchall("select count(*) from sqlite_master")
        except sqlite3.Error as error:
            if not _is_read_only(error):
                raise self._failure(error) from error
        finally:
            await _closed(connection)

    async def close(self) -> None:
        """Close the kept connections."""
        loop = asyncio.get_running_loop()
        if (pool := self._pools.pop(loop, None)) is not None:
            pool.retire()
        for lookup in self._lookups:
            lookup.close()
        ending = [future for future in self._ending if future.get_loop() is loop]
        self._ending.clear()
        await _reported(ending, timeout=_LOOKUP_PATIENCE)

    def let_go(self, connection: aiosqlite.Connection) -> None:
        """Have a connection closed by its thread, without waiting for what it is doing."""
        if (future := connection.stop()) is not None:
            self._ending.add(future)
            future.add_done_callback(self._ending.discard)

    async def query(self, sql: str, parameters: Parameters, *, timeout: float = 5.0) -> Result:
        """Run one reading statement on a kept connection that cannot write."""
        self._check_process()
        pool = self._current_pool()
        try:
            async with asyncio.timeout(timeout):
                kept = await pool.take()
                try:
                    cursor = await kept.connection.execute(sql, parameters)
                    rows = [tuple(row) for row in await cursor.fetchall()]
                    columns = tuple(column[0] for column in cursor.description or ())
                    await cursor.close()
                except BaseException:
                    # Its thread may still be at work on the statement, so nobody else may have it.
                    pool.drop(kept)
                    raise
                pool.give_back(kept)
        except TimeoutError as error:
            raise StorageError(f"{self.name}: no answer within {timeout:g} seconds.") from error
        except _SQLITE_ERRORS as error:
            raise self._failure(error) from error
        return Result(columns, rows)

    async def columns(self, sql: str, parameters: Parameters, *, timeout: float = 5.0) -> tuple[str, ...]:
        """The names of the columns that a SELECT returns."""
        return (await self.query(*described(sql, parameters), timeout=timeout)).columns

    async def transaction(self, steps: Steps[T]) -> T:
        """Run ``steps`` between BEGIN IMMEDIATE and COMMIT.

        It runs to its end even if the caller is cancelled, so a client that hangs up leaves nothing half done.
        """
        return await asyncio.shield(asyncio.ensure_future(self._transaction(steps)))

    async def run_many(self, sql: str, parameters: Sequence[Parameters]) -> None:
        """Run one writing statement with each of ``parameters``, all of them or none."""
        await self.transaction(repeated(sql, parameters))

    async def _transaction(self, steps: Steps[T]) -> T:
        connection = await self._connect("rw", timeout=_WRITE_PATIENCE)
        self._writing += 1
        try:
            # FULL: what was acknowledged survives a power cut, in WAL too.
            await connection.execute_fetchall("pragma synchronous = full")
            # What was deleted shall not stay behind in the file. Not every SQLite is built to do so by itself.
            await connection.execute_fetchall("pragma secure_delete = on")
            await connection.execute_fetchall("begin immediate")
            try:
                result = await drive(steps, partial(_run, connection))
            except BaseException:
                # A full disk makes SQLite roll back by itself.
                if connection.in_transaction:
                    await connection.execute_fetchall("rollback")
                raise
            await connection.execute_fetchall("commit")
            return result
        except _SQLITE_ERRORS as error:
            raise self._failure(error) from error
        finally:
            self._writing -= 1
            steps.close()
            await _closed(connection)

    def qualified(self, table: str) -> str:
        """The name of ``table`` as statements must say it."""
        return table

    def lookup(self, table: str, columns: str) -> _SQLiteLookup:
        """A kept query for one row, run on the event loop's thread."""
        lookup = _SQLiteLookup(self, f"select {columns} from {table} where id = :id")
        self._lookups.append(lookup)
        return lookup

    def leave_to_parent(self) -> list[object]:
        """In a forked child: refuse from now on if the file was open, and hand over what was.

        Locks do not pass to the child, and SQLite there believes that they do, so answers would be stale on
        the parent's connections and on new ones.
        """
        inherited: list[object] = [held for lookup in self._lookups for held in lookup.leave()]
        inherited.extend(self._pools.values())
        if inherited or self._writing:
            _inherited_files.add(self._path)
        self._pools = {}
        return inherited

    def _current_pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        if (pool := self._pools.get(loop)) is None:
            for ended in [other for other in list(self._pools) if other.is_closed()]:
                # Another thread may have found it too.
                if (found := self._pools.pop(ended, None)) is not None:
                    found.retire()
            pool = self._pools[loop] = _Pool(self)
        return pool

    async def _connect(self, mode: Literal["rw", "rwc"], *, timeout: float) -> aiosqlite.Connection:
        self._check_process()
        connection = aiosqlite.connect(self._uri(mode), uri=True, timeout=timeout, isolation_level=None)
        # The thread of a connection that nobody closed would otherwise keep the interpreter from ending.
        connection._thread.daemon = True
        opening = asyncio.ensure_future(_opened(connection))
        try:
            await asyncio.shield(opening)
            connection.text_factory = _text
        except asyncio.CancelledError:
            # aiosqlite would lose the connection that its thread is about to open. No lock is waited for here.
            with contextlib.suppress(asyncio.CancelledError):
                await _reported([opening])
            if not opening.cancelled() and opening.exception() is None:
                await _closed(connection)
            raise
        except sqlite3.Error as error:
            # It ends by itself, at once; a loop that ended earlier would make it die with a traceback.
            connection._thread.join(_LOOKUP_PATIENCE)
            raise self._failure(error) from error
        return connection

    def connect_here(self) -> sqlite3.Connection:
        """A connection for the calling thread that never writes and never waits."""
        self._check_process()
        try:
            connection = sqlite3.connect(
                self._uri("rw"), uri=True, timeout=0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._failure(error) from error
        # rw, so that the journal of a crashed writer can be rolled back; query_only, so that nothing is written.
        connection.execute("pragma query_only = 1").fetchall()
        return connection

    def identity(self) -> tuple[int, int]:
        """What tells this file from another one under the same path."""
        try:
            status = self._path.stat()
        except OSError as error:
            raise StorageError(f"{self.name} is gone.") from error
        return status.st_dev, status.st_ino

    def _check_process(self) -> None:
        if self._path in _inherited_files:
            raise StorageError(
                f"{self.name} was opened before this process was forked: open databases in the worker, not before."
            )

    def _uri(self, mode: str) -> str:
        return f"file:{quote(str(self._path))}?mode={mode}"

    def _failure(self, error: Exception) -> StorageError:
        return StorageError(f"{self.name}: {_sentence(error)}")


class _Reader:
    """A connection that one thread reads on, and what its versions mean."""

    __slots__ = ("connection", "cursor", "file", "generation", "look_again")

    def __init__(self, connection: sqlite3.Connection, file: tuple[int, int], generation: int) -> None:
        self.connection = connection
        self.cursor = connection.cursor()
        self.file = file
        self.generation = generation
        self.look_again = time.monotonic() + _SAME_FILE_INTERVAL


class _SQLiteLookup:
    """Rows by id on the event loop's thread: microseconds, where a thread would cost a hundred times as much.

    Every thread has a connection of its own, since one used by two of them crashes the process.
    """

    def __init__(self, database: SQLite, sql: str) -> None:
        self._database = database
        self._sql = sql
        self._readers: dict[int, _Reader] = {}
        # Another connection counts from its own beginning: its versions must never meet those of this one.
        self._generations = itertools.count(1)

    def version(self) -> object | None:
        try:
            reader = self._readers.get(threading.get_ident())
            if reader is None or time.monotonic() >= reader.look_again:
                reader = self._current()
            return self._version(reader)
        except (sqlite3.Error, StorageError):
            return None

    async def fetch(self, row_id: int) -> Found:
        deadline = time.monotonic() + _LOOKUP_PATIENCE
        pause = _LOOKUP_PAUSE
        while True:
            try:
                return self._fetch(row_id)
            except sqlite3.Error as error:
                if not _is_busy(error) or time.monotonic() >= deadline:
                    self._drop_mine()
                    raise self._database._failure(error) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)

    def _fetch(self, row_id: int) -> Found:
        reader = self._current()
        # The version comes first: a commit between the two then costs one more read, never a stale answer.
        version = self._version(reader)
        try:
            rows = reader.cursor.execute(self._sql, {"id": row_id}).fetchall()
        except sqlite3.OperationalError as error:
            if hasattr(error, "sqlite_errorcode"):
                raise
            # Not SQLite but Python failed: some text is no UTF-8. That says something about this row only.
            reader.connection.text_factory = bytes
            try:
                rows = reader.cursor.execute(self._sql, {"id": row_id}).fetchall()
            finally:
                reader.connection.text_factory = str
        return answer(version, rows[0] if rows else None)

    def _version(self, reader: _Reader) -> int:
        # Read to its end: an open statement would hold the snapshot, and the version with it.
        counted: int = reader.cursor.execute("pragma data_version").fetchall()[0][0]
        return counted + reader.generation

    def _current(self) -> _Reader:
        reader = self._readers.get(threading.get_ident())
        now = time.monotonic()
        if reader is not None and now < reader.look_again:
            return reader
        file = self._database.identity()
        if reader is None or file != reader.file:
            self._drop_mine()
            reader = _Reader(self._database.connect_here(), file, next(self._generations) << 32)
            self._readers[threading.get_ident()] = reader
        reader.look_again = now + _SAME_FILE_INTERVAL
        return reader

    def _drop_mine(self) -> None:
        if (mine := self._readers.pop(threading.get_ident(), None)) is not None:
            mine.connection.close()

    def close(self) -> None:
        """Close this thread's connection. Those of other threads close when nobody is using them any more."""
        self._drop_mine()
        self._readers.clear()

    def leave(self) -> list[sqlite3.Connection]:
        """Forget the connections without closing them, and hand them over."""
        held = [reader.connection for reader in self._readers.values()]
        self._readers.clear()
        return held


class _Kept:
    """A connection of a pool, and the file that it was opened on."""

    __slots__ = ("connection", "dropped", "file")

    def __init__(self, connection: aiosqlite.Connection, file: tuple[int, int]) -> None:
        self.connection = connection
        self.file = file
        self.dropped = False

    def is_dropped(self) -> bool:
        return self.dropped


class _Pool:
    """A few connections that only read, for one event loop."""

    def __init__(self, database: SQLite) -> None:
        self._database = database
        self._idle: list[_Kept] = []
        self._turn = asyncio.Semaphore(_KEPT_CONNECTIONS)
        self._file = (0, 0)
        self._closed = False

    async def take(self) -> _Kept:
        await self._turn.acquire()
        try:
            file = self._database.identity()
            if file != self._file:
                self.abandon()
                self._file = file
            if self._idle:
                return self._idle.pop()
            kept = _Kept(await self._database._connect("rw", timeout=_LOOKUP_PATIENCE), file)
            try:
                await kept.connection.execute_fetchall("pragma query_only = 1")
                # Stops a statement that begins only after its caller has gone, which interrupt() would miss.
                await kept.connection.set_progress_handler(kept.is_dropped, _STEPS_BETWEEN_LOOKS)
            except BaseException:
                self._database.let_go(kept.connection)
                raise
            return kept
        except BaseException:
            self._turn.release()
            raise

    def give_back(self, kept: _Kept) -> None:
        self._turn.release()
        if self._closed or kept.file != self._file:
            self._database.let_go(kept.connection)
        else:
            self._idle.append(kept)

    def drop(self, kept: _Kept) -> None:
        self._turn.release()
        kept.dropped = True
        self._database.let_go(kept.connection)

    def retire(self) -> None:
        """Let go of all without waiting: its event loop may have ended."""
        self._closed = True
        self.abandon()

    def abandon(self) -> None:
        while self._idle:
            self._database.let_go(self._idle.pop().connection)


async def _opened(connection: aiosqlite.Connection) -> aiosqlite.Connection:
    return await connection


async def _closed(connection: aiosqlite.Connection) -> None:
    """Close ``connection`` and wait for its thread."""
    if (future := connection.stop()) is not None:
        await _reported([future])
        future.result()


async def _reported(threads: Sequence[asyncio.Future[Any]], *, timeout: float | None = None) -> None:
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


async def _switch_to_wal(connection: aiosqlite.Connection) -> None:
    deadline = time.monotonic() + _WRITE_PATIENCE
    pause = _LOOKUP_PAUSE
    while True:
        try:
            await connection.execute_fetchall("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            # Two processes that switch at once could wait for each other, so SQLite does not wait at all here.
            if not _is_busy(error) or time.monotonic() >= deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)


async def _run(connection: aiosqlite.Connection, sql: str, parameters: Parameters | Sequence[Parameters]) -> list[Row]:
    if isinstance(parameters, Mapping):
        return [tuple(row) for row in await connection.execute_fetchall(sql, parameters)]
    await (await connection.executemany(sql, parameters)).close()
    return []


def repeated(sql: str, parameters: Sequence[Parameters]) -> Steps[None]:
    """A transaction of one statement, run with each of ``parameters``."""
    yield sql, parameters


def described(sql: str, parameters: Parameters) -> tuple[str, Parameters]:
    """A statement that has the columns of ``sql`` and no rows, and is an error where ``sql`` is not one SELECT."""
    # Inside a SELECT only a SELECT is grammatical, and LIMIT 0 asks for the columns alone.
    return f"select * from (\n{sql}\n) as checked limit 0", parameters


def run_here(connection: sqlite3.Connection, sql: str, parameters: Parameters | Sequence[Parameters]) -> list[Row]:
    """Run one statement of a transaction on ``connection`` in the calling thread."""
    if isinstance(parameters, Mapping):
        return [tuple(row) for row in connection.execute(sql, parameters).fetchall()]
    connection.executemany(sql, parameters)
    return []


def _text(stored: bytes) -> str | bytes:
    """Text, or the bytes of what is not: one damaged value must not make the rows around it unreadable."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def _is_read_only(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY


def _sentence(error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another process holds its lock; it is safe to try again."
        case sqlite3.SQLITE_FULL:
            return "the disk is full; nothing was changed."
        case sqlite3.SQLITE_READONLY:
            return "it can only be read; give this process the right to write the file and its folder."
        case sqlite3.SQLITE_CANTOPEN:
            return "it cannot be opened; check that the file exists and may be read."
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "it is damaged or not a SQLite database; restore it from a backup."
    return f"{error}."


_inherited_files: set[Path] = set()
