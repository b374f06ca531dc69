"""In which order the sources are asked about a credential."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol, TypeAlias, runtime_checkable

from asgi_token_auth.authentication import Actor, Credential, Outcome, Reason, Rejected, Source, actor_outcome
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.signing import MANAGED_PREFIX, SIGNED_PREFIX

#: Tokens that start so belong to a source that owns the prefix; custom SQL and plain callables never see them.
RESERVED_PREFIXES: Final = (MANAGED_PREFIX, SIGNED_PREFIX)

#: A source in its simplest form: the token in, the actor or ``None`` out. Asked last.
CallableSource: TypeAlias = Callable[[str], Awaitable[Actor | None]]


# Of what stands near at hand, what was meant.
_HINTS: Final = {
    "TokenStore": "; write ManagedTokens(store).",
    "dict": "; write StaticTokens({token: actor}).",
    "str": "; write StaticTokens({token: actor}).",
}


@dataclass(frozen=True, slots=True)
class Chain:
    """Sources in the order in which they are asked."""

    exact: tuple[Source, ...] = ()
    owners: tuple[tuple[str, Source], ...] = ()
    open: tuple[Source, ...] = ()
    sources: tuple[Source, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, sources: Sequence[Source | CallableSource]) -> Chain:
        """Order ``sources``: exact matches, owners of a prefix, the rest as given, plain callables last.

        Raises:
            ConfigurationError: something is neither a source nor callable, or two sources own one prefix.
        """
        exact: list[Source] = []
        owners: dict[str, Source] = {}
        open_: list[Source] = []
        last: list[Source] = []
        for source in sources:
            # A class has all the attributes of its instances.
            if isinstance(source, type) or not isinstance(source, Source):
                if isinstance(source, type) or not callable(source):
                    kind = source if isinstance(source, type) else type(source)
                    raise ConfigurationError(
                        f"sources: {kind.__name__} is neither a source nor an async function of the token"
                        f"{_HINTS.get(kind.__name__, '.')}"
                    )
                last.append(_FromCallable(source))
                continue
            if source.exact:
                exact.append(source)
            for prefix in source.prefixes:
                if prefix in owners:
                    raise ConfigurationError(
                        f"sources: two sources own tokens that start with {prefix!r}; give one store another prefix=."
                    )
                owners[prefix] = source
            if not source.prefixes and not source.exact:
                open_.append(source)
        longest_first = sorted(owners.items(), key=lambda item: -len(item[0]))
        return cls(tuple(exact), tuple(longest_first), (*open_, *last), (*exact, *owners.values(), *open_, *last))

    def decides_alone(self, token: str) -> bool:
        """Whether the answer that was given about ``token`` may be reused as long as it says that it holds.

        No other source could change its mind before the one that accepted it is asked, and that one has declared of
        itself that its answers may be reused. What stands around another source, and looks at more than that does,
        returns its answers and has not.
        """
        if not all(_declares(source, "knows") for source in self.exact):
            return False
        # What sources of hard-coded tokens do not know they never will.
        if any(source.knows(token) for source in self.exact if isinstance(source, _Constant)):
            return True
        for prefix, source in self.owners:
            if token.startswith(prefix):
                return _declares(source, "reusable")
        return len(self.open) == 1 and _declares(self.open[0], "reusable")


@runtime_checkable
class _Constant(Protocol):
    """A source whose answers stay the same as long as the process lives."""

    def knows(self, token: str) -> bool:
        """Whether it accepts ``token``."""
        ...


def _declares(source: Source, name: str) -> bool:
    """Whether ``source`` has ``name`` of the very class that checks its tokens, or of one that was made from that.

    Whoever overrides ``authenticate`` has to say anew what was said of the one before.
    """
    return "authenticate" not in getattr(source, "__dict__", ()) and _is_declared(type(source), name)


@lru_cache(maxsize=256)
def _is_declared(kind: type, name: str) -> bool:
    for base in kind.__mro__:
        if name in vars(base):
            return bool(vars(base)[name])
        if "authenticate" in vars(base):
            return False
    return False


def authenticate(chain: Chain, credential: Credential) -> Awaitable[Outcome]:
    """Ask the sources of ``chain`` in order; the first that answers decides. To be awaited.

    Raises:
        StorageError: a source that could own the token could not tell. The next one is not asked, because
            its "no" would then be taken for an answer about a token that it may not know.
    """
    # Where only one source can be asked it is asked directly, without a coroutine in between.
    if not chain.exact:
        token = credential.token
        for prefix, source in chain.owners:
            if token.startswith(prefix):
                return source.authenticate(credential)
    elif len(chain.sources) == 1:
        return chain.exact[0].authenticate(credential)
    return _ask(chain, credential)


async def _ask(chain: Chain, credential: Credential) -> Outcome:
    for source in chain.exact:
        outcome = await source.authenticate(credential)
        if outcome is not None:
            return outcome
    token = credential.token
    for prefix, source in chain.owners:
        if token.startswith(prefix):
            return await source.authenticate(credential)
    if token.startswith(RESERVED_PREFIXES):
        return Rejected(Reason.SWITCHED_OFF)
    for source in chain.open:
        outcome = await source.authenticate(credential)
        if outcome is not None:
            return outcome
    return None


class _FromCallable:
    prefixes: tuple[str, ...] = ()
    exact = False

    def __init__(self, function: CallableSource) -> None:
        self._function = function
        self.name = getattr(function, "__name__", "custom")

    async def authenticate(self, credential: Credential) -> Outcome:
        actor = await self._function(credential.token)
        if actor is None:
            return None
        if not isinstance(actor, Mapping) or not actor:
            raise TypeError(f"The source {self.name} must return an actor (an object with an id) or None.")
        return actor_outcome(actor, source=self, credential=credential)
