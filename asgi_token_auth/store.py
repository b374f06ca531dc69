"""Managed tokens in a database. Every statement about them is in this module."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Literal, Self

from asgi_token_auth.databases.protocol import Database, Lookup, Row, Steps
from asgi_token_auth.errors import ConfigurationError, InvalidInput, TokenNotFound
from asgi_token_auth.migrations import Migration, add_missing_columns, migrate
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.tokens import (
    MANAGED_PREFIX,
    MAX_ID,
    ManagedTokenText,
    SecretInput,
    SigningSecrets,
    digest_nonce,
    new_nonce,
)
from asgi_token_auth.usage import UsageLog, Use

logger = logging.getLogger("asgi_token_auth")

#: The table of datasette-auth-tokens, which this store reads and extends.
DEFAULT_TABLE: Final = "_datasette_auth_tokens"
MAX_DESCRIPTION: Final = 1_000
MAX_ACTOR_ID: Final = 500
#: Seconds: a hundred years. Longer lives are typing errors.
MAX_EXPIRES_AFTER: Final = 100 * 366 * 86_400

Status = Literal["active", "revoked", "expired", "damaged"]


class AnyOwner:
    """The type of :data:`ANY_OWNER`."""

    def __repr__(self) -> str:
        return "ANY_OWNER"


#: Passed as ``owner`` by whoever may act on everybody's tokens.
ANY_OWNER: Final = AnyOwner()

Owner = str | AnyOwner


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


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token at the only moment when its text exists."""

    record: TokenRecord
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredToken:
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
        if not isinstance(self.permissions, str):
            raise ValueError("permissions is not JSON text")
        wire = json.loads(self.permissions)
        return None if wire is None else Restrictions.from_wire(wire)

    def status(self, now: float) -> Status:
        """Computed from what is stored; never written by looking."""
        try:
            expires_at = self.expires_at
            self.restrictions()
        except (ValueError, RecursionError):
            return "damaged"
        if not isinstance(self.actor_id, str) or not self.actor_id:
            return "damaged"
        if self.marked == "R":
            return "revoked"
        if self.marked == "E" or (expires_at is not None and now >= expires_at):
            return "expired"
        if self.ended is not None:
            return "revoked"
        return "active" if self.marked == "A" else "damaged"


_DECIDING: Final = (
    "id, actor_id, token_status, permissions, created_timestamp, expires_after_seconds, ended_timestamp, "
    "token_digest, previous_digest, previous_until"
)
_SHOWN: Final = f"{_DECIDING}, description, last_used_timestamp, last_used_address, parent_id"


