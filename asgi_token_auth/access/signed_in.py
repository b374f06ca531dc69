"""``signed_in``: the app's own way to say who is asking, called the same way wherever it is needed."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

from asgi_token_auth.errors import ConfigurationError, StorageError, for_the_log

logger: Final = logging.getLogger("asgi_token_auth")

_Actor: TypeAlias = Mapping[str, Any]
SignedIn: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[_Actor | None] | _Actor | None]

#: What to do where a session is looked for in vain.
_NO_SESSION: Final = (
    "there is no session in the scope: the middleware that makes one, such as SessionMiddleware, has not run yet. Put "
    "it around this one"
)


class SignedInFailed(StorageError):
    """``signed_in`` raised an error, so nobody knows who is asking. ``detail`` says which, and what may mend it."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"signed_in failed: {detail}")
        self.detail: str = detail


class SignedInCall:
    """Calls ``function``, which may be a coroutine function or not, and tells once where it never finds anybody.

    Raises:
        ConfigurationError: it cannot be called.
    """

    def __init__(self, function: SignedIn) -> None:
        if not callable(function):
            raise ConfigurationError("signed_in: give a function of the scope, async or not.")
        self._function = function
        self._silent = False

    async def __call__(self, scope: MutableMapping[str, Any]) -> Any:
        """What it says about the request of ``scope``.

        Raises:
            SignedInFailed: it raised an error.
        """
        try:
            answer: Any = self._function(scope)
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception as error:
            hint = "" if "session" in scope else f"; {_NO_SESSION}"
            raise SignedInFailed(f"{for_the_log(error)}{hint}") from error
        if not self._silent:
            self._warn_if_useless(answer, scope)
        return answer

    def _warn_if_useless(self, answer: object, scope: MutableMapping[str, Any]) -> None:
        if answer and isinstance(answer, Mapping):
            self._silent = True
        elif answer and not isinstance(answer, Mapping):
            self._silent = True
            logger.error(
                "signed_in answered with %s, which is no actor, so the pages let nobody in: return a dict with an id, "
                "or None",
                type(answer).__name__,
            )
        elif "session" not in scope and any(name.lower() == b"cookie" for name, _ in scope.get("headers") or ()):
            # Once: there are cookies that have nothing to do with it.
            self._silent = True
            logger.warning(
                "signed_in found nobody in a request that came with cookies, and so far in no other one. If it reads a "
                "session: %s",
                _NO_SESSION,
            )
