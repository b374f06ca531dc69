"""Requests that another site makes a browser send: the algorithm of Go's ``http.CrossOriginProtection``.

It needs no token in the form and no cookie. Every browser of the last years sends ``Sec-Fetch-Site``; older
ones send ``Origin`` with a POST; what sends neither is no browser, and nobody can make it send anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def cross_origin_reason(method: str, headers: Mapping[str, str]) -> str | None:
    """Why the request must be refused, or ``None``.

    Args:
        headers: a case-insensitive or lower-case mapping.
    """
    if method in _SAFE:
        # They change nothing, and following a link is one of them.
        return None
    site = headers.get("sec-fetch-site")
    if site:
        if site in ("same-origin", "none"):
            return None
        return "The browser says that another site made it send this form."
    origin = headers.get("origin")
    if not origin:
        # Not a browser, or one from before 2020 on the same site.
        return None
    try:
        host = urlsplit(origin).netloc
    except ValueError:
        host = ""
    # Hosts only: behind a proxy that ends TLS the scheme of the request is not the one that the browser saw.
    if host and host == headers.get("host"):
        return None
    return "The form was sent from another site, or by a browser that is out of date."
