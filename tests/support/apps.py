"""The apps that the servers of these tests run. Each is a factory, because a worker makes its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_token_auth import (
    ManagedTokens,
    SignedTokens,
    SQLTokens,
    StaticTokens,
    TokenAuthMiddleware,
    TokenStore,
    from_config,
)
from asgi_token_auth.databases.sqlite import SQLite

SECRET = "a secret that is only used in tests"
BOT = "bot-0123456789abcdef"
FOLDER = "ASGI_TOKEN_AUTH_TEST_FOLDER"
DATABASE = "ASGI_TOKEN_AUTH_TEST_DATABASE"
QUERY = "select 'sensor-' || id as actor_id, name as actor_name, token_secret from sensors where id = :token_id"


def block() -> dict[str, Any]:
    return {
        "tokens": [{"token": BOT, "actor": {"id": "bot"}}],
        "param": "_auth_token",
        "manage_tokens": True,
        "manage_tokens_database": "tokens",
        "query": {"sql": QUERY, "database": "demo"},
    }


def datasette() -> Any:
    from datasette.app import Datasette

    from asgi_token_auth.datasette import wrap_datasette

    folder = Path(os.environ[FOLDER])
    instance = Datasette([str(folder / "demo.db"), str(folder / "tokens.db")], secret=SECRET)
    return wrap_datasette(instance, block())


def starlette() -> Any:
    """A bare app that says who asks, and can revoke a token itself. Every answer names the process."""
    folder = Path(os.environ[FOLDER])
    store = TokenStore(SQLite(folder / "tokens.db"), secret=SECRET)
    pid = str(os.getpid())

    async def who(request: Request) -> JSONResponse:
        return JSONResponse({"actor": request.scope.get("actor")}, headers={"x-pid": pid})

    async def revoke(request: Request) -> JSONResponse:
        await store.revoke(request.path_params["id"], owner="alice")
        return JSONResponse({}, headers={"x-pid": pid})

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json({"actor": websocket.scope.get("actor")})
        await websocket.close()

    inner = Starlette(
        routes=[
            Route("/-/actor.json", who),
            Route("/revoke/{id:int}", revoke, methods=["POST"]),
            WebSocketRoute("/talk", talk),
        ]
    )
    return TokenAuthMiddleware(
        inner,
        sources=[
            StaticTokens({BOT: {"id": "bot"}}),
            ManagedTokens(store),
            SignedTokens(SECRET),
            SQLTokens(SQLite(folder / "demo.db"), QUERY),
        ],
        parameter="_auth_token",
        refusal_headers=[(b"x-pid", pid.encode())],
    )


def pages() -> Any:
    """The pages of tokens in the database of the environment, for whoever ``x-user`` names."""

    def signed_in(scope: Any) -> dict[str, Any] | None:
        user = dict(scope["headers"]).get(b"x-user")
        return None if user is None else {"id": user.decode()}

    block = {"manage_tokens": True, "permissions": {"auth-tokens-create": True}}
    databases = {"tokens": os.environ[DATABASE]}
    return from_config(Starlette(), block, databases=databases, secret=SECRET, signed_in=signed_in)
