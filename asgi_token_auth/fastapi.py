"""FastAPI: the actor as a dependency, and the bearer scheme in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.openapi.models import SecurityBase as SecurityBaseModel
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from asgi_token_auth.bearer import CREDENTIAL_REQUIRED, challenge, insufficient_scope

__all__ = ["CurrentActor"]


class CurrentActor(SecurityBase):
    """A dependency that returns the actor, for routes that need one.

    ``Depends(CurrentActor())`` refuses strangers with 401; ``Security(CurrentActor(), scopes=["reports"])``
    refuses with 403 whoever lacks a scope. Both show the route as protected in the API's documentation. The
    token itself was checked by the middleware before.

    Args:
        realm: named in challenges.
        scheme_name: the name of the scheme in the OpenAPI document.
        description: shown beside it.
    """

    def __init__(
        self, *, realm: str = "api", scheme_name: str = "Bearer token", description: str | None = None
    ) -> None:
        self.model: SecurityBaseModel = HTTPBearerModel(description=description)
        self.scheme_name = scheme_name
        self._realm = realm

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> dict[str, Any]:
        """The actor of this request.

        Raises:
            HTTPException: 401 without an actor, 403 without a scope.
        """
        actor: dict[str, Any] | None = connection.scope.get("actor")
        if not actor:
            refusal = CREDENTIAL_REQUIRED
            raise HTTPException(401, refusal.message, {"WWW-Authenticate": challenge(self._realm)})
        has = getattr(connection.scope.get("auth"), "scopes", ())
        if missing := [scope for scope in security_scopes.scopes if scope not in has]:
            refusal = insufficient_scope("The access token does not reach this far.", " ".join(missing))
            header = challenge(self._realm, refusal.error, refusal.message, refusal.scope)
            raise HTTPException(403, refusal.message, {"WWW-Authenticate": header})
        return actor
