"""A SQLite file as the stores use it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Generator, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar

import aiosqlite

from asgi_token_auth.databases.forks import watch
from asgi_token_auth.databases.protocol import Dialect, Parameters, Result, Row, Steps
from asgi_token_auth.databases.sqlite.companions import NONE, companions_of
from asgi_token_auth.databases.sqlite.connections import ReaderPool
from asgi_token_auth.databases.sqlite.failures import BUSY, ERRORS, is_about_a_value, is_busy, is_read_only
from asgi_token_auth.databases.sqlite.file import (
    FIRST_RETRY_PAUSE,
    WRITE_TIMEOUT,
    File,
    close_connection,
    switch_to_wal,
)
from asgi_token_auth.databases.sqlite.lookup import SQLiteLookup
from asgi_token_auth.databases.sqlite.search_index import TrigramIndex
from asgi_token_auth.databases.sqlite.writers import TURNS
from asgi_token_auth.databases.steps import drive
from asgi_token_auth.errors import ConfigurationError, StorageError, ValueRefused

T = TypeVar("T")

#: Seconds between looks at whether another process still writes. They find the moments between its transactions.
_LONGEST_PAUSE: Final = 0.005
# In one go, because each one on its own is a way to the thread and back.
# FULL: what was acknowledged survives a power cut, in WAL too.
# secure_delete: what was deleted shall not stay behind in the file. Not every SQLite is built to do so by itself.
# busy_timeout: from then on only readers can be in the way, and only where there is no WAL.
_BEGIN: Final = "pragma synchronous = full; pragma secure_delete = on; begin immediate; pragma busy_timeout = {timeout}"

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
        wal_index: whether verification may tell that nothing was committed from the memory that SQLite shares between
            processes, where there is such a thing (Linux, WAL). Otherwise SQLite itself is asked for each request.
    """

    dialect = DIALECT

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        journal_mode: Literal["wal"] | None = "wal",
        create: bool = True,
        wal_index: bool = True,
    ) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise ConfigurationError(f"SQLite: give the path of a file, not {type(path).__name__}.")
        if isinstance(path, str) and "://" in path:
            # It is not repeated, because it may hold a password.
            raise ConfigurationError(
                "SQLite: give the path of a file, not an address; Postgres() takes those that begin with postgresql://."
            )
        if journal_mode not in ("wal", None):
            raise ConfigurationError('SQLite: journal_mode is "wal", or None for the mode that the file has.')
        if not Path(path).name or str(path) == ":memory:":
            raise ConfigurationError("SQLite: give the path of a file; a database in memory is lost with its process.")
        if not isinstance(wal_index, bool):
            raise ConfigurationError("SQLite: wal_index is True or False.")
        self._file = File(Path(path).absolute())
        self.name: str = self._file.name
        self._journal_mode = journal_mode
        self._create = create
        self._wal_index = wal_index
        self._pools: dict[asyncio.AbstractEventLoop, ReaderPool] = {}
        self._lookups: list[SQLiteLookup] = []
        self._writing = 0
        watch(self)
        self._file.companions.on_loss(self._close_unused)

    def __repr__(self) -> str:
        return f"SQLite({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def for_reading(self) -> SQLite:
        """The same file, never created and with its journal mode left alone."""
        return SQLite(self.path, journal_mode=None, create=False, wal_index=self._wal_index)

    async def open(self) -> None:
        """Create the file if that is allowed, set its journal mode and check that it is a database."""
        if sqlite3.sqlite_version_info < (3, 35):
            raise StorageError(f"SQLite 3.35 or newer is needed; Python was built with {sqlite3.sqlite_version}.")
        connection = await self._file.connect("rwc" if self._create else "rw", timeout=WRITE_TIMEOUT)
        try:
            if self._journal_mode == "wal":
                await switch_to_wal(connection)
            await connection.execute_fetchall("select count(*) from sqlite_master")
        except sqlite3.Error as error:
            if not is_read_only(error):
                raise self._file.failure(error) from error
        finally:
            await close_connection(connection)

    async def close(self) -> None:
        """Close the pooled connections of this event loop, and of those that have ended."""
        loop = asyncio.get_running_loop()
        self._close_ended()
        if (pool := self._pools.pop(loop, None)) is not None:
            pool.close()
        for lookup in self._lookups:
            lookup.close()
        await self._file.wait_closed()

    async def query(self, sql: str, parameters: Parameters, *, timeout: float = 5.0) -> Result:
        """Run one reading statement on a pooled connection that cannot write."""
        self._file.check_process()
        pool = self._pool()
        try:
            async with asyncio.timeout(timeout):
                pooled = await pool.take()
                try:
                    cursor = await pooled.connection.execute(sql, parameters)
                    rows = [tuple(row) for row in await cursor.fetchall()]
                    columns = tuple(column[0] for column in cursor.description or ())
                    await cursor.close()
                except BaseException:
                    # Its thread may still be at work on the statement, so nobody else may have it.
                    pool.drop(pooled)
                    raise
                pool.give_back(pooled)
        except TimeoutError as error:
            raise StorageError(f"{self.name}: no answer within {timeout:g} seconds.") from error
        except ERRORS as error:
            raise self._file.failure(error) from error
        return Result(columns, rows)

    async def columns(self, sql: str, parameters: Parameters, *, timeout: float = 5.0) -> tuple[str, ...]:
        """The names of the columns that a SELECT returns."""
        return (await self.query(*columns_statement(sql, parameters), timeout=timeout)).columns

    async def transaction(self, steps: Steps[T]) -> T:
        """Run ``steps`` between BEGIN IMMEDIATE and COMMIT, after those who came before in this event loop.

        Once it is its turn it runs to its end even if the caller is cancelled, so a client that hangs up leaves nothing
        half done. Whoever is cancelled earlier changes nothing.
        """
        self._file.check_process()
        deadline = time.monotonic() + WRITE_TIMEOUT
        try:
            end_turn = await TURNS.take(self._who(), patience=WRITE_TIMEOUT)
        except TimeoutError as error:
            raise StorageError(f"{self.name}: {BUSY}") from error
        writing = asyncio.ensure_future(self._transaction(steps, deadline))
        # Not at the end of what it does: the end of the event loop may cancel it before it has begun.
        writing.add_done_callback(lambda _: end_turn())
        return await asyncio.shield(writing)

    async def run_many(self, sql: str, parameters: Sequence[Parameters]) -> None:
        """Run one writing statement with each of ``parameters``, all of them or none."""
        with value_refused(self.name):
            await self.transaction(run_many_steps(sql, parameters))

    async def _transaction(self, steps: Steps[T], deadline: float) -> T:
        # A new one each time: while it is opened, other processes find the file free. And SQLite's own wait would sleep
        # for longer and longer, and let those who came later go first.
        for lookup in self._lookups:
            lookup.note_losses()
        connection = await self._file.connect("rw", timeout=0)
        self._writing += 1
        identity, beside = (0, 0, 0), NONE
        try:
            # Here, because the file may be gone again.
            identity = self._file.identity()
            await _begin(connection, deadline)
            beside = companions_of(self.path)
            try:
                result = await drive(steps, partial(_run, connection))
            except BaseException:
                # A full disk makes SQLite roll back by itself.
                if connection.in_transaction:
                    await connection.execute_fetchall("rollback")
                raise
            await connection.execute_fetchall("commit")
            if self._file.has_lost(beside, identity):
                raise StorageError(
                    f"{self.name}: its -wal or -shm file was deleted or replaced while a change was written. Look "
                    "whether it was made before you try again, and leave them alone while anything has them open."
                )
            return result
        except ERRORS as error:
            raise self._file.failure(error) from error
        finally:
            self._writing -= 1
            steps.close()
            # Closing could undo what other processes have committed meanwhile.
            if not self._file.has_lost(beside, identity) or self._file.companions.note_loss(identity[2], beside):
                await close_connection(connection)
            else:
                self._file.companions.keep_open(connection)

    def _who(self) -> Hashable:
        """What those who write to the same file have in common, whatever path leads them there."""
        try:
            status = self.path.stat()
        except OSError:
            # It is gone, which the attempt to open it says better.
            return self.path
        return status.st_dev, status.st_ino

    def qualified(self, table: str) -> str:
        """The name of ``table`` as statements must say it."""
        return table

    def lookup(self, table: str, columns: str) -> SQLiteLookup:
        """A reusable query for one row, run on the event loop's thread."""
        sql = f"select {columns} from {table} where id = :id"
        lookup = SQLiteLookup(self._file, sql, use_wal_index=self._wal_index)
        self._lookups.append(lookup)
        return lookup

    def schema_lookup(self) -> SQLiteLookup:
        """A lookup that finds, under the id 1, the number of changes of the schema."""
        sql = "select schema_version from pragma_schema_version where :id = 1"
        lookup = SQLiteLookup(self._file, sql, use_wal_index=self._wal_index)
        self._lookups.append(lookup)
        return lookup

    def leave_to_parent(self) -> list[object]:
        """In a forked child: refuse from now on if the file was open, and hand over what was.

        Locks do not pass to the child, and SQLite there believes that they do, so answers would be stale on
        the parent's connections and on new ones.
        """
        inherited: list[object] = [held for lookup in self._lookups for held in lookup.leave_to_parent()]
        inherited.extend(self._pools.values())
        if inherited or self._writing:
            self._file.leave_to_parent()
        self._pools = {}
        return inherited

    def _close_unused(self) -> None:
        """Close the connections that nobody is using now, and have the others closed after their use."""
        for lookup in self._lookups:
            lookup.let_go()
        with contextlib.suppress(RuntimeError):
            if (pool := self._pools.get(asyncio.get_running_loop())) is not None:
                pool.close_idle()

    def _pool(self) -> ReaderPool:
        loop = asyncio.get_running_loop()
        if (pool := self._pools.get(loop)) is None:
            self._close_ended()
            pool = self._pools[loop] = ReaderPool(self._file)
        return pool

    def _close_ended(self) -> None:
        for ended in [other for other in list(self._pools) if other.is_closed()]:
            # Another thread may have found it too.
            if (found := self._pools.pop(ended, None)) is not None:
                found.close()


