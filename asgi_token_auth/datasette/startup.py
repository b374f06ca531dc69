"""Datasette's startup, run once: whoever comes first runs it, and the others wait."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Final

_TASK: Final = "_asgi_token_auth_startup"

# The Datasette whose startup hooks are being run, so that what those hooks ask of us does not wait for them.
_starting: ContextVar[Any] = ContextVar("asgi_token_auth_starting", default=None)


def startup_begins(datasette: Any) -> None:
    """Called from inside Datasette's startup, before its hooks."""
    _starting.set(datasette)


async def ensure_started(datasette: Any) -> None:
    """Run Datasette's startup if it has not run."""
    if datasette._startup_invoked or _starting.get() is datasette:
        return
    loop = asyncio.get_running_loop()
    task: asyncio.Task[None] | None = getattr(datasette, _TASK, None)
    if task is None or task.done() or task.get_loop() is not loop:
        # 1.0 has a lock of its own around its startup, which the apps that it builds itself wait for.
        start = getattr(datasette, "_startup_sequence", datasette.invoke_startup)
        # A task of its own: it goes on when the client that came first hangs up, and what it notes about
        # being inside of startup does not stay with the caller.
        task = loop.create_task(start())
        setattr(datasette, _TASK, task)
    await asyncio.shield(task)


class Startup:
    """Datasette's startup as a resource: it comes before the databases that its plugins may attach."""

    def __init__(self, datasette: Any) -> None:
        self._datasette = datasette

    async def open(self) -> None:
        """Run it, or wait for it."""
        await ensure_started(self._datasette)

    async def close(self) -> None:
        """Nothing: Datasette closes itself."""
