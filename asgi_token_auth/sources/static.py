"""Hard-coded tokens."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from asgi_token_auth.authentication import Actor, Authenticated, Credential, Outcome, accept
from asgi_token_auth.bearer import is_token
from asgi_token_auth.chain import RESERVED_PREFIXES
from asgi_token_auth.errors import ConfigurationError, InvalidInput
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.signing import MIN_SECRET_LENGTH

logger: Final = logging.getLogger("asgi_token_auth")


class _AsLongAsTheProcess(Authenticated):
    """What stands in the configuration stays there."""

    __slots__ = ()

    def holds(self) -> bool:
        return True


class StaticTokens:
    """Tokens that stand in the configuration, each with its actor. A look-up costs the same for one and for 10,000.

    Raises:
        ConfigurationError: a token is empty, could not be sent as a bearer token or starts with a prefix that
            other sources own; or an actor is not a JSON object with content.
    """

    name = "static"
    prefixes: tuple[str, ...] = ()
    exact = True
    reusable = True

    def __init__(self, tokens: Mapping[str, Actor]) -> None:
        if not isinstance(tokens, Mapping):
            raise ConfigurationError('tokens: give an object from token to actor, for example {token: {"id": "bot"}}.')
        # Found by Python's hash, whose key is new in every process, and then compared in constant time: how long
        # it takes says nothing of a token.
        self._known: dict[int, list[tuple[str, Authenticated]]] = {}
        for number, (token, actor) in enumerate(tokens.items(), start=1):
            check_token(token, f"tokens: number {number}")
            plain = checked_actor(actor, f"tokens: number {number}")
            outcome = accept(plain, source=self, credential=Credential(token), kind=_AsLongAsTheProcess)
            if len(token) < MIN_SECRET_LENGTH:
                logger.warning(
                    "the hard-coded token of actor %r has fewer than %d characters and may be guessed",
                    outcome.user.identity,
                    MIN_SECRET_LENGTH,
                )
            self._known.setdefault(hash(token), []).append((token, outcome))

    def __repr__(self) -> str:
        return f"StaticTokens(<{sum(map(len, self._known.values()))} hidden>)"

    async def authenticate(self, credential: Credential) -> Outcome:
        """The actor of exactly this token."""
        return self._find(credential.token)

    def knows(self, token: str) -> bool:
        """Whether it is one of these, which it is as long as the process lives."""
        return self._find(token) is not None

    def _find(self, token: str) -> Authenticated | None:
        for known, outcome in self._known.get(hash(token), ()):
            if hmac.compare_digest(known, token):
                return outcome
        return None


def check_token(token: object, where: str) -> None:
    """Refuse what cannot be a hard-coded token. ``where`` begins the message, which never quotes the token.

    Raises:
        ConfigurationError: as it says.
    """
    if not isinstance(token, str):
        raise ConfigurationError(f"{where} has a token that is not a string; put it in quotes.")
    if not token:
        raise ConfigurationError(f"{where} has an empty token; use a long random string.")
    if not is_token(token):
        raise ConfigurationError(
            f"{where} has a token that cannot be sent in a header; use at most 8,192 letters, digits and -._~+/=."
        )
    if token.startswith(RESERVED_PREFIXES):
        raise ConfigurationError(
            f"{where} has a token that starts with one of {', '.join(RESERVED_PREFIXES)}, which name other kinds of "
            "token; choose another beginning."
        )


def checked_actor(actor: Actor | None, where: str) -> dict[str, Any]:
    """A copy of ``actor`` as plain JSON data, which shares nothing with it. ``where`` begins every message.

    Raises:
        ConfigurationError: it cannot be an actor.
    """
    if not isinstance(actor, Mapping) or not actor:
        raise ConfigurationError(f'{where} needs an actor that is an object, for example {{"id": "bot"}}.')
    actor_id = actor.get("id")
    if actor_id is None or actor_id == "":
        raise ConfigurationError(f'{where} has an actor without an id; add one, for example {{"id": "bot"}}.')
    if isinstance(actor_id, bool) or not isinstance(actor_id, (str, int)):
        raise ConfigurationError(f'{where} has an actor whose id is no string; give one, for example {{"id": "bot"}}.')
    try:
        text = json.dumps(dict(actor), allow_nan=False, ensure_ascii=False)
        # JSON can spell lone surrogates, which no app could send on.
        text.encode()
        copied: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{where} has an actor that is not plain JSON data.") from error
    if "_r" in copied:
        try:
            Restrictions.from_wire(copied["_r"])
        except InvalidInput as error:
            raise ConfigurationError(
                f"{where} has an actor whose `_r` is no set of restrictions; use an object of a, d and r."
            ) from error
    return copied
