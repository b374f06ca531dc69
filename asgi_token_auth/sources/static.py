"""Hard-coded tokens."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Mapping
from typing import Any

from asgi_token_auth.authentication import (
    RESERVED_PREFIXES,
    Actor,
    Authenticated,
    Credential,
    Outcome,
    Rejected,
    actor_outcome,
)
from asgi_token_auth.bearer import is_token
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.tokens import MIN_SECRET_LENGTH

logger = logging.getLogger("asgi_token_auth")


class StaticTokens:
    """Tokens that stand in the configuration, each with its actor. A look-up costs the same for one and for 10,000.

    Raises:
        ConfigurationError: a token is empty, could not be sent as a bearer token or starts with a prefix that
            other sources own; or an actor is not a JSON object with content.
    """

    name = "static"
    prefixes: tuple[str, ...] = ()
    exact = True

    def __init__(self, tokens: Mapping[str, Actor]) -> None:
        # Digests under a random key as dictionary keys: how long a comparison takes says nothing of a token.
        self._key = secrets.token_bytes(32)
        self._outcomes: dict[bytes, Authenticated] = {}
        for number, (token, actor) in enumerate(tokens.items(), start=1):
            _check_token(token, f"tokens: number {number}")
            _check_actor(actor, f"tokens: number {number}")
            outcome = actor_outcome(_plain(actor), source=self, credential=Credential(token))
            if outcome is None or isinstance(outcome, Rejected):
                raise ConfigurationError(
                    f"tokens: number {number} has `_r` that are no restrictions; use an object of a, d and r."
                )
            if len(token) < MIN_SECRET_LENGTH:
                logger.warning(
                    "the hard-coded token of actor %r has fewer than %d characters and may be guessed",
                    outcome.user.identity,
                    MIN_SECRET_LENGTH,
                )
            self._outcomes[self._digest(token)] = outcome

    def __repr__(self) -> str:
        return f"StaticTokens(<{len(self._outcomes)} hidden>)"

    async def authenticate(self, credential: Credential) -> Outcome:
        """The actor of exactly this token."""
        return self._outcomes.get(self._digest(credential.token))

    def _digest(self, token: str) -> bytes:
        return hashlib.blake2b(token.encode(), key=self._key, digest_size=16).digest()


def _check_token(token: object, where: str) -> None:
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


def _check_actor(actor: object, where: str) -> None:
    if not isinstance(actor, Mapping) or not actor:
        raise ConfigurationError(f'{where} needs an actor that is an object, for example {{"id": "bot"}}.')
    if actor.get("id") in (None, ""):
        raise ConfigurationError(f'{where} has an actor without an id; add one, for example {{"id": "bot"}}.')
    try:
        json.dumps(dict(actor))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where} has an actor that is not plain JSON data.") from error


def _plain(actor: Actor) -> dict[str, Any]:
    # Through JSON, so that nothing of the caller's is shared and tuples become lists.
    copied: dict[str, Any] = json.loads(json.dumps(dict(actor)))
    return copied
