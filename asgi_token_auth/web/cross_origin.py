"""Requests that another site makes a browser send: the algorithm of Go's ``http.CrossOriginProtection``.

It needs no token in the form and no cookie. Every browser of the last years sends ``Sec-Fetch-Site`` to addresses
with TLS; to others, and where they are older, they send ``Origin`` with a POST; what sends neither is no browser, and
nobody can make it send anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

_PORTS: Final = {"http": "80", "https": "443"}

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

#: So many characters of a host are named.
_MAX_NAMED: Final = 200


def cross_origin_reason(method: str, headers: Mapping[str, str], *, trusted: Collection[str] = ()) -> str | None:
    """Why the request must be refused, or ``None``.

    Args:
        headers: a case-insensitive or lower-case mapping.
        trusted: origins whose forms are taken as if they were of this site.
    """
    if method in _SAFE:
        # They change nothing, and following a link is one of them.
        return None
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site")
    if site:
        if site in ("same-origin", "none") or origin in trusted:
            return None
        return (
            f"The browser says that another site, {_named(origin)}, made it send this form. If that site may do so, "
            "whoever runs this server can name it in trusted_origins."
        )
    if not origin or origin in trusted:
        # Not a browser, or one from before 2020 on the same site.
        return None
    try:
        parts = urlsplit(origin)
    except ValueError:
        parts = urlsplit("")
    host = headers.get("host")
    # Hosts only: behind a proxy that ends TLS the scheme of the request is not the one that the browser saw.
    if parts.netloc and host and (parts.netloc == host or _bare(parts.netloc, parts.scheme) == _bare(host, *_PORTS)):
        return None
    return (
        f"The form was sent from {_named(origin)}, and to this server it came for the host {_named(host)}. If a proxy "
        "in front of it changes the Host header, whoever runs this server can let the header through, or name the "
        "origin in trusted_origins."
    )


def _bare(host: str, *schemes: str) -> str:
    """The host without the port that goes without saying in one of ``schemes``: some proxies add it, and no browser."""
    bare, _, port = host.lower().rpartition(":")
    return bare if bare and port in [_PORTS.get(scheme) for scheme in schemes] else host.lower()


def _named(value: str | None) -> str:
    return "an unnamed one" if not value else value if len(value) <= _MAX_NAMED else value[:_MAX_NAMED] + "…"
