"""FastAPI: the actor as a dependency, and the bearer scheme in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException, WebSocketException
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.openapi.models import SecurityBase as SecurityBaseModel
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.status import WS_1008_POLICY_VIOLATION

from asgi_token_auth.bearer import CREDENTIAL_REQUIRED, Refusal, challenge, insufficient_scope
from asgi_token_auth.errors import ConfigurationError

__all__ = ["CurrentActor"]


class CurrentActor(SecurityBase):
    """A dependency that returns the actor, for routes that need one.

    ``Depends(CurrentActor())`` refuses strangers with 401; ``Security(CurrentActor(), scopes=["reports"])``
    refuses with 403 whoever lacks a scope. Both show the route as protected in the API's documentation. The
    token itself was checked by the middleware before.

    Args:
        realm: named in challenges.
        scheme_name: the name of the scheme in the OpenAPI document: letters, digits and ``. _ -``.
        description: shown beside it.
        auto_error: false for routes that strangers may use too: they are ``None`` there.
    """

    def __init__(
        self,
        *,
        realm: str = "api",
        scheme_name: str = "BearerToken",
        description: str | None = None,
        auto_error: bool = True,
    ) -> None:
        self.model: SecurityBaseModel = HTTPBearerModel(description=description)
        self.scheme_name = scheme_name
        self._realm = realm
        self._auto_error = auto_error

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> dict[str, Any] | None:
        """The actor of this request.

        Raises:
            HTTPException: 401 without an actor, 403 without a scope.
            WebSocketException: 1008 in their place, where the server cannot refuse a websocket by an HTTP answer.
            ConfigurationError: no :class:`~asgi_token_auth.middleware.TokenAuthMiddleware` that checks tokens is
                around this app, so everybody would be a stranger.
        """
        if "actor" not in connection.scope:
            raise ConfigurationError(
                "CurrentActor: nothing around this app checks tokens. Serve TokenAuthMiddleware(app, sources=[...]) in "
                "place of the app, or add it with app.add_middleware(TokenAuthMiddleware, sources=[...])."
            )
        actor: dict[str, Any] | None = connection.scope["actor"]
        if not actor:
            if not self._auto_error:
                return None
            raise _refused(connection, CREDENTIAL_REQUIRED, challenge(self._realm))
        has = getattr(connection.scope.get("auth"), "scopes", ())
        if missing := [scope for scope in security_scopes.scopes if scope not in has]:
            refusal = insufficient_scope("The access token does not reach this far.", " ".join(missing))
            header = challenge(self._realm, refusal.error, refusal.message, refusal.scope)
            raise _refused(connection, refusal, header)
        return actor


def _refused(connection: HTTPConnection, refusal: Refusal, challenged: str) -> Exception:
    if connection.scope["type"] == "websocket" and "websocket.http.response" not in (
        connection.scope.get("extensions") or {}
    ):
        return WebSocketException(WS_1008_POLICY_VIOLATION, refusal.message)
    return HTTPException(refusal.status, refusal.message, {"WWW-Authenticate": challenged})
