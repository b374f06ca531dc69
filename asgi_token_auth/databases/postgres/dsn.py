"""What a DSN says, in words that hold no password."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from asgi_token_auth.errors import ConfigurationError

# Options of a DSN that asyncpg hands to the server, which does not know them.
_ONLY_LIBPQ: Final = frozenset(
    "channel_binding connect_timeout fallback_application_name gssdelegation gssencmode hostaddr keepalives "
    "keepalives_count keepalives_idle keepalives_interval load_balance_hosts max_protocol_version min_protocol_version "
    "require_auth requirepeer requiressl sslcertmode sslcompression sslsni tcp_user_timeout".split()
)


def display_name(dsn: object) -> str:
    """What messages call the database of ``dsn``.

    Raises:
        ConfigurationError: it cannot be used. It is not repeated.
    """
    example = "postgresql://user@host/database"
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
    return f"PostgreSQL database {database or 'of the default name'}" + (f" on {hosts}" if hosts else "")
