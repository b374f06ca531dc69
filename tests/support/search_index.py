"""Tables of tokens that are searched, and what a search must find there."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.protocol import Steps
from asgi_token_auth.tokens.record import AnyOwner

TABLE = "_datasette_auth_tokens"
INDEX = f"{TABLE}_search"


def run_sql(path: Path, sql: str, *parameters: object) -> list[Any]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def run_script(path: Path, script: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.executescript(script)
    finally:
        connection.close()


async def fill(store: TokenStore, rows: Sequence[tuple[Any, Any]]) -> None:
    def steps() -> Steps[None]:
        yield (
            f"insert into {TABLE} (token_status, description, actor_id, permissions, created_timestamp) "
            "values ('A', :description, :actor_id, 'null', 1)",
            [{"description": description, "actor_id": actor_id} for description, actor_id in rows],
        )

    await store.ensure_ready()
    await store.database.transaction(steps())


def read_every_row(
    path: Path, search: str, owner: str | AnyOwner, status: str | None, before: int, limit: int
) -> list[int]:
    """The promise: the substring search of SQLite itself."""
    pattern = "%" + search.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"
    rows = run_sql(
        path,
        f"select id from {TABLE} where id < ? and (? is null or actor_id = ?) "
        "and (? is null or (token_status = 'A' and ended_timestamp is null) = (? = 'active')) "
        "and (description like ? escape '!' or actor_id like ? escape '!') order by id desc limit ?",
        *[before, *[None if isinstance(owner, AnyOwner) else owner] * 2, status, status, pattern, pattern, limit],
    )
    return [row[0] for row in rows]
