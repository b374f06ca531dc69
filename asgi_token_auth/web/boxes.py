"""The names of checkboxes, in which an action, a database and a table stand."""

from __future__ import annotations

import re
from typing import Final

#: How the name of a checkbox begins.
BOX_PREFIXES: Final = ("all:", "database:", "resource:")


def box(action: str, database: str | None = None, resource: str | None = None) -> str:
    """The name of a checkbox: ``all:ACTION``, ``database:DB:ACTION`` or ``resource:DB:TABLE:ACTION``."""
    if database is None:
        return f"all:{action}"
    if resource is None:
        return f"database:{tilde(database)}:{action}"
    return f"resource:{tilde(database)}:{tilde(resource)}:{action}"


def read_box(name: str) -> tuple[str, str | None, str | None]:
    """The action, the database and the resource in the name of a checkbox that starts with one of :data:`BOX_PREFIXES`.

    Raises:
        ValueError: it is not such a name.
    """
    kind, _, rest = name.partition(":")
    # Names are encoded and hold no colon; those of actions may.
    match kind, rest.split(":", {"all": 0, "database": 1, "resource": 2}[kind]):
        case "all", [action] if action:
            return action, None, None
        case "database", [database, action] if action:
            return action, untilde(database), None
        case "resource", [database, resource, action] if action:
            return action, untilde(database), untilde(resource)
        case _:
            raise ValueError("not the name of a checkbox")


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
