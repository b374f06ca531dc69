"""What was decided about the tokens that came lately, under the very bytes of the field that they came in."""

from __future__ import annotations

from typing import Final

from asgi_token_auth.authentication import Authenticated

#: Tokens that are remembered at once, and bytes that all of them may take beyond what a small one does.
MOST_TOKENS: Final = 10_000
MOST_BYTES: Final = 24_000_000


class RememberedTokens:
    """Outcomes of a check that can tell themselves whether they still hold.

    Whoever finds one must ask it. What nobody accepted is never in here, so strangers cannot fill it.
    """

    __slots__ = ("_bytes", "known")

    def __init__(self) -> None:
        #: By the value of the Authorization field. For reading only.
        self.known: dict[bytes, Authenticated] = {}
        self._bytes = 0

    def remember(self, value: bytes, outcome: Authenticated) -> bool:
        """Keep ``outcome`` under ``value``, if it can be reused at all, and say whether it is kept."""
        # What comes in a bytearray could change afterwards.
        if type(value) is not bytes or not outcome.holds():
            return False
        if self.known.get(value) is outcome:
            return True
        self.forget(value)
        size = len(value) + outcome.size
        if len(self.known) >= MOST_TOKENS or self._bytes + size > MOST_BYTES:
            # What is in use comes back with its next request.
            self.known.clear()
            self._bytes = 0
        self.known[value] = outcome
        self._bytes += size
        return True

    def forget(self, value: bytes) -> None:
        """Forget what was decided about ``value``, if anything was."""
        if type(value) is bytes and (outcome := self.known.pop(value, None)) is not None:
            self._bytes -= len(value) + outcome.size
