"""Origins as browsers send them: scheme, host, and the port unless it is the scheme's own (RFC 6454)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, cast
from urllib.parse import urlsplit

from asgi_token_auth.errors import ConfigurationError

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def check_origins(value: Any) -> frozenset[str]:
    """The origins in ``trusted_origins``, as browsers write them.

    Raises:
        ConfigurationError: it is no list of origins. The message names the one that is none.
    """
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise ConfigurationError('trusted_origins: give a list of origins, such as ["https://app.example.com"].')
    return frozenset(_origin(one, number) for number, one in enumerate(cast("Collection[Any]", value), start=1))


def _origin(value: object, number: int) -> str:
    # An address may hold a password, or a token behind a question mark.
    shown = repr(value) if isinstance(value, str) and not set(value) & set("@?#") else f"number {number}"
    why = ConfigurationError(
        f"trusted_origins: {shown} is no origin. Give a scheme and a host as the browser's address bar has them, and "
        "the port if there is one, such as https://app.example.com or http://intranet:8080, and nothing after that."
    )
    if not isinstance(value, str):
        raise why
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise why from None
    host = parts.hostname or ""
    if (
        parts.scheme not in _DEFAULT_PORTS
        or not host.isascii()
        or not host
        or set(host) & set("*%\\ ")
        or set(value) & set("@?# \t\r\n")
        or parts.path not in ("", "/")
    ):
        raise why
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + ("" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}")
