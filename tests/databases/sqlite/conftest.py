"""A SQLite file that tests share with others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.sqlite import SQLite, search_index
from tests.support.asgi import SECRET
from tests.support.sqlite_files import other


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in WAL with one row."""
    path = tmp_path / "t.db"
    with other(path) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table t (id integer primary key, word text)")
        connection.execute("insert into t values (1, 'one')")
    return path


@pytest.fixture
async def database(path: Path, anyio_backend: str) -> AsyncIterator[SQLite]:
    database = SQLite(path)
    yield database
    await database.close()


@pytest.fixture
async def store(tmp_path: Path, anyio_backend: str) -> AsyncIterator[TokenStore]:
    async with TokenStore(SQLite(tmp_path / "tokens.db"), secret=SECRET) as store:
        yield store


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes tables of a test's size large enough for the index to be used."""
    monkeypatch.setattr(search_index, "_FEW", 2)
    monkeypatch.setattr(search_index, "_SOME", 12)
    monkeypatch.setattr(search_index, "_NEWEST", 4)
