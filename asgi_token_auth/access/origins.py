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
    return frozenset(_origin(one) for one in cast("Collection[Any]", value))


def _origin(value: object) -> str:
    why = ConfigurationError(
        f"trusted_origins: {value!r} is no origin. Give a scheme and a host as the browser's address bar has them, and "
        "the port if there is one, such as https://app.example.com or http://intranet:8080, and nothing after that."
    )
    if not isinstance(value, str):
        raise why
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise why from error
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
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + ("" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}")
