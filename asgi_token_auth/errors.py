"""The exceptions of the package. A bad token is a value (``Rejected``), never an exception."""

from __future__ import annotations

import asyncio
import traceback
from typing import Final


class TokenAuthError(Exception):
    """Base class of every exception here. Never raised itself."""


class ConfigurationError(TokenAuthError, ValueError):
    """Something given at construction or in the configuration cannot work.

    The message names the key or argument and what to change.
    """


class InvalidInput(TokenAuthError, ValueError):
    """An argument of a single call (an expiry, a description, an actor id) is refused; nothing was changed."""


class EditConflict(TokenAuthError):
    """The change named the version of the token that it was made for, which it is no longer; nothing was changed."""


class AlreadyDone(TokenAuthError):
    """The change was made before, with the same idempotency key; nothing more was done now.

    Args:
        event: what was done: ``created``, ``edited``, ``rotated``, ``revoked`` or ``revoked_all``; to a secret:
            ``set``, ``noted`` or ``deleted``.
        subject: the id of the token, the version of the secret, or how many tokens were revoked.
        at: when, in seconds since the epoch.
    """

    def __init__(self, event: str, subject: int | None, at: int) -> None:
        super().__init__(
            f"This was asked for before, with the same idempotency key ({event} {subject}); nothing more was done."
        )
        self.event = event
        self.subject = subject
        self.at = at


class IdempotencyKeyReused(TokenAuthError):
    """The idempotency key was used for something else before; nothing was done now.

    The message does not say for what: whoever sends the key again may be somebody who may not know it.

    Args:
        event, subject, at: what was done then, as in :class:`AlreadyDone`.
    """

    def __init__(self, event: str, subject: int | None, at: int) -> None:
        super().__init__(
            "This idempotency key was used for another request before, so nothing was done. "
            "Send a new key with each new request."
        )
        self.event = event
        self.subject = subject
        self.at = at


class TokenNotFound(TokenAuthError, LookupError):
    """No token with this id belongs to this owner. Other people's tokens are reported the same way."""


class SecretNotFound(TokenAuthError, LookupError):
    """No secret of this name is registered or stored."""


class StorageError(TokenAuthError):
    """A database could not answer, so nothing can be said about the token. On the wire: 503.

    After a failed write nothing was changed, unless the method says so.
    """


class ValueRefused(StorageError):
    """A parameter of a query is no value that the database could hold there, so no row has it."""


class SecretUnreadable(StorageError):
    """A secret is stored but cannot be decrypted. The message names it and what to do."""


def check_event_loop() -> None:
    """Refuse what runs on another event loop than asyncio's.

    Raises:
        StorageError: it does.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise StorageError(
            "Databases need asyncio, and this server runs on another event loop, such as trio; have it use asyncio."
        ) from None


#: What to say where Python cannot start a thread.
NO_THREAD: Final = (
    "no thread can be started; this process may have no more of them. Raise the limit (ulimit -u, or that of the "
    "container or service on pids), or run fewer processes."
)


def is_without_threads(error: BaseException) -> bool:
    """Whether Python could not start a thread. It has no class of its own."""
    return isinstance(error, RuntimeError) and "start new thread" in str(error)


def for_the_log(error: BaseException) -> str:
    """``error`` as a log may have it: our own sentences whole, of anything else its kind and where it came from.

    What others write into an exception may quote what they were given, a token for one.
    """
    if isinstance(error, (StorageError, ConfigurationError)):
        return str(error)
    frames = [f"{frame.f_globals.get('__name__')}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)]
    return f"{type(error).__name__}, raised at {' < '.join(frames[:-4:-1])}" if frames else type(error).__name__
