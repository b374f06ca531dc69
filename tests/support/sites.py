"""Datasettes for tests: made for whichever version is installed, served in process, and closed again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from datasette.app import Datasette
from datasette.plugins import pm
from pluggy import HookimplMarker

from asgi_token_auth import IssuedToken, Restrictions, SignedTokens
from asgi_token_auth.asgi.types import ASGIApp
from asgi_token_auth.datasette import token_store, wrap_datasette
from asgi_token_auth.datasette.version import IS_1_0 as IS_1_0

SECRET = "a secret that is only used in tests"
BOT = "bot-0123456789abcdef"
SENSOR = "1-open-sesame"
TABLE = "_datasette_auth_tokens"

# Rows of the other version are not collected at all: a skipped test always means that something is missing.
needs_1_0 = pytest.mark.datasette("1.0")
needs_0_65 = pytest.mark.datasette("0.65")


class StartFailed(Exception):
    """The app answered ``lifespan.startup.failed``."""


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def demo_files(folder: Path, *, journal: str = "wal") -> list[Path]:
    """``demo.db`` with a table and the sensors of :func:`full_block`, and an empty ``tokens.db``."""
    demo, tokens = folder / "demo.db", folder / "tokens.db"
    with closing(sqlite3.connect(demo)) as connection:
        connection.executescript(
            """
            create table foo (id integer primary key, name text);
            create table sensors (id integer primary key, name text, token_secret text);
            insert into sensors values (1, 'Greenhouse', 'open-sesame');
            """
        )
        connection.executemany("insert into foo values (?, ?)", [(n, f"row {n}") for n in range(1, 251)])
        connection.commit()
    with closing(sqlite3.connect(tokens)) as connection:
        connection.execute(f"pragma journal_mode = {journal}").fetchall()
        # A database that holds nothing is an empty file, in which no journal mode can stand.
        connection.execute("create table notes (id integer primary key, note text)")
        connection.commit()
    return [demo, tokens]


def full_block(**more: Any) -> dict[str, Any]:
    """A block with all four sources and the query parameter."""
    return {
        "tokens": [{"token": BOT, "actor": {"id": "bot"}}],
        "param": "_auth_token",
        "manage_tokens": True,
        "manage_tokens_database": "tokens",
        "query": {
            "sql": "select 'sensor-' || id as actor_id, name as actor_name, token_secret from sensors "
            "where id = :token_id",
            "database": "demo",
        },
        **more,
    }


def bot_block(**more: Any) -> dict[str, Any]:
    """A block with nothing but one hard-coded token."""
    return {"tokens": [{"token": BOT, "actor": {"id": "bot"}}], **more}


def make(
    files: Sequence[Path] = (),
    block: Mapping[str, Any] | None = None,
    *,
    section: str = "asgi-token-auth",
    config: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    """A Datasette with ``block`` in its configuration, where this version keeps it."""
    configuration = dict(config or {})
    if block is not None:
        configuration["plugins"] = {section: block}
    place = "config" if IS_1_0 else "metadata"
    return Datasette([str(file) for file in files], **{place: configuration, "secret": SECRET, **more})


@asynccontextmanager
async def serving(app: ASGIApp, *, lifespan: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``app``, between the lifespan events that a server would send."""
    if not lifespan:
        async with _client(app) as client:
            yield client
        return
    to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    running = asyncio.ensure_future(app({"type": "lifespan", "asgi": {"version": "3.0"}}, to_app.get, from_app.put))
    try:
        await to_app.put({"type": "lifespan.startup"})
        answer = await asyncio.wait_for(from_app.get(), 10)
        if answer["type"] != "lifespan.startup.complete":
            raise StartFailed(answer.get("message", ""))
        async with _client(app) as client:
            yield client
        await to_app.put({"type": "lifespan.shutdown"})
        assert (await asyncio.wait_for(from_app.get(), 10))["type"] == "lifespan.shutdown.complete"
        await asyncio.wait_for(running, 10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


@asynccontextmanager
async def wrapped(
    datasette: Any, block: Mapping[str, Any] | None = None, *, lifespan: bool = True
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``wrap_datasette(datasette, block)``."""
    async with serving(wrap_datasette(datasette, block), lifespan=lifespan) as client:
        try:
            yield client
        finally:
            if not lifespan:
                await close_store(datasette)


async def close_store(datasette: Any) -> None:
    """Let go of the token database where no lifespan does it."""
    state = getattr(datasette, "_asgi_token_auth", None)
    if state is not None and state.managed_tokens() is not None:
        await state.managed_tokens().store.close()


async def issue(datasette: Any, actor_id: str = "alice", **more: Any) -> IssuedToken:
    return await token_store(datasette).issue(actor_id, **more)


def signed(actor_id: str = "carol", **more: Any) -> str:
    return SignedTokens(SECRET).create_token(actor_id, **more)


def only(action: str = "view-instance") -> Restrictions:
    return Restrictions().allow_all(action)


async def who(client: Any, token: str | None = None, **more: Any) -> Any:
    """The actor that Datasette sees, or the status if it is not 200."""
    headers = {**more.pop("headers", {}), **({} if token is None else bearer(token))}
    answer = await client.get("/-/actor.json", headers=headers, **more)
    return answer.json()["actor"] if answer.status_code == 200 else answer.status_code


def cookie(datasette: Any, actor: Mapping[str, Any]) -> dict[str, str]:
    """A header with the login cookie of ``actor``."""
    return {"cookie": "ds_actor=" + datasette.sign({"a": dict(actor)}, "actor")}


@contextmanager
def registered(*, tryfirst: bool = False, **hooks: Callable[..., Any]) -> Iterator[None]:
    """``hooks`` are those of a plugin, the last registered, for as long as this lasts."""
    plugin = ModuleType(f"plugin_of_a_test_{len(pm.get_plugins())}")
    for name, function in hooks.items():
        # A bound method takes no attributes of its own.
        HookimplMarker("datasette")(tryfirst=tryfirst)(getattr(function, "__func__", function))
        setattr(plugin, name, function)
    pm.register(plugin)
    try:
        yield
    finally:
        pm.unregister(plugin)
