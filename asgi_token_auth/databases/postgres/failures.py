"""What went wrong, in a sentence that says what to do and holds nothing that came from a client."""

from __future__ import annotations

import socket
import ssl
from typing import Final

import asyncpg

# Everything that an asyncpg connection raises when it is asked something.
ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


def sentence(error: BaseException) -> str:
    """What to tell of ``error``, without the name of the database."""
    if isinstance(error, asyncpg.PostgresError):
        state = str(getattr(error, "sqlstate", None) or "")
        return _SENTENCES.get(state) or _SENTENCES.get(state[:2]) or _server_message(error, state)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "none of its servers is the primary; it is safe to try again."
    if isinstance(error, ssl.SSLError):
        return "TLS failed; check sslmode and sslrootcert in the DSN, and the server's certificate."
    if isinstance(error, FileNotFoundError):
        # Of a certificate as of a socket; neither tells its name.
        return "a file is missing; check those that the DSN names, and the folder of the socket if its host is one."
    if isinstance(error, socket.gaierror):
        return "it cannot be reached; the name of its host is not known here, so check the address."
    if isinstance(error, ConnectionRefusedError):
        return "it cannot be reached; nothing listens there, so check that the server runs, and its host and port."
    if isinstance(error, OSError):
        return "it cannot be reached; check that the server runs and that its address is right."
    if isinstance(error, asyncpg.ClientConfigurationError):
        return "its DSN cannot be used; check its options, and the files that they name."
    return f"the connection failed ({type(error).__name__}); it is safe to try again."


def is_about_a_value(error: Exception) -> bool:
    """Whether a parameter, and not the database or the query, is at fault."""
    if isinstance(error, asyncpg.PostgresError):
        return str(getattr(error, "sqlstate", "")).startswith("22")
    # What asyncpg could not write as the type that the server wants. The second: lone surrogates.
    return isinstance(error, (asyncpg.InterfaceError, UnicodeError)) and isinstance(error, ValueError)


def is_lost(error: BaseException) -> bool:
    """Whether the connection, and not what was asked of it, is at fault."""
    if isinstance(error, asyncpg.PostgresError):
        return str(getattr(error, "sqlstate", "")).startswith(("08", "57P"))
    return isinstance(error, (asyncpg.InterfaceError, OSError)) and not isinstance(error, (ValueError, TimeoutError))


def _server_message(error: asyncpg.PostgresError, state: str) -> str:
    # Class 42 is about the words of a statement. Elsewhere the message may quote what was given.
    message = f": {error.args[0]}" if state.startswith("42") and error.args else ""
    return f"the server refuses with {type(error).__name__} ({state}){message}."


_POOLER: Final = (
    "its sessions are shared out by a pooler such as pgbouncer in transaction mode, where no statement can stay "
    "prepared; nothing was changed. Put statement_cache_size=0 into the DSN, behind a ? or a &."
)
_SENTENCES: Final = {
    "08": "the connection was lost; it is safe to try again.",
    "08P01": (
        "it refuses what was sent; if a pooler such as pgbouncer is in between, take options that it does not know out "
        "of the DSN, or name them in its ignore_startup_parameters."
    ),
    "26000": _POOLER,
    "42P05": _POOLER,
    "22021": "it holds text that is not UTF-8; mend that, or move to a database whose encoding is UTF8.",
    "22P05": "a character is not in its encoding, so nothing was changed; move to a database whose encoding is UTF8.",
    "25006": "it can only be read; writes need the primary.",
    "28": "it refuses the user or the password; check the DSN, PGPASSWORD and pg_hba.conf.",
    "3D000": "there is no database of this name; create it.",
    "3F000": (
        "there is no such schema, or none in the search path of this role; create one, or name it with schema=, as an "
        "argument or in the DSN."
    ),
    "42501": (
        "this role may not do that. Let a role that may create tables open the store once, which makes them, and grant "
        "this one USAGE on the schema and SELECT, INSERT, UPDATE and DELETE on the tables."
    ),
    "53100": "its disk is full; nothing was changed.",
    "53300": "it accepts no more connections; lower pool_size, or raise max_connections.",
    "55P03": "another session holds its lock; it is safe to try again.",
    "57014": "the statement was cancelled; it is safe to try again.",
    "57P01": "the server is stopping; it is safe to try again.",
    "57P02": "the server has crashed; it is safe to try again.",
    "57P03": "the server is starting or stopping; it is safe to try again.",
    "57P05": "the session was idle for too long for the server; it is safe to try again.",
    "25P03": "the transaction took too long; nothing was changed.",
    "40": "another transaction was in the way; nothing was changed, and it is safe to try again.",
}
