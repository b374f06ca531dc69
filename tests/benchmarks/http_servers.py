"""The servers of the benchmark over HTTP: one app each, in a process of its own.

Beside managed tokens in PostgreSQL stands a SELECT for each request, made in two ways: by the same middleware, which
differs in nothing else then, and by the shortest code that could do it, which copies no scope, hides nothing and
answers without ``Vary``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import uvicorn
from itsdangerous import BadSignature, URLSafeSerializer

from asgi_token_auth import ManagedTokens, TokenAuthMiddleware, TokenStore
from asgi_token_auth.asgi.types import ASGIApp
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.protocol import Database, Found, Lookup
from asgi_token_auth.databases.rows import answer
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.tokens.table import DECIDING
from tests.benchmarks.apps import SECRET, bare, starlette_with_a_dict
from tests.support import ROOT

BARE: Final = "bare app"
STARLETTE: Final = "Starlette's dict"
IN_SQLITE: Final = "managed, SQLite"
IN_POSTGRES: Final = "managed, PostgreSQL"
SELECT: Final = "the same, a SELECT each"
SHORTEST: Final = "shortest code, a SELECT each"

_TABLE: Final = "_datasette_auth_tokens"
#: Connections for whoever makes a SELECT for each request.
_POOL_SIZE: Final = 8


class SelectEach:
    """Rows by id, with a SELECT of its own for each request."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: Any = None

    def version(self) -> None:
        """As in PostgreSQL."""

    def fetch_now(self, row_id: int) -> None:
        pass

    async def fetch(self, row_id: int) -> Found:
        """Take a connection from a pool and select the row."""
        row = await (await self.pool()).fetchrow(f"select {DECIDING} from {_TABLE} where id = $1", row_id)
        return answer(None, row)

    async def pool(self) -> Any:
        """The pool, made by whoever asks first."""
        if self._pool is None:
            self._pool = await asyncpg.create_pool(self._dsn, min_size=_POOL_SIZE, max_size=_POOL_SIZE)
        return self._pool


class ShortestCode:
    """Check the signature, take a connection from a pool, select the row."""

    def __init__(self, app: ASGIApp, dsn: str) -> None:
        self._app = app
        self._serializer = URLSafeSerializer(SECRET)
        self._rows = SelectEach(dsn)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            try:
                token_id = self._serializer.loads(header[7:])
            except BadSignature:
                token_id = 0
            row = await (await self._rows.pool()).fetchrow(
                f"select id, actor_id, token_status from {_TABLE} where id = $1", token_id
            )
            if row is None:
                await send({"type": "http.response.start", "status": 401, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
            scope["actor"] = {"id": row["actor_id"]}
        await self._app(scope, receive, send)


def middleware(database: Database, lookup: Lookup | None = None) -> ASGIApp:
    """Ours, in front of the app, with its own way to read rows or another one."""
    source = ManagedTokens(TokenStore(database, secret=SECRET))
    if lookup is not None:
        source.lookup = lookup
    return TokenAuthMiddleware(bare, sources=[source])


class Server:
    """One of the servers, running.

    Args:
        place: where its tokens are: a DSN, the path of a SQLite file, or a file with a token on each line.
    """

    def __init__(self, stack: ExitStack, name: str, place: str, token: str) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
            self.port: int = listening.getsockname()[1]
            fd = listening.fileno()
            command = [sys.executable, "-m", "tests.benchmarks.http_servers", name, str(fd)]
            # A DSN may hold a password, and everybody can read the arguments of a process.
            environment = {**os.environ, "BENCHMARK_PLACE": place}
            self._process = subprocess.Popen(
                command, pass_fds=[fd], stdout=subprocess.DEVNULL, cwd=ROOT, env=environment
            )
        stack.callback(self._process.wait)
        stack.callback(self._process.terminate)
        # It listens already, so this waits for the server.
        answer = httpx.get(f"http://127.0.0.1:{self.port}/", headers={"authorization": f"Bearer {token}"}, timeout=30)
        answer.raise_for_status()

    def cpu(self) -> float:
        """Seconds that all its threads have run so far; 0 where the system does not tell."""
        try:
            tasks = list(Path(f"/proc/{self._process.pid}/task").iterdir())
            return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
        except OSError:
            return 0.0


def main(name: str, fd: int) -> None:
    """Be one of the servers."""
    place = os.environ["BENCHMARK_PLACE"]
    apps: dict[str, Any] = {
        BARE: lambda: bare,
        STARLETTE: lambda: starlette_with_a_dict(Path(place).read_text().splitlines()),
        IN_SQLITE: lambda: middleware(SQLite(place)),
        IN_POSTGRES: lambda: middleware(Postgres(place)),
        SELECT: lambda: middleware(Postgres(place), SelectEach(place)),
        SHORTEST: lambda: ShortestCode(bare, place),
    }
    # uvicorn takes uvloop and httptools where they are installed.
    server = uvicorn.Server(uvicorn.Config(apps[name](), access_log=False, log_level="warning"))
    server.run(sockets=[socket.socket(fileno=fd)])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
