"""Requests a second over HTTP with tokens in PostgreSQL: our middleware, no middleware, and a SELECT for each request.

The SELECT is made in two ways: by the same middleware, which differs in nothing else then, and by the shortest code
that could do it, which copies no scope, hides nothing and answers without ``Vary``.

Run by hand, with Debian's ``wrk`` on the path: ``python tests/benchmarks/http_cost.py``. Every round visits all servers
in a new random order, and only numbers of one round are compared with each other.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import uvicorn
from itsdangerous import BadSignature, URLSafeSerializer

sys.path.insert(0, str(Path(__file__).parents[1]))
import postgres

from asgi_token_auth import ManagedTokens, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.protocol import Lookup, Row
from asgi_token_auth.middleware import ASGIApp
from asgi_token_auth.store import _DECIDING

SECRET: Final = "a secret of the benchmark only"
_TABLE: Final = "_datasette_auth_tokens"
BARE, OURS, SELECT, SHORTEST = (
    "no middleware",
    "managed tokens",
    "the same, a SELECT each",
    "shortest code, a SELECT each",
)
#: Connections for whoever makes a SELECT for each request.
_POOL_SIZE: Final = 8


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An app that does nothing else."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class SelectEach:
    """Rows by id, with a SELECT of its own for each request."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: Any = None

    def version(self) -> None:
        """As in PostgreSQL."""

    async def fetch(self, row_id: int) -> tuple[None, Row | None]:
        """Take a connection from a pool and select the row."""
        row = await (await self.pool()).fetchrow(f"select {_DECIDING} from {_TABLE} where id = $1", row_id)
        return None, None if row is None else tuple(row)

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


def middleware(dsn: str, lookup: Lookup | None = None) -> ASGIApp:
    """Ours, in front of the app, with its own way to read rows or another one."""
    source = ManagedTokens(TokenStore(Postgres(dsn), secret=SECRET))
    if lookup is not None:
        source._lookup = lookup
    return TokenAuthMiddleware(bare, sources=[source])


def serve(name: str, dsn: str, port: int) -> None:
    """Be one of the servers."""
    apps: dict[str, Any] = {
        BARE: lambda: bare,
        OURS: lambda: middleware(dsn),
        SELECT: lambda: middleware(dsn, SelectEach(dsn)),
        SHORTEST: lambda: ShortestCode(bare, dsn),
    }
    uvicorn.run(apps[name](), host="127.0.0.1", port=port, access_log=False, log_level="warning")


def requests_per_second(port: int, token: str, *, connections: int, seconds: int) -> float:
    """What wrk counts. Every answer must be 200."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-H", f"Authorization: Bearer {token}"]
    said = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    found = re.search(r"Requests/sec:\s+([0-9.]+)", said)
    if found is None:
        raise RuntimeError(said)
    return float(found[1])


async def _issue(dsn: str) -> str:
    async with TokenStore(Postgres(dsn), secret=SECRET) as store:
        return (await store.issue("bot")).token


def run(*, rounds: int, seconds: int, connections: Sequence[int]) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres.running())
        dsn = server.dsn()
        ours = asyncio.run(_issue(dsn))
        tokens = {BARE: ours, OURS: ours, SELECT: ours, SHORTEST: str(URLSafeSerializer(SECRET).dumps(1))}
        log = stack.enter_context(tempfile.TemporaryFile())
        ports: dict[str, int] = {}
        for place, name in enumerate(tokens):
            ports[name] = server.port + 1 + place
            command = [sys.executable, __file__, "--serve", name, "--dsn", dsn, "--port", str(ports[name])]
            process = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        for name, port in ports.items():
            deadline = time.monotonic() + 30
            while True:
                try:
                    headers = {"authorization": f"Bearer {tokens[name]}"}
                    if httpx.get(f"http://127.0.0.1:{port}/", headers=headers).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{name}: no answer")
                time.sleep(0.05)
        for count in connections:
            found: dict[str, list[float]] = {name: [] for name in tokens}
            for _ in range(rounds):
                for name in random.sample(list(tokens), len(tokens)):
                    found[name].append(
                        requests_per_second(ports[name], tokens[name], connections=count, seconds=seconds)
                    )
            print(f"PostgreSQL {server.version}, {count} connections, {rounds} rounds of {seconds} s")
            for name, numbers in found.items():
                of_bare = statistics.median(a / b for a, b in zip(numbers, found[BARE], strict=True))
                print(f"  {name:28} {statistics.median(numbers):9.0f} requests/s   {of_bare:5.2f} of none")
            for name in (SELECT, SHORTEST):
                times = statistics.median(a / b for a, b in zip(found[OURS], found[name], strict=True))
                print(f"  managed tokens against {name}: {times:.1f}x")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Requests a second with tokens in PostgreSQL.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[32, 1])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--dsn", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve, arguments.dsn, arguments.port)
        return
    if shutil.which("wrk") is None:
        sys.exit("This needs wrk: apt-get install wrk.")
    run(rounds=arguments.rounds, seconds=arguments.seconds, connections=arguments.connections)


if __name__ == "__main__":
    main()
