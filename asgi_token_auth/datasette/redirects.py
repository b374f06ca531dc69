"""Redirects of Datasette for whoever sent the token in the URL: followed here, because the new URL has no token."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final
from urllib.parse import unquote

from asgi_token_auth.asgi.types import ASGIApp, Receive, Scope, Send
from asgi_token_auth.middleware import OUTCOME_KEY

_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
#: As many as browsers follow, roughly; the next one is sent to the client.
_MOST: Final = 5


def came_in_the_url(scope: Scope) -> bool:
    """Whether the token of this request was a query parameter."""
    return (
        OUTCOME_KEY in scope
        and scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and not any(name.lower() == b"authorization" for name, _ in scope["headers"])
    )


async def follow_redirects(app: ASGIApp, base_url: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one GET or HEAD, and where ``app`` redirects it to an address below ``base_url``, what is there.

    A redirect that sets a cookie goes to the client.
    """
    base = base_url.encode()
    for _ in range(_MOST):
        target: bytes | None = None

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal target
            if message["type"] == "http.response.start":
                target = _target(message, base)
            if target is None:
                await send(message)

        await app(scope, receive, watched)
        if target is None:
            return
        path, _, query = target.partition(b"#")[0].partition(b"?")
        scope = {**scope, "path": unquote(path.decode("latin-1")), "raw_path": path, "query_string": query}
    await app(scope, receive, send)


def _target(start: MutableMapping[str, Any], base: bytes) -> bytes | None:
    if start["status"] not in _STATUSES:
        return None
    headers: list[tuple[bytes, bytes]] = [
        (bytes(name).lower(), bytes(value)) for name, value in start.get("headers") or ()
    ]
    locations = [value for name, value in headers if name == b"location"]
    if len(locations) != 1 or any(name == b"set-cookie" for name, _ in headers):
        return None
    location = locations[0]
    # Two slashes, or one and a backslash, name another host.
    if not location.startswith(base) or location[:2] in (b"//", b"/\\"):
        return None
    return location
