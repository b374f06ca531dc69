"""Answers given instead of calling the app, and what is added to the app's own."""

from __future__ import annotations

from collections.abc import Awaitable, MutableMapping, Sequence
from typing import Any, Final

from asgi_token_auth.asgi.types import Scope, Send
from asgi_token_auth.bearer import CREDENTIAL_REQUIRED, INVALID_TOKEN, HeaderList, Refusal

# RFC 6455 section 7.4.1 and its registry: 1008 policy violation, 1013 try again later.
_POLICY_VIOLATION: Final = 1008
_TRY_AGAIN_LATER: Final = 1013

_VARY: Final = (b"vary", b"Authorization")


class Refusals:
    """Sends refusals.

    Args:
        realm: the protection space named in challenges.
        more_headers: sent with every one of them.
    """

    def __init__(self, realm: str, more_headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._realm = realm
        self._more_headers = list(more_headers)
        # Written once, because strangers can ask for these as often as they like.
        self._written = {refusal: self._write(refusal) for refusal in (INVALID_TOKEN, CREDENTIAL_REQUIRED)}

    async def send(self, refusal: Refusal, scope: Scope, send: Send) -> None:
        """Answer a request with ``refusal``, or do not open a websocket."""
        headers, body = self._written.get(refusal) or self._write(refusal)
        # The list is the server's to change.
        headers = headers.copy()
        if scope["type"] == "websocket":
            if "websocket.http.response" not in (scope.get("extensions") or {}):
                code = _TRY_AGAIN_LATER if refusal.status == 503 else _POLICY_VIOLATION
                await send({"type": "websocket.close", "code": code, "reason": ""})
                return
            await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": body})
            return
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _write(self, refusal: Refusal) -> tuple[HeaderList, bytes]:
        body = refusal.body()
        headers = refusal.headers(self._realm, self._more_headers)
        headers.append((b"content-length", str(len(body)).encode()))
        return headers, body


def private(send: Send) -> Send:
    """Answers to a URL that held a token are kept by no cache and named to no other site (RFC 6750 section 2.3)."""

    async def send_private(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            others = [
                (name, value)
                for name, value in message.get("headers") or ()
                if name.lower() not in (b"cache-control", b"referrer-policy")
            ]
            others += [(b"cache-control", b"private, no-store"), (b"referrer-policy", b"no-referrer")]
            message = {**message, "headers": others}
        await send(message)

    return send_private


def varying(send: Send) -> Send:
    """Every answer says that it depends on the token, so that no shared cache gives one's answer to another."""

    def send_varying(message: MutableMapping[str, Any]) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            # Twice as fast as one display with both.
            message = {**message}
            message["headers"] = [*(message["headers"] or ()), _VARY] if "headers" in message else [_VARY]
        return send(message)

    return send_varying
