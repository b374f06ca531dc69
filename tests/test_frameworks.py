"""Frameworks find in the scope what they look for."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_token_auth import (
    Restrictions,
    StaticTokens,
    TokenAuthMiddleware,
)
from tests.support.asgi import Message
from tests.support.sources import GOOD, sources

pytestmark = pytest.mark.anyio


# Frameworks


def starlette_app() -> Starlette:
    @requires("authenticated")
    def home(request: Any) -> JSONResponse:
        return JSONResponse({"name": request.user.display_name, "identity": request.user.identity})

    @requires(["authenticated", "view-table"])
    def table(request: Any) -> JSONResponse:
        return JSONResponse("table")

    @requires("authenticated")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.user.identity)
        await websocket.close()

    return Starlette(routes=[Route("/", home), Route("/table", table), WebSocketRoute("/socket", socket)])


def test_requires_of_starlette_reads_the_scopes_of_a_token() -> None:
    plain, limited = "plain-token-0123456789", "limited-token-0123456789"
    tokens = StaticTokens(
        {
            plain: {"id": "bot", "name": "The Bot"},
            limited: {"id": "reader", "_r": Restrictions().allow_all("vt").to_wire()},
        }
    )

    # Starlette's @requires needs scope["auth"] even of strangers, so somebody outside must give it.
    async def outside(scope: Message, receive: Any, send: Any) -> None:
        from starlette.authentication import AuthCredentials, UnauthenticatedUser

        scope.setdefault("auth", AuthCredentials())
        scope.setdefault("user", UnauthenticatedUser())
        await TokenAuthMiddleware(starlette_app(), sources=[tokens])(scope, receive, send)

    with TestClient(outside) as client:
        assert client.get("/").status_code == 403
        assert client.get("/", headers={"authorization": f"Bearer {plain}"}).json() == {
            "name": "The Bot",
            "identity": "bot",
        }
        # An unrestricted token has no scope by absence.
        assert client.get("/table", headers={"authorization": f"Bearer {plain}"}).status_code == 403
        assert client.get("/table", headers={"authorization": f"Bearer {limited}"}).status_code == 200
        with client.websocket_connect("/socket", headers={"authorization": f"Bearer {limited}"}) as connection:
            assert connection.receive_text() == "reader"
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket"):
            pass


def test_fastapi_sees_the_actor_and_the_user() -> None:
    api = FastAPI()

    @api.get("/")
    def home(request: Request) -> dict[str, Any]:
        return {"actor": request.scope["actor"], "user": request.user.identity, "source": request.auth.source}

    with TestClient(TokenAuthMiddleware(api, sources=sources())) as client:
        answer = client.get("/", headers={"authorization": f"Bearer {GOOD}"})
    assert answer.json() == {"actor": {"id": "bot"}, "user": "bot", "source": "static"}
