"""Opening a store for requests of a server that sends no lifespan events, as for an app that is mounted in another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import ManagedTokens, StorageError, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from tests.support.asgi import SECRET, App, ask, bearer, http

pytestmark = pytest.mark.anyio


class Away:
    """A database that cannot be opened, once that is known."""

    def __init__(self, inner: SQLite) -> None:
        self.inner = inner
        self.dialect = inner.dialect
        self.name = inner.name
        self.opened = 0
        self.known = asyncio.Event()
        self.away = True

    async def open(self) -> None:
        self.opened += 1
        await self.known.wait()
        if self.away:
            raise StorageError("It does not answer.")
        await self.inner.open()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


async def _several(app: TokenAuthMiddleware, token: str, database: Away) -> set[int]:
    """What many requests that come while it is being opened are answered with."""
    asked = [asyncio.create_task(ask(app, http(headers=[bearer(token)]))) for _ in range(20)]
    while not database.opened:
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    database.known.set()
    return {answer.status for answer in await asyncio.gather(*asked)}


async def _site(folder: Path) -> tuple[TokenAuthMiddleware, str, Away]:
    async with TokenStore(SQLite(folder / "tokens.db"), secret=SECRET) as before:
        token = (await before.issue("ann")).token
    database: Any = Away(SQLite(folder / "tokens.db"))
    return TokenAuthMiddleware(App(), sources=[ManagedTokens(TokenStore(database, secret=SECRET))]), token, database


async def test_all_who_wait_for_a_database_that_does_not_answer_wait_for_one_attempt(tmp_path: Path) -> None:
    app, token, database = await _site(tmp_path)
    assert await _several(app, token, database) == {503}
    assert database.opened == 1


async def test_whoever_comes_later_has_an_attempt_of_their_own(tmp_path: Path) -> None:
    app, token, database = await _site(tmp_path)
    await _several(app, token, database)
    database.away = False
    assert await _several(app, token, database) == {200}
    assert database.opened == 2
    await database.inner.close()


async def test_an_opening_goes_on_when_whoever_came_first_hangs_up(tmp_path: Path) -> None:
    app, token, database = await _site(tmp_path)
    database.away = False
    first = asyncio.create_task(ask(app, http(headers=[bearer(token)])))
    while not database.opened:
        await asyncio.sleep(0)
    first.cancel()
    assert await _several(app, token, database) == {200}
    assert database.opened == 1
    await database.inner.close()
