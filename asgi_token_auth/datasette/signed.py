"""Signed tokens as the settings of Datasette 1.0 have them at the moment of a request, because those can change."""

from __future__ import annotations

from typing import Any

from asgi_token_auth.authentication import Credential, Outcome, Reason, Rejected
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.signing import SecretInput
from asgi_token_auth.sources.signed import SignedTokens


class SettingsDecide(SignedTokens):
    """Signed tokens while ``allow_signed_tokens`` is on, and no longer than ``max_signed_tokens_ttl`` lets them live.

    Args:
        datasette: whose settings they are.
        secret: one string, or a list with the newest last.

    Raises:
        ConfigurationError: ``max_signed_tokens_ttl`` is no number of seconds.
    """

    def __init__(self, datasette: Any, secret: SecretInput) -> None:
        super().__init__(secret)
        self._setting = datasette.setting
        self._max_ttl = self._limit()

    async def authenticate(self, credential: Credential) -> Outcome:
        """Look at the settings, then at the token."""
        if not self._setting("allow_signed_tokens"):
            return Rejected(Reason.SWITCHED_OFF)
        self._max_ttl = self._limit()
        return await super().authenticate(credential)

    def _limit(self) -> int | None:
        limit = self._setting("max_signed_tokens_ttl") or None
        if limit is not None and (type(limit) is not int or limit < 0):
            raise ConfigurationError("max_signed_tokens_ttl: give a whole number of seconds, or 0 for no limit.")
        return limit
