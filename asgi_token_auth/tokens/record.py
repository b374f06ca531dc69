"""A managed token as it is stored and as it is shown, and what may be said of one. Pure; no statement is run here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal, NamedTuple

from asgi_token_auth.errors import InvalidInput, TokenNotFound
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.storage.values import MAX_ID, is_text

MAX_DESCRIPTION: Final = 1_000
#: Seconds: a hundred years. Longer lives are typing errors.
MAX_EXPIRES_AFTER: Final = 100 * 366 * 86_400
#: Seconds: ninety days.
MAX_GRACE: Final = 90 * 86_400
#: Characters of restrictions as JSON: some hundreds of tables. They are read and compared while others wait.
MAX_PERMISSIONS: Final = 16_384

Status = Literal["active", "revoked", "expired", "damaged"]


class AnyOwner:
    """The type of :data:`ANY_OWNER`."""

    def __repr__(self) -> str:
        return "ANY_OWNER"


#: Passed as ``owner`` by whoever may act on everybody's tokens.
ANY_OWNER: Final = AnyOwner()


@dataclass(frozen=True, slots=True)
class Family:
    """An owner that is a token: it reaches itself and what was created through it, of its own actor."""

    actor_id: str
    token_id: int


Owner = str | AnyOwner | Family


class Keep:
    """The type of :data:`KEEP`."""

    def __repr__(self) -> str:
        return "KEEP"


#: Passed to ``edit()`` for what shall stay as it is, because ``None`` means "none".
KEEP: Final = Keep()


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is known of a token. Times are seconds since the epoch."""

    id: int
    actor_id: str
    status: Status
    description: str | None
    restrictions: Restrictions | None
    created_at: int | None
    expires_at: int | None
    last_used_at: int | None
    last_used_address: str | None
    ended_at: int | None
    parent_id: int | None
    #: Until when the text before the last rotation works, if it still may.
    previous_until: int | None
    #: That of the token's text, which changes with it.
    text_digest: str | None = field(default=None, repr=False)

    @property
    def version(self) -> str:
        """Twice 16 hexadecimal digits: for all that an edit may change, and for the text, which a rotation changes."""
        return f"{self.edition}-{_short_digest(self.text_digest)}"

    @property
    def edition(self) -> str:
        """The first part of :attr:`version`, which a rotation leaves as it is."""
        restrictions = None if self.restrictions is None else self.restrictions.to_wire()
        return _short_digest([self.description, self.expires_at, restrictions])


@dataclass(frozen=True, slots=True)
class Page:
    """Some tokens of a list, newest first, and where the next ones begin."""

    items: list[TokenRecord]
    next_cursor: int | None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """Something that happened to a token: ``created``, ``edited``, ``rotated`` or ``revoked``, when and by whom."""

    at: int | None
    name: str
    by: str | None
    details: str | None


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token at the only moment when its text exists."""

    record: TokenRecord
    token: str = field(repr=False)


class StoredToken(NamedTuple):
    """The part of a row that decides whether a token is accepted; equal rows decide alike."""

    id: int
    actor_id: object
    marked: object
    permissions: object
    created: object
    expires_after: object
    ended: object
    digest: object
    previous_digest: object
    previous_until: object

    @property
    def expires_at(self) -> int | None:
        """Seconds since the epoch.

        Raises:
            ValueError: the row is damaged.
        """
        if self.expires_after is None:
            return None
        if type(self.created) is not int or type(self.expires_after) is not int:
            raise ValueError("created_timestamp or expires_after_seconds is not an integer")
        return self.created + self.expires_after

    def restrictions(self) -> Restrictions | None:
        """``None`` for an unrestricted token.

        Raises:
            ValueError: the column holds anything but JSON ``null`` or restrictions.
        """
        if self.permissions == "null":
            return None
        if not isinstance(self.permissions, str):
            raise ValueError("permissions is not JSON text")
        wire = json.loads(self.permissions)
        return None if wire is None else Restrictions.from_wire(wire)

    def status(self, now: float) -> Status:
        """Computed from what is stored; never written by looking."""
        return self.read(now)[0]

    def read(self, now: float) -> tuple[Status, int | None, Restrictions | None]:
        """The status, :attr:`expires_at` and :meth:`restrictions`, read once. A damaged row allows nothing."""
        try:
            expires_at, restrictions = self.expires_at, self.restrictions()
        except (ValueError, RecursionError):
            return "damaged", None, Restrictions()
        return self._status(now, expires_at), expires_at, restrictions

    def _status(self, now: float, expires_at: int | None) -> Status:
        if not isinstance(self.actor_id, str) or not self.actor_id:
            return "damaged"
        if self.marked == "R":
            return "revoked"
        if self.marked == "E" or (expires_at is not None and now >= expires_at):
            return "expired"
        if self.ended is not None:
            return "revoked"
        return "active" if self.marked == "A" else "damaged"


def check_id(value: object) -> int:
    """The id of a token that could exist.

    Raises:
        TokenNotFound: it could not, or it is the text of a token, or a record.
    """
    if not isinstance(value, int):
        raise TokenNotFound("A token is named by its number, such as record.id; a text of it is no name.")
    # bool is an int, and no id.
    if type(value) is not int or not 1 <= value <= MAX_ID:
        raise TokenNotFound("There is no such token.")
    return value


def check_description(value: object) -> str | None:
    """A description.

    Raises:
        InvalidInput: it is not text or too long.
    """
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_DESCRIPTION or not is_text(value):
        raise InvalidInput(f"A description must be text of at most {MAX_DESCRIPTION:,} characters.")
    return value


def check_seconds(value: object) -> int | None:
    """A life in whole seconds.

    Raises:
        InvalidInput: it is not a number from one second to a hundred years.
    """
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= MAX_EXPIRES_AFTER:
        raise InvalidInput("An expiry must be a number of seconds from 1 to a hundred years; None for no expiry.")
    return int(value)


def check_grace(value: object) -> int:
    """Whole seconds that the old text of a rotated token goes on working.

    Raises:
        InvalidInput: it is not a number from none to ninety days.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_GRACE:
        raise InvalidInput("grace must be a number of seconds from 0 to 90 days.")
    return int(value)


def permissions_text(restrictions: Restrictions | None) -> str:
    """Restrictions as the column holds them: JSON, ``null`` for an unrestricted token.

    Raises:
        InvalidInput: they are something else, too long, or hold names that are not text.
    """
    if restrictions is None:
        return "null"
    if not isinstance(restrictions, Restrictions):
        raise InvalidInput("restrictions must be a Restrictions value or None.")
    if not all(is_text(name) for name in _names(restrictions)):
        raise InvalidInput("Restrictions must hold names that are text.")
    text = json.dumps(restrictions.to_wire())
    if len(text) > MAX_PERMISSIONS:
        raise InvalidInput("There are too many restrictions for one token; allow whole databases instead.")
    return text


def _short_digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=8).hexdigest()


def _names(restrictions: Restrictions) -> Iterator[str]:
    yield from restrictions.all
    for database, actions in restrictions.database.items():
        yield database
        yield from actions
    for database, resources in restrictions.resource.items():
        yield database
        for resource, actions in resources.items():
            yield resource
            yield from actions
