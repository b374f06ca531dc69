"""A database opened for a command: found, checked for what it holds, migrated where the command writes."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import click

from asgi_token_auth.cli.options import token_prefix
from asgi_token_auth.cli.output import print_to_stderr
from asgi_token_auth.cli.process import finish_then_stop, set_change_state
from asgi_token_auth.databases.address import WHICH_KINDS, check_path, database_at, is_dsn, is_of_another_kind, mend_for
from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.decoding import looks_like_path, missing_folder, shown_path
from asgi_token_auth.errors import ConfigurationError, StorageError
from asgi_token_auth.signing import SigningSecrets
from asgi_token_auth.storage.store import TableStore
from asgi_token_auth.tokens.store import TokenStore

AnyStore = TypeVar("AnyStore", bound=TableStore)


class _UntrackedTokenStore(TokenStore):
    """A store that writes down no use of a token."""

    def note_use(self, token_id: int, when: int, address: str | None) -> None:
        """Nothing."""


def untracked_store(database: Database, signing: SigningSecrets | None = None) -> TokenStore:
    """A store, not open yet, for which checking a token is no use of it."""
    # A secret that nobody knows, where none is needed: nothing can be signed with it by mistake.
    return _UntrackedTokenStore(
        database, secret=signing or SigningSecrets([secrets.token_hex(32)]), prefix=token_prefix()
    )


@asynccontextmanager
async def open_token_store(
    database: str, signing: SigningSecrets | None = None, *, creates: bool = False, writes: bool = False
) -> AsyncGenerator[TokenStore, None]:
    """The store in a file.

    Args:
        signing: not needed by what neither makes nor reads the text of a token.
        creates: a missing file, or missing tables, are made.
        writes: tables of an older release, or of datasette-auth-tokens, are migrated.

    Raises:
        StorageError: the file is missing, holds no tokens, or cannot be read.
    """
    async with open_store(
        lambda file: untracked_store(file, signing),
        database,
        what="tokens",
        outdated="or of datasette-auth-tokens, and this command only reads: start the server on it once, or copy its "
        "tokens with `tokens import`",
        creates=creates,
        writes=writes,
    ) as store:
        yield store


@asynccontextmanager
async def open_store(
    make: Callable[[Database], AnyStore], database: str, *, what: str, outdated: str, creates: bool, writes: bool
) -> AsyncGenerator[AnyStore, None]:
    """The store that ``make`` makes of a file, or of a database of a server, which is taken to be there.

    Args:
        what: what it keeps.
        outdated: of what else than an older release tables may be, and the mend where nothing is written.
        creates: a missing file, or missing tables, are made.
        writes: outdated tables are migrated.

    Raises:
        StorageError: the file is missing, holds nothing of the kind, or cannot be read.
    """
    exists = database_exists(database)
    if not exists and not creates:
        raise StorageError(f"{_missing(database)}; check --database, or ASGI_TOKEN_AUTH_DATABASE.")
    file: Database
    if is_dsn(database):
        file = postgres_at(database)
        shown = file.name
    else:
        # A file that is there belongs to somebody, who chose its journal mode.
        file = SQLite(database, journal_mode=None if exists else "wal", create=not exists)
        shown = database
    store = make(file)
    if exists:
        try:
            state = await store.state()
        finally:
            await file.close()
        if state == "absent" and not creates:
            raise StorageError(f"{file.name} holds no {what}; check --database, or ASGI_TOKEN_AUTH_DATABASE.")
        if state == "outdated" and not writes and not creates:
            raise StorageError(f"{file.name} is of an older release {outdated}.")
    else:
        state = "absent"
    if state != "ready":
        set_change_state("prepared")
    try:
        await finish_then_stop(store.open())
        yield store
    finally:
        await store.close()
    if state == "absent":
        # Not earlier: nobody is told of a file by a command that fails.
        print_to_stderr(f"{shown} held no {what} until now." if exists else f"{shown} is new.")


def postgres_at(dsn: str) -> Database:
    """A PostgreSQL database.

    Raises:
        click.ClickException: the DSN cannot be one, or a package is missing.
    """
    try:
        return database_at(dsn)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error


def existing_database(database: str) -> Database:
    """A file that is only read, or a database of a server.

    Raises:
        StorageError: it is missing.
    """
    if is_dsn(database):
        return postgres_at(database)
    if not database_exists(database):
        raise StorageError(f"{_missing(database)}.")
    return SQLite(database).for_reading()


def _missing(database: str) -> str:
    folder = missing_folder(database) if looks_like_path(database) else None
    return f"There is no file {shown_path(database)}" + ("" if folder is None else f", and no folder {folder}")


def database_exists(database: str) -> bool:
    """Whether the file exists. A database of a server is taken to be there.

    Raises:
        StorageError: the path can be none.
        click.UsageError: it is empty, or no path at all.
    """
    if is_dsn(database):
        return True
    if not database:
        raise click.UsageError("The path of the database is empty.")
    if database == ":memory:":
        raise click.UsageError(f"A database in memory would be lost with this command; {WHICH_KINDS}")
    if is_of_another_kind(database):
        raise click.UsageError(f"There is no such kind of database; {mend_for(database)}")
    try:
        check_path(database)
    except ConfigurationError as error:
        raise click.UsageError(str(error).replace("the path", "The path", 1)) from error
    try:
        database.encode()
        Path(database).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not valid UTF-8"
        raise StorageError(f"The path of a database cannot be used: {why}.") from error
    return True