async def _begin(connection: aiosqlite.Connection, deadline: float) -> None:
    """Begin a transaction that writes; other processes are waited for until ``deadline``."""
    pause = FIRST_RETRY_PAUSE
    while True:
        try:
            await connection.executescript(_BEGIN.format(timeout=int(WRITE_TIMEOUT * 1000)))
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


async def _run(connection: aiosqlite.Connection, sql: str, parameters: Parameters | Sequence[Parameters]) -> list[Row]:
    if isinstance(parameters, Mapping):
        return [tuple(row) for row in await connection.execute_fetchall(sql, parameters)]
    await (await connection.executemany(sql, parameters)).close()
    return []


@contextlib.contextmanager
def value_refused(database: str) -> Generator[None, None, None]:
    """What a parameter is to blame for, as ``ValueRefused``."""
    try:
        yield
    except (StorageError, UnicodeError, OverflowError) as error:
        if not is_about_a_value(error.__cause__ if isinstance(error, StorageError) else error):
            raise
        raise ValueRefused(f"{database}: a value cannot be written; nothing was changed.") from error


def run_many_steps(sql: str, parameters: Sequence[Parameters]) -> Steps[None]:
    """A transaction of one statement, run with each of ``parameters``."""
    yield sql, parameters


def columns_statement(sql: str, parameters: Parameters) -> tuple[str, Parameters]:
    """A statement that has the columns of ``sql`` and no rows, and is an error where ``sql`` is not one SELECT."""
    # Inside a SELECT only a SELECT is grammatical, and LIMIT 0 asks for the columns alone.
    return f"select * from (\n{sql}\n) as checked limit 0", parameters


def run_here(connection: sqlite3.Connection, sql: str, parameters: Parameters | Sequence[Parameters]) -> list[Row]:
    """Run one statement of a transaction on ``connection`` in the calling thread."""
    if isinstance(parameters, Mapping):
        return [tuple(row) for row in connection.execute(sql, parameters).fetchall()]
    connection.executemany(sql, parameters)
    return []