class TokenStore:
    """Managed tokens: issued, found, revoked, and when each was last used.

    Args:
        database: where the rows are.
        secret: signs and verifies the token text; one string, or a list with the newest last. Default: the
            environment variable DATASETTE_SECRET.
        table: the table's name. Two more tables start with it.
        prefix: how the tokens start.
        clock: seconds since the epoch, for tests.
        record_addresses: whether the client's address is kept with the time of last use.

    Raises:
        ConfigurationError: the secret is missing or too short, or a name cannot be one.
    """

    def __init__(
        self,
        database: Database,
        *,
        secret: SecretInput | None = None,
        table: str = DEFAULT_TABLE,
        prefix: str = MANAGED_PREFIX,
        clock: Callable[[], float] = time.time,
        record_addresses: bool = False,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,49}", table):
            raise ConfigurationError(f"table: {table!r} must be letters, digits and underscores, at most 50 of them.")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]{1,29}_", prefix):
            raise ConfigurationError(f"prefix: {prefix!r} must be letters and digits followed by an underscore.")
        self.database = database
        self.table = table
        self.clock = clock
        self.text = ManagedTokenText(SigningSecrets.of(secret), prefix=prefix)
        self.record_addresses = record_addresses
        self._usage = UsageLog(self._write_usage)
        self._users = 0
        self._ready = False
        self._opening: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    def __repr__(self) -> str:
        return f"TokenStore({self.database!r}, table={self.table!r})"

    async def open(self) -> None:
        """Open and migrate the database, and count one more user of this store.

        Raises:
            StorageError: the database cannot be opened or migrated.
        """
        await self.ensure_ready()
        self._users += 1

    async def ensure_ready(self) -> None:
        """The same without counting: for a server that sends no lifespan events."""
        if self._ready:
            return
        # One lock per event loop: a lock that was waited for in one loop cannot be used in another.
        loop = asyncio.get_running_loop()
        if self._opening is None or self._opening[0] is not loop:
            self._opening = (loop, asyncio.Lock())
        async with self._opening[1]:
            if not self._ready:
                try:
                    await self.database.open()
                    await migrate(self.database, f"{self.table}_migrations", self._migrations(), int(self.clock()))
                except BaseException:
                    await self.database.close()
                    raise
                self._ready = True

    async def close(self) -> None:
        """Write what is known of last uses; the last user closes the database."""
        self._users = max(0, self._users - 1)
        if self._users == 0:
            try:
                await self._usage.close()
            finally:
                self._ready = False
                await self.database.close()

    async def flush(self) -> None:
        """Write the last uses noted so far."""
        await self._usage.flush()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def ping(self) -> None:
        """Do nothing but ask the database.

        Raises:
            StorageError: it does not answer, or the table is not there.
        """
        await self.database.query(f"select id from {self.table} limit 1", {})

    async def issue(
        self,
        actor_id: str,
        *,
        by: str | None = None,
        parent: int | None = None,
        description: str | None = None,
        expires_after: float | timedelta | None = None,
        restrictions: Restrictions | None = None,
    ) -> IssuedToken:
        """Create a token for ``actor_id``.

        Args:
            by: the actor who asked for it, for the record of events.
            parent: the token through which it was asked for. The new one stays within it.
            expires_after: seconds, or a ``timedelta``; ``None``: it does not expire.
            restrictions: ``None``: it may do all that its actor may; ``Restrictions()``: nothing.

        Raises:
            InvalidInput: an argument is unusable, or reaches beyond the parent.
            TokenNotFound: the parent is not an active token of this actor.
            StorageError: nothing was created.
        """
        values = {
            "actor_id": _actor_id(actor_id),
            "description": _description(description),
            "expires_after": _seconds(expires_after),
            "permissions": _permissions_text(restrictions),
            "parent": None if parent is None else _id(parent),
        }
        by = None if by is None else _actor_id(by)
        nonce = new_nonce()
        now = int(self.clock())
        row = await self._transaction(self._issue(values, digest_nonce(nonce), by, now))
        record = self._record(row)
        return IssuedToken(record, self.text.build(record.id, nonce))

    async def get(self, token_id: int, *, owner: Owner) -> TokenRecord:
        """One token of ``owner``.

        Raises:
            InvalidInput: ``owner`` is no actor id.
            TokenNotFound: there is none.
        """
        where, parameters = _owned(owner)
        _id(token_id)
        await self.ensure_ready()
        result = await self.database.query(
            f"select {_SHOWN} from {self.table} where id = :id and {where}", {"id": token_id, **parameters}
        )
        if not result.rows:
            raise TokenNotFound(f"There is no token {token_id}.")
        return self._record(result.rows[0])

    async def revoke(self, token_id: int, *, owner: Owner, by: str | None = None) -> TokenRecord:
        """End a token, and the tokens that were created through it.

        When this returns, the next request with the token is refused by every process. Revoking again
        changes nothing; the first end stays.

        Raises:
            InvalidInput: ``owner`` or ``by`` is no actor id.
            TokenNotFound: ``owner`` has no such token.
            StorageError: nothing was revoked.
        """
        _id(token_id)
        by = None if by is None else _actor_id(by)
        return self._record(await self._transaction(self._revoke(token_id, owner, by, int(self.clock()))))

    def lookup(self) -> Lookup:
        """The rows that decide about tokens, by id, as they are when asked for."""
        return self.database.lookup(f"select {_DECIDING} from {self.table} where id = :id")

    def note_use(self, token_id: int, when: int, address: str | None) -> None:
        """Remember that a token was used. It is written soon, and at most once a minute."""
        self._usage.note(token_id, when, address if self.record_addresses else None)

    # Transactions

    async def _transaction(self, steps: Steps[Row]) -> Row:
        await self.ensure_ready()
        return await self.database.transaction(steps)

    def _issue(self, values: dict[str, Any], digest: str, by: str | None, now: int) -> Steps[Row]:
        if values["parent"] is not None:
            yield from self._check_parent(values, now)
        rows = yield (
            f"insert into {self.table} (token_status, description, actor_id, permissions, created_timestamp, "
            "expires_after_seconds, secret_version, token_digest, parent_id) values ('A', :description, :actor_id, "
            f":permissions, :now, :expires_after, 0, :digest, :parent) returning {_SHOWN}",
            {**values, "now": now, "digest": digest},
        )
        yield self._event(rows[0][0], "created", by, now)
        return rows[0]

    def _check_parent(self, values: dict[str, Any], now: int) -> Steps[None]:
        rows = yield (
            f"select {_DECIDING} from {self.table} where id = :parent and actor_id = :actor_id",
            {"parent": values["parent"], "actor_id": values["actor_id"]},
        )
        parent = StoredToken(*rows[0]) if rows else None
        if parent is None or parent.status(now) != "active":
            raise TokenNotFound(f"Token {values['parent']} is not an active token of this actor.")
        permitted, wanted = parent.restrictions(), json.loads(values["permissions"])
        if permitted is not None and (wanted is None or not Restrictions.from_wire(wanted).is_subset(permitted)):
            raise InvalidInput("A token cannot create a token that may do more than itself.")
        until, expires_after = parent.expires_at, values["expires_after"]
        if until is not None and (expires_after is None or now + expires_after > until):
            raise InvalidInput("A token cannot create a token that lives longer than itself.")

    def _revoke(self, token_id: int, owner: Owner, by: str | None, now: int) -> Steps[Row]:
        where, parameters = _owned(owner)
        found = yield f"select id from {self.table} where id = :id and {where}", {"id": token_id, **parameters}
        if not found:
            raise TokenNotFound(f"There is no token {token_id}.")
        # union, not union all: a damaged table whose parents form a ring must not loop for ever.
        family = yield (
            f"with recursive family(id) as (select id from {self.table} where id = :id union "
            f"select child.id from {self.table} child join family on child.parent_id = family.id) "
            f"select {_DECIDING} from {self.table} where id in (select id from family) order by id",
            {"id": token_id},
        )
        for member in (StoredToken(*row) for row in family):
            # A damaged row is ended too, lest whoever repairs it brings a revoked token back to life.
            if member.status(now) not in ("active", "damaged"):
                continue
            ended = yield (
                f"update {self.table} set token_status = 'R', ended_timestamp = :now where id = :id "
                "and ended_timestamp is null and (token_status is null or token_status not in ('R', 'E')) returning id",
                {"id": member.id, "now": now},
            )
            if ended:
                yield self._event(member.id, "revoked", by, now)
        rows = yield f"select {_SHOWN} from {self.table} where id = :id", {"id": token_id}
        return rows[0]

    def _event(self, token_id: int, event: str, by: str | None, now: int) -> tuple[str, dict[str, Any]]:
        return (
            f"insert into {self.table}_events (token_id, event, by_actor_id, at_timestamp) "
            "values (:token_id, :event, :by, :now)",
            {"token_id": token_id, "event": event, "by": by, "now": now},
        )

    async def _write_usage(self, uses: list[Use]) -> None:
        def steps() -> Steps[None]:
            for token_id, when, address in uses:
                yield (
                    f"update {self.table} set last_used_timestamp = :at, "
                    "last_used_address = coalesce(:address, last_used_address) where id = :id "
                    "and (last_used_timestamp is null or last_used_timestamp <= :at - 60)",
                    {"id": token_id, "at": when, "address": address},
                )

        await self.database.transaction(steps())

    # Rows

    def _record(self, row: Row) -> TokenRecord:
        stored = StoredToken(*row[: _DECIDING.count(",") + 1])
        description, last_used, address, parent = row[_DECIDING.count(",") + 1 :]
        try:
            expires_at, restrictions = stored.expires_at, stored.restrictions()
        except (ValueError, RecursionError):
            # Shown as damaged: the others of a list must not suffer for it.
            expires_at, restrictions = None, Restrictions()
        return TokenRecord(
            id=stored.id,
            actor_id=stored.actor_id if isinstance(stored.actor_id, str) else "",
            status=stored.status(self.clock()),
            description=description if isinstance(description, str) else None,
            restrictions=restrictions,
            created_at=_integer(stored.created),
            expires_at=expires_at,
            last_used_at=_integer(last_used),
            last_used_address=address if isinstance(address, str) else None,
            ended_at=_integer(stored.ended),
            parent_id=_integer(parent),
        )

    def _migrations(self) -> list[Migration]:
        def predecessor() -> Steps[None]:
            # The columns in the order and with the types that datasette-auth-tokens gives them.
            yield (
                f"create table if not exists {self.table} (id {self.database.dialect.identity}, "
                "token_status text default 'A', description text, actor_id text, permissions text, "
                "created_timestamp integer, last_used_timestamp integer, expires_after_seconds integer, "
                "ended_timestamp integer, secret_version integer default '0')",
                {},
            )
            yield from add_missing_columns(self.database, self.table, {"ended_timestamp": "integer"})
            # 'L' was the first releases' word for active; several later ones meant to rewrite it and did not.
            yield f"update {self.table} set token_status = 'A' where token_status = 'L'", {}

        def nonces() -> Steps[None]:
            columns = {
                "token_digest": "text",
                "previous_digest": "text",
                "previous_until": "integer",
                "last_used_address": "text",
                "parent_id": "integer",
            }
            yield from add_missing_columns(self.database, self.table, columns)
            yield f"create index if not exists {self.table}_actor on {self.table} (actor_id)", {}
            yield f"create index if not exists {self.table}_parent on {self.table} (parent_id)", {}

        def events() -> Steps[None]:
            yield (
                f"create table if not exists {self.table}_events (id {self.database.dialect.identity}, "
                "token_id integer not null, event text not null, by_actor_id text, at_timestamp integer not null, "
                "details text)",
                {},
            )
            yield f"create index if not exists {self.table}_events_token on {self.table}_events (token_id)", {}

        return [("0001_predecessor", predecessor), ("0002_nonces", nonces), ("0003_events", events)]


