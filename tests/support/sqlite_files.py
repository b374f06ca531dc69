"""What other connections and other processes do to a SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asgi_token_auth import ManagedTokens, TokenAuthMiddleware, TokenStore
from tests.support.asgi import App, status_of

ROW = "id, word"


@contextmanager
def other(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else's."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def sql(path: Path, *statements: str) -> None:
    with other(path) as connection:
        for statement in statements:
            connection.execute(statement)


@contextmanager
def served(store: TokenStore, app: App | None = None) -> Iterator[TokenAuthMiddleware]:
    yield TokenAuthMiddleware(app or App(), sources=[ManagedTokens(store)])


@contextmanager
def child(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another Python process, which says when it is ready and stops when its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


async def settle(app: TokenAuthMiddleware, token: str, status: int) -> None:
    deadline = time.monotonic() + 30
    while await status_of(app, token) != status:
        assert time.monotonic() < deadline, f"{status} never came"
        await asyncio.sleep(0.005)
