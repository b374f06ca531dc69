"""The vocabulary of a check: a credential goes in, an outcome comes out. Knows nothing of HTTP or SQL."""

from __future__ import annotations

import marshal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from asgi_token_auth.errors import InvalidInput
from asgi_token_auth.restrictions import Restrictions, full_name

#: Who is asking: JSON data with the key "id", as Datasette has it.
Actor: TypeAlias = Mapping[str, Any]


class Credential:
    """One presented token, and the client address where the server told it."""

    __slots__ = ("address", "token")

    def __init__(self, token: str, address: str | None = None) -> None:
        self.token: str = token
        self.address: str | None = address

    def __repr__(self) -> str:
        return "Credential(<hidden>)"


class Reason(StrEnum):
    """Why a token was refused. For the log: a client learns at most "expired" or "revoked"."""

    BAD_SIGNATURE = "bad signature"
    MALFORMED = "malformed"
    EXPIRED = "expired"
    REVOKED = "revoked"
    UNKNOWN_TOKEN = "unknown token"
    WRONG_SECRET = "wrong secret"
    DAMAGED = "damaged record"
    SWITCHED_OFF = "this kind of token is switched off"
    NOT_YET_VALID = "issued in the future"


@dataclass(frozen=True, slots=True)
class Rejected:
    """The token is ours and is refused."""

    reason: Reason
    token_id: int | None = None


class Recheck:
    """Asks ``source`` once more. There is one per remembered token, and closures would take five times the memory."""

    __slots__ = ("_address", "_source", "_token")

    def __init__(self, source: Source, credential: Credential) -> None:
        self._source = source
        self._token = credential.token
        self._address = credential.address

    async def __call__(self) -> bool:
        """Whether the token is still accepted."""
        return isinstance(await self._source.authenticate(Credential(self._token, self._address)), Authenticated)

    def __repr__(self) -> str:
        return f"Recheck({self._source.name!r})"


class _ReadOnly:
    """What all requests with the same token are given: what one app writes into it would be true for all of them."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is read-only; put an object of your own into the scope.")

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

    def _begin(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setstate__(self, state: tuple[None, dict[str, object]]) -> None:
        # Of a copy.
        self._begin(**state[1])


class TokenAuth(_ReadOnly):
    """``scope["auth"]``: what Starlette's ``@requires`` reads, and what is known of the token. Read-only."""

    __slots__ = ("_recheck", "expires_at", "scopes", "source", "token_id")

    scopes: tuple[str, ...]
    source: str
    token_id: int | None
    expires_at: float | None
    _recheck: Callable[[], Awaitable[bool]]

    def __init__(
        self,
        *,
        scopes: Sequence[str],
        source: str,
        token_id: int | None,
        expires_at: float | None,
        recheck: Callable[[], Awaitable[bool]],
    ) -> None:
        self._begin(scopes=tuple(scopes), source=source, token_id=token_id, expires_at=expires_at, _recheck=recheck)

    async def recheck(self) -> bool:
        """Whether the same token would still be accepted now. For long websockets and streams.

        Raises:
            StorageError: it cannot be told at the moment.
        """
        return await self._recheck()

    def __repr__(self) -> str:
        return f"TokenAuth(source={self.source!r}, token_id={self.token_id!r}, scopes={self.scopes!r})"


# The first of them that an actor has is shown as its name.
_NAMES: Final = ("display", "name", "username", "login")


class TokenUser(_ReadOnly):
    """``scope["user"]``: the actor in the shape that Starlette expects. Read-only."""

    __slots__ = ("display_name", "identity")

    identity: str
    display_name: str
    is_authenticated: Final = True

    def __init__(self, actor: Actor) -> None:
        identity = str(actor.get("id", ""))
        # There is one per token that is not remembered, and a generator would take four times as long.
        shown: object = identity
        for key in _NAMES:
            if key in actor and (name := actor[key]):
                shown = name
                break
        self._begin(identity=identity, display_name=str(shown))

    def __repr__(self) -> str:
        return f"TokenUser(identity={self.identity!r})"


class Anonymous:
    """``scope["auth"]`` and ``scope["user"]`` of a request without a token: nobody, with no scope."""

    __slots__ = ()

    scopes: Final[tuple[str, ...]] = ()
    source: Final = None
    token_id: Final = None
    expires_at: Final = None
    is_authenticated: Final = False
    identity: Final = ""
    display_name: Final = ""

    async def recheck(self) -> bool:
        """There is no token that could still be good."""
        return False

    def __repr__(self) -> str:
        return "ANONYMOUS"


ANONYMOUS: Final = Anonymous()

# One tuple for all tokens that have none of their own.
_NO_MORE_SCOPES: Final = ("authenticated",)

# What an actor may hold that could be changed or could hold something that can. A plain function's actor need
# not be JSON.
_CONTAINERS: Final = (dict, list, tuple, set)


