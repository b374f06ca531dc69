"""Managed tokens: checked against their row, which is read again as soon as anything in the database changed."""

from __future__ import annotations

import hmac
import logging
from typing import Final

from asgi_token_auth.authentication import Authenticated, Credential, Outcome, Reason, Recheck, Rejected
from asgi_token_auth.databases.protocol import Found
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


class _Entry:
    """A good token, and its row as it was under ``version``.

    Another row makes another entry, so that one that is being used by two threads is never half changed.
    """

    __slots__ = ("digest", "fingerprint", "noted", "outcome", "size", "token_id", "until", "version")

    def __init__(
        self, token_id: int, digest: bytes, fingerprint: bytes, outcome: Authenticated, until: float, size: int
    ) -> None:
        self.token_id = token_id
        #: Of the nonce; empty for a token of datasette-auth-tokens, which has none.
        self.digest = digest
        #: Of the row, in less memory than the row.
        self.fingerprint = fingerprint
        self.outcome = outcome
        self.until = until
        #: Characters of its restrictions.
        self.size = size
        self.version: object = None
        self.noted = 0.0


class ManagedTokens:
    """The tokens of a :class:`~asgi_token_auth.tokens.store.TokenStore`.

    A token is good only if it is at the time of the request: an answer is reused only while the database
    proves that nothing was committed since its row was read. The signature comes first, so what nobody
    signed is never looked up and never remembered.
    """

    name = "managed"
    exact = False

    def __init__(self, store: TokenStore) -> None:
        if not isinstance(store, TokenStore):
            raise ConfigurationError('store: give a TokenStore, for example TokenStore(SQLite("tokens.db")).')
        self.store = store
        self.prefixes: tuple[str, ...] = (store.text.prefix,)
        self._lookup = store.lookup()
        self._damaged = OutageLog(logger, "a token is refused because its row is damaged")
        # Two generations instead of an order of use: a hit in the young one writes nothing.
        self._young: dict[str, _Entry] = {}
        self._old: dict[str, _Entry] = {}
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
        version = self._lookup.version()
        if version is None or version != entry.version:
            if not self.store.ready:
                await self.store.ensure_ready()
            found = await self._lookup.fetch(entry.token_id)
            version, _, fingerprint = found
            if fingerprint != entry.fingerprint:
                return self._decide(credential, entry.token_id, entry.digest, found, entry.noted)
            entry.version = version
        now = self.store.clock()
        if now >= entry.until:
            return await self._read(credential, entry)
        if now - entry.noted >= USE_INTERVAL:
            self._note(entry, now, credential.address)
        return entry.outcome

    async def _read(self, credential: Credential, known: _Entry | None) -> Outcome:
        """The same for a token that is new here, was used long ago, or may have expired."""
        if known is not None:
            token_id, digest, noted = known.token_id, known.digest, known.noted
        else:
            read = self.store.text.read(credential.token)
            if read is None:
                return Rejected(Reason.BAD_SIGNATURE)
            token_id, nonce = read
            digest = bytes.fromhex(digest_nonce(nonce)) if nonce else b""
            noted = 0.0
        if not self.store.ready:
            await self.store.ensure_ready()
        return self._decide(credential, token_id, digest, await self._lookup.fetch(token_id), noted)

    def _decide(self, credential: Credential, token_id: int, digest: bytes, found: Found, noted: float) -> Outcome:
        """Remember a good token, forget a bad one, and answer."""
        now = self.store.clock()
        entry = self._judge(credential, digest, found, now)
        if not isinstance(entry, _Entry):
            if (ended := self._young.pop(credential.token, None)) is not None:
                self._size -= ended.size
            self._old.pop(credential.token, None)
            return Rejected(entry, token_id)
        entry.version = found[0]
        entry.noted = noted
        self._remember(credential.token, entry)
        if now - noted >= USE_INTERVAL:
            self._note(entry, now, credential.address)
        return entry.outcome

    def _judge(self, credential: Credential, digest: bytes, found: Found, now: float) -> _Entry | Reason:
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
        presented = digest.hex()
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
        outcome = Authenticated(
            actor,
            source=self.name,
            token_id=row.id,
            expires_at=None if until == _NEVER else until,
            restrictions=restrictions,
            recheck=Recheck(self, credential),
        )
        # row.id, and not the id that was read from the token: one object for the memory of both.
        return _Entry(row.id, digest, fingerprint, outcome, until, len(str(row.permissions)))

    def _note(self, entry: _Entry, now: float, address: str | None) -> None:
        entry.noted = now
        self.store.note_use(entry.token_id, int(now), address)

    def _remember(self, token: str, entry: _Entry) -> None:
        known = self._young.get(token)
        size = self._size + entry.size - (known.size if known is not None else 0)
        if size > CACHE_PERMISSIONS or (known is None and len(self._young) >= CACHE_SIZE):
            self._old, self._young = self._young, {}
            size = entry.size
        self._young[token] = entry
        self._size = size


def _same(presented: str, stored: object) -> bool:
    return isinstance(stored, str) and hmac.compare_digest(presented.encode(), stored.encode())
