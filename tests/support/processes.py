"""Servers as processes of their own, on a free port of the loopback interface."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from asgi_token_auth import IssuedToken, TokenRecord, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from tests.support import ROOT
from tests.support.sites import SECRET, bearer

#: Seconds. Machines may be slow; what hangs, hangs for ever.
PATIENCE = 30.0


class Server:
    """One running server; what it writes goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.address = ""

    def wait_until_ready(self, workers: int = 1) -> None:
        def ready() -> bool:
            text = self.log.read_text(errors="replace")
            found = re.search(r"running on (http://127\.0\.0\.1:\d+)", text)
            if found is not None:
                self.address = found[1]
            return bool(found) and text.count("Started server process") >= workers

        self.wait_until(ready)
        # A worker that has started may not have opened its databases yet; the first answer comes after that.
        with httpx.Client(base_url=self.address, timeout=PATIENCE) as client:
            client.get("/-/actor.json")

    def wait_until(self, condition: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server did not get ready:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end and wait until it has."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=PATIENCE, **more)

    def written(self) -> bytes:
        return self.log.read_bytes()


@contextmanager
def running(
    arguments: list[str], folder: Path, *, workers: int = 1, environment: dict[str, str] | None = None
) -> Iterator[Server]:
    """``python <arguments>`` as a server, ready for requests; ended in any case."""
    log = folder / f"server-{len(list(folder.glob('server-*')))}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "ASGI_TOKEN_AUTH_TEST_FOLDER": str(folder), **(environment or {})},
            # A group of its own, so that workers of a server that fails to end can be ended with it.
            start_new_session=True,
        )
    server = Server(process, log)
    try:
        server.wait_until_ready(workers)
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


def uvicorn(app: str, *more: str) -> list[str]:
    """The arguments that run a factory of ``tests/support/apps.py``."""
    factory = f"tests.support.apps:{app}"
    return ["-m", "uvicorn", "--factory", factory, "--app-dir", str(ROOT), "--host", "127.0.0.1", "--port", "0", *more]


class Tokens:
    """The token database of a running server, from this process."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._store = TokenStore(SQLite(folder / "tokens.db"), secret=SECRET)

    def __enter__(self) -> Self:
        self._runner.run(self._store.open())
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._store.close())
        self._runner.close()

    def issue(self, **more: Any) -> IssuedToken:
        return self._runner.run(self._store.issue("alice", **more))

    def revoke(self, token_id: int) -> None:
        self._runner.run(self._store.revoke(token_id, owner="alice"))

    def get(self, token_id: int) -> TokenRecord:
        return self._runner.run(self._store.get(token_id, owner="alice"))


def asked(client: httpx.Client, token: str | None = None, **more: Any) -> Any:
    """The actor that the server saw, or the status if it is not 200."""
    answer = client.get("/-/actor.json", headers={} if token is None else bearer(token), **more)
    return answer.json()["actor"] if answer.status_code == 200 else answer.status_code
