"""Managed tokens in a database. Every statement that changes them is in this module."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from operator import itemgetter
from typing import Any, Final, Literal, TypeVar

from asgi_token_auth.databases.protocol import Database, Lookup, Row, Steps
from asgi_token_auth.errors import ConfigurationError, EditConflict, InvalidInput, StorageError, TokenNotFound
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.signing import MANAGED_PREFIX, SecretInput, SigningSecrets
from asgi_token_auth.storage.migrations import Migration, pending
from asgi_token_auth.storage.search import TextSearch
from asgi_token_auth.storage.store import TableStore
from asgi_token_auth.storage.usage import Use
from asgi_token_auth.storage.values import MAX_ID, as_integer, as_text, check_actor_id, is_text
from asgi_token_auth.tokens import copying
from asgi_token_auth.tokens.listing import TokenList
from asgi_token_auth.tokens.record import (
    KEEP,
    AnyOwner,
    Family,
    IssuedToken,
    Keep,
    Owner,
    Page,
    Status,
    StoredEvent,
    StoredToken,
    TokenRecord,
    check_description,
    check_id,
    check_seconds,
    permissions_text,
)
from asgi_token_auth.tokens.table import DECIDING, ENDS, HAS_STATUS, SHOWN, migrations
from asgi_token_auth.tokens.text import ManagedTokenText, digest_nonce, new_nonce

T = TypeVar("T")

#: The table of datasette-auth-tokens, which this store reads and extends.
DEFAULT_TABLE: Final = "_datasette_auth_tokens"
#: Seconds that the old text of a rotated token may go on working: ninety days.
MAX_GRACE: Final = 90 * 86_400
#: Tokens in one page of a list.
MAX_LIMIT: Final = 1_000
MAX_SEARCH: Final = 200

# A search looks for its text in these.
_SEARCHED: Final = ("description", "actor_id")

# What an edit may change, as the record of events calls it.
_IN_WORDS: Final = {"description": "description", "expires_after_seconds": "expiry", "permissions": "restrictions"}


class TokenStore(TableStore):
    """Managed tokens: issued, listed, changed, rotated, ended, and when each was last used.

    Args:
        database: where the rows are.
        secret: signs and verifies the token text; one string, or a list with the newest last. Default: the
            environment variable DATASETTE_SECRET.
        table: the table's name. Two more tables start with it.
        prefix: how the tokens start.
        clock: seconds since the epoch, for tests.
        record_addresses: whether the client's address is kept with the time of last use.
        max_expires_after: the longest life, in seconds, that a token may be given. ``None``: any, also for ever.

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
        max_expires_after: int | None = None,
    ) -> None:
        super().__init__(database, table=table, clock=clock, migrations=self._in_order, write_usage=self._write_usage)
        self._search = TextSearch(database, self._table, _SEARCHED)
        self._list = TokenList(database, self._table, self._search)
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]{1,29}_", prefix):
            raise ConfigurationError(f"prefix: {prefix!r} must be letters and digits followed by an underscore.")
        self.text = ManagedTokenText(SigningSecrets.of(secret), prefix=prefix)
        self.record_addresses = record_addresses
        if max_expires_after is not None and (type(max_expires_after) is not int or max_expires_after < 1):
            raise ConfigurationError("max_expires_after: give a whole number of seconds, 1 or more.")
        self.max_expires_after = max_expires_after

    async def state(self) -> Literal["ready", "outdated", "absent"]:
        """Whether the tables are there, and as this release needs them. Opens and writes nothing.

        Raises:
            StorageError: the database cannot be read, a newer release has migrated it, or the table is another one.
        """
        found = await self.database.query(self.database.dialect.table_columns, {"table": self._table})
        columns = {name for (name,) in found.rows}
        if columns and (missing := [name for name in copying.OLDEST if name not in columns]):
            raise StorageError(
                f"{self.database.name}: its table {self.table} is not one of tokens, which would have a column "
                f"{missing[0]}; check which file it is."
            )
        return await super().state()

    async def issue(
        self,
        actor_id: str,
        *,
        by: str | None = None,
        parent: int | None = None,
        description: str | None = None,
        expires_after: float | timedelta | None = None,
        restrictions: Restrictions | None = None,
        deliver: Callable[[IssuedToken], object] | None = None,
    ) -> IssuedToken:
        """Create a token for ``actor_id``.

        Args:
            by: the actor who asked for it, for the record of events.
            parent: the token through which it was asked for. The new one stays within it.
            expires_after: seconds, or a ``timedelta``; ``None``: it does not expire.
            restrictions: ``None``: it may do all that its actor may; ``Restrictions()``: nothing.
            deliver: called before the token is kept, for whoever cannot be sure of passing its text on. Whatever it
                raises is raised here, and nothing was created. Others cannot write meanwhile, so it must be quick.

        Raises:
            InvalidInput: an argument is unusable, or reaches beyond the parent.
            TokenNotFound: the parent is not an active token of this actor.
            StorageError: nothing was created.
        """
        values = {
            "actor_id": check_actor_id(actor_id),
            "description": check_description(description),
            "expires_after": self._life(expires_after),
            "permissions": permissions_text(restrictions),
            "parent": None if parent is None else check_id(parent),
        }
        by = None if by is None else check_actor_id(by)
        nonce = new_nonce()
        now = int(self.clock())
        steps = self._issue(values, digest_nonce(nonce), by, now)
        return await self._transaction(self._delivered(steps, nonce, deliver))

    async def get(self, token_id: int, *, owner: Owner) -> TokenRecord:
        """One token of ``owner``.

        Raises:
            InvalidInput: ``owner`` is no actor id.
            TokenNotFound: there is none.
        """
        where, parameters = self._owned(owner)
        check_id(token_id)
        await self.ensure_ready()
        result = await self.database.query(
            f"select {SHOWN} from {self._table} where id = :id and {where}", {"id": token_id, **parameters}
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
        check_id(token_id)
        by = None if by is None else check_actor_id(by)
        return self._record(await self._transaction(self._revoke(token_id, owner, by, int(self.clock()))))

    async def list(
        self,
        *,
        owner: Owner,
        status: Status | str | None = None,
        search: str | None = None,
        used_before: int | None = None,
        used_after: int | None = None,
        cursor: int | None = None,
        limit: int = 30,
    ) -> Page:
        """Tokens of ``owner``, newest first.

        Args:
            status: only active, revoked or expired ones.
            search: text that the description or the actor id holds, in any case.
            used_before: last used before this time, in seconds since the epoch; never used counts as before.
            used_after: last used at this time or later.
            cursor: where the page before ended; tokens issued since then make no difference.

        Raises:
            InvalidInput: an argument is unusable.
        """
        owned, parameters = self._owned(owner)
        if status is not None and (not isinstance(status, str) or status not in HAS_STATUS):
            raise InvalidInput(f"status must be one of {', '.join(HAS_STATUS)}.")
        if search is not None and (not isinstance(search, str) or len(search) > MAX_SEARCH or not is_text(search)):
            raise InvalidInput(f"Search for text of at most {MAX_SEARCH} characters.")
        for name, value in (("used_before", used_before), ("used_after", used_after), ("cursor", cursor)):
            if value is not None and (type(value) is not int or not 0 <= value <= MAX_ID):
                raise InvalidInput(f"{name} must be a whole number.")
        if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
            raise InvalidInput(f"limit must be from 1 to {MAX_LIMIT:,}.")
        await self.ensure_ready()
        rows = await self._list.rows(
            owned,
            parameters,
            status=status,
            search=search,
            used_before=used_before,
            used_after=used_after,
            cursor=cursor,
            now=int(self.clock()),
            limit=limit + 1,
        )
        items = [self._record(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def edit(
        self,
        token_id: int,
        *,
        owner: Owner,
        by: str | None = None,
        description: str | Keep | None = KEEP,
        expires_after: float | timedelta | Keep | None = KEEP,
        restrictions: Restrictions | Keep | None = KEEP,
        version: str | None = None,
    ) -> TokenRecord:
        """Change an active token. What it loses, the tokens created through it lose in the same transaction.

        Args:
            expires_after: seconds from now, or a ``timedelta``; ``None``: never.
            version: of the record that the change was made for, which must still be as it was. ``None``: whatever
                the token has become.

        Raises:
            EditConflict: ``version`` was given, and what an edit may change is not as it was any more.
            InvalidInput: an argument is unusable, reaches beyond the token's parent, or the token has ended.
            TokenNotFound: ``owner`` has no such token.
            StorageError: nothing was changed.
        """
        check_id(token_id)
        by = None if by is None else check_actor_id(by)
        now = int(self.clock())
        changes: dict[str, Any] = {}
        if not isinstance(description, Keep):
            changes["description"] = check_description(description)
        if not isinstance(expires_after, Keep):
            seconds = self._life(expires_after)
            changes["expires_at"] = None if seconds is None else now + seconds
        if not isinstance(restrictions, Keep):
            changes["permissions"] = permissions_text(restrictions)
        return self._record(await self._transaction(self._edit(token_id, owner, by, now, changes, version)))

    async def rotate(
        self,
        token_id: int,
        *,
        owner: Owner,
        by: str | None = None,
        grace: float | timedelta = 0,
        deliver: Callable[[IssuedToken], object] | None = None,
    ) -> IssuedToken:
        """Give an active token a new text. Everything else about it stays.

        Args:
            grace: seconds that the old text goes on working; 0, for a leaked one: none. The texts before that one
                have stopped then, whatever they were given.
            deliver: as for :meth:`issue`; if it raises, the old text goes on working.

        Raises:
            InvalidInput: ``grace`` is unusable, or the token has ended.
            TokenNotFound: ``owner`` has no such token.
            StorageError: nothing was changed; the old text is the one that works.
        """
        check_id(token_id)
        by = None if by is None else check_actor_id(by)
        seconds = grace.total_seconds() if isinstance(grace, timedelta) else grace
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= MAX_GRACE:
            raise InvalidInput("grace must be a number of seconds from 0 to 90 days.")
        nonce = new_nonce()
        steps = self._rotate(token_id, owner, by, int(self.clock()), digest_nonce(nonce), int(seconds))
        return await self._transaction(self._delivered(steps, nonce, deliver))

    async def revoke_all(self, *, owner: Owner, by: str | None = None) -> int:
        """End every active token of ``owner``; return how many that were.

        Raises:
            InvalidInput: ``owner`` or ``by`` is no actor id.
            StorageError: nothing was revoked.
        """
        by = None if by is None else check_actor_id(by)
        await self.ensure_ready()
        return await self.database.transaction(self._revoke_all(owner, by, int(self.clock())))

    async def prune(self, *, ended_before: float, dry_run: bool = False) -> int:
        """Delete tokens that ended before a time, with their events; return how many.

        The newest token stays, so that its id is never given to another one.

        Args:
            ended_before: seconds since the epoch.
            dry_run: only count.

        Raises:
            InvalidInput: ``ended_before`` is not a time.
            StorageError: nothing was deleted.
        """
        # The comparison is also false for what is no number.
        if isinstance(ended_before, bool) or not isinstance(ended_before, (int, float)) or not ended_before >= 0:
            raise InvalidInput("ended_before must be a number of seconds since the epoch.")
        await self.ensure_ready()
        return await self.database.transaction(self._prune(int(min(ended_before, self.clock())), dry_run))

    async def import_tokens(self, source: Database, *, dry_run: bool = False) -> Sequence[copying.ImportedToken]:
        """Copy every token of another database, of this package or of datasette-auth-tokens, with its events.

        Ids stay the same, because the text of a token names its id; so each keeps working where the secret is the
        same. What is here already and equal, whenever it was last used, is left alone.

        Args:
            source: is only read. Its table has the name of this store's.
            dry_run: write nothing, here neither, and say what would be done.

        Raises:
            InvalidInput: an id belongs to another token here, or its token has changed on one side; or the source has
                ids that are none, or events that cannot be read. Nothing was imported.
            StorageError: one of the databases failed, or has something else in the table of tokens, or was made by a
                newer release; or the source has no tokens. Nothing was imported.
        """
        await pending(source, self._bookkeeping, self._migrations())
        rows = await copying.tokens_of(source, self.table)
        if rows is None:
            raise StorageError(f"{source.name} has no table {self.table} of tokens; check which file it is.")
        events = await copying.events_of(source, self.table)
        copying.check(source.name, rows, events)
        if dry_run:
            await self.state()
            new = copying.missing(rows, await copying.tokens_of(self.database, self.table) or [])
            return copying.imported(rows, new, self.clock())
        await self.ensure_ready()
        new = await self.database.transaction(self._import(rows, events))
        return copying.imported(rows, new, self.clock())

    async def events(self, token_id: int, *, owner: Owner, latest: int | None = None) -> Sequence[StoredEvent]:
        """What happened to a token, oldest first.

        Args:
            latest: so many of the last ones. ``None``: all.

        Raises:
            InvalidInput: ``latest`` is no number of events.
            TokenNotFound: ``owner`` has no such token.
        """
        if latest is not None and (type(latest) is not int or not 1 <= latest <= MAX_ID):
            raise InvalidInput("latest must be a whole number, 1 or more.")
        await self.get(token_id, owner=owner)
        result = await self.database.query(
            f"select at_timestamp, event, by_actor_id, details from {self._table}_events where token_id = :id "
            "order by id desc limit :latest",
            {"id": token_id, "latest": latest or MAX_ID},
        )
        return [
            StoredEvent(as_integer(at), as_text(name) or "", as_text(by), as_text(details))
            for at, name, by, details in reversed(result.rows)
        ]

    def lookup(self) -> Lookup:
        """The rows that decide about tokens, by id, as they are when asked for."""
        return self.database.lookup(self._table, DECIDING)

    def note_use(self, token_id: int, when: int, address: str | None) -> None:
        """Remember that a token was used. It is written soon, and at most once a minute."""
        self._usage.note(token_id, when, address if self.record_addresses else None)

    def _life(self, expires_after: object) -> int | None:
        seconds = check_seconds(expires_after)
        limit = self.max_expires_after
        if limit is not None and (seconds is None or seconds > limit):
            raise InvalidInput(f"A token may live for at most {limit} seconds here.")
        return seconds

    # Transactions

    async def _transaction(self, steps: Steps[T]) -> T:
        await self.ensure_ready()
        return await self.database.transaction(steps)

    def _delivered(
        self, steps: Steps[Row], nonce: str, deliver: Callable[[IssuedToken], object] | None
    ) -> Steps[IssuedToken]:
        record = self._record((yield from steps))
        issued = IssuedToken(record, self.text.build(record.id, nonce))
        if deliver is not None:
            deliver(issued)
        return issued

    def _issue(self, values: dict[str, Any], digest: str, by: str | None, now: int) -> Steps[Row]:
        if values["parent"] is not None:
            life = values["expires_after"]
            yield from self._check_parent(
                values["parent"], values["actor_id"], values["permissions"], None if life is None else now + life, now
            )
        rows = yield (
            f"insert into {self._table} (token_status, description, actor_id, permissions, created_timestamp, "
            "expires_after_seconds, secret_version, token_digest, parent_id) values ('A', :description, :actor_id, "
            f":permissions, :now, :expires_after, 0, :digest, :parent) returning {SHOWN}",
            {**values, "now": now, "digest": digest},
        )
        yield self._event(rows[0][0], "created", by, now)
        return rows[0]

    def _check_parent(
        self, parent_id: int, actor_id: object, permissions: object, until: int | None, now: int
    ) -> Steps[None]:
        rows = yield (
            f"select {DECIDING} from {self._table} where id = :parent and actor_id = :actor_id",
            {"parent": parent_id, "actor_id": actor_id},
        )
        parent = StoredToken(*rows[0]) if rows else None
        if parent is None or parent.status(now) != "active":
            raise TokenNotFound(f"Token {parent_id} is not an active token of this actor.")
        permitted, wanted = parent.restrictions(), json.loads(str(permissions))
        if permitted is not None and (wanted is None or not Restrictions.from_wire(wanted).is_subset(permitted)):
            raise InvalidInput("A token cannot create a token that may do more than itself.")
        if parent.expires_at is not None and (until is None or until > parent.expires_at):
            raise InvalidInput("A token cannot create a token that lives longer than itself.")

    def _revoke(self, token_id: int, owner: Owner, by: str | None, now: int) -> Steps[Row]:
        where, parameters = self._owned(owner)
        found = yield f"select id from {self._table} where id = :id and {where}", {"id": token_id, **parameters}
        if not found:
            raise TokenNotFound(f"There is no token {token_id}.")
        family = yield self._family(token_id)
        yield from self._end(family, by, now)
        rows = yield f"select {SHOWN} from {self._table} where id = :id", {"id": token_id}
        return rows[0]

    def _edit(
        self,
        token_id: int,
        owner: Owner,
        by: str | None,
        now: int,
        changes: dict[str, Any],
        version: str | None,
    ) -> Steps[Row]:
        token = yield from self._active(token_id, owner, now)
        if version is not None:
            rows = yield f"select {SHOWN} from {self._table} where id = :id", {"id": token_id}
            if self._record(rows[0]).version != version:
                raise EditConflict("This token has been changed meanwhile; nothing was saved. Look at what it is now.")
        rows = yield f"select description, parent_id from {self._table} where id = :id", {"id": token_id}
        description, parent = rows[0]
        before = {
            "description": description,
            "expires_after_seconds": token.expires_after,
            "permissions": token.permissions,
        }
        values = {name: value for name, value in changes.items() if name != "expires_at"}
        if "expires_at" in changes:
            values["expires_after_seconds"] = _life(token, changes["expires_at"])
        # A form sends everything; only what differs is a change.
        values = {name: value for name, value in values.items() if value != before[name]}
        if values:
            if parent is not None and values.keys() != {"description"}:
                wanted = values.get("permissions", token.permissions)
                until = changes.get("expires_at", token.expires_at)
                try:
                    yield from self._check_parent(parent, token.actor_id, wanted, until, now)
                except TokenNotFound as error:
                    # The token itself was found, so this is no answer to whoever asked for it.
                    raise InvalidInput("The token that this one was created through is gone.") from error
            assignments = ", ".join(f"{column} = :{column}" for column in values)
            yield f"update {self._table} set {assignments} where id = :id", {"id": token_id, **values}
            yield self._event(token_id, "edited", by, now, ", ".join(_IN_WORDS[name] for name in values))
            yield from self._narrow_children(token_id, by, now)
        rows = yield f"select {SHOWN} from {self._table} where id = :id", {"id": token_id}
        return rows[0]

    def _narrow_children(self, token_id: int, by: str | None, now: int) -> Steps[None]:
        rows = yield f"select {DECIDING} from {self._table} where id = :id", {"id": token_id}
        token = StoredToken(*rows[0])
        limits, until = token.restrictions(), token.expires_at
        family = yield self._family(token_id)
        for row in family:
            child = StoredToken(*row)
            if child.id == token_id or child.status(now) != "active":
                continue
            has, ends = child.restrictions(), child.expires_at
            keeps = limits if has is None else has if has.is_subset(limits) else has.intersect(limits)
            sooner = until if ends is None else ends if until is None else min(ends, until)
            if keeps == has and sooner == ends:
                continue
            try:
                life = child.expires_after if sooner == ends else _life(child, sooner)
            except InvalidInput:
                # Its expiry cannot be written down, so it cannot be let live.
                yield from self._end([row], by, now)
                continue
            yield (
                f"update {self._table} set permissions = :permissions, expires_after_seconds = :life where id = :id",
                {"permissions": permissions_text(keeps), "life": life, "id": child.id},
            )
            yield self._event(child.id, "edited", by, now, f"narrowed with token {token_id}")

    def _rotate(self, token_id: int, owner: Owner, by: str | None, now: int, digest: str, grace: int) -> Steps[Row]:
        token = yield from self._active(token_id, owner, now)
        # An empty text stands for the predecessor's tokens, which have no nonce and so no digest.
        previous = None if grace == 0 else "" if token.digest is None else token.digest
        rows = yield (
            f"update {self._table} set token_digest = :digest, previous_digest = :previous, previous_until = :until "
            f"where id = :id returning {SHOWN}",
            {"digest": digest, "previous": previous, "until": None if grace == 0 else now + grace, "id": token_id},
        )
        yield self._event(token_id, "rotated", by, now, f"the old text works for {grace} seconds" if grace else None)
        return rows[0]

    def _revoke_all(self, owner: Owner, by: str | None, now: int) -> Steps[int]:
        where, parameters = self._owned(owner)
        rows = yield (
            f"select {DECIDING} from {self._table} where {where} and ended_timestamp is null order by id",
            parameters,
        )
        return (yield from self._end(rows, by, now))

    def _prune(self, before: int, dry_run: bool) -> Steps[int]:
        # The casts leave rows alone whose times are damaged: SQLite would take 'soon' for 0.
        old = (
            f"select id from {self._table} where id < (select max(id) from {self._table}) "
            "and (ended_timestamp < :before or (ended_timestamp is null "
            f"and {ENDS} < :before "
            "and cast(created_timestamp as bigint) = created_timestamp "
            "and cast(expires_after_seconds as bigint) = expires_after_seconds))"
        )
        rows = yield f"select count(*) from ({old}) as old", {"before": before}
        if not dry_run:
            yield f"delete from {self._table}_events where token_id in ({old})", {"before": before}
            yield f"delete from {self._table} where id in ({old})", {"before": before}
        count: int = rows[0][0]
        return count

    def _import(self, rows: Sequence[Row], events: Sequence[Row]) -> Steps[set[int]]:
        here: Sequence[Row] = []
        if rows:
            here = yield (
                f"select {', '.join(copying.COPIED)} from {self._table} where id between :first and :last",
                {"first": rows[0][0], "last": rows[-1][0]},
            )
        new = copying.missing(rows, here)
        values = ", ".join(f":{name}" for name in copying.COPIED)
        yield (
            f"insert into {self._table} ({', '.join(copying.COPIED)}) values ({values})",
            [dict(zip(copying.COPIED, row, strict=True)) for row in rows if row[0] in new],
        )
        copied = [self._event(*event) for event in events if event[0] in new]
        if copied:
            yield copied[0][0], [parameters for _, parameters in copied]
        if self.database.dialect.continue_ids is not None and new:
            yield self.database.dialect.continue_ids.format(table=self._table), {}
        return new

    def _active(self, token_id: int, owner: Owner, now: int) -> Steps[StoredToken]:
        where, parameters = self._owned(owner)
        rows = yield (
            f"select {DECIDING} from {self._table} where id = :id and {where}",
            {"id": token_id, **parameters},
        )
        if not rows:
            raise TokenNotFound(f"There is no token {token_id}.")
        token = StoredToken(*rows[0])
        if (status := token.status(now)) != "active":
            raise InvalidInput(f"This token is {status}; only an active one can be changed.")
        return token

    def _family(self, token_id: int) -> tuple[str, dict[str, Any]]:
        """The rows of a token and of all that were created through it."""
        return (
            f"select {DECIDING} from {self._table} where id in ({self._family_ids('id')}) order by id",
            {"id": token_id},
        )

    def _family_ids(self, parameter: str) -> str:
        # union, not union all: a damaged table whose parents form a ring must not loop for ever.
        return (
            f"with recursive family(id) as (select id from {self._table} where id = :{parameter} union "
            f"select child.id from {self._table} child join family on child.parent_id = family.id) "
            "select id from family"
        )

    def _end(self, rows: Sequence[Row], by: str | None, now: int) -> Steps[int]:
        count = 0
        for member in (StoredToken(*row) for row in rows):
            # A damaged row is ended too, lest whoever repairs it brings a revoked token back to life.
            if member.status(now) not in ("active", "damaged"):
                continue
            ended = yield (
                f"update {self._table} set token_status = 'R', ended_timestamp = :now where id = :id "
                "and ended_timestamp is null and (token_status is null or token_status not in ('R', 'E')) returning id",
                {"id": member.id, "now": now},
            )
            if ended:
                yield self._event(member.id, "revoked", by, now)
                count += 1
        return count

    def _owned(self, owner: Owner) -> tuple[str, dict[str, Any]]:
        """The one condition that limits a statement to what ``owner`` may reach."""
        if isinstance(owner, AnyOwner):
            return "1 = 1", {}
        if isinstance(owner, Family):
            where, parameters = self._owned(owner.actor_id)
            return (
                f"{where} and id in ({self._family_ids('family')})",
                {**parameters, "family": check_id(owner.token_id)},
            )
        if not isinstance(owner, str) or not owner or not is_text(owner):
            raise InvalidInput("owner must be an actor id or ANY_OWNER.")
        return "actor_id = :owner", {"owner": owner}

    def _event(
        self, token_id: int, event: str, by: str | None, now: int, details: str | None = None
    ) -> tuple[str, dict[str, Any]]:
        return (
            f"insert into {self._table}_events (token_id, event, by_actor_id, at_timestamp, details) "
            "values (:token_id, :event, :by, :now, :details)",
            {"token_id": token_id, "event": event, "by": by, "now": now, "details": details},
        )

    async def _write_usage(self, uses: Sequence[Use]) -> None:
        await self.database.run_many(
            f"update {self._table} set last_used_timestamp = :at, "
            "last_used_address = coalesce(:address, last_used_address) where id = :id "
            "and (last_used_timestamp is null or last_used_timestamp <= :due)",
            # In one order, so that two processes never wait for each other's rows.
            [
                {"id": token_id, "at": when, "due": when - 60, "address": address}
                for token_id, when, address in sorted(uses, key=itemgetter(0))
            ],
        )

    # Rows

    def _record(self, row: Row) -> TokenRecord:
        stored = StoredToken(*row[: DECIDING.count(",") + 1])
        description, last_used, address, parent = row[DECIDING.count(",") + 1 :]
        # Shown as damaged where it is: the others of a list must not suffer for it.
        status, expires_at, restrictions = stored.read(self.clock())
        return TokenRecord(
            id=stored.id,
            actor_id=stored.actor_id if isinstance(stored.actor_id, str) else "",
            status=status,
            description=description if isinstance(description, str) else None,
            restrictions=restrictions,
            created_at=as_integer(stored.created),
            expires_at=expires_at,
            last_used_at=as_integer(last_used),
            last_used_address=address if isinstance(address, str) else None,
            ended_at=as_integer(stored.ended),
            parent_id=as_integer(parent),
            previous_until=as_integer(stored.previous_until),
        )

    def _in_order(self) -> Sequence[Migration]:
        return migrations(self.database, self.table, self._search)

    async def _prepare(self) -> None:
        await self._search.prepare()


def _life(token: StoredToken, until: int | None) -> int | None:
    """``until`` as the column holds it: seconds after the token was created."""
    if until is None:
        return None
    if type(token.created) is not int or not -MAX_ID <= until - token.created <= MAX_ID:
        raise InvalidInput("This token has no time of creation, so its expiry cannot be changed; rotate or revoke it.")
    return until - token.created
