"""A database by its address: the path of a SQLite file, or the DSN of a PostgreSQL database."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import quote, urlencode

from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.decoding import is_unfilled, secret_of
from asgi_token_auth.errors import ConfigurationError

#: Of a sentence about an address of another kind, which is never repeated: it may hold a password.
WHICH_KINDS: Final = "give the path of a SQLite file, or postgresql://user@host/database."

#: What a DSN may say in its query besides what the driver reads, and of which type it is.
DSN_OPTIONS: Final[Mapping[str, type]] = {
    "schema": str,
    "pool_size": int,
    "statement_cache_size": int,
    "allow_stale_reads": bool,
}

# What SQLAlchemy, libpq, JDBC and SQLite take, or what a slip makes of a DSN. "./" before it makes a path of anything.
_OTHER_KIND: Final = re.compile(
    r"://|^[^/\\\s:@]+:[^/\\\s@][^\s@]*@|^\s*(?:postgres\w*|mysql|mariadb|sqlite3?|jdbc|file):|(?:^|\s)(?:host|hostaddr|dbname|password|service)\s*=",
    re.IGNORECASE,
)


def is_dsn(address: object) -> bool:
    """Whether it is the DSN of a PostgreSQL database, which may hold a password."""
    return isinstance(address, str) and secret_of(address).text.startswith(("postgresql://", "postgres://"))


def is_of_another_kind(address: str) -> bool:
    """Whether it is neither a DSN nor meant to be a path."""
    return not is_dsn(address) and _OTHER_KIND.search(address) is not None


def mend_for(address: str) -> str:
    """What to write in place of an address of another kind. It is not repeated."""
    scheme = address.lstrip().partition(":")[0].lower()
    if re.fullmatch(r"(?:jdbc:)?postgres(?:ql)?(?:\+\w+)?", scheme) or address.lower().startswith("jdbc:postgres"):
        if "+" in scheme:
            return "write postgresql:// without the + and the driver's name: postgresql://user@host/database."
        return "write postgresql:// in small letters, with two slashes and nothing before it."
    if re.fullmatch(r"sqlite3?(?:\+\w+)?|file", scheme):
        return "give the path of the SQLite file alone, without what stands before it."
    return WHICH_KINDS


def with_options(dsn: str, options: Mapping[str, object]) -> str:
    """``dsn`` with options of ours in its query."""
    query = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in options.items()}
    return dsn + ("&" if "?" in dsn else "?") + urlencode(query, quote_via=quote) if query else dsn


def database_at(
    address: str | os.PathLike[str], *, journal_mode: Literal["wal"] | None = "wal", wal_index: bool = True
) -> Database:
    """The database with this address. Nothing is opened.

    Args:
        journal_mode: of a SQLite file; ``None`` keeps the one that it has.
        wal_index: of a SQLite file: whether verification may read the memory that SQLite shares between processes.

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
        # A DSN has neither spaces nor quotes.
        return Postgres(secret_of(address).log_dropped("the DSN of a database"))
    if isinstance(address, str):
        if is_of_another_kind(address):
            raise ConfigurationError(f"there is no such kind of database; {mend_for(address)}")
        check_path(address)
    return SQLite(address, journal_mode=journal_mode, wal_index=wal_index)


def check_path(path: str) -> None:
    """Refuse a path with something around it that nobody means, but that a file's name may hold.

    Raises:
        ConfigurationError: naming what it is.
    """
    if is_unfilled(path):
        raise ConfigurationError("the path of a database is the name of a variable and not its value.")
    read = secret_of(path)
    around = read.dropped or (("a line end behind it",) if path.endswith(("\r", "\n")) else ())
    if around and read.text:
        raise ConfigurationError(f"the path of a database has {' and '.join(around)}: take it away.")
