"""Requests a second over HTTP: our middleware with tokens in SQLite and in PostgreSQL, and without any middleware.

Beside it stands a SELECT in PostgreSQL for each request, made in two ways: by the same middleware, which differs in
nothing else then, and by the shortest code that could do it, which copies no scope, hides nothing and answers without
``Vary``.

Run by hand, with Debian's ``wrk`` on the path: ``python -m tests.benchmarks.http_cost``. Every round visits all servers
in a new random order, and only numbers of one round are compared with each other.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

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
from tests.support import postgres

SECRET: Final = "a secret of the benchmark only"
_TABLE: Final = "_datasette_auth_tokens"
BARE, IN_SQLITE, OURS, SELECT, SHORTEST = (
    "no middleware",
    "managed tokens in SQLite",
    "managed tokens in PostgreSQL",
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


def serve(name: str, place: str, listening: int) -> None:
    """Be one of the servers.

    Args:
        place: where its tokens are: a DSN, or the path of a SQLite file.
        listening: the descriptor of its socket.
    """
    apps: dict[str, Any] = {
        BARE: lambda: bare,
        IN_SQLITE: lambda: middleware(SQLite(place)),
        OURS: lambda: middleware(Postgres(place)),
        SELECT: lambda: middleware(Postgres(place), SelectEach(place)),
        SHORTEST: lambda: ShortestCode(bare, place),
    }
    server = uvicorn.Server(uvicorn.Config(apps[name](), access_log=False, log_level="warning"))
    server.run(sockets=[socket.socket(fileno=listening)])


class Load(NamedTuple):
    """What wrk measures."""

    requests_per_second: float
    #: Milliseconds in which 99 of 100 requests were answered.
    slowest: float


def load(port: int, token: str, *, connections: int, seconds: int) -> Load:
    """Ask as often as possible. Every answer must be 200."""
    command = ["wrk", "-t1", "--latency", f"-c{connections}", f"-d{seconds}s", "-H", f"Authorization: Bearer {token}"]
    said = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", said)
    slowest = re.search(r"99%\s+([0-9.]+)(us|ms|s)", said)
    if "Non-2xx" in said or "Socket errors" in said or rate is None or slowest is None:
        raise RuntimeError(said)
    return Load(float(rate[1]), float(slowest[1]) * {"us": 0.001, "ms": 1, "s": 1000}[slowest[2]])


async def _issue(database: Database) -> str:
    async with TokenStore(database, secret=SECRET) as store:
        return (await store.issue("bot")).token


def _start(stack: ExitStack, name: str, place: str, token: str) -> int:
    """Start one of the servers, wait for its first answer and return its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        port: int = listening.getsockname()[1]
        fd = listening.fileno()
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.http_cost",
            "--serve",
            name,
            "--place",
            place,
            "--listening",
            str(fd),
        ]
        process = subprocess.Popen(command, pass_fds=[fd], stdout=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    # It listens already, so this waits for the server.
    answer = httpx.get(f"http://127.0.0.1:{port}/", headers={"authorization": f"Bearer {token}"}, timeout=30)
    answer.raise_for_status()
    return port


def run(*, rounds: int, seconds: int, connections: Sequence[int]) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres.running())
        file = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "tokens.db")
        kept = asyncio.run(_issue(Postgres(server.dsn())))
        simple = str(URLSafeSerializer(SECRET).dumps(1))
        tokens = {BARE: kept, IN_SQLITE: asyncio.run(_issue(SQLite(file))), OURS: kept, SELECT: kept, SHORTEST: simple}
        ports = {
            name: _start(stack, name, file if name == IN_SQLITE else server.dsn(), token)
            for name, token in tokens.items()
        }
        for count in connections:
            found: dict[str, list[Load]] = {name: [] for name in tokens}
            for _ in range(rounds):
                for name in random.sample(list(tokens), len(tokens)):
                    found[name].append(load(ports[name], tokens[name], connections=count, seconds=seconds))
            print(f"PostgreSQL {server.version}, {count} connections, {rounds} rounds of {seconds} s")
            _show(found)


def _show(found: dict[str, list[Load]]) -> None:
    def times(name: str, other: str, part: int = 0) -> float:
        return statistics.median(a[part] / b[part] for a, b in zip(found[name], found[other], strict=True))

    print(f"{'':32}requests/s   of none   99 of 100   of none")
    for name, loads in found.items():
        rate, slowest = (statistics.median(part) for part in zip(*loads, strict=True))
        print(f"  {name:30}{rate:10.0f}{times(name, BARE):10.2f}{slowest:9.2f} ms{times(name, BARE, 1):9.1f}x")
    for name in (SELECT, SHORTEST):
        print(f"  {OURS} against {name}: {times(OURS, name):.1f}x")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Requests a second over HTTP.")
    # Machines change their speed for seconds at a time, so many short rounds tell more than a few long ones.
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--connections", type=int, nargs="+", default=[32, 1])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    parser.add_argument("--listening", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve, arguments.place, arguments.listening)
        return
    if shutil.which("wrk") is None:
        sys.exit("This needs wrk: apt-get install wrk.")
    run(rounds=arguments.rounds, seconds=arguments.seconds, connections=arguments.connections)


if __name__ == "__main__":
    main()
