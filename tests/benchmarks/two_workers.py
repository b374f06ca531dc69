"""A server with two workers, and a client that asks both at the same time and notes when."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from asgi_token_auth import ManagedTokens, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from tests.benchmarks.apps import SECRET
from tests.support import ROOT

#: Connections that are kept. Which worker takes a connection is chance.
CONNECTIONS: Final = 16
_PATIENCE: Final = 30.0


async def pid(scope: Any, receive: Any, send: Any) -> None:
    """Says which worker answers."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    body = b"%d" % os.getpid()
    headers = [(b"content-length", b"%d" % len(body)), (b"x-pid", body)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def app() -> TokenAuthMiddleware:
    """What each worker runs."""
    journal: Any = os.environ["BENCHMARK_JOURNAL"] or None
    database = SQLite(os.environ["BENCHMARK_PLACE"], journal_mode=journal)
    return TokenAuthMiddleware(pid, sources=[ManagedTokens(TokenStore(database, secret=SECRET))])


@contextmanager
def two_workers(folder: Path, path: Path, journal: str | None) -> Iterator[tuple[str, int]]:
    """A server with two workers, and its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        address: tuple[str, int] = listening.getsockname()
        command = [sys.executable, "-m", "uvicorn", "--factory", "tests.benchmarks.two_workers:app", "--workers", "2"]
        command += ["--fd", str(listening.fileno()), "--no-access-log", "--timeout-keep-alive", "600"]
        environment = {**os.environ, "BENCHMARK_PLACE": str(path), "BENCHMARK_JOURNAL": journal or ""}
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                pass_fds=[listening.fileno()],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    try:
        end = time.monotonic() + _PATIENCE
        while (folder / "server.log").read_text().count("Application startup complete") < 2:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((folder / "server.log").read_text())
            time.sleep(0.02)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class _Connection:
    """A kept connection to one of the workers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        self._reader = reader
        self._writer = writer
        self._request = f"GET / HTTP/1.1\r\nHost: benchmark\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        self.worker = b""

    async def ask(self) -> tuple[int, int, int]:
        """When the request began and ended, and its status."""
        began = time.monotonic_ns()
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        ended = time.monotonic_ns()
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        body = await self._reader.readexactly(int(headers[b"content-length"]))
        if b"x-pid" in headers:
            self.worker = body
        return began, ended, int(head[9:12])

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def connect(address: tuple[str, int], token: str) -> list[_Connection]:
    """Kept connections, half of them to either worker. The token must be good meanwhile."""
    kept: dict[bytes, list[_Connection]] = {}
    end = time.monotonic() + _PATIENCE
    while sum(map(len, kept.values())) < CONNECTIONS:
        if time.monotonic() > end:
            raise RuntimeError(f"only {len(kept)} of two workers takes connections")
        connection = _Connection(*await asyncio.open_connection(*address), token)
        await connection.ask()
        found = kept.setdefault(connection.worker, [])
        if connection.worker and len(found) < CONNECTIONS // 2:
            found.append(connection)
        else:
            await connection.close()
    return [connection for found in kept.values() for connection in found]


async def ask_all(connections: list[_Connection], requests: int) -> list[tuple[int, int, int]]:
    """At least this many answers, asked by all at the same time."""

    async def lane(connection: _Connection) -> list[tuple[int, int, int]]:
        answers = []
        for _ in range(-(-requests // CONNECTIONS)):
            answers.append(await connection.ask())
            # Requests that wait for each other take longer than a token keeps its state.
            await asyncio.sleep(0.002)
        await connection.close()
        return answers

    return [answer for answers in await asyncio.gather(*map(lane, connections)) for answer in answers]
