"""Numbered changes to a store's tables, applied in place and once each, all in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asgi_token_auth.databases.protocol import Database, Steps
from asgi_token_auth.errors import StorageError

#: A change: its name and what it does. Names are never reused or reordered.
Migration = tuple[str, Callable[[], Steps[None]]]


async def migrate(database: Database, bookkeeping: str, migrations: Sequence[Migration], now: int) -> list[str]:
    """Apply what has not been applied yet; return the names of what was.

    Starting many processes at once is safe: each looks again inside its own transaction. Nothing is written
    where there is nothing to do, so a store that is up to date also opens read-only.

    Raises:
        StorageError: the database cannot be written, or was made by a newer release of this package.
    """
    if not await pending(database, bookkeeping, migrations):
        return []

    def steps() -> Steps[list[str]]:
        columns = f"name text primary key, applied_timestamp {database.dialect.integer}"
        yield f"create table if not exists {bookkeeping} ({columns})", {}
        done = {name for (name,) in (yield f"select name from {bookkeeping}", {})}
        ran: list[str] = []
        for name, change in migrations:
            if name not in done:
                yield from change()
                yield (
                    f"insert into {bookkeeping} (name, applied_timestamp) values (:name, :now)",
                    {"name": name, "now": now},
                )
                ran.append(name)
        return ran

    return await database.transaction(steps())


async def pending(database: Database, bookkeeping: str, migrations: Sequence[Migration]) -> list[str]:
    """The names of what :func:`migrate` would apply. Writes nothing.

    Raises:
        StorageError: the database cannot be read, or was made by a newer release of this package.
    """
    known = [name for name, _ in migrations]
    if not await _columns(database, bookkeeping):
        return known
    applied = {name for (name,) in (await database.query(f"select name from {bookkeeping}", {})).rows}
    if newer := sorted(applied - set(known)):
        raise StorageError(
            f"{database.name}: {bookkeeping} names changes that this release does not know ({', '.join(newer)}); "
            "install the newer release of asgi-token-auth that made them."
        )
    return [name for name in known if name not in applied]


def add_missing_columns(database: Database, table: str, columns: dict[str, str]) -> Steps[None]:
    """Add those of ``columns`` (name to type) that ``table`` has not got."""
    present = {name for (name,) in (yield database.dialect.table_columns, {"table": table})}
    for name, kind in columns.items():
        if name not in present:
            yield f"alter table {table} add column {name} {kind}", {}


async def _columns(database: Database, table: str) -> set[str]:
    return {name for (name,) in (await database.query(database.dialect.table_columns, {"table": table})).rows}
