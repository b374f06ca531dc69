"""How a PostgreSQL server is reached: connections that are opened, ended without waiting, and what failed on them."""

# asyncpg has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import asyncpg

from asgi_token_auth.databases.postgres.dsn import display_name
from asgi_token_auth.databases.postgres.failures import ERRORS, sentence
from asgi_token_auth.errors import NO_THREAD, StorageError, is_without_threads

logger: Final = logging.getLogger("asgi_token_auth")

#: Statements that each connection keeps prepared.
_STATEMENTS: Final = 100
#: Seconds for a write to begin: to connect, and to wait for the writes of others.
WRITE_TIMEOUT: Final = 10
#: Seconds that an open connection has for its answer before the rest of a request's time is spent on a new one.
REUSE_TIMEOUT: Final = 0.5
#: Seconds that a connection has to close, in which a statement that nobody waits for is cancelled.
_CLOSE_TIMEOUT: Final = 2.0


class Server:
    """The server of a database, or the servers, if its DSN names several.

    Args:
        dsn: its address.
        options: of :func:`asyncpg.connect`. Without ``statement_cache_size``, statements stay prepared unless a pooler
            such as pgbouncer is found in between, which may answer each from another session.
        allow_stale_reads: whether a standby may be asked.

    Raises:
        ConfigurationError: the DSN cannot be used. It is not repeated.
    """

    def __init__(self, dsn: str, options: dict[str, Any], *, allow_stale_reads: bool) -> None:
        self.name: str = display_name(dsn)
        self.allow_stale_reads = allow_stale_reads
        self._dsn = dsn
        self._options: dict[str, Any] = {"statement_cache_size": _STATEMENTS, **options}
        self._may_be_pooled = "statement_cache_size" not in options
        # Connections that are being closed. asyncio itself keeps tasks only weakly.
        self._closing: set[asyncio.Task[None]] = set()

    async def connect(self) -> Any:
        """A new connection, to a server that may be asked."""
        try:
            connection = await asyncpg.connect(
                self._dsn,
                timeout=WRITE_TIMEOUT,
                server_settings={"application_name": "asgi-token-auth"},
                **self._options,
            )
        except ValueError as error:
            if isinstance(error, ERRORS):
                raise
            # A part of the DSN that asyncpg cannot read; its words may quote it.
            raise StorageError(
                f"{self.name}: its DSN cannot be used; check its port, its options and the % in its password."
            ) from None
        except RuntimeError as error:
            if not is_without_threads(error):
                raise
            # One finds the address of a host.
            raise StorageError(f"{self.name}: {NO_THREAD}") from error
        try:
            if self._may_be_pooled and await _is_pooled(connection):
                logger.info("%s: a pooler is in between, so no statements are kept prepared", self.name)
                self._may_be_pooled = False
                self._options["statement_cache_size"] = 0
                self.close_soon(connection)
                return await self.connect()
            self._may_be_pooled = False
            if not self.allow_stale_reads and await connection.fetchval("select pg_catalog.pg_is_in_recovery()"):
                raise self.standby_error()
        except BaseException:
            self.close_soon(connection)
            raise
        return connection

    def standby_error(self) -> StorageError:
        """What to say of a server that is not the primary."""
        return StorageError(
            f"{self.name}: it is a standby, which may not know of the latest revocation; connect to the primary "
            "(target_session_attrs=primary in the DSN finds it), or set allow_stale_reads."
        )

    def close_soon(self, connection: Any) -> None:
        """End a connection without waiting for it."""
        task = asyncio.get_running_loop().create_task(close_connection(connection))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def wait_closed(self) -> None:
        """Wait until the connections that are being closed have ended."""
        loop = asyncio.get_running_loop()
        if closing := [task for task in self._closing if task.get_loop() is loop]:
            await asyncio.wait(closing)

    def leave_to_parent(self) -> list[object]:
        """In a forked child: forget the connections that are being closed, and hand them over."""
        held: list[object] = [*self._closing]
        self._closing = set()
        return held

    def failure(self, error: BaseException) -> StorageError:
        """``error`` in a sentence that says what to do, and holds nothing that came from a client."""
        return StorageError(f"{self.name}: {sentence(error)}")


async def _is_pooled(connection: Any) -> bool:
    """Whether something between here and the server shares out its sessions: it greets with a number of its own."""
    # Unnamed, so that nothing of it stays behind in a session of the pooler.
    statement = await connection.prepare("select pg_catalog.pg_backend_pid()", name="")
    return bool(await statement.fetchval() != connection.get_server_pid())


async def close_connection(connection: Any) -> None:
    """End a connection. It fails at nothing."""
    try:
        # First asks the server to stop a statement that nobody waits for any more.
        await connection.close(timeout=_CLOSE_TIMEOUT)
    except Exception:
        connection.terminate()