def _id(value: object) -> int:
    # bool is an int, and no id.
    if type(value) is not int or not 1 <= value <= MAX_ID:
        raise TokenNotFound("There is no such token.")
    return value


def _owned(owner: Owner) -> tuple[str, dict[str, Any]]:
    """The one condition that limits a statement to what ``owner`` may reach."""
    if isinstance(owner, AnyOwner):
        return "1 = 1", {}
    if not isinstance(owner, str) or not owner or not _is_text(owner):
        raise InvalidInput("owner must be an actor id or ANY_OWNER.")
    return "actor_id = :owner", {"owner": owner}


def _actor_id(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_ACTOR_ID or not _is_text(value):
        raise InvalidInput(f"An actor id must be text of 1 to {MAX_ACTOR_ID} characters.")
    return value


def _description(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_DESCRIPTION or not _is_text(value):
        raise InvalidInput(f"A description must be text of at most {MAX_DESCRIPTION:,} characters.")
    return value


def _seconds(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= MAX_EXPIRES_AFTER:
        raise InvalidInput("An expiry must be a number of seconds from 1 to a hundred years; None for no expiry.")
    return int(value)


def _permissions_text(restrictions: Restrictions | None) -> str:
    if restrictions is not None and not isinstance(restrictions, Restrictions):
        raise InvalidInput("restrictions must be a Restrictions value or None.")
    return json.dumps(None if restrictions is None else restrictions.to_wire())


def _is_text(value: str) -> bool:
    # NUL ends a string in some databases and surrogates are no characters.
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def _integer(value: object) -> int | None:
    return value if type(value) is int else None
