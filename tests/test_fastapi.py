"""The FastAPI dependency: who gets in, who is told what, and what the API's documentation says."""

from __future__ import annotations

import re
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Security, WebSocket
from starlette.testclient import TestClient

from asgi_token_auth import StaticTokens, TokenAuthMiddleware
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.fastapi import CurrentActor
from tests.support.asgi import websocket

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


@api.get("/maybe")
async def maybe(actor: Annotated[dict[str, Any] | None, Depends(CurrentActor(auto_error=False))]) -> str:
    return "a stranger" if actor is None else str(actor["id"])


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
    assert document["components"]["securitySchemes"]["BearerToken"]["scheme"] == "bearer"
    assert document["paths"]["/reports"]["get"]["security"] == [{"BearerToken": ["reports"]}]


def test_a_websocket_gets_the_actor() -> None:
    with (
        TestClient(app) as client,
        client.websocket_connect("/live", headers={"Authorization": "Bearer token-of-the-reader"}) as websocket,
    ):
        assert websocket.receive_text() == "reader"


async def test_a_route_may_be_for_strangers_too() -> None:
    assert (await ask("/maybe", None)).json() == "a stranger"
    assert (await ask("/maybe", "token-of-a-stranger")).json() == "stranger"


async def test_names_of_schemes_are_what_openapi_allows() -> None:
    names = (await ask("/openapi.json", None)).json()["components"]["securitySchemes"]
    assert all(re.fullmatch(r"[a-zA-Z0-9._-]+", name) for name in names)


async def test_without_the_middleware_a_route_fails_loudly_and_takes_nobody_for_a_stranger() -> None:
    transport = httpx.ASGITransport(app=api, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("/me", "/maybe"):
            with pytest.raises(ConfigurationError, match="nothing around this app checks tokens"):
                await client.get(path)


@pytest.mark.parametrize(
    "extensions", [None, {}, {"websocket.http.response": {}}], ids=["none", "without denial", "with denial"]
)
async def test_a_websocket_is_refused_as_the_server_can(extensions: dict[str, Any] | None) -> None:
    scope = {**websocket(path="/live"), "subprotocols": [], "extensions": extensions}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if extensions:
        assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 401)
    else:
        assert (sent[0]["type"], sent[0]["code"]) == ("websocket.close", 1008)


def test_the_middleware_may_be_added_to_the_app_itself() -> None:
    inner = FastAPI()
    inner.add_api_route("/me", me)
    inner.add_middleware(TokenAuthMiddleware, sources=[StaticTokens({"token-of-the-reader": {"id": "reader"}})])
    with TestClient(inner) as client:
        assert client.get("/me").status_code == 401
        answer = client.get("/me", headers={"Authorization": "Bearer token-of-the-reader"})
        assert answer.json() == {"id": "reader"}
