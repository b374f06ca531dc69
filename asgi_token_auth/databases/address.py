"""A database by its address: the path of a SQLite file, or the DSN of a PostgreSQL database."""

from __future__ import annotations

import os

from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.errors import ConfigurationError


def is_dsn(address: object) -> bool:
    """Whether it is the DSN of a PostgreSQL database, which may hold a password."""
    return isinstance(address, str) and address.startswith(("postgresql://", "postgres://"))


def database_at(address: str | os.PathLike[str]) -> Database:
    """The database with this address. Nothing is opened.

    Raises:
        ConfigurationError: it is no address, or PostgreSQL's needs a package that is not installed.
    """
    if isinstance(address, str) and is_dsn(address):
        try:
            # Here and not above: it needs an extra, and everything else works without it.
            from asgi_token_auth.databases.postgres import Postgres
        except ImportError as error:
            raise ConfigurationError(
                "PostgreSQL needs one more package: pip install 'asgi-token-auth[postgres]'."
            ) from error
        return Postgres(address)
    if isinstance(address, str) and "://" in address:
        raise ConfigurationError(
            "there is no such kind of database; give the path of a SQLite file, or postgresql://user@host/database."
        )
    return SQLite(address)
