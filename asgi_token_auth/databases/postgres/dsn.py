"""What a DSN says, in words that hold no password."""

from __future__ import annotations

import difflib
import re
from typing import Final, TypedDict
from urllib.parse import parse_qs, unquote, urlsplit

from asgi_token_auth.errors import ConfigurationError

# Options of a DSN that asyncpg hands to the server, which does not know them.
_ONLY_LIBPQ: Final = frozenset(
    "channel_binding connect_timeout fallback_application_name gssdelegation gssencmode hostaddr keepalives "
    "keepalives_count keepalives_idle keepalives_interval load_balance_hosts max_protocol_version min_protocol_version "
    "require_auth requirepeer requiressl sslcertmode sslcompression sslsni tcp_user_timeout".split()
)


# What other drivers call what we call otherwise, or need not be told.
_OF_OTHERS: Final = {
    "prepared_statement_cache_size": "statement_cache_size",
    "prepareThreshold": "statement_cache_size=0",
    "prepare_threshold": "statement_cache_size=0",
    "pgbouncer": "statement_cache_size=0",
    "connection_limit": "pool_size",
    "max_size": "pool_size",
    "currentSchema": "schema",
}


class PostgresOptions(TypedDict, total=False):
    """What a DSN may say besides the address."""

    schema: str
    pool_size: int
    statement_cache_size: int
    allow_stale_reads: bool


def split_options(dsn: str) -> tuple[str, PostgresOptions]:
    """The DSN as the driver reads it, and the options in its query that are ours.

    Raises:
        ConfigurationError: one is there twice, has a value that it cannot have, or is called otherwise here.
    """
    address, mark, query = dsn.partition("?") if isinstance(dsn, str) else (dsn, "", "")
    if not mark:
        return dsn, {}
    theirs: list[str] = []
    found: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name in _OF_OTHERS:
            raise ConfigurationError(f"dsn: {name} is an option of other drivers; write {_OF_OTHERS[name]} for it.")
        if name not in PostgresOptions.__annotations__:
            if close := difflib.get_close_matches(name, PostgresOptions.__annotations__, n=1, cutoff=0.85):
                raise ConfigurationError(f"dsn: there is no option {name}; did you mean {close[0]}?")
            theirs.append(pair)
            continue
        if name in found:
            raise ConfigurationError(f"dsn: {name} is there twice; remove one.")
        found[name] = unquote(value)
    options: PostgresOptions = {}
    if "schema" in found:
        options["schema"] = found["schema"]
    if "pool_size" in found:
        options["pool_size"] = _number("pool_size", found["pool_size"])
    if "statement_cache_size" in found:
        options["statement_cache_size"] = _number("statement_cache_size", found["statement_cache_size"])
    if "allow_stale_reads" in found:
        if found["allow_stale_reads"] not in ("true", "false"):
            raise ConfigurationError("dsn: allow_stale_reads is true or false.")
        options["allow_stale_reads"] = found["allow_stale_reads"] == "true"
    return (f"{address}?{'&'.join(theirs)}" if theirs else address), options


def _number(name: str, value: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", value):
        raise ConfigurationError(f"dsn: {name} is a whole number.")
    return int(value)


def display_name(dsn: object) -> str:
    """What messages call the database of ``dsn``.

    Raises:
        ConfigurationError: it cannot be used. It is not repeated.
    """
    example = "postgresql://user@host/database"
    if isinstance(dsn, str) and re.match(r"\s*postgres(?:ql)?\+\w+:", dsn):
        raise ConfigurationError(f"dsn: write it without the + and the driver's name, as {example}.")
    if not isinstance(dsn, str) or not dsn.startswith(("postgresql://", "postgres://")):
        raise ConfigurationError(f"dsn: give the address of a PostgreSQL database, for example {example}.")
    unreadable = ConfigurationError(
        f"dsn: it cannot be read; write it as {example}, and what is special in a password as %2F and the like."
    )
    try:
        parts = urlsplit(dsn)
    except ValueError:
        raise unreadable from None
    # With a second "@" a part of the password would be taken for a part of the host, and asked of name servers.
    if ("@" not in parts.netloc and "@" in dsn) or parts.netloc.count("@") > 1 or not dsn.isprintable() or " " in dsn:
        raise unreadable
    for option in parse_qs(parts.query, keep_blank_values=True):
        if option in _ONLY_LIBPQ:
            raise ConfigurationError(f"dsn: {option} is an option of libpq, which is not used here; leave it out.")
    # What is no port may be a password whose host was forgotten.
    hosts = re.sub(r":(?![0-9]*(?:,|$))[^,\]]*(?=,|$)", "", parts.netloc.rpartition("@")[2])
    hosts = hosts or ",".join(parse_qs(parts.query).get("host", ()))
    ports = [host.rpartition(":")[2] for host in hosts.split(",") if re.search(r":[0-9]+$", host)]
    ports += ",".join(parse_qs(parts.query).get("port", ())).split(",")
    if any(port.isdecimal() and not 1 <= int(port) <= 65_535 for port in ports):
        raise ConfigurationError("dsn: a port is a number from 1 to 65535.")
    database = unquote(parts.path.lstrip("/"))
    return f"PostgreSQL database {_quoted(database) or 'of the default name'}" + (
        f" on {_quoted(hosts)}" if hosts else ""
    )


def _quoted(name: str) -> str:
    """``name``, in quotes and escaped where it could be taken for words of a sentence or for another line."""
    return name if re.fullmatch(r"[\w./:,\[\]%-]*", name) else ascii(name)
