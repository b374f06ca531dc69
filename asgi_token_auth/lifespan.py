"""The lifespan events of a server: what the middleware opens and closes around the app's own start and end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from asgi_token_auth.errors import check_event_loop, for_the_log

logger: Final = logging.getLogger("asgi_token_auth")

_Message: TypeAlias = MutableMapping[str, Any]


@runtime_checkable
class Resource(Protocol):
    """Something that is opened when the server starts and closed when it stops."""

    async def open(self) -> None:
        """Make ready.

        Raises:
            TokenAuthError: the server must not start; the message says what to mend.
        """
        ...

    async def close(self) -> None:
        """Write what is pending and let go."""
        ...


@runtime_checkable
class Flushable(Protocol):
    """A resource that has something to write while the app's own resources are still there."""

    async def flush(self) -> None:
        """Write what is pending. Failures are logged, not raised."""
        ...


async def run_lifespan(
    app: Callable[[Any, Any, Any], Awaitable[None]],
    resources: Sequence[Resource],
    scope: _Message,
    receive: Callable[[], Awaitable[_Message]],
    send: Callable[[_Message], Awaitable[None]],
) -> None:
    """Open ``resources``, then let ``app`` start; let ``app`` end, then close them.

    An app that does not know lifespan events, and fails before it has asked for one, still gets its resources.

    Raises:
        Exception: what stops a resource or the app from starting, after ``lifespan.startup.failed`` where nothing
            else was sent. Servers take the event for their answer; Starlette's test client takes the exception.
    """
    message = await receive()
    opened: list[Resource] = []
    try:
        if resources:
            check_event_loop()
        for resource in resources:
            await resource.open()
            opened.append(resource)
    except Exception as error:
        await _close(opened)
        # The server writes the message into its log, so nothing is written here.
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        raise

    received = answered = finished = False
    first: list[_Message] = [message]
    last: _Message | None = None

    async def app_receive() -> _Message:
        nonlocal received, last
        received = True
        if first:
            return first.pop()
        last = await receive()
        for resource in opened:
            if isinstance(resource, Flushable):
                try:
                    await resource.flush()
                except Exception:
                    logger.exception("a resource could not write what was pending")
        return last

    async def app_send(event: _Message) -> None:
        nonlocal answered, finished
        answered = True
        if event["type"] != "lifespan.startup.complete":
            # The app has ended, or could not start: nothing of it needs the resources any more.
            finished = True
            await _close(opened)
        await send(event)

    try:
        await app(scope, app_receive, app_send)
    except Exception as error:
        if received or answered:
            await _close(opened)
            if not answered:
                await send({"type": "lifespan.startup.failed", "message": f"the app: {for_the_log(error)}"})
            raise
        # As the ASGI specification has it for servers: an app that raises does not support lifespan. One that has
        # asked for the event does, and must not be served as if it had started.
        logger.info("the app does not take lifespan events (%s)", type(error).__name__)
    if finished:
        return
    if not answered:
        await send({"type": "lifespan.startup.complete"})
    if last is None:
        await receive()
    await _close(opened)
    await send({"type": "lifespan.shutdown.complete"})


async def _close(opened: list[Resource]) -> None:
    while opened:
        try:
            await opened.pop().close()
        except Exception:
            logger.exception("a resource could not be closed cleanly")
