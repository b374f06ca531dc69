"""Which tables are not for Datasette's own pages, as its hooks about permissions ask."""

from __future__ import annotations

from typing import Final

from asgi_token_auth.datasette.instance import Instance

#: What people do to a table through Datasette's own pages and API.
TABLE_ACTIONS: Final = frozenset(
    {
        "alter-table",
        "delete-row",
        "drop-table",
        "insert-row",
        "set-column-type",
        "update-row",
        "view-table",
    }
)


def protected(instance: Instance, action: str) -> list[tuple[str, str | None]]:
    """Databases and tables that ``action`` must not reach; ``None`` in place of a table for a whole database."""
    tables = instance.attachments.protected_tables()
    if action == "execute-write-sql":
        return [(database, None) for database in dict.fromkeys(database for database, _ in tables)]
    return [(database, table) for database, names in tables for table in names]
