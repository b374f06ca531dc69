"""A storage call fails, whichever it is and however: the answer is 503, never 500, never anonymous, and heals."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from asgi_token_auth import (
    ManagedTokens,
    Source,
    SQLTokens,
    StaticTokens,
    StorageError,
    TokenAuthMiddleware,
    TokenStore,
)
from asgi_token_auth.databases.sqlite import SQLite
from tests.support.asgi import SECRET, App, ask, bearer, http, websocket
from tests.support.failing import Failing

pytestmark = pytest.mark.anyio

GOOD = "good-token-0123456789"
SQL = "select 'sql' as actor_id, 'secret' as token_secret where :token_id = '1'"


ERRORS = [
    StorageError("cannot"),
    sqlite3.OperationalError("disk I/O error"),
    sqlite3.DatabaseError("malformed"),
    sqlite3.Warning("two statements"),
    OSError(5, "Input/output error"),
    ConnectionResetError(),
    TimeoutError(),
    MemoryError(),
    RecursionError(),
    ValueError("x"),
    TypeError("x"),
    KeyError("x"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
    RuntimeError("Event loop is closed"),
    StopAsyncIteration(),
    asyncio.InvalidStateError(),
    AssertionError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("fresh", [True, False], ids=["a new file", "a file in use"])
async def test_whichever_call_fails_the_answer_is_503_and_the_next_one_is_right(
    tmp_path: Path, error: BaseException, fresh: bool
) -> None:
    tokens: dict[str, int] = {}
    if not fresh:
        async with TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET) as before:
            good, gone = await before.issue("ann"), await before.issue("ann")
            await before.revoke(gone.record.id, owner="ann")
            tokens = {good.token: 200, gone.token: 401}
    fails_at, failed, told = 0, True, 0
    while failed:
        fails_at += 1
        path = tmp_path / (f"{fails_at}.db" if fresh else "t.db")
        database = Failing(SQLite(path), fails_at, error)
        store = TokenStore(database, secret=SECRET)
        unknown = store.text.build(99, "n" * 22)
        expected = {**tokens, unknown: 401, "1-secret": 200, "2-secret": 401, GOOD: 200, "dsatok_x.y": 401}
        app = App()
        sources: list[Source] = [ManagedTokens(store), SQLTokens(database, SQL), StaticTokens({GOOD: {"id": "bot"}})]
        wrapped = TokenAuthMiddleware(app, sources=sources)
        unavailable = 0
        for _ in range(3):
            for token, status in expected.items():
                answer = await ask(wrapped, http([bearer(token)]))
                assert answer.status in (status, 503)
                unavailable += answer.status == 503
                # What needs no database is never touched by its faults.
                if token in (GOOD, "dsatok_x.y"):
                    assert answer.status == status
            assert (await ask(wrapped, http())).status == 200
        failed = database.calls >= fails_at
        # A search that has no index goes on without, so a fault of what makes the index is nobody's.
        assert unavailable <= (1 if failed else 0)
        told += unavailable
        assert all(scope.get("actor") for scope in app.scopes if scope["headers"])
        await store.close()
    assert fails_at > told > 10


@pytest.mark.parametrize("error", ERRORS[::4], ids=lambda error: type(error).__name__)
async def test_a_change_that_fails_at_any_call_has_changed_nothing(tmp_path: Path, error: BaseException) -> None:
    fails_at, failed, stopped = 0, True, 0
    while failed:
        fails_at += 1
        path = tmp_path / f"{fails_at}.db"
        async with TokenStore(SQLite(path), secret=SECRET) as outside:
            parent = (await outside.issue("ann")).record.id
            await outside.issue("ann", parent=parent)
            database = Failing(SQLite(path), fails_at, error)
            store = TokenStore(database, secret=SECRET)
            done: dict[str, bool] = {}
            for name in ("issue", "revoke"):
                try:
                    if name == "issue":
                        await store.issue("ann", parent=parent)
                    else:
                        await store.revoke(parent, owner="ann")
                except (type(error), StorageError):
                    done[name] = False
                else:
                    done[name] = True
            rows = (await outside.database.query(f"select token_status from {store.table} order by id", {})).rows
            events = (await outside.database.query(f"select event from {store.table}_events order by id", {})).rows
            issued = 3 if done["issue"] else 2
            assert rows == [("R" if done["revoke"] else "A",)] * issued
            assert [event for (event,) in events] == ["created"] * issued + ["revoked"] * (
                issued if done["revoke"] else 0
            )
            failed = database.calls >= fails_at
            # A search that has no index goes on without, so a fault of what makes the index stops nothing.
            assert failed or all(done.values())
            stopped += not all(done.values())
            await store.close()
    assert fails_at > stopped > 10


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_notes_of_use_that_cannot_be_written_change_no_answer(tmp_path: Path, error: BaseException) -> None:
    database = Failing(SQLite(tmp_path / "t.db"), -1, error)
    async with TokenStore(database, secret=SECRET) as store:
        issued = await store.issue("ann")
        wrapped = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
        assert (await ask(wrapped, http([bearer(issued.token)]))).status == 200
        database.fails_at = database.calls + 1
        await store.flush()
        assert database.calls == database.fails_at
        assert (await ask(wrapped, http([bearer(issued.token)]))).status == 200
        await store.flush()
        assert (await store.get(issued.record.id, owner="ann")).last_used_at is not None


async def test_a_websocket_is_closed_with_try_again_later(tmp_path: Path) -> None:
    database = Failing(SQLite(tmp_path / "t.db"), 1, OSError())
    store = TokenStore(database, secret=SECRET)
    wrapped = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
    token = store.text.build(1, "n" * 22)
    answer = await ask(wrapped, websocket([bearer(token)]))
    assert answer.messages == [{"type": "websocket.close", "code": 1013, "reason": ""}]
    await store.close()


async def test_a_cancelled_request_is_cancelled_and_not_answered(tmp_path: Path) -> None:
    database = Failing(SQLite(tmp_path / "t.db"), 1, asyncio.CancelledError())
    store = TokenStore(database, secret=SECRET)
    app = App()
    wrapped = TokenAuthMiddleware(app, sources=[ManagedTokens(store)])
    with pytest.raises(asyncio.CancelledError):
        await ask(wrapped, http([bearer(store.text.build(1, "n" * 22))]))
    assert app.scopes == []
    await store.close()
