"""The FastAPI dependency: who gets in, who is told what, and what the API's documentation says."""

from __future__ import annotations

from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Security, WebSocket
from starlette.testclient import TestClient

from asgi_token_auth import StaticTokens, TokenAuthMiddleware
from asgi_token_auth.fastapi import CurrentActor

pytestmark = pytest.mark.anyio

api = FastAPI()
current_actor = CurrentActor(realm="club")


@api.get("/me")
async def me(actor: Annotated[dict[str, Any], Depends(current_actor)]) -> dict[str, Any]:
    return actor


@api.get("/reports")
async def reports(actor: Annotated[dict[str, Any], Security(current_actor, scopes=["reports"])]) -> str:
    return str(actor["id"])


@api.websocket("/live")
async def live(websocket: WebSocket, actor: Annotated[dict[str, Any], Depends(current_actor)]) -> None:
    await websocket.accept()
    await websocket.send_text(actor["id"])
    await websocket.close()


app = TokenAuthMiddleware(
    api,
    sources=[
        StaticTokens(
            {"token-of-the-reader": {"id": "reader", "scopes": ["reports"]}, "token-of-a-stranger": {"id": "stranger"}}
        )
    ],
)


async def ask(path: str, token: str | None) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        return await client.get(path, headers=headers)


async def test_the_route_gets_the_actor() -> None:
    assert (await ask("/me", "token-of-a-stranger")).json() == {"id": "stranger"}
    assert (await ask("/reports", "token-of-the-reader")).json() == "reader"


async def test_without_a_token_the_route_answers_401_with_a_bare_challenge() -> None:
    answer = await ask("/me", None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="club"'


async def test_without_the_scope_the_route_answers_403_and_names_it() -> None:
    answer = await ask("/reports", "token-of-a-stranger")
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    assert 'scope="reports"' in answer.headers["www-authenticate"]


async def test_the_document_shows_the_route_as_protected() -> None:
    document = (await ask("/openapi.json", None)).json()
    assert document["components"]["securitySchemes"]["Bearer token"]["scheme"] == "bearer"
    assert document["paths"]["/reports"]["get"]["security"] == [{"Bearer token": ["reports"]}]


def test_a_websocket_gets_the_actor() -> None:
    with (
        TestClient(app) as client,
        client.websocket_connect("/live", headers={"Authorization": "Bearer token-of-the-reader"}) as websocket,
    ):
        assert websocket.receive_text() == "reader"
