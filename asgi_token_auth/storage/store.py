"""What every store shares: its tables are opened and migrated, its users counted, its last uses written."""

from __future__ import annotations

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal, Self

from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.errors import ConfigurationError, check_event_loop
from asgi_token_auth.storage.idempotency import IdempotencyKey, Requests
from asgi_token_auth.storage.migrations import Migration, migrate, pending
from asgi_token_auth.storage.usage import UsageLog, Use


def system_clock() -> float:
    """Seconds since the epoch: ``time.time()``, looked up at each call, so that a clock that a test froze is seen."""
    return time.time()


class TableStore(ABC):
    """Rows in a table of one database, and in tables whose names start with that table's.

    A store of one kind says what its tables are and how their last uses are written.

    Args:
        database: where the rows are.
        table: the table's name.
        clock: seconds since the epoch, for tests.
        digest_key: for contents of requests that are secrets, as :class:`Requests` wants it.

    Raises:
        ConfigurationError: ``database`` is none, or ``table`` cannot be a name.
    """

    def __init__(
        self,
        database: Database,
        *,
        table: str,
        clock: Callable[[], float],
        digest_key: bytes = b"",
    ) -> None:
        if not isinstance(table, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,49}", table):
            raise ConfigurationError(f"table: {table!r} must be letters, digits and underscores, at most 50 of them.")
        if isinstance(database, (str, bytes)) or not hasattr(database, "transaction"):
            raise ConfigurationError('database: give a database, for example SQLite("tokens.db").')
        self.database = database
        self.table = table
        # As statements must say it, which where there are schemas is more than the name.
        self._table = database.qualified(table)
        if not callable(clock):
            raise ConfigurationError("clock: give a function that returns seconds, such as time.time.")
        self.clock = clock
        self._requests = Requests(database, table, digest_key=digest_key)
        self._usage = UsageLog(self._write_usage, at_end=database.close)
        self._users = 0
        #: Whether the tables are there. :meth:`ensure_ready` has nothing to do then.
        self.ready: bool = False
        self._opening: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.database!r}, table={self.table!r})"

    async def open(self) -> None:
        """Open and migrate the database, and count one more user of this store.

        Raises:
            StorageError: the database cannot be opened or migrated.
        """
        await self.ensure_ready()
        # What was ready in a process need not be so in its fork, which must not start then.
        await self.ping()
        self._users += 1

    async def ensure_ready(self) -> None:
        """The same without counting: for a server that sends no lifespan events."""
        if self.ready:
            return
        check_event_loop()
        # Whoever comes meanwhile shares its end: after one another, the last of many would wait for all attempts of a
        # database that does not answer. An event loop cannot wait for the task of another one.
        loop = asyncio.get_running_loop()
        opening = self._opening
        if opening is None or opening.done() or opening.get_loop() is not loop:
            # It goes on when the client that came first hangs up.
            opening = self._opening = loop.create_task(self._open())
        await asyncio.shield(opening)

    async def _open(self) -> None:
        try:
            await self.database.open()
            await migrate(self.database, self._bookkeeping, self._migrations(), int(self.clock()))
            await self._prepare()
        except BaseException:
            await self.database.close()
            raise
        self.ready = True

    async def state(self) -> Literal["ready", "outdated", "absent"]:
        """Whether the tables are there, and as this release needs them. Opens and writes nothing.

        Raises:
            StorageError: the database cannot be read, or a newer release has migrated it.
        """
        if not (await self.database.query(self.database.dialect.table_columns, {"table": self._table})).rows:
            return "absent"
        return "outdated" if await pending(self.database, self._bookkeeping, self._migrations()) else "ready"

    async def close(self) -> None:
        """Write what is known of last uses; the last user closes the database."""
        self._users = max(0, self._users - 1)
        if self._users == 0:
            try:
                await self._usage.close()
            finally:
                self.ready = False
                await self.database.close()

    async def flush(self) -> None:
        """Write the last uses noted so far."""
        await self._usage.flush()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def ping(self) -> None:
        """Do nothing but ask the database.

        Raises:
            StorageError: it does not answer, or the table is not there.
        """
        await self.database.query(f"select id from {self._table} limit 1", {})

    async def refuse_repeat(self, key: IdempotencyKey | None, *, by: str | None, action: str) -> None:
        """Do nothing if ``key`` is new. Only asks: so that a repeat is answered before anything else is looked at.

        Args:
            key: with the content that was sent.
            by: the actor whose key it is.
            action: what it shall be used for, as the method that will be given the key calls it.

        Raises:
            AlreadyDone: it was used for the same before.
            IdempotencyKeyReused: it was used for something else.
            StorageError: the database cannot answer.
        """
        request = self._requests.request(key, by, action)
        if request is not None:
            await self.ensure_ready()
            request.check((await self.database.query(*self._requests.find(request, int(self.clock())))).rows)

    @abstractmethod
    def _migrations(self) -> Sequence[Migration]:
        """What makes the tables, in order."""

    @abstractmethod
    async def _write_usage(self, uses: Sequence[Use]) -> None:
        """Write a batch of last uses."""

    async def _prepare(self) -> None:  # noqa: B027
        """Called whenever the migrated tables are opened, for what must be checked then."""

    @property
    def _bookkeeping(self) -> str:
        return f"{self._table}_migrations"
