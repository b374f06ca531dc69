"""Apps and middlewares that ours is compared with."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import aiosqlite
from itsdangerous import BadSignature, URLSafeSerializer
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection

from asgi_token_auth import Source, TokenAuthMiddleware
from tests.benchmarks.harness import App, Scope

SECRET: Final = "a secret for benchmarks only"


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An app that does nothing else."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def protected(*sources: Source) -> App:
    """Ours, in front of the bare app."""
    return TokenAuthMiddleware(bare, sources=sources)


class NoOp:
    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class DictBackend(AuthenticationBackend):
    """As Starlette's documentation writes a backend: new credentials and a new user for every request."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._known = dict.fromkeys(tokens, "bot")

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        scheme, _, token = conn.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or token not in self._known:
            return None
        return AuthCredentials(["authenticated"]), SimpleUser(self._known[token])


def starlette_with_a_dict(tokens: Sequence[str]) -> App:
    return AuthenticationMiddleware(bare, backend=DictBackend(tokens))


class SelectPerRequest:
    """The check without a memory, through aiosqlite: the signature, then the row."""

    def __init__(self, app: App, serializer: URLSafeSerializer, connection: aiosqlite.Connection) -> None:
        self.app = app
        self._serializer = serializer
        self._connection = connection

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        token_id = self._serializer.loads(bearer(scope))
        rows = await self._connection.execute_fetchall("select name from tokens where id = ?", (token_id,))
        await self.app({**scope, "actor": {"id": next(iter(rows))[0]}}, receive, send)


class SelectHere:
    """The shortest check without a memory: the signature, then the row, on the thread of the event loop."""

    def __init__(self, app: App, serializer: URLSafeSerializer, connection: sqlite3.Connection) -> None:
        self.app = app
        self._serializer = serializer
        self._cursor = connection.cursor()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        token_id = self._serializer.loads(bearer(scope))
        rows = self._cursor.execute("select name from tokens where id = ?", (token_id,)).fetchall()
        await self.app({**scope, "actor": {"id": rows[0][0]}}, receive, send)


class VersionOnly:
    """Nothing but the question whether anything was committed."""

    def __init__(self, app: App, connection: sqlite3.Connection) -> None:
        self.app = app
        self._cursor = connection.cursor()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        self._cursor.execute("pragma data_version").fetchall()
        await self.app(scope, receive, send)


class LoadsOnly:
    """Nothing but itsdangerous and a fixed answer."""

    def __init__(self, serializer: URLSafeSerializer) -> None:
        self._serializer = serializer

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        try:
            self._serializer.loads(bearer(scope))
        except BadSignature:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})


def bearer(scope: Scope) -> str:
    """The token of a request, read in the shortest way."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            return str(value[7:], "ascii")
    return ""
