"""Changes that happen once, however often they are asked for: the keys that were used, in a table beside each store's.

The key is written in the transaction of the change itself. So of two requests with one key that come at once, to two
processes even, one makes the change, and the other one learns what it did.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from asgi_token_auth.databases.protocol import Database, Row, Steps
from asgi_token_auth.errors import AlreadyDone, IdempotencyKeyReused, InvalidInput
from asgi_token_auth.storage.parts import Part

T = TypeVar("T")

#: Bytes of a key.
MAX_KEY: Final = 255
#: Seconds that a used key is remembered: two days.
KEPT: Final = 172_800
#: So many of the last keys of one actor are remembered.
KEPT_PER_ACTOR: Final = 1_000

# A hash so long that nobody finds two texts with one; a key of it may have 64 bytes.
_DIGEST: Final = 32
# Behind the name of what is done, while not all of it is done.
_BEGUN: Final = " (begun)"


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What makes a change happen once.

    Args:
        text: printable ASCII, at most 255 bytes, that stands for this one request of this one actor.
        content: what was sent. The same key with another content is refused. ``None``: the arguments of the call.
    """

    text: str = field(repr=False)
    content: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not re.fullmatch(rf"[\x20-\x7e]{{1,{MAX_KEY}}}", self.text):
            raise InvalidInput(f"An idempotency key must be printable ASCII text of 1 to {MAX_KEY} characters.")


@dataclass(frozen=True, slots=True)
class Request:
    """One use of a key, as it is looked for and stored."""

    digest: str
    actor_id: str
    action: str
    content: str

    def check(self, rows: list[Row]) -> None:
        """Raise what is to be said if the key was used before.

        Raises:
            AlreadyDone: for the same.
            IdempotencyKeyReused: for something else.
        """
        if not rows:
            return
        action, content, event, subject, at = rows[0]
        if (action, content) != (self.action, self.content):
            raise IdempotencyKeyReused(event.removesuffix(_BEGUN), subject, at)
        # What was begun by one who is at it still, or who failed, may be brought to its end by anybody.
        if not event.endswith(_BEGUN):
            raise AlreadyDone(event, subject, at)


class Requests:
    """The keys that were used for changes of one table.

    Args:
        digest_key: makes the digests of what was sent useless to whoever does not have it, for contents that are
            secrets and might be guessed.
    """

    def __init__(self, database: Database, name: str, *, digest_key: bytes = b"") -> None:
        self._name = name
        self._table = f"{database.qualified(name)}_requests"
        self._dialect = database.dialect
        self._digest_key = digest_key

    def migration(self) -> Steps[None]:
        """Make the table."""
        # Names of indexes have at most 63 characters in PostgreSQL, and that of the first table may have 50.
        yield (
            f"create table if not exists {self._table} (id {self._dialect.identity}, digest text not null unique, "
            f"actor_id text not null, action text not null, content text not null, event text not null, "
            f"subject {self._dialect.integer}, at_timestamp {self._dialect.integer} not null)",
            {},
        )
        yield f"create index if not exists {self._name}_requests_who on {self._table} (actor_id, id)", {}
        yield f"create index if not exists {self._name}_requests_at on {self._table} (at_timestamp)", {}

    def request(
        self, key: str | IdempotencyKey | None, by: str | None, action: str, arguments: object = None
    ) -> Request | None:
        """The use of ``key`` by an actor, for one action; ``None`` without a key.

        Args:
            by: ``None``: nobody who is named.
            arguments: what the content is where ``key`` has none. Its ``repr`` tells what differs.

        Raises:
            InvalidInput: ``key`` cannot be one.
        """
        if key is None:
            return None
        if not isinstance(key, IdempotencyKey):
            key = IdempotencyKey(key)
        content = repr(arguments).encode("utf-8", "surrogatepass") if key.content is None else key.content
        # The lengths keep an actor's id from running over into the key.
        who = (by or "").encode("utf-8", "surrogatepass")
        return Request(
            hashlib.blake2b(b"%d:%b%b" % (len(who), who, key.text.encode()), digest_size=_DIGEST).hexdigest(),
            by or "",
            action,
            hashlib.blake2b(content, digest_size=_DIGEST, key=self._digest_key).hexdigest(),
        )

    def find(self, request: Request, now: int) -> tuple[str, Mapping[str, Any]]:
        """A query for what was done with the key of ``request``, for :meth:`Request.check`."""
        return (
            f"select action, content, event, subject, at_timestamp from {self._table} "
            "where digest = :digest and at_timestamp > :kept",
            {"digest": request.digest, "kept": now - KEPT},
        )

    def once(
        self, request: Request | None, steps: Steps[T], event: str, subject: Callable[[T], int | None], now: int
    ) -> Steps[T]:
        """``steps``, unless they were run for ``request`` before; ``None``: whatever was.

        Args:
            event: what they do, as the answer to a repeat shall say it.
            subject: the number that says to what, of their result.

        Raises:
            AlreadyDone: they were, and nothing is done.
            IdempotencyKeyReused: something else was, and nothing is done.
        """
        if request is None:
            return (yield from steps)
        request.check((yield self.find(request, now)))
        result = yield from steps
        yield from self._note(request, event, subject(result), now)
        return result

    def once_in_parts(self, request: Request | None, steps: Steps[Part], event: str, now: int) -> Steps[Part]:
        """The same for ``steps`` that are one part of what is asked for. The next part is another transaction.

        The key is noted with the first one, with how many rows were changed so far; so of those who are asked for the
        same at once, each does a part, and a change that was cut off goes on with the next repeat.

        Returns:
            The part. With a key, the number is of the rows that all parts have changed.
        """
        if request is None:
            return (yield from steps)
        known = yield self.find(request, now)
        request.check(known)
        count, last = yield from steps
        event = event if last is None else event + _BEGUN
        if not known:
            yield from self._note(request, event, count, now)
            return count, last
        count += known[0][3]
        yield (
            f"update {self._table} set event = :event, subject = :subject where digest = :digest",
            {"event": event, "subject": count, "digest": request.digest},
        )
        return count, last

    def _note(self, request: Request, event: str, subject: int | None, now: int) -> Steps[None]:
        yield f"delete from {self._table} where at_timestamp <= :kept", {"kept": now - KEPT}
        yield (
            f"insert into {self._table} (digest, actor_id, action, content, event, subject, at_timestamp) "
            "values (:digest, :actor_id, :action, :content, :event, :subject, :now)",
            {
                "digest": request.digest,
                "actor_id": request.actor_id,
                "action": request.action,
                "content": request.content,
                "event": event,
                "subject": subject,
                "now": now,
            },
        )
        yield (
            f"delete from {self._table} where actor_id = :actor_id and id <= (select id from {self._table} "
            "where actor_id = :actor_id order by id desc limit 1 offset :most)",
            {"actor_id": request.actor_id, "most": KEPT_PER_ACTOR},
        )
