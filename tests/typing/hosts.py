"""Datasette, FastAPI, the pages mounted by hand, and the tests of an app."""

from pathlib import Path
from typing import Annotated, Any, assert_type

from datasette.app import Datasette
from fastapi import Depends, FastAPI, Security
from starlette.requests import HTTPConnection

from asgi_token_auth import ManagedTokens, Restrictions, SecretStore, TokenAuthMiddleware, TokenStore
from asgi_token_auth.asgi.types import ASGIApp, Scope
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.datasette import Secret, get_secret, token_store, wrap_datasette
from asgi_token_auth.fastapi import CurrentActor
from asgi_token_auth.testing import acting_as
from asgi_token_auth.web import SecretPages, TokenPages

# Datasette

datasette = Datasette(["data.db", "tokens.db"], secret="keep-this-secret-and-the-same-everywhere")
assert_type(wrap_datasette(datasette), TokenAuthMiddleware)
wrap_datasette(datasette, {"manage_tokens": True}, databases={"tokens": Path("tokens.db"), "app": "app.db"})
assert_type(token_store(datasette), TokenStore)


def register_secrets() -> list[Secret]:
    return [Secret("WEATHER_KEY", "For the weather service")]


async def forecast(request: Any) -> None:
    assert_type(await get_secret(datasette, "WEATHER_KEY", request.actor and request.actor["id"]), str | None)
    await get_secret(datasette)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


wrap_datasette(datasette, "config.json")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# FastAPI

api = FastAPI()
current_actor = CurrentActor(realm="reports", description="Ask the administrator for one.")


@api.get("/me")
async def me(actor: Annotated[dict[str, Any], Depends(current_actor)]) -> dict[str, Any]:
    return actor


@api.get("/reports")
async def reports(actor: Annotated[dict[str, Any], Security(current_actor, scopes=["reports"])]) -> str:
    return f"Reports for {actor['id']}"


async def by_hand(connection: HTTPConnection) -> None:
    CurrentActor("reports")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await current_actor(connection)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# Pages


async def signed_in(scope: Scope) -> dict[str, Any] | None:
    user: dict[str, Any] | None = scope.get("user")
    return user


store = TokenStore(SQLite("tokens.db"))
pages = TokenPages(store, signed_in=signed_in, permissions={"auth-tokens-create": True}, scopes=["read", "write"])
api.mount("/-/api/tokens", pages)
api.mount("/-/secrets", SecretPages(SecretStore(SQLite("secrets.db"), encryption_key=None), signed_in=signed_in))
TokenPages(ManagedTokens(store))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# Tests

as_alice = acting_as(api, {"id": "alice"}, restrictions=Restrictions().allow_all("read"))
assert_type(as_alice, ASGIApp)
acting_as(TokenAuthMiddleware(api, sources=[ManagedTokens(store)]), {"id": "alice"})
acting_as(api, "alice")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
