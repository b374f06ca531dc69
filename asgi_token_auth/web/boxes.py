"""The names of checkboxes, in which an action, a database and a table stand."""

from __future__ import annotations

import re


def box(action: str, database: str | None = None, resource: str | None = None) -> str:
    """The name of a checkbox: ``all:ACTION``, ``database:DB:ACTION`` or ``resource:DB:TABLE:ACTION``."""
    if database is None:
        return f"all:{action}"
    if resource is None:
        return f"database:{tilde(database)}:{action}"
    return f"resource:{tilde(database)}:{tilde(resource)}:{action}"


def tilde(name: str) -> str:
    """Datasette's encoding of names, in which no colon is left."""
    return "".join(
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "_-") else f"~{byte:02X}"
        for byte in name.encode(errors="surrogatepass")
    )


def untilde(text: str) -> str:
    """The name that :func:`tilde` encoded.

    Raises:
        ValueError: it is not such an encoding.
    """
    if not re.fullmatch(r"(?:[A-Za-z0-9_+-]|~[0-9A-Fa-f]{2})+", text):
        raise ValueError("not a tilde-encoded name")
    raw = re.sub(rb"~([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), text.replace("+", " ").encode())
    return raw.decode()
