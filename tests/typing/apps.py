"""Apps with the middleware around them, built by hand and from configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, assert_type

from starlette.applications import Starlette

from asgi_token_auth import (
    Authenticated,
    Rejected,
    SecretStore,
    StaticTokens,
    TokenAuth,
    TokenAuthMiddleware,
    TokenEvent,
    TokenUser,
    from_config,
    secret_store_of,
)
from asgi_token_auth.asgi.types import Receive, Scope, Send
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.middleware import EventKind

TOKENS = StaticTokens({"a-long-random-string": {"id": "bot", "scopes": ["reports"]}})


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    actor: Mapping[str, Any] | None = scope["actor"]
    await send({"type": "http.response.start", "status": 200 if actor else 404, "headers": []})
    await send(await receive())


async def signed_in(scope: Scope) -> Mapping[str, Any] | None:
    user: dict[str, Any] | None = scope.get("session", {}).get("user")
    return user


def on_event(event: TokenEvent) -> None:
    assert_type(event.kind, EventKind)
    assert_type(event.reason, str | None)
    assert_type(event.source, str | None)
    assert_type(event.token_id, int | None)
    assert_type(event.actor_id, str | None)
    assert_type(event.path, str)
    assert_type(event.address, str | None)
    if event.kind == "accepted":
        assert_type(event.kind, Literal["accepted"])
    if event.kind == "acepted":  # type: ignore[comparison-overlap]
        raise AssertionError
    event.kind = "rejected"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def forbid(outcome: Authenticated) -> str | None:
    assert_type(outcome.actor(), dict[str, Any])
    assert_type(outcome.auth, TokenAuth)
    assert_type(outcome.user, TokenUser)
    return None if outcome.restrictions is None else "Tokens of this kind cannot be used here."


by_hand = TokenAuthMiddleware(
    plain,
    sources=[TOKENS],
    parameter="_auth_token",
    required=True,
    unknown="pass",
    on_event=on_event,
    signed_in=signed_in,
    forbid=forbid,
    refusal_headers=[(b"access-control-allow-origin", b"*")],
)
# What it wraps may be an app of a framework or another middleware, and a framework may wrap it.
nested = TokenAuthMiddleware(TokenAuthMiddleware(Starlette(), sources=[TOKENS]), sources=[TOKENS])
Starlette().add_middleware(TokenAuthMiddleware, sources=[TOKENS], realm="reports")
Starlette().mount("/inner", by_hand)

configured = from_config(
    Starlette(),
    {"tokens": [{"token": {"$env": "BOT_TOKEN"}, "actor": {"id": "bot"}}], "manage_tokens": True},
    databases={"tokens": "tokens.db", "app": Path("app.db"), "more": SQLite("more.db")},
    secret=["the-former-secret-is-here", "keep-this-secret-and-the-same-everywhere"],
    signed_in=signed_in,
)
assert_type(configured, TokenAuthMiddleware)
assert_type(from_config(plain, "config.toml"), TokenAuthMiddleware)
assert_type(from_config(plain, Path("config.json")), TokenAuthMiddleware)
assert_type(secret_store_of(configured), SecretStore)


async def long_stream(scope: Scope) -> None:
    auth: TokenAuth = scope["auth"]
    assert_type(auth.scopes, tuple[str, ...])
    assert_type(auth.source, str)
    assert_type(auth.token_id, int | None)
    assert_type(auth.expires_at, float | None)
    assert_type(await auth.recheck(), bool)


def refused(outcome: Rejected) -> int | None:
    return outcome.token_id


TokenAuthMiddleware(plain)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
TokenAuthMiddleware(plain, [TOKENS])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
TokenAuthMiddleware(plain, sources=[TOKENS], unknown="drop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
TokenAuthMiddleware(plain, sources=[TOKENS], required="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
TokenAuthMiddleware(plain, sources=[TOKENS], on_event=forbid)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
from_config(plain, {}, signed_in=lambda _: None)
from_config(plain, {}, signed_in="alice")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
from_config(plain, {}, databases={"tokens": 5})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
