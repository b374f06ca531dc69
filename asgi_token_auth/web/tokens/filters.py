"""Which tokens a list shows: the filters in its address, and the addresses of its next and its first page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from asgi_token_auth.errors import InvalidInput
from asgi_token_auth.tokens.record import Page

# What the next page of a list repeats; whatever else stood in the address, a token for one, is not spread.
_REPEATED: Final = ("search", "status", "owner", "used_before", "used_after", "size")

# What the form above the list offers.
_IN_FORM: Final = ("search", "status", "owner")


def read_filters(query: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of :meth:`TokenStore.list`, but for the owner, whom not everybody may choose.

    Raises:
        InvalidInput: a number is none.
    """
    return {
        "status": query.get("status") or None,
        "search": query.get("search") or None,
        "used_before": _integer(query, "used_before"),
        "used_after": _integer(query, "used_after"),
        "cursor": _integer(query, "next"),
        "limit": _integer(query, "size") or 30,
    }


def form_filters(query: Mapping[str, str]) -> dict[str, Any]:
    """What the form above the list shows."""
    return {name: query.get(name, "") for name in _IN_FORM}


def shows_all_of_owner(query: Mapping[str, str]) -> bool:
    """Whether the list leaves out no token of its owner, but for those on other pages."""
    return not any(query.get(name) for name in _REPEATED if name not in ("owner", "size"))


def next_page(query: Mapping[str, str], page: Page) -> str | None:
    """The query of the next page."""
    if page.next_cursor is None:
        return None
    return urlencode({**{name: query[name] for name in _REPEATED if query.get(name)}, "next": page.next_cursor})


def first_page(query: Mapping[str, str]) -> str | None:
    """The query of the first page, for whoever is on another."""
    if "next" not in query:
        return None
    return urlencode({name: value for name, value in form_filters(query).items() if value})


def _integer(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise InvalidInput(f"{name} must be a whole number.")
    return int(text)
