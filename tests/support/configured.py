"""Apps that a configuration block wraps, for the tests about blocks."""

import json
from typing import Any

import httpx

from asgi_token_auth.middleware import TokenAuthMiddleware
from asgi_token_auth.sources.signed import SignedTokens

# Every value that no message may repeat holds this word.
HIDDEN = "hunter2"
TOKEN = f"{HIDDEN}-hard-coded-token"


SECRET = f"{HIDDEN}-secret-of-this-test"


BOT = {"token": TOKEN, "actor": {"id": "bot"}}


async def whoami(scope: Any, receive: Any, send: Any) -> None:
    """An app that answers with the actor it was called with."""
    body = json.dumps(scope.get("actor")).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


async def ask(app: TokenAuthMiddleware, token: str | None = None, url: str = "/") -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get(url, headers=headers)


async def actor_of(app: TokenAuthMiddleware, token: str, url: str = "/") -> Any:
    response = await ask(app, token, url)
    assert response.status_code == 200, response.text
    return response.json()


def signed(secret: str) -> str:
    return SignedTokens(secret).create_token("root")


QUERY = {"sql": "select actor_id, token_secret from tokens where token_id = :token_id", "database": "app"}


async def nobody(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no request is sent")
