"""Managed tokens: checked against their row, which is read again as soon as anything in the database changed."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from typing import Final

from asgi_token_auth.authentication import Authenticated, Credential, Outcome, Reason, Recheck, Rejected
from asgi_token_auth.databases.protocol import Found, Lookup
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.storage.outages import OutageLog
from asgi_token_auth.tokens.record import StoredToken
from asgi_token_auth.tokens.store import TokenStore
from asgi_token_auth.tokens.text import digest_nonce

logger: Final = logging.getLogger("asgi_token_auth")

#: Tokens remembered, and characters of their restrictions, in each of two generations. What is remembered of
#: restrictions takes some twenty bytes for each character.
CACHE_SIZE: Final = 5_000
CACHE_PERMISSIONS: Final = 1_000_000
#: Seconds between two notes of use of one token.
USE_INTERVAL: Final = 60

_NEVER: Final = float("inf")


class _ManagedOutcome(Authenticated):
    """A good token, and its row as it was under ``version``.

    Another row makes another one, so that one that is being used by two threads is never half changed.
    """

    __slots__ = ("due", "fingerprint", "row_size", "source", "token_id", "until", "version")

    #: Of the row, in less memory than the row.
    fingerprint: bytes
    #: Characters of its restrictions.
    row_size: int
    source: ManagedTokens
    token_id: int
    #: When it ends by itself, in seconds since the epoch.
    until: float
    #: What the database said before the row was read; ``None``: it has to be read each time.
    version: object | None
    #: When there is something to do: it ends, or its use is to be noted.
    due: float

    def holds(self) -> bool:
        """Whether the row is still the same, and nothing is due."""
        source = self.source
        version = source.lookup.version()
        return version is not None and (version == self.version or self._is_unchanged()) and source.clock() < self.due

    def _is_unchanged(self) -> bool:
        """Whether a commit touched other rows only."""
        source = self.source
        if self.version is None or not source.store.ready:
            return False
        found = source.lookup.fetch_now(self.token_id)
        if found is None or found[2] != self.fingerprint:
            return False
        self.version = found[0]
        return True

    @property
    def noted(self) -> float:
        """When its use was noted, as far as that still matters."""
        return self.due - USE_INTERVAL


class ManagedTokens:
    """The tokens of a :class:`~asgi_token_auth.tokens.store.TokenStore`.

    A token is good only if it is at the time of the request: an answer is reused only while the database
    proves that nothing was committed since its row was read. The signature comes first, so what nobody
    signed is never looked up and never remembered.
    """

    name = "managed"
    exact = False
    reusable = True

    def __init__(self, store: TokenStore) -> None:
        if not isinstance(store, TokenStore):
            raise ConfigurationError('store: give a TokenStore, for example TokenStore(SQLite("tokens.db")).')
        self.store = store
        self.prefixes: tuple[str, ...] = (store.text.prefix,)
        self.lookup: Lookup = store.lookup()
        self.clock: Callable[[], float] = store.clock
        self._damaged = OutageLog(logger, "a token is refused because its row is damaged")
        # Two generations instead of an order of use: a hit in the young one writes nothing.
        self._young: dict[str, _ManagedOutcome] = {}
        self._old: dict[str, _ManagedOutcome] = {}
        # Characters of restrictions in the young one.
        self._size = 0

    async def open(self) -> None:
        """Open the store."""
        await self.store.open()

    async def flush(self) -> None:
        """Write the last uses noted so far."""
        await self.store.flush()

    async def close(self) -> None:
        """Close the store, if nobody else uses it."""
        await self.store.close()

    async def authenticate(self, credential: Credential) -> Outcome:
        """Accept or refuse, by the row as it is now."""
        entry = self._young.get(credential.token)
        if entry is None:
            return await self._read(credential, self._old.get(credential.token))
        version = self.lookup.version()
        if version is None or version != entry.version:
            if not self.store.ready:
                await self.store.ensure_ready()
            found = await self.lookup.fetch(entry.token_id)
            version, _, fingerprint = found
            if fingerprint != entry.fingerprint:
                return self._read_again(credential, entry, found)
            entry.version = version
        now = self.clock()
        if now >= entry.due:
            if now >= entry.until:
                return await self._read(credential, entry)
            self._note(entry, now, credential.address)
        return entry

    async def _read(self, credential: Credential, known: _ManagedOutcome | None) -> Outcome:
        """The same for a token that is new here, was used long ago, or may have expired."""
        if known is not None:
            if not self.store.ready:
                await self.store.ensure_ready()
            return self._read_again(credential, known, await self.lookup.fetch(known.token_id))
        read = self.store.text.read(credential.token)
        if read is None:
            return Rejected(Reason.BAD_SIGNATURE)
        token_id, nonce = read
        if not self.store.ready:
            await self.store.ensure_ready()
        return self._decide(credential, token_id, nonce, await self.lookup.fetch(token_id), 0.0)

    def _read_again(self, credential: Credential, known: _ManagedOutcome, found: Found) -> Outcome:
        """Decide about a token that was good, by its row as it is now."""
        if found[2] == known.fingerprint and self.clock() < known.due:
            known.version = found[0]
            self._remember(credential.token, known)
            return known
        # It takes less time than the nonces of all tokens take memory: rows change seldom.
        read = self.store.text.read(credential.token)
        if read is None:
            # The secrets of the store are those that it was opened with.
            return self._forget(credential.token, Reason.BAD_SIGNATURE, known.token_id)
        return self._decide(credential, known.token_id, read[1], found, known.noted)

    def _decide(self, credential: Credential, token_id: int, nonce: str | None, found: Found, noted: float) -> Outcome:
        """Remember a good token, forget a bad one, and answer."""
        now = self.clock()
        entry = self._judge(credential, digest_nonce(nonce) if nonce else "", found, now)
        if not isinstance(entry, _ManagedOutcome):
            return self._forget(credential.token, entry, token_id)
        entry.version = found[0]
        entry.due = min(entry.until, noted + USE_INTERVAL)
        self._remember(credential.token, entry)
        if now - noted >= USE_INTERVAL:
            self._note(entry, now, credential.address)
        return entry

    def _forget(self, token: str, reason: Reason, token_id: int) -> Rejected:
        if (ended := self._young.pop(token, None)) is not None:
            self._size -= ended.row_size
        self._old.pop(token, None)
        return Rejected(reason, token_id)

    def _judge(self, credential: Credential, presented: str, found: Found, now: float) -> _ManagedOutcome | Reason:
        """What to remember of a good token, or why it is refused."""
        _, values, fingerprint = found
        if values is None:
            return Reason.UNKNOWN_TOKEN
        row = StoredToken(*values)
        status, expires_at, restrictions = row.read(now)
        if status == "damaged":
            self._damaged.note(f"token {row.id} in {self.store.table}")
            return Reason.DAMAGED
        until = _NEVER
        # Rows of datasette-auth-tokens have no digest, and their tokens no nonce.
        if not _same(presented, "" if row.digest is None else row.digest):
            if row.previous_digest is None or not _same(presented, row.previous_digest):
                return Reason.UNKNOWN_TOKEN
            if type(row.previous_until) is not int or now >= row.previous_until:
                return Reason.EXPIRED
            until = row.previous_until
        if status != "active":
            return Reason.REVOKED if status == "revoked" else Reason.EXPIRED
        if expires_at is not None:
            until = min(until, expires_at)
        actor: dict[str, object] = {"id": row.actor_id, "token": "dsatok", "token_id": row.id}
        if restrictions is not None:
            actor["_r"] = restrictions.to_wire()
        outcome = _ManagedOutcome(
            actor,
            source=self.name,
            token_id=row.id,
            expires_at=None if until == _NEVER else until,
            restrictions=restrictions,
            recheck=Recheck(self, credential),
        )
        outcome.source = self
        # And not the id that was read from the token: one object for the memory of both.
        outcome.token_id = row.id
        outcome.fingerprint = fingerprint
        outcome.until = until
        outcome.row_size = len(str(row.permissions))
        return outcome

    def _note(self, entry: _ManagedOutcome, now: float, address: str | None) -> None:
        entry.due = min(entry.until, now + USE_INTERVAL)
        self.store.note_use(entry.token_id, int(now), address)

    def _remember(self, token: str, entry: _ManagedOutcome) -> None:
        known = self._young.get(token)
        size = self._size + entry.row_size - (known.row_size if known is not None else 0)
        if size > CACHE_PERMISSIONS or (known is None and len(self._young) >= CACHE_SIZE):
            self._old, self._young = self._young, {}
            size = entry.row_size
        self._young[token] = entry
        self._size = size


def _same(presented: str, stored: object) -> bool:
    return isinstance(stored, str) and hmac.compare_digest(presented.encode(), stored.encode())
