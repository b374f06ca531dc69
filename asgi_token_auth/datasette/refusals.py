"""Refusals on their way out through the ASGI wrappers of other plugins, which add headers to every answer (CORS)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, MutableMapping
from typing import Any, Final

from asgi_token_auth.asgi.types import ASGIApp, Receive, Scope, Send
from asgi_token_auth.authentication import ANONYMOUS
from asgi_token_auth.errors import for_the_log
from asgi_token_auth.storage.outages import OutageLog

#: The scope key of a request that has been refused and only passes the wrappers.
REFUSED: Final = "asgi_token_auth_refused"


class Refused:
    """What a refused request is answered with, and whether it has come through all wrappers."""

    def __init__(self, messages: list[MutableMapping[str, Any]]) -> None:
        self.messages = messages
        self.arrived: bool = False

    async def send(self, send: Send) -> None:
        """Answer, as the app inside of all wrappers."""
        self.arrived = True
        for message in self.messages:
            await send(message)


class InsideWrappers:
    """What stands inside of all wrappers: the place where refused requests turn round."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one connection."""
        refused: Refused | None = scope.get(REFUSED)
        return self._app(scope, receive, send) if refused is None else refused.send(send)


async def refuse_through(
    app: ASGIApp,
    messages: list[MutableMapping[str, Any]],
    scope: Scope,
    receive: Receive,
    send: Send,
    wrapper_fails: OutageLog,
) -> None:
    """Send ``messages``, a refusal, as if ``app``'s innermost part had answered so.

    The wrappers see the request without any credential. What one of them says in place of the refusal is not sent,
    or a bad token could be taken for none.
    """
    refused = Refused(messages)
    child = dict(scope)
    child["headers"] = [header for header in scope["headers"] if header[0].lower() not in (b"authorization", b"cookie")]
    child.update(actor=None, auth=ANONYMOUS, user=ANONYMOUS)
    child[REFUSED] = refused
    status = messages[0]["status"]
    sent = False

    async def guarded(message: MutableMapping[str, Any]) -> None:
        nonlocal sent
        if refused.arrived:
            sent = True
            if message["type"] == "http.response.start" and message["status"] != status:
                message = {**message, "status": status}
            await send(message)

    try:
        await app(child, receive, guarded)
    except Exception as error:
        if sent:
            raise
        wrapper_fails.note(for_the_log(error))
    if not sent:
        await refused.send(send)


def body_read() -> Receive:
    """A ``receive`` for a request whose body nobody needs: empty, and the client stays."""
    first: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        if first:
            return first.pop()
        never: asyncio.Future[MutableMapping[str, Any]] = asyncio.get_running_loop().create_future()
        return await never

    return receive
