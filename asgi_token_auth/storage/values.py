"""What every database can hold: text, whole numbers, ids of actors."""

from __future__ import annotations

import re
from typing import Final

from asgi_token_auth.errors import InvalidInput

#: The largest id that SQLite and PostgreSQL can hold.
MAX_ID: Final = 2**63 - 1
MAX_ACTOR_ID: Final = 500
# NUL ends a string in some databases and surrogates are no characters.
_NO_TEXT: Final = re.compile("[\0\ud800-\udfff]")


def check_actor_id(value: object) -> str:
    """The id of an actor.

    Raises:
        InvalidInput: it is not text, empty or too long.
    """
    if not isinstance(value, str) or not value or len(value) > MAX_ACTOR_ID or not is_text(value):
        raise InvalidInput(f"An actor id must be text of 1 to {MAX_ACTOR_ID} characters.")
    return value


def is_text(value: str) -> bool:
    """Whether every database can hold ``value`` as text."""
    return _NO_TEXT.search(value) is None


def text_or_none(value: object, longest: int) -> str | None:
    """``value`` if it is text that every database can hold, of at most ``longest`` characters.

    For what comes with a request, is kept for people to read, and not worth failing for.
    """
    return value if isinstance(value, str) and len(value) <= longest and is_text(value) else None


def as_integer(value: object) -> int | None:
    """``value`` if it is an integer: a damaged row may hold anything."""
    return value if type(value) is int else None


def as_text(value: object) -> str | None:
    """``value`` if it is text: a damaged row may hold anything."""
    return value if isinstance(value, str) else None
