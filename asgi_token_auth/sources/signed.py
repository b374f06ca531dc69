"""Signed tokens: Datasette's ``dstok_`` format, which needs no database and cannot be revoked singly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeVar

from asgi_token_auth.authentication import Authenticated, Credential, Outcome, Reason, Recheck, Rejected
from asgi_token_auth.errors import ConfigurationError, InvalidInput
from asgi_token_auth.restrictions import DATASETTE_ABBREVIATIONS, Restrictions
from asgi_token_auth.signing import SIGNED_PREFIX, SecretInput, SigningSecrets, datasette_signer, read_payload
from asgi_token_auth.storage.store import system_clock

T = TypeVar("T")

#: Seconds that another machine's clock may be ahead.
CLOCK_SKEW: Final = 60

_NEVER: Final = float("inf")


class SignedOutcome(Authenticated):
    """A token whose signature is good, and stays so; only time passes."""

    __slots__ = ("_since", "source", "until")

    source: SignedTokens

    def begin(self, source: SignedTokens, now: float) -> SignedOutcome:
        """Hold from ``now`` on, by the clock of ``source``."""
        self.source = source
        # Of earlier times, should the clock go back, it was not asked whether it was issued in the future.
        self._since = now
        self.until: float = _NEVER if self.auth.expires_at is None else self.auth.expires_at
        return self

    def holds(self) -> bool:
        """Whether it has not expired."""
        return self._since <= self.source.clock() < self.until


class SignedTokens:
    """Tokens that say themselves who they stand for, byte for byte as Datasette makes and reads them.

    Args:
        secret: one string, or a list with the newest last. Default: the environment variable DATASETTE_SECRET.
        max_ttl: seconds after which any token of this kind is refused, whatever it says itself.
        clock: seconds since the epoch, for tests.
    """

    name = "signed"
    _kind = SignedOutcome
    prefixes: tuple[str, ...] = (SIGNED_PREFIX,)
    exact = False
    reusable = True

    def __init__(
        self,
        secret: SecretInput | None = None,
        *,
        max_ttl: int | None = None,
        clock: Callable[[], float] = system_clock,
    ) -> None:
        if max_ttl is not None and (type(max_ttl) is not int or max_ttl < 1):
            raise ConfigurationError("max_ttl must be a whole number of seconds, 1 or more.")
        self._signer = datasette_signer(SigningSecrets.of(secret))
        self.max_ttl = max_ttl
        self.clock = clock

    def create_token(
        self,
        actor_id: str,
        expires_after: int | timedelta | None = None,
        restrict_all: Iterable[str] | None = None,
        restrict_database: Mapping[str, Iterable[str]] | None = None,
        restrict_resource: Mapping[str, Mapping[str, Iterable[str]]] | None = None,
    ) -> str:
        """A token for ``actor_id``, with the arguments of Datasette's ``create_token()``.

        Args:
            expires_after: seconds; ``None``: it does not expire by itself.
            restrict_all: actions allowed everywhere.
            restrict_database: actions allowed per database.
            restrict_resource: actions allowed per database and table, view or query.

        Without any ``restrict_`` argument the token may do all that its actor may. Given and empty, it may
        do nothing.

        Raises:
            InvalidInput: an argument is unusable.
        """
        if not isinstance(actor_id, str) or not actor_id:
            raise InvalidInput("An actor id must be text that is not empty.")
        payload: dict[str, Any] = {"a": actor_id, "t": int(self.clock())}
        if expires_after is not None:
            payload["d"] = _seconds(expires_after)
        given = (restrict_all, restrict_database, restrict_resource)
        if any(argument is not None for argument in given):
            restrictions = Restrictions()
            for action in _actions(restrict_all or (), "restrict_all"):
                restrictions = restrictions.allow_all(action)
            for database, actions in _items(restrict_database or {}, "restrict_database"):
                for action in _actions(actions, "restrict_database"):
                    restrictions = restrictions.allow_database(database, action)
            for database, resources in _items(restrict_resource or {}, "restrict_resource"):
                for resource, actions in _items(resources, "restrict_resource"):
                    for action in _actions(actions, "restrict_resource"):
                        restrictions = restrictions.allow_resource(database, resource, action)
            payload["_r"] = restrictions.to_wire(DATASETTE_ABBREVIATIONS)
        try:
            return SIGNED_PREFIX + self._signer.sign(payload)
        except UnicodeEncodeError as error:
            raise InvalidInput("An actor id or a name holds characters that are not text.") from error

    async def authenticate(self, credential: Credential) -> Outcome:
        """Check the signature, then every field, then the time."""
        if not credential.token.startswith(SIGNED_PREFIX):
            return None
        data = self._signer.verify(credential.token[len(SIGNED_PREFIX) :])
        if data is None:
            return Rejected(Reason.BAD_SIGNATURE)
        try:
            payload = read_payload(data)
            actor, expires_at, restrictions = self._read(payload)
        except (ValueError, TypeError):
            return Rejected(Reason.MALFORMED)
        now = self.clock()
        if payload["t"] > now + CLOCK_SKEW:
            return Rejected(Reason.NOT_YET_VALID)
        if expires_at is not None and now >= expires_at:
            return Rejected(Reason.EXPIRED)

        outcome = self._kind(
            actor,
            source=self.name,
            expires_at=expires_at,
            restrictions=restrictions,
            recheck=Recheck(self, credential),
        )
        return outcome.begin(self, now)

    def _read(self, payload: dict[str, Any]) -> tuple[dict[str, Any], int | None, Restrictions | None]:
        if not isinstance(payload, dict):
            raise ValueError("not an object")
        actor_id, created, duration = payload.get("a"), payload.get("t"), payload.get("d")
        # type() and not isinstance(): true is an int, and no time.
        if type(created) is not int or not (duration is None or type(duration) is int):
            raise ValueError("no whole seconds")
        if not (isinstance(actor_id, str) and actor_id) and type(actor_id) is not int:
            raise ValueError("no actor id")
        # JSON can spell lone surrogates, which no app could send on; encoding them is a ValueError.
        str(actor_id).encode()
        if self.max_ttl is not None:
            duration = self.max_ttl if duration is None else min(duration, self.max_ttl)
        actor: dict[str, Any] = {"id": actor_id, "token": "dstok"}
        restrictions = None
        if "_r" in payload:
            restrictions = Restrictions.from_wire(payload["_r"])
            actor["_r"] = payload["_r"]
        if duration is None:
            return actor, None, restrictions
        actor["token_expires"] = created + duration
        return actor, created + duration, restrictions


def _actions(value: Iterable[str], argument: str) -> Iterable[str]:
    # A string is an iterable of its letters, which are no actions.
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise InvalidInput(f"{argument}: give a list of action names.")
    return value


def _items(value: Mapping[str, T], argument: str) -> Iterable[tuple[str, T]]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{argument}: give an object keyed by name.")
    return value.items()


def _seconds(value: object) -> int:
    if isinstance(value, timedelta):
        value = int(value.total_seconds())
    if type(value) is not int or value < 1:
        raise InvalidInput("An expiry must be a whole number of seconds, 1 or more; None for no expiry.")
    return value
