"""Rows of another store that the database here cannot hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from asgi_token_auth import ANY_OWNER, InvalidInput, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.tokens.copying import COPIED
from tests.support.asgi import SECRET
from tests.support.places import run_sql
from tests.support.tokens import issue

pytestmark = pytest.mark.anyio

_NUMBERED = ("_timestamp", "_seconds", "_until", "_version", "parent_id")
NUMBERS = [column for column in COPIED if column.endswith(_NUMBERED)]
TEXTS = [column for column in COPIED if column not in NUMBERS and column != "id"]
DAMAGED = {
    **{f"{column}: {value}": (column, value, "no whole number") for column in NUMBERS for value in ("'soon'", "1.5")},
    **{f"{column}: {value}": (column, value, "no text") for column in TEXTS for value in ("x'00'", "'a' || char(0)")},
    "actor_id: long": ("actor_id", "'" + "x" * 501 + "'", "longer than 500 characters"),
}


@pytest.mark.parametrize("name", DAMAGED)
async def test_a_damaged_row_is_named_where_it_cannot_be_held(store: TokenStore, tmp_path: Path, name: str) -> None:
    column, value, reason = DAMAGED[name]
    path = tmp_path / "source.db"
    async with TokenStore(SQLite(path), secret=SECRET) as source:
        await issue(source)
        await issue(source)
        run_sql(source, f"update {source.table} set {column} = {value} where id = 2")
    if isinstance(store.database, SQLite):
        # It holds everything, and so does what came from there.
        assert len(await store.import_tokens(SQLite(path))) == 2
        return
    for dry_run in (True, False):
        with pytest.raises(InvalidInput) as refused:
            await store.import_tokens(SQLite(path), dry_run=dry_run)
        assert f"source.db: token 2 is damaged in its column {column}, which is {reason}, so" in str(refused.value)
    assert (await store.list(owner=ANY_OWNER)).items == []


async def test_events_that_cannot_be_held_are_named_too(store: TokenStore, tmp_path: Path) -> None:
    path = tmp_path / "source.db"
    async with TokenStore(SQLite(path), secret=SECRET) as source:
        await issue(source)
        run_sql(source, f"update {source.table}_events set details = 'a' || char(0)")
    if isinstance(store.database, SQLite):
        assert len(await store.import_tokens(SQLite(path))) == 1
        return
    with pytest.raises(InvalidInput, match="what happened to token 1 cannot be read"):
        await store.import_tokens(SQLite(path))
