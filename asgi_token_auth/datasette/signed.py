"""Signed tokens as the settings of Datasette 1.0 have them at the moment of a request, because those can change."""

from __future__ import annotations

from typing import Any

from asgi_token_auth.authentication import Credential, Outcome, Reason, Rejected
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.signing import SecretInput
from asgi_token_auth.sources.signed import SignedOutcome, SignedTokens


class _UnderTheSettings(SignedOutcome):
    """A good signature, as long as the settings are those that it was accepted under."""

    __slots__ = ("_limit",)

    def begin(self, source: SignedTokens, now: float) -> SignedOutcome:
        """Hold from ``now`` on, by the clock and the settings of ``source``."""
        self._limit = source.max_ttl
        return super().begin(source, now)

    def holds(self) -> bool:
        """Whether it has not expired, and the settings allow it as before."""
        source = self.source
        return isinstance(source, SettingsDecide) and source.allow_now(self._limit) and super().holds()


class SettingsDecide(SignedTokens):
    """Signed tokens while ``allow_signed_tokens`` is on, and no longer than ``max_signed_tokens_ttl`` lets them live.

    Args:
        datasette: whose settings they are.
        secret: one string, or a list with the newest last.

    Raises:
        ConfigurationError: ``max_signed_tokens_ttl`` is no number of seconds.
    """

    _kind = _UnderTheSettings
    reusable = True

    def __init__(self, datasette: Any, secret: SecretInput) -> None:
        super().__init__(secret)
        self._setting = datasette.setting
        self.max_ttl = self._limit()

    async def authenticate(self, credential: Credential) -> Outcome:
        """Look at the settings, then at the token."""
        if not self._setting("allow_signed_tokens"):
            return Rejected(Reason.SWITCHED_OFF)
        self.max_ttl = self._limit()
        return await super().authenticate(credential)

    def allow_now(self, limit: int | None) -> bool:
        """Whether signed tokens are allowed at the moment, and ``limit`` is what limits their lives."""
        return bool(self._setting("allow_signed_tokens")) and self._limit() == limit

    def _limit(self) -> int | None:
        limit = self._setting("max_signed_tokens_ttl") or None
        if limit is not None and (type(limit) is not int or limit < 0):
            raise ConfigurationError("max_signed_tokens_ttl: give a whole number of seconds, or 0 for no limit.")
        return limit
