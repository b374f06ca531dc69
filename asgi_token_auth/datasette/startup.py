"""Datasette's startup, run once: whoever comes first runs it, and the others wait."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import Any, Final

from asgi_token_auth.errors import TokenAuthError
from asgi_token_auth.lifespan import Flushable, Resource

logger: Final = logging.getLogger("asgi_token_auth")

_TASK: Final = "_asgi_token_auth_startup"
_WARNED: Final = "_asgi_token_auth_warned_of_closing"

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


class IfItOpens:
    """A resource of a Datasette that was closed when an earlier server of it stopped, and is served again.

    Datasette itself starts then and says at each request what it has no more, so neither does this stop the start.
    """

    def __init__(self, datasette: Any, resource: Resource) -> None:
        self._datasette = datasette
        self._resource = resource
        self._opened = False

    async def open(self) -> None:
        """Open it, or warn."""
        try:
            await self._resource.open()
            self._opened = True
        except TokenAuthError as error:
            # Both apps of wrap_datasette() come here.
            if getattr(self._datasette, _WARNED, False):
                return
            setattr(self._datasette, _WARNED, True)
            logger.warning(
                "this Datasette was closed when an earlier server of it stopped, and what was in its own databases is "
                "gone: tokens there are answered with 503. Make a new Datasette for every server (%s)",
                error,
            )

    async def flush(self) -> None:
        """Write what is pending."""
        if self._opened and isinstance(self._resource, Flushable):
            await self._resource.flush()

    async def close(self) -> None:
        """Close it, if it was opened."""
        if self._opened:
            await self._resource.close()
