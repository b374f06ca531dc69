"""What may happen to a PostgreSQL server and on the way to it, and how long tests wait for its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self

from asgi_token_auth import ManagedTokens, TokenAuthMiddleware, TokenStore
from tests.support import ROOT, postgres
from tests.support.asgi import SECRET, App, status_of

#: Seconds in which what is promised within one or two must have happened, on a busy machine too.
SOON = 8.0


def application(store: TokenStore) -> TokenAuthMiddleware:
    return TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])


async def soon(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(SOON):
        return await awaitable


async def becomes(status: int, app: TokenAuthMiddleware, token: str) -> None:
    """Ask until it is so. Until then only 200 and 503 are answers."""
    async with asyncio.timeout(SOON):
        while (now := await status_of(app, token)) != status:
            assert now in (200, 503)
            await asyncio.sleep(0.02)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


def sessions(server: postgres.Server, where: str = "true") -> list[int]:
    """The process of each session that is ours."""
    rows = server.run(f"select pid from pg_stat_activity where application_name = 'asgi-token-auth' and {where}")
    return [pid for (pid,) in rows]


@contextlib.contextmanager
def frozen(*processes: int) -> Iterator[None]:
    def send(number: int) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    try:
        send(signal.SIGSTOP)
        yield
    finally:
        send(signal.SIGCONT)


class Proxy:
    """What stands between us and the server, and may do to the bytes what networks do."""

    def __init__(self, port: int) -> None:
        self._to = port
        #: Bytes vanish, and connections that are opened never hear anything.
        self.swallows = False
        #: With what it speaks TLS, which it does alone; the server hears plain text.
        self.tls: ssl.SSLContext | None = None
        self.spoke_tls = 0
        #: Bytes of the connections that are open now vanish, as when a firewall forgets them.
        self._lost: set[asyncio.StreamWriter] = set()
        #: What to do, instead of passing it on, with what a client sends that contains this.
        self.waits_for: bytes | None = None
        self.then: Callable[[asyncio.StreamWriter, bytes], Awaitable[None]] | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def dsn(self, server: postgres.Server) -> str:
        return server.dsn().replace(f":{server.port}/", f":{self.port}/")

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    def forget(self) -> None:
        self._lost |= self._open

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.tls is not None:
            # A client asks for TLS in eight bytes, and then both go on in it.
            await reader.readexactly(8)
            writer.write(b"S")
            try:
                await writer.start_tls(self.tls)
            except (OSError, ssl.SSLError):
                writer.transport.abort()
                return
            self.spoke_tls += 1
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self._to)
        ends = {writer, onward_writer}
        self._open |= ends
        tasks = [
            asyncio.create_task(self._pass_on(reader, onward_writer, from_client=True)),
            asyncio.create_task(self._pass_on(onward_reader, writer, from_client=False)),
        ]
        self._tasks.update(tasks)
        await asyncio.wait(tasks)
        self._open -= ends
        self._lost -= ends

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool) -> None:
        try:
            while data := await reader.read(65536):
                if self.swallows or writer in self._lost:
                    continue
                if from_client and self.waits_for is not None and self.waits_for in data:
                    assert self.then is not None
                    await self.then(writer, data)
                    continue
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()


def script(text: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process, which runs ``text``, with every warning an error."""
    text = f"import asyncio, gc, os, sys\nfrom asgi_token_auth import *\n{SCRIPT}\n{text}"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", text, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


SCRIPT = f"""
from asgi_token_auth.databases.postgres import Postgres
from tests.support.asgi import App, status_of
def new_store(**more):
    return TokenStore(Postgres(sys.argv[1], schema=sys.argv[2]), secret={SECRET!r}, **more)
def application(store):
    return TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
"""


def finish(process: subprocess.Popen[str]) -> str:
    said, errors = process.communicate(timeout=postgres.PATIENCE)
    assert (process.returncode, errors) == (0, "")
    return said
