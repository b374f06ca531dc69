"""For the tests of apps that use this package: requests that act as somebody, and a store that is thrown away."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_token_auth.asgi.types import ASGIApp, Receive, Scope, Send
from asgi_token_auth.authentication import Actor, Authenticated
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.middleware import OUTCOME_KEY
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.tokens.store import TokenStore

__all__ = ["acting_as", "token_store"]


def acting_as(app: ASGIApp, actor: Actor, *, restrictions: Restrictions | None = None) -> ASGIApp:
    """``app``, in which every request and websocket comes from ``actor``, as if with a valid token.

    The wrapped app is called with the same scope keys that the middleware sets, and the middleware inside of
    it, if there is one, does not check again.
    """

    async def still() -> bool:
        return True

    described = dict(actor)
    if restrictions is not None:
        described["_r"] = restrictions.to_wire()
    outcome = Authenticated(described, source="test", restrictions=restrictions, recheck=still)

    async def acting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = {
                **scope,
                "actor": outcome.actor(),
                "auth": outcome.auth,
                "user": outcome.user,
                OUTCOME_KEY: outcome,
            }
        await app(scope, receive, send)

    return acting


@pytest.fixture
def token_store(tmp_path: Path) -> Iterator[TokenStore]:
    """An empty store of managed tokens in a file that goes with the test. It opens by itself in the test's event loop.

    No async fixture, so that it works with every plugin for async tests, and with tests that are not async.
    """
    store = TokenStore(SQLite(tmp_path / "tokens.db"), secret=secrets.token_hex(16))
    yield store
    asyncio.run(store.close())
