"""The store of managed tokens: arguments are checked here, and the steps of each change run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from operator import itemgetter
from typing import Any, Final, TypeVar

from asgi_token_auth.databases.protocol import Database, Row, Steps
from asgi_token_auth.errors import ConfigurationError, InvalidInput, StorageError
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.signing import MANAGED_PREFIX, SecretInput, SigningSecrets
from asgi_token_auth.storage.idempotency import IdempotencyKey
from asgi_token_auth.storage.migrations import pending
from asgi_token_auth.storage.parts import Part, run_in_parts
from asgi_token_auth.storage.store import system_clock
from asgi_token_auth.storage.usage import Use
from asgi_token_auth.storage.values import check_actor_id, text_or_none
from asgi_token_auth.tokens import copying
from asgi_token_auth.tokens.reading import TokenReader
from asgi_token_auth.tokens.record import (
    KEEP,
    IssuedToken,
    Keep,
    Owner,
    TokenRecord,
    check_description,
    check_grace,
    check_id,
    check_seconds,
    permissions_text,
)
from asgi_token_auth.tokens.text import ManagedTokenText, check_prefix, digest_nonce, new_nonce

T = TypeVar("T")

#: The table of datasette-auth-tokens, which this store reads and extends.
DEFAULT_TABLE: Final = "_datasette_auth_tokens"
#: Characters of a client's address that are kept: more than IPv6 has with the name of an interface.
MAX_ADDRESS: Final = 100
#: Seconds that counting the tokens of a whole table may take.
_COUNT_PATIENCE: Final = 60.0


class TokenStore(TokenReader):
    """Managed tokens: issued, listed, changed, rotated, ended, and when each was last used.

    Args:
        database: where the rows are.
        secret: signs and verifies the token text; one string, or a list with the newest last. Default: the
            environment variable DATASETTE_SECRET.
        table: the table's name. More tables start with it.
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
        clock: Callable[[], float] = system_clock,
        record_addresses: bool = False,
        max_expires_after: int | None = None,
    ) -> None:
        super().__init__(database, table=table, clock=clock)
        self.text: ManagedTokenText = ManagedTokenText(SigningSecrets.of(secret), prefix=check_prefix(prefix))
        self.record_addresses = record_addresses
        if max_expires_after is not None and (type(max_expires_after) is not int or max_expires_after < 1):
            raise ConfigurationError("max_expires_after: give a whole number of seconds, 1 or more.")
        self.max_expires_after = max_expires_after

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
        idempotency_key: str | IdempotencyKey | None = None,
    ) -> IssuedToken:
        """Create a token for ``actor_id``.

        Args:
            by: the actor who asked for it, for the record of events.
            parent: the token through which it was asked for. The new one stays within it.
            expires_after: seconds, or a ``timedelta``; ``None``: it does not expire.
            restrictions: ``None``: it may do all that its actor may; ``Restrictions()``: nothing.
            deliver: called before the token is kept, for whoever cannot be sure of passing its text on. Whatever it
                raises is raised here, and nothing was created. Others cannot write meanwhile, so it must be quick.
            idempotency_key: stands for this one request of ``by``. With a key that ``by`` used within 48 hours,
                nothing is done.

        Raises:
            AlreadyDone: the key was used for the same call; it tells what was done then, and not the token's text.
            IdempotencyKeyReused: the key was used for something else.
            InvalidInput: an argument is unusable, or reaches beyond the parent.
            TokenNotFound: the parent is not an active token of this actor.
            StorageError: nothing was created.
        """
        values = {
            "actor_id": check_actor_id(actor_id),
            "description": check_description(description),
            "expires_after": self._checked_lifetime(expires_after),
            "permissions": permissions_text(restrictions),
            "parent": None if parent is None else check_id(parent),
        }
        by = None if by is None else check_actor_id(by)
        nonce = new_nonce()
        now = int(self.clock())
        steps = self._changes.issue(values, digest_nonce(nonce), by, now)
        steps = self._once(steps, idempotency_key, by, "create", values, "created", now)
        return await self._transaction(self._delivered(steps, nonce, deliver))

    async def revoke(
        self,
        token_id: int,
        *,
        owner: Owner,
        by: str | None = None,
        version: str | None = None,
        idempotency_key: str | IdempotencyKey | None = None,
    ) -> TokenRecord:
        """End a token, and the tokens that were created through it.

        When this returns, the next request with the token is refused by every process. Revoking again
        changes nothing; the first end stays.

        Args:
            version: as for :meth:`rotate`.
            idempotency_key: as for :meth:`issue`.

        Raises:
            AlreadyDone, IdempotencyKeyReused: as for :meth:`issue`.
            EditConflict: as for :meth:`rotate`.
            InvalidInput: ``owner`` or ``by`` is no actor id.
            TokenNotFound: ``owner`` has no such token.
            StorageError: nothing was revoked.
        """
        check_id(token_id)
        by = None if by is None else check_actor_id(by)
        now = int(self.clock())
        steps = self._changes.revoke(token_id, owner, by, now, version)
        arguments = owner, version
        steps = self._once(steps, idempotency_key, by, f"revoke {token_id}", arguments, "revoked", now)
        return self._record_of(await self._transaction(steps))

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
        idempotency_key: str | IdempotencyKey | None = None,
    ) -> TokenRecord:
        """Change an active token. What it loses, the tokens created through it lose in the same transaction.

        Args:
            expires_after: seconds from now, or a ``timedelta``; ``None``: never.
            version: of the record that the change was made for, which must still be as it was. ``None``: whatever
                the token has become. That it was rotated makes no difference.
            idempotency_key: as for :meth:`issue`.

        Raises:
            AlreadyDone, IdempotencyKeyReused: as for :meth:`issue`.
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
            seconds = self._checked_lifetime(expires_after)
            changes["expires_at"] = None if seconds is None else now + seconds
        if not isinstance(restrictions, Keep):
            changes["permissions"] = permissions_text(restrictions)
        steps = self._changes.edit(token_id, owner, by, now, changes, version)
        arguments = owner, description, expires_after, changes.get("permissions"), version
        steps = self._once(steps, idempotency_key, by, f"edit {token_id}", arguments, "edited", now)
        return self._record_of(await self._transaction(steps))

    async def rotate(
        self,
        token_id: int,
        *,
        owner: Owner,
        by: str | None = None,
        grace: float | timedelta = 0,
        deliver: Callable[[IssuedToken], object] | None = None,
        version: str | None = None,
        idempotency_key: str | IdempotencyKey | None = None,
    ) -> IssuedToken:
        """Give an active token a new text. Everything else about it stays.

        Args:
            grace: seconds that the old text goes on working; 0, for a leaked one: none. The texts before that one
                have stopped then, whatever they were given.
            deliver: as for :meth:`issue`; if it raises, the old text goes on working.
            version: of the record that this was decided for, which must still be as it was, with its text.
                ``None``: whatever the token has become.
            idempotency_key: as for :meth:`issue`.

        Raises:
            AlreadyDone, IdempotencyKeyReused: as for :meth:`issue`. The texts that work are those that did.
            EditConflict: ``version`` was given, and the token was edited or rotated since.
            InvalidInput: ``grace`` is unusable, or the token has ended.
            TokenNotFound: ``owner`` has no such token.
            StorageError: nothing was changed; the old text is the one that works.
        """
        check_id(token_id)
        by = None if by is None else check_actor_id(by)
        seconds = check_grace(grace)
        nonce = new_nonce()
        now = int(self.clock())
        steps = self._changes.rotate(token_id, owner, by, now, digest_nonce(nonce), seconds, version)
        arguments = owner, seconds, version
        steps = self._once(steps, idempotency_key, by, f"rotate {token_id}", arguments, "rotated", now)
        return await self._transaction(self._delivered(steps, nonce, deliver))

    async def revoke_all(
        self, *, owner: Owner, by: str | None = None, idempotency_key: str | IdempotencyKey | None = None
    ) -> int:
        """End every active token of ``owner``; return how many that were.

        Many are ended in several transactions, so that others need not wait. It goes on to the end even if the caller
        is cancelled.

        Args:
            idempotency_key: as for :meth:`issue`. Tokens that were created since are not ended by a repeat. One that
                follows a failure, or comes meanwhile, ends those that are left; all of them are counted.

        Raises:
            AlreadyDone, IdempotencyKeyReused: as for :meth:`issue`.
            InvalidInput: ``owner`` or ``by`` is no actor id.
            StorageError: not all were revoked; call it again.
        """
        by = None if by is None else check_actor_id(by)
        now = int(self.clock())
        request = self._requests.request(idempotency_key, by, "revoke_all", owner)
        self._changes.owned(owner)

        def part(after: int) -> Steps[Part]:
            steps = self._changes.revoke_part(owner, by, now, after)
            return self._requests.once_in_parts(request, steps, "revoked_all", now)

        await self.ensure_ready()
        counts = await run_in_parts(self.database, part, is_open=lambda: self.ready)
        # With a key it is counted in the database, by all who were asked for the same.
        return sum(counts) if request is None else counts[-1]

    async def prune(self, *, ended_before: float, dry_run: bool = False) -> int:
        """Delete tokens that ended before a time, with their events; return how many.

        The newest token stays, so that its id is never given to another one. Many are deleted in several transactions,
        so that others need not wait.

        Args:
            ended_before: seconds since the epoch.
            dry_run: only count.

        Raises:
            InvalidInput: ``ended_before`` is not a time.
            StorageError: not all were deleted; call it again.
        """
        # The comparison is also false for what is no number.
        if isinstance(ended_before, bool) or not isinstance(ended_before, (int, float)) or not ended_before >= 0:
            raise InvalidInput("ended_before must be a number of seconds since the epoch.")
        await self.ensure_ready()
        before = int(min(ended_before, self.clock()))
        if dry_run:
            query = f"select count(*) from ({self._changes.prunable()}) as old"
            count: int = (await self.database.query(query, {"before": before}, timeout=_COUNT_PATIENCE)).rows[0][0]
            return count
        part = partial(self._changes.prune_part, before)
        return sum(await run_in_parts(self.database, part, is_open=lambda: self.ready))

    async def import_tokens(self, source: Database, *, dry_run: bool = False) -> Sequence[copying.ImportedToken]:
        """Copy every token of another database, of this package or of datasette-auth-tokens, with its events.

        Ids stay the same, because the text of a token names its id; so each keeps working where the secret is the
        same. What is here already and equal, whenever it was last used, is left alone.

        Args:
            source: is only read. Its table has the name of this store's.
            dry_run: write nothing, here neither, and say what would be done.

        Raises:
            InvalidInput: an id belongs to another token here, or its token has changed on one side; or the source has
                ids that are none, events that cannot be read, or values that this kind of database cannot hold.
                Nothing was imported.
            StorageError: one of the databases failed, or has something else in the table of tokens, or was made by a
                newer release; or the source has no tokens. Nothing was imported.
        """
        await pending(source, self._bookkeeping, self._migrations())
        rows = await copying.tokens_of(source, self.table)
        if rows is None:
            raise StorageError(f"{source.name} has no table {self.table} of tokens; check which file it is.")
        events = await copying.events_of(source, self.table)
        copying.check(source.name, rows, events, typed=self.database.dialect.typed)
        if dry_run:
            await self.state()
            new = copying.missing(rows, await copying.tokens_of(self.database, self.table) or [])
            return copying.imported(rows, new, self.clock())
        await self.ensure_ready()
        new = await self.database.transaction(self._changes.import_(rows, events))
        return copying.imported(rows, new, self.clock())

    def note_use(self, token_id: int, when: int, address: str | None) -> None:
        """Remember that a token was used. It is written soon, and at most once a minute.

        Args:
            address: the client's. What is no text, or longer than 100 characters, is left out.
        """
        self._usage.note(token_id, when, text_or_none(address, MAX_ADDRESS) if self.record_addresses else None)

    def _checked_lifetime(self, expires_after: object) -> int | None:
        seconds = check_seconds(expires_after)
        limit = self.max_expires_after
        if limit is not None and (seconds is None or seconds > limit):
            raise InvalidInput(f"A token may live for at most {limit} seconds here.")
        return seconds

    # Transactions

    async def _transaction(self, steps: Steps[T]) -> T:
        await self.ensure_ready()
        return await self.database.transaction(steps)

    def _once(
        self,
        steps: Steps[Row],
        key: str | IdempotencyKey | None,
        by: str | None,
        action: str,
        arguments: object,
        event: str,
        now: int,
    ) -> Steps[Row]:
        request = self._requests.request(key, by, action, arguments)
        return self._requests.once(request, steps, event, itemgetter(0), now)

    def _delivered(
        self, steps: Steps[Row], nonce: str, deliver: Callable[[IssuedToken], object] | None
    ) -> Steps[IssuedToken]:
        record = self._record_of((yield from steps))
        issued = IssuedToken(record, self.text.build(record.id, nonce))
        if deliver is not None:
            deliver(issued)
        return issued

    async def _write_usage(self, uses: Sequence[Use]) -> None:
        await self.database.run_many(*self._changes.note_uses(uses))
