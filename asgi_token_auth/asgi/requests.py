"""What a request is, and what of it the app is not shown."""

from __future__ import annotations

from typing import Final

from asgi_token_auth.asgi.types import Scope
from asgi_token_auth.bearer import HeaderList, QueryParameter

#: What stands in place of a credential that the app is not shown.
REDACTED: Final = b"Bearer"


def redact_query(scope: Scope, query: bytes, parameter: QueryParameter | None) -> None:
    """Take the token out of the URL of ``scope`` itself; ``query`` is the query string without it."""
    scope["query_string"] = query
    raw_path = scope.get("raw_path")
    if parameter is not None and raw_path and b"?" in raw_path:
        path, _, rest = raw_path.partition(b"?")
        cleaned = parameter.remove(rest)
        scope["raw_path"] = path + b"?" + cleaned if cleaned else path


def without_cookies(headers: HeaderList) -> HeaderList:
    """A copy of ``headers`` without the Cookie fields."""
    return [header for header in headers if len(header[0]) != 6 or header[0].lower() != b"cookie"]


def is_preflight(scope: Scope) -> bool:
    """Whether a browser asks beforehand what another origin may send (https://fetch.spec.whatwg.org/#http-cors)."""
    if scope["type"] != "http" or scope["method"] != "OPTIONS":
        return False
    names = {name.lower() for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names