class Authenticated:
    """The token is good: who it stands for and what it is limited to. Never changed once made.

    A source whose answers stay true for longer than one request says so with ``reusable = True`` in its class, and
    returns a subclass of this one with a :meth:`holds` of its own. Of a class that overrides ``authenticate``, or hands
    on the answers of another source, that has to be said anew: the source that it rests on is not asked for it.
    """

    __slots__ = ("_actor", "_packed", "auth", "restrictions", "user")

    def __init__(
        self,
        actor: Actor,
        *,
        source: str,
        recheck: Callable[[], Awaitable[bool]],
        token_id: int | None = None,
        expires_at: float | None = None,
        restrictions: Restrictions | None = None,
    ) -> None:
        self._actor = dict(actor)
        # None: no value could be changed. Bytes: all of it. Empty bytes: something in it has to be copied by hand.
        self._packed: bytes | None = None
        for value in self._actor.values():
            if isinstance(value, _CONTAINERS):
                self._packed = _pack(self._actor)
                if self._packed:
                    # A thousand lists in each of a hundred tokens would cost the garbage collector a tenth of a second.
                    self._actor = {}
                break
        self.restrictions: Restrictions | None = restrictions
        self.user: TokenUser = TokenUser(actor)
        self.auth: TokenAuth = TokenAuth(
            scopes=_scopes(actor, restrictions),
            source=source,
            token_id=token_id,
            expires_at=expires_at,
            recheck=recheck,
        )

    def actor(self) -> dict[str, Any]:
        """A copy of the actor that the caller may change without changing anybody else's."""
        packed = self._packed
        if packed is None:
            return self._actor.copy()
        copied: dict[str, Any] = marshal.loads(packed) if packed else _copy(self._actor)  # noqa: S302 - our own bytes
        return copied

    @property
    def size(self) -> int:
        """Bytes, roughly, that it takes beyond those of a token without restrictions."""
        # Each of its permissions is also a scope, and part of the restrictions.
        return 20 * len(self._packed or b"")

    def holds(self) -> bool:
        """Whether the source, asked again about this token now, would answer the same and have nothing else to do.

        The middleware asks this in place of the source when the token comes again, on the event loop's thread: it must
        not wait. What it raises is a fault, as if the source had raised it.
        """
        return False

    def __repr__(self) -> str:
        return f"Authenticated({self.user.identity!r}, source={self.auth.source!r})"


#: ``None``: the token belongs to nobody here.
Outcome: TypeAlias = Authenticated | Rejected | None


@runtime_checkable
class Source(Protocol):
    """One place where tokens are checked."""

    name: str
    #: Tokens with one of these beginnings are this source's and no other's. Empty: any token may be.
    prefixes: tuple[str, ...]
    #: Whether it compares whole tokens from memory. Such sources are asked first.
    exact: bool

    async def authenticate(self, credential: Credential) -> Outcome:
        """Check the credential.

        Raises:
            StorageError: the check could not be done, so nothing may be concluded.
        """
        ...


def actor_outcome(
    actor: Actor, *, source: Source, credential: Credential, kind: type[Authenticated] = Authenticated
) -> Outcome:
    """The outcome for an actor that the operator's own data describes, ``_r`` included; of the class ``kind``."""
    try:
        return accept(actor, source=source, credential=credential, kind=kind)
    except InvalidInput:
        return Rejected(Reason.DAMAGED)


def accept(
    actor: Actor, *, source: Source, credential: Credential, kind: type[Authenticated] = Authenticated
) -> Authenticated:
    """As :func:`actor_outcome`, and of the class ``kind``.

    Raises:
        InvalidInput: the actor's ``_r`` is no set of restrictions.
    """
    restrictions = Restrictions.from_wire(actor["_r"]) if "_r" in actor else None

    return kind(actor, source=source.name, restrictions=restrictions, recheck=Recheck(source, credential))


def _scopes(actor: Actor, restrictions: Restrictions | None) -> Sequence[str]:
    if restrictions is None and "scopes" not in actor:
        return _NO_MORE_SCOPES
    scopes = ["authenticated"]
    if restrictions is not None:
        for action in restrictions.all:
            scopes += [action] if full_name(action) == action else [action, full_name(action)]
    listed: list[Any] | tuple[Any, ...] | None = actor.get("scopes")
    if isinstance(listed, (list, tuple)):
        scopes += [scope for scope in listed if isinstance(scope, str)]
    return list(dict.fromkeys(scopes))


def _pack(actor: dict[str, Any]) -> bytes:
    """``actor`` in bytes that are read three times as fast as it is copied; none where a value is of another type."""
    try:
        # Version 2 keeps no two places the same object.
        return marshal.dumps(actor, 2)
    except ValueError:
        return b""


def _copy(value: dict[Any, Any] | list[Any] | tuple[Any, ...] | set[Any] | str | float | None) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copy(inner) for inner in value]
    if isinstance(value, tuple):
        return tuple(_copy(inner) for inner in value)
    return value.copy() if isinstance(value, set) else value
